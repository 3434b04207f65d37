"""What must never get into git, and what must never get into a file."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def ignored(path: str) -> bool:
    """Return whether git would leave a file out."""
    if not (ROOT / ".git").exists():
        pytest.skip("no git here")
    done = subprocess.run(["git", "check-ignore", "--quiet", "--no-index", path], cwd=ROOT, check=False)
    assert done.returncode in (0, 1)
    return done.returncode == 0


@pytest.mark.parametrize(
    "path",
    [
        "environments/x/.vault-password",
        "environments/x/ssh_key",
        "environments/x/ssh_key.pub",
        "environments/x/known_hosts",
        "environments/x/ca.crt",
        "environments/x/terraform.tfstate",
        "environments/x/terraform.tfstate.backup",
        "environments/x/terraform.tfstate.1732480000.backup",
        "environments/x/.terraform/make.tfplan",
        "environments/x/logs/deploy.log",
        "environments/local/vault.yml",
        "environments/e2e/server.tfvars",
        "environments/e2e-b/vault.yml",
        "environments/x/ssh_key.part",
        "environments/x/.vault-password.part",
        "environments/x/vault.yml.part",
        "environments/.x.part/server.tfvars",
        "terraform/platforms/container/.terraform.lock.hcl",
        "terraform/platforms/container/.terraform/providers/x",
        "terraform/platforms/container/terraform.tfstate",
        ".venv/bin/python",
        "tests/.venv/bin/python",
        "training/.venv/bin/python",
        "controller/longrun_controller/__pycache__/cli.pyc",
        "tests/e2e/logs/e2e.log",
    ],
)
def test_what_git_must_not_take(path: str) -> None:
    """Keys, state (which holds them) and what belongs to one machine: once pushed, it is public for ever."""
    assert ignored(path)


@pytest.mark.parametrize("path", ["environments/x/server.tfvars", "environments/x/vars.yml", "environments/x/users.yml", "environments/x/vault.yml"])
def test_what_git_must_take(path: str) -> None:
    """A team shares these; an encrypted vault that is left out is lost with its machine."""
    assert not ignored(path)


LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_locks_are_exact_and_name_no_place(path: Path) -> None:
    """Every package with a version and a hash, from whichever index the machine uses."""
    text = path.read_text(encoding="utf-8")
    packages = re.findall(r"(?m)^[a-z0-9][\w.\[\],-]*==", text)
    assert packages
    assert len(packages) <= text.count("--hash=sha256:")
    assert not re.search(r"(?m)^(-i|--index-url|--extra-index-url|--find-links)|^[^#\n]*://|file://| @ ", text)


def test_every_lock_has_its_source() -> None:
    """`make lock` renews what has a source; another lock file would grow old unseen."""
    assert {path.stem for path in LOCKS} == {path.stem for path in (ROOT / "requirements").glob("*.in")}
    assert len(LOCKS) >= 6


@pytest.mark.parametrize("path", sorted((ROOT / "requirements").glob("*.in")), ids=lambda path: path.name)
def test_every_pin_is_in_its_lock(path: Path) -> None:
    """A source that was changed without `make lock` would install something else than it says."""
    lock = path.with_suffix(".txt").read_text(encoding="utf-8")
    pins = [line for line in path.read_text(encoding="utf-8").splitlines() if "==" in line]
    assert pins
    for pin in pins:
        name, _, version = pin.partition("==")
        bare = re.sub(r"\[.*\]", "", name)
        assert re.search(rf"(?m)^{re.escape(bare)}(\[[\w,-]+\])?=={re.escape(version)}\b", lock), f"{pin}: `make lock`"


@pytest.mark.parametrize("package", ["controller", "training"])
def test_a_package_needs_only_what_its_lock_has(package: str) -> None:
    """Our own packages are installed without their dependencies, so a forgotten one would show when it is imported."""
    needed = tomllib.loads((ROOT / package / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    lock = (ROOT / "requirements" / f"{package}.txt").read_text(encoding="utf-8")
    assert needed
    assert not [name for name in needed if not re.search(rf"(?m)^{re.escape(name)}(\[[\w,-]+\])?==", lock)]


def test_make_help_lists_every_target() -> None:
    """The menu is how people find out what there is."""
    shown = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {name for line in re.findall(r"(?m)^\.PHONY: (.+)$", text) for name in line.split()} - {"test-tools"}
    assert len(targets) > 15
    assert targets <= set(re.findall(r"(?m)^  make (\S+)", shown))
