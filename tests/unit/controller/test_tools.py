"""Programs that the controller builds or installs: what stands in the way is one line, and nothing unpinned is ever built."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from longrun_controller import tools
from longrun_controller.errors import ProblemError
from longrun_controller.progress import Step

Program = Callable[[str, str], Path]
SUM = "h1:the-pinned-one="


@pytest.fixture
def step() -> Step:
    """A step without a log."""
    return Step("tools", None)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, with nothing in it."""
    monkeypatch.setenv("LONGRUN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH, but for the shell and what shell scripts need."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in ("sh", "cat", "env", "mkdir", "cp", "touch"):
        (folder / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def program(programs: Path) -> Program:
    """Make a shell script on that PATH."""

    def make(name: str, script: str) -> Path:
        path = programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return make


@pytest.fixture
def widget(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """One pinned program."""
    pin = {"module": "example.org/widget", "version": "v1.2.3", "sum": SUM, "package": ".", "install": "bin/widget"}
    monkeypatch.setattr(tools, "PINS", {"widget": pin})
    return pin


@pytest.fixture
def go(program: Program, tmp_path: Path) -> Path:
    """A Go toolchain that writes down its calls and "builds" a file."""
    module = tmp_path / "module"
    module.mkdir()
    answer = json.dumps({"Dir": str(module), "Sum": SUM})
    return program(
        "go",
        f"""echo "$@" >> {tmp_path}/calls
case "$1" in
  version) echo go version go1.24.1 linux/amd64 ;;
  mod) echo '{answer}' ;;
  -C) while [ "$1" != -o ]; do shift; done; echo built > "$2" ;;
esac""",
    )


def one_line(error: pytest.ExceptionInfo[ProblemError]) -> str:
    """Return the text, which must be one line."""
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_full_disk_is_found_first(tmp_path: Path) -> None:
    """A build that runs out of room fails after minutes, with a compiler's words."""
    tools.check_disk(tmp_path / "not" / "there" / "yet", 0.000001)
    with pytest.raises(ProblemError, match="GB free, 1e\\+09 are needed: make room, or set LONGRUN_CACHE") as caught:
        tools.check_disk(tmp_path / "not" / "there" / "yet", 1e9)
    assert one_line(caught).startswith(f"{tmp_path} has ")


def test_missing_packages_without_apt(step: Step, programs: Path) -> None:
    """Fedora, macOS: every missing package by name, not one a run."""
    assert programs.is_dir()
    with pytest.raises(ProblemError) as caught:
        tools.ensure_packages(step, {"no-such-b": "package-b", "no-such-a": "package-a", "sh": "dash"})
    assert one_line(caught) == "missing: package-a package-b; there is no apt-get here, so install them by hand and run this again"


def test_missing_packages_without_root(step: Step, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person without sudo has to know what to ask the administrator for."""
    called = program("apt-get", 'touch "$0.called"')
    program("sudo", "exit 1")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ProblemError) as caught:
        tools.ensure_packages(step, {"no-such-a": "package-a", "no-such-b": "package-b"})
    assert "missing Debian packages: package-a package-b; root is needed" in one_line(caught)
    assert not Path(f"{called}.called").exists()


def test_a_failing_package_mirror_is_named(step: Step, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """What apt-get says begins with E:, hundreds of lines into its output."""
    program("apt-get", 'echo "Ign:1 http://deb.example.org"; echo "E: Failed to fetch http://deb.example.org"; exit 100')
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(ProblemError) as caught:
        tools.ensure_packages(step, {"no-such-a": "package-a"})
    assert "package-a; apt-get says: E: Failed to fetch http://deb.example.org (is the package mirror reachable?)" in one_line(caught)


def test_present_packages_ask_nobody(step: Step, program: Program) -> None:
    """The second `make up` must work offline and without root."""
    called = program("apt-get", 'touch "$0.called"')
    tools.ensure_packages(step, {"sh": "dash", "cat": "coreutils"})
    assert not Path(f"{called}.called").exists()


def test_a_program_is_built_once(step: Step, cache: Path, widget: dict[str, str], go: Path, tmp_path: Path) -> None:
    """Ten minutes of compiling are meant for the first run only."""
    assert go.exists()
    tools.build(step, ["widget"])
    built = cache / widget["install"]
    assert built.read_text() == "built\n"
    digest = hashlib.sha256(built.read_bytes()).hexdigest()
    assert (cache / "bin/widget.sha256").read_text() == f"{digest}  widget\n"
    calls = (tmp_path / "calls").read_text()
    assert "mod download -json example.org/widget@v1.2.3" in calls
    tools.build(step, ["widget"])
    assert (tmp_path / "calls").read_text() == calls
    assert not list((cache / "bin").glob("*.part"))


def test_another_pin_is_built_anew(step: Step, cache: Path, widget: dict[str, str], go: Path, tmp_path: Path) -> None:
    """A program of the right name and the wrong version must not pass for the pinned one."""
    assert go.exists()
    tools.build(step, ["widget"])
    widget["version"] = "v1.2.4"
    tools.build(step, ["widget"])
    assert "mod download -json example.org/widget@v1.2.4" in (tmp_path / "calls").read_text()
    assert "v1.2.4" in (cache / "bin/widget.pin").read_text()


def test_a_wrong_checksum_is_never_built(step: Step, cache: Path, widget: dict[str, str], go: Path, tmp_path: Path) -> None:
    """A module proxy that hands out something else must not get code onto this machine."""
    assert go.exists()
    widget["sum"] = "h1:another="
    with pytest.raises(ProblemError) as caught:
        tools.build(step, ["widget"])
    assert f"has checksum {SUM}, pinned is h1:another=: don't use it" in one_line(caught)
    assert "-C" not in (tmp_path / "calls").read_text().split()
    assert not (cache / "bin").exists()


def test_an_unreachable_proxy_is_named(step: Step, cache: Path, widget: dict[str, str], program: Program) -> None:
    """Offline, the remedy is a proxy setting, which the message has to name."""
    program("go", """[ "$1" = version ] && echo go1.24 && exit; echo '{"Error": "dial tcp: lookup modules.invalid: no such host"}'; exit 1""")
    with pytest.raises(ProblemError) as caught:
        tools.build(step, ["widget"])
    assert widget["module"] in one_line(caught)
    assert "no such host): is the module proxy reachable (GOPROXY, HTTPS_PROXY)?" in one_line(caught)
    assert not (cache / "bin").exists()


def test_a_broken_toolchain_is_one_line(step: Step, cache: Path, widget: dict[str, str], program: Program) -> None:
    """A program called go that prints nothing at all must not cause a traceback."""
    program("go", '[ "$1" = version ] && echo go1.24; exit 1')
    with pytest.raises(ProblemError, match="could not be fetched") as caught:
        tools.build(step, ["widget"])
    assert widget["module"] in one_line(caught)
    assert cache.is_dir()


def test_a_failed_build_leaves_nothing(step: Step, cache: Path, widget: dict[str, str], program: Program, tmp_path: Path) -> None:
    """Half a program in the cache would be taken for a whole one."""
    answer = json.dumps({"Dir": str(tmp_path), "Sum": SUM})
    program(
        "go",
        f"""case "$1" in version) echo go1.24 ;; mod) echo '{answer}' ;; *) echo "main.go:1: no space left on device"; exit 1 ;; esac""",
    )
    with pytest.raises(ProblemError, match="widget could not be built: main.go:1: no space left on device") as caught:  # noqa: RUF043
        tools.build(step, ["widget"])
    one_line(caught)
    assert not (cache / widget["install"]).exists()
    assert not tools._installed("widget")


def test_a_cache_that_cannot_be_written(step: Step, widget: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home directory may be read-only; the message names the variable that moves the cache."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LONGRUN_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ProblemError, match="set LONGRUN_CACHE to a folder that can") as caught:
        tools.build(step, list(filter(None, ["widget"] if widget else [])))
    one_line(caught)


def test_terraform_is_taken_where_it_is(program: Program, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """A team's own Terraform comes first; one that is too old to read the platforms does not count."""
    monkeypatch.delenv("TF", raising=False)
    assert tools.terraform() == str(cache / tools.PINS["opentofu"]["install"])
    tofu = program("tofu", "echo OpenTofu v1.9.0")
    assert tools.terraform() == str(tofu)
    terraform = program("terraform", "echo Terraform v1.5.7")
    assert tools.terraform() == str(tofu)
    program("terraform", "echo Terraform v1.10.5")
    assert tools.terraform() == str(terraform)
    monkeypatch.setenv("TF", "tofu")
    assert tools.terraform() == str(tofu)


def test_a_wrong_tf_is_refused(programs: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Falling back to another program would work on the state with the wrong one."""
    assert programs.is_dir()
    assert not cache.exists()
    monkeypatch.setenv("TF", "terrafrom")
    with pytest.raises(ProblemError, match="TF=terrafrom is not a program on PATH") as caught:
        tools.terraform()
    one_line(caught)


def test_every_pin_is_complete() -> None:
    """A pin without a checksum would build whatever the proxy hands out."""
    assert len(tools.PINS) >= 5
    for name, pin in tools.PINS.items():
        assert {"module", "version", "sum", "package", "install"} <= set(pin), name
        assert pin["sum"].startswith("h1:"), name
        assert pin["version"].startswith("v"), name
