"""Lays the keys of an environment where `make` looks for them, and refuses one whose state would end with the job.

ENVIRONMENT is the folder's name, VAULT_PASSWORD opens its vault.yml, SSH_KEY its hosts. A plan opens neither: it needs
SSH_PUBLIC_KEY alone, and a job that only plans is given nothing else.
"""

import os
import re
import subprocess
from pathlib import Path

import runner

NAME = re.compile(r"[a-z][a-z0-9-]{0,29}")
# What has to be in git before a job may deploy: a job's own disk is gone with it.
COMMITTED = {
    "server.tfvars": "`make new` makes it",
    "vault.yml": "the first `make provision` makes it: run that on a machine of yours, and commit the file, which is encrypted",
    "backend.tf": "without it Terraform's state would be lost with this job: terraform/README.md shows one",
}


def _write(path: Path, content: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(content)


def check(root: Path, name: str) -> Path:
    """Return the environment's folder, once everything is in it that a job can't make."""
    if not NAME.fullmatch(name):
        runner.fail(f"{name!r} names no environment: small letters, digits and hyphens, a letter first")
    folder = root / "environments" / name
    for file, remedy in COMMITTED.items():
        if not (folder / file).is_file():
            runner.fail(f"environments/{name}/{file} is not in git: {remedy}")
    return folder


def main() -> None:
    """Write `ssh_key.pub`, and beside it `ssh_key` and `.vault-password` where they are given."""
    folder = check(Path.cwd(), os.environ.get("ENVIRONMENT", ""))
    vault, key, public = (os.environ.get(name, "").strip() for name in ("VAULT_PASSWORD", "SSH_KEY", "SSH_PUBLIC_KEY"))
    if public and not (vault or key):
        (folder / "ssh_key.pub").write_text(f"{public}\n", encoding="utf-8")
        return
    missing = [secret for value, secret in ((vault, "LONGRUN_VAULT_PASSWORD"), (key, "LONGRUN_SSH_KEY")) if not value]
    if missing:
        alone = "" if vault or key else ", or for a plan the variable LONGRUN_SSH_PUBLIC_KEY alone"
        runner.fail(f"missing secret: {', '.join(missing)}{alone}. Set it for this job's environment under Settings → Environments")
    _write(folder / ".vault-password", f"{vault}\n")
    _write(folder / "ssh_key", f"{key}\n")
    derived = subprocess.run(["ssh-keygen", "-y", "-P", "", "-f", folder / "ssh_key"], capture_output=True, text=True, check=False)
    if derived.returncode:
        runner.fail("the secret LONGRUN_SSH_KEY holds no private key without a passphrase: paste environments/<name>/ssh_key, BEGIN and END lines included")
    (folder / "ssh_key.pub").write_text(derived.stdout, encoding="utf-8")


if __name__ == "__main__":
    main()
