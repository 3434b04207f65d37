"""Debian's root file system, with a stand-in on PATH for the program that installs it."""

from pathlib import Path

import pytest
from longrun_controller import tools
from longrun_controller.errors import ProblemError
from longrun_controller.platforms import debian


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Name two packages, and put a stand-in for mmdebstrap first on PATH."""
    monkeypatch.setattr(tools, "sudo", list)
    monkeypatch.delenv("LONGRUN_DEBIAN_MIRROR", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    path = tmp_path / "packages"
    path.write_text("systemd\nopenssh-server\n")
    return path


def program(folder: Path, text: str) -> None:
    """Write the stand-in."""
    (folder / "mmdebstrap").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "mmdebstrap").chmod(0o755)


@pytest.mark.parametrize(("release", "codename"), [(12, "bookworm"), (13, "trixie")])
def test_packages_and_release_are_passed_on(packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: int, codename: str) -> None:
    """Every file's packages are asked for at once, the hook keeps the root's path, and a mirror comes last."""
    program(tmp_path, f'printf "%s\\n" "$@" > {tmp_path}/called')
    more = tmp_path / "more"
    more.write_text("cloud-init\n")
    debian.bootstrap(release, [packages, more], tmp_path / "setup", tmp_path / "tree")
    usual = ["--quiet", "--variant=minbase", "--include=systemd,openssh-server,cloud-init", f'--customize-hook={tmp_path}/setup "$1"', codename]
    assert (tmp_path / "called").read_text().splitlines() == [*usual, f"{tmp_path}/tree"]
    debian.bootstrap(release, [packages, more], tmp_path / "setup", tmp_path / "tree", tmp_path / "prepare")
    assert (tmp_path / "called").read_text().splitlines() == [*usual[:-1], f'--essential-hook={tmp_path}/prepare "$1"', codename, f"{tmp_path}/tree"]
    monkeypatch.setenv("LONGRUN_DEBIAN_MIRROR", "http://debian.example.org")
    debian.bootstrap(release, [packages, more], tmp_path / "setup", tmp_path / "tree")
    assert (tmp_path / "called").read_text().splitlines() == [*usual, f"{tmp_path}/tree", "http://debian.example.org"]


@pytest.mark.parametrize(
    ("said", "shown"),
    [("I: running apt\\nE: Unable to fetch some archives\\nI: removing", "E: Unable to fetch some archives"), ("odd\\nmore", "odd"), ("", "it said nothing")],
)
def test_a_failure_is_one_line(packages: Path, tmp_path: Path, said: str, shown: str) -> None:
    """The line that says what is wrong is shown, and what else to try."""
    program(tmp_path, f"printf '{said}' >&2; exit 1")
    with pytest.raises(ProblemError) as caught:
        debian.bootstrap(13, [packages], tmp_path / "setup", tmp_path / "tree")
    assert str(caught.value) == f"mmdebstrap could not install Debian 13: {shown} (another mirror: LONGRUN_DEBIAN_MIRROR)"
