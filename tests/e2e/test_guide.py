"""`docs/training.md`, followed to the letter: its commands in their order, and its workflows in a repository of their own."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.pipelines import KEPT, Pipelines
from tests.e2e.stand_ins.github import GIT, Forge
from tests.servers import ROOT, Server, say

GUIDE = ROOT / "docs" / "training.md"
# What the guide does not say, for a reader has it: which server is meant, and who commits.
PRELUDE = 'make() { command make "$@" ENV="$GUIDE_ENV"; }\n'
LOGIN = "guide"


def blocks(language: str) -> list[str]:
    """Return the guide's blocks of one language."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", GUIDE.read_text())


def script() -> str:
    """Return all commands as one script, which ends at the first that ends otherwise than the guide says."""
    lines = []
    for line in "".join(blocks("sh")).splitlines():
        command, _, wanted = line.partition("# ends with ")
        lines.append(f"status=0; {command.strip()} || status=$?; [ $status = {int(wanted)} ]" if wanted else line)
    return PRELUDE + "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def home(server: Server, logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's home, after the commands of the guide."""
    home = tmp_path_factory.mktemp("home")
    # uv's cache stays where it is; everything else is the reader's.
    cache = os.environ.get("UV_CACHE_DIR") or str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "uv")
    longrun = os.environ.get("LONGRUN_CACHE") or str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "longrun")
    environment = {name: value for name, value in os.environ.items() if KEPT.fullmatch(name)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-x", "-c", script()],
        cwd=ROOT,
        env={**environment, **GIT, "HOME": str(home), "UV_CACHE_DIR": cache, "LONGRUN_CACHE": longrun, "GUIDE_ENV": server.name, "TERM": "dumb"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    (logs / "guide.log").write_text(done.stdout + done.stderr)
    assert done.returncode == 0, done.stderr[-4000:]
    return home


def test_the_commands_do_what_the_guide_says(home: Path) -> None:
    """From nothing to a gate that stops a worse model, and then everything else that the page shows."""
    assert len(blocks("sh")) >= 8
    assert (home / "houses" / ".longrun" / "report" / "report.html").stat().st_size > 10_000


def test_another_repository_in_ten_lines(server: Server, home: Path, logs: Path, tmp_path: Path) -> None:
    """The guide's three workflows, as they stand there, in a repository that has nothing of longrun's."""
    server.edit("users.yml", r"(?m)\Z", f"  - name: {LOGIN}\n")
    server.make("users")
    client = server.client(LOGIN)
    longrun, houses = Forge(tmp_path, "acme/longrun"), Forge(tmp_path, "acme/houses")
    commit = longrun.create(ROOT, {})
    workflows = dict(re.findall(r"(?ms)^`(\.github/workflows/\w+\.yml)`.*?^```yaml\n(.*?)^```$", GUIDE.read_text()))
    assert set(workflows) == {f".github/workflows/{name}.yml" for name in ("model", "comment", "nightly")}
    # What a name may be of is a login's own: the model of this page belongs to another.
    files = {path: text.replace("COMMIT", commit).replace("houses", "cottages") for path, text in workflows.items()}
    toml = subprocess.run(["git", "show", "main:longrun.toml"], cwd=home / "houses", capture_output=True, text=True, check=True).stdout.replace(
        "houses", "cottages"
    )
    houses.create(None, {**files, "longrun.toml": toml})
    assert len(files[".github/workflows/model.yml"].splitlines()) <= 10
    secrets = {name: client[name] for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")}
    if secrets["MLFLOW_TRACKING_URI"].startswith("https:"):
        secrets["MLFLOW_TRACKING_SERVER_CERT"] = Path(client["MLFLOW_TRACKING_SERVER_CERT_PATH"]).read_text()
    folder = logs / "guide"
    folder.mkdir(exist_ok=True)
    with houses.serving() as api:
        go = Pipelines(houses, api, folder, {f"acme/longrun@{commit}": longrun.clone})
        first = go.push(secrets).wait()
        assert (first.gate, first.status) == (0, 0), first.text[-6000:]
        worse = re.sub(r"(?m)^parameters.*\n", "", toml.replace("RandomForestRegressor", "DummyRegressor"))
        pull = houses.pull_request("simpler", {"longrun.toml": worse})
        ended = go.pull_request(pull, secrets).wait()
        assert (ended.gate, ended.status) == (1, 1), ended.text[-6000:]
        commented = go.comment(ended)
        assert commented.status == 0, commented.text[-4000:]
        assert houses.comments[pull.number][0]["body"].startswith("<!-- longrun: model cottages -->")
        night = go.scheduled("nightly", secrets, "sync")
        assert night.status == 0, night.text[-6000:]
    say(f"another repository: {first.seconds:.0f} s for its first run")
