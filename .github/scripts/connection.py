"""Decides which server a training job reports to: the team's, or a throw-away one in the job itself.

Pull requests of forks and of Dependabot get no secrets from GitHub, and may not: their code is anybody's. They are
trained and held to the floors all the same, against a server that ends with the job. Everybody else needs the secrets of
the client contract, and a missing one is named.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import runner

REQUIRED = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
CERTIFICATE, CERTIFICATE_PATH = "MLFLOW_TRACKING_SERVER_CERT", "MLFLOW_TRACKING_SERVER_CERT_PATH"
DEPENDABOT = "dependabot[bot]"


def fork(event: Mapping[str, Any], repository: str) -> bool:
    """Say whether the event is a pull request whose code lies in another repository, or in one that is gone."""
    if "pull_request" not in event:
        return False
    head = event["pull_request"]["head"].get("repo") or {}
    return bool(head.get("full_name") != repository)


def dependabot(event: Mapping[str, Any], actor: str) -> bool:
    """Say whether Dependabot caused the event."""
    author = ((event.get("pull_request") or {}).get("user") or {}).get("login")
    return DEPENDABOT in {author, actor}


def slug(config: str) -> str:
    """Return a name for artifacts that tells one model's from another's: `models/diabetes/longrun.toml` gives `models-diabetes`."""
    bare = re.sub(r"[^A-Za-z0-9]+", "-", re.sub(r"(^|/)longrun\.toml$", "", config)).strip("-")
    return bare or "model"


def local(reason: str) -> None:
    """Choose the throw-away server, and say why."""
    note = f"{reason}, so this job has no secrets: it trains against a throw-away server of its own, the gate looks at the floors only, and the run is not kept"
    runner.notice(note)
    runner.summary(f"> [!NOTE]\n> {note}.\n")
    runner.output("mode", "local")


def certificate(folder: Path, text: str) -> Path:
    """Write the certificate of the server's authority, which is public, where MLflow's client reads it."""
    if "-----BEGIN CERTIFICATE-----" not in text:
        runner.fail(f"the secret {CERTIFICATE} holds no certificate: paste the whole file that `make -s env` names as {CERTIFICATE_PATH}")
    path = folder / "longrun-ca.crt"
    path.write_text(text.strip() + "\n", encoding="utf-8")
    return path


def main() -> None:
    """Write `mode` (server or local) and `slug`, and hand the certificate on."""
    event = json.loads(Path(runner.needed("GITHUB_EVENT_PATH")).read_text(encoding="utf-8"))
    runner.output("slug", slug(os.environ.get("CONFIG", "")))
    if fork(event, runner.needed("GITHUB_REPOSITORY")):
        local("this pull request comes from a fork")
        return
    missing = [name for name in REQUIRED if not os.environ.get(name, "").strip()]
    if missing and dependabot(event, os.environ.get("GITHUB_ACTOR", "")):
        local("this change comes from Dependabot")
        return
    if missing:
        runner.fail(
            f"missing secret: {', '.join(missing)}. Set it under Settings → Secrets and variables → Actions (`make -s env` prints the value), "
            "and hand it on in the `secrets:` of the job that calls train.yml"
        )
    if text := os.environ.get(CERTIFICATE, "").strip():
        runner.variable(CERTIFICATE_PATH, str(certificate(Path(runner.needed("RUNNER_TEMP")), text)))
    runner.output("mode", "server")
    print("the run goes to the server that MLFLOW_TRACKING_URI names")


if __name__ == "__main__":
    main()
