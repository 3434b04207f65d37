"""Programs that the controller builds or installs: what stands in the way is one line, and nothing unpinned is ever built."""

import errno
import hashlib
import json
import os
import re
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


def test_another_installation_is_waited_for(step: Step, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that upgrades itself in its first minutes holds apt's lock just then."""
    called = program("apt-get", 'echo "$@" >> "$0.called"')
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    tools.ensure_packages(step, {"no-such-a": "package-a"})
    calls = Path(f"{called}.called").read_text().splitlines()
    assert [call.split()[4] for call in calls] == ["update", "install"]
    assert all("-o DPkg::Lock::Timeout=600" in call for call in calls)


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


def test_sources_stay_until_the_last_build(step: Step, cache: Path, widget: dict[str, str], go: Path) -> None:
    """What one build has compiled the next one takes; afterwards they are gone, at once for whoever looks."""
    assert go.exists()
    compiled = cache / "go" / "build" / "compiled"
    compiled.parent.mkdir(parents=True)
    compiled.touch()
    tools.clean(step)
    tools.build(step, ["widget"])
    widget["version"] = "v1.2.4"
    tools.build(step, ["widget"])
    assert compiled.exists()
    tools.clean(step)
    assert not (cache / "go").exists()
    tools.clean(step)


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
    built = {name: pin for name, pin in tools.PINS.items() if set(pin) != {"install", "provider", "provider_version"}}
    assert len(built) >= 5
    for name, pin in built.items():
        assert {"module", "version", "sum", "package", "install"} <= set(pin), name
        assert pin["sum"].startswith("h1:"), name
        assert pin["version"].startswith("v"), name


def test_every_provider_lies_where_terraform_looks() -> None:
    """A mirror has one place for each provider and version; a file elsewhere in it is never found."""
    providers = {name: pin for name, pin in tools.PINS.items() if name.startswith("provider-")}
    assert len(providers) >= 3
    for name, pin in providers.items():
        below = f"providers/registry.terraform.io/{pin['provider']}/{pin['provider_version']}/linux_amd64"
        assert Path(pin["install"]).parent == Path(below), name
        assert Path(pin["install"]).name.startswith(f"terraform-provider-{name.removeprefix('provider-')}_v{pin['provider_version']}"), name


READY = {
    "install": "providers/registry.terraform.io/example/cloud/5.1.0/linux_amd64/terraform-provider-cloud_v5.1.0_x5",
    "provider": "example/cloud",
    "provider_version": "5.1.0",
}
OURS = {
    "module": "example.org/widget",
    "version": "v1.2.3",
    "sum": SUM,
    "package": ".",
    "install": "providers/registry.terraform.io/example/widget/1.2.3/linux_amd64/terraform-provider-widget_v1.2.3",
    "provider": "example/widget",
    "provider_version": "1.2.3",
}


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, cache: Path) -> list[str]:
    """A registry that has what the test puts into this list; two providers are pinned, one of which we could build."""
    assert not cache.exists()
    serves: list[str] = []
    monkeypatch.setattr(tools, "PINS", {"provider-cloud": READY, "provider-widget": OURS})
    monkeypatch.setattr(tools, "_registry_serves", lambda name: name in serves)
    monkeypatch.setattr(tools, "MIRRORS", ("~/nobody/has/this",))
    return serves


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: list[str]) -> Path:
    """A ready provider that somebody unpacked on this machine, below a folder of any name, and others of which it must not be taken."""
    assert not registry
    monkeypatch.setattr(tools, "MIRRORS", (str(tmp_path / "none"), str(tmp_path / "opt" / "*")))
    path = tmp_path / "opt" / "plugins" / READY["install"].removeprefix("providers/")
    for there, mode in ((path, 0o755), (path.with_name("terraform-provider-cloud_v5.1.0.zip"), 0o644), (path.with_name("README"), 0o755)):
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_text(f"{there.name}\n")
        there.chmod(mode)
    newer = Path(str(path).replace("5.1.0", "5.2.0"))
    newer.parent.mkdir(parents=True)
    shutil.copy(path, newer)
    return path


def listed(cache: Path) -> list[str]:
    """Return what terraform.rc says is in the mirror, which must be what is not asked of a registry."""
    text = (cache / "terraform.rc").read_text()
    assert f'path    = "{cache}/providers"' in text
    lists = re.findall(r"(?m)^ +(include|exclude) = \[(.*)\]$", text)
    assert [kind for kind, _ in lists] == ["include", "exclude"]
    assert lists[0][1] == lists[1][1]
    return sorted(name.strip('"') for name in lists[0][1].split(", "))


def test_the_registry_comes_first(step: Step, cache: Path, registry: list[str], mirror: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Where Terraform finds the provider by itself, nothing of ours is in its way."""
    assert mirror.exists()
    registry += ["provider-cloud", "provider-widget"]
    for name in registry:
        tools.ensure_provider(step, name)
    assert not (cache / "terraform.rc").exists()
    assert not (cache / "providers").exists()
    assert tools.terraform_environment() == {}
    assert "provider example/cloud 5.1.0: from the registry" in capfd.readouterr().err


def test_a_ready_provider_is_taken_from_the_machine(step: Step, cache: Path, registry: list[str], mirror: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A provider that is too large to build: under the name that Terraform's registry has for it, and under OpenTofu's."""
    assert not registry
    tools.ensure_provider(step, "provider-cloud")
    assert "provider example/cloud 5.1.0: the registry does not answer, so from a mirror on this machine" in capfd.readouterr().err
    for host in ("registry.terraform.io", "registry.opentofu.org"):
        placed = cache / READY["install"].replace("registry.terraform.io", host)
        assert placed.read_text() == f"{mirror.name}\n"
        assert os.access(placed, os.X_OK)
        assert not placed.is_symlink()
        assert not any(part.is_symlink() for part in placed.relative_to(cache).parents)
    assert listed(cache) == ["registry.opentofu.org/example/cloud", "registry.terraform.io/example/cloud"]
    assert tools.terraform_environment() == {"TF_CLI_CONFIG_FILE": str(cache / "terraform.rc")}


def test_a_provider_that_is_there_is_not_asked_for(step: Step, registry: list[str], mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second `make up` must work offline, whether or not the mirror on the machine is still there."""
    assert not registry
    tools.ensure_provider(step, "provider-cloud")
    shutil.rmtree(mirror.parents[5])
    monkeypatch.setattr(tools, "_registry_serves", lambda name: pytest.fail(f"the registry was asked for {name}"))
    tools.ensure_provider(step, "provider-cloud")


def test_a_provider_that_nobody_has_is_named(step: Step, cache: Path, registry: list[str]) -> None:
    """No registry, no mirror, and nothing that could be built: what to unpack, and where."""
    assert not registry
    with pytest.raises(ProblemError) as caught:
        tools.ensure_provider(step, "provider-cloud")
    text = one_line(caught)
    assert text.startswith("provider example/cloud 5.1.0: the registry does not answer, and no mirror on this machine has it: unpack the provider below ")
    assert not (cache / "terraform.rc").exists()


def test_a_provider_is_built_where_nobody_serves_it(step: Step, cache: Path, registry: list[str], go: Path, mirror: Path) -> None:
    """The mirror's list must hold what is there and no more: Terraform asks nobody else for what stands in it."""
    assert go.exists()
    assert mirror.exists()
    assert not registry
    tools.ensure_provider(step, "provider-widget")
    assert (cache / OURS["install"]).read_text() == "built\n"
    assert listed(cache) == ["registry.opentofu.org/example/widget", "registry.terraform.io/example/widget"]
    tools.ensure_provider(step, "provider-cloud")
    assert listed(cache) == [f"{host}/example/{name}" for host in ("registry.opentofu.org", "registry.terraform.io") for name in ("cloud", "widget")]


def test_another_build_takes_the_place_of_the_first(step: Step, cache: Path, registry: list[str], go: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenTofu must not go on with the file of an older pin."""
    assert go.exists()
    assert not registry
    tools.ensure_provider(step, "provider-widget")
    ours = cache / OURS["install"]
    other = cache / OURS["install"].replace("registry.terraform.io", "registry.opentofu.org")
    ours.unlink()
    monkeypatch.setattr(tools, "PINS", {"provider-widget": {**OURS, "package": "./cmd"}})
    tools.ensure_provider(step, "provider-widget")
    assert other.samefile(ours)


def test_another_file_system_gets_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file can't have a second name on another disk; what stood there before goes."""
    there, target = tmp_path / "there", tmp_path / "mirror" / "target"
    there.write_text("new\n")
    there.chmod(0o755)
    target.parent.mkdir()
    target.write_text("old\n")

    def refuse(_self: Path, _target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    tools._place(there, target)
    assert target.read_text() == "new\n"
    assert os.access(target, os.X_OK)
    assert [path.name for path in target.parent.iterdir()] == ["target"]


@pytest.mark.parametrize(
    ("chosen", "there", "built"),
    [
        ("", ["terraform"], ["minio"]),
        ("", [], ["opentofu", "minio"]),
        ("tofu", ["terraform"], ["opentofu", "minio"]),
        ("tofu", ["terraform", "tofu"], ["minio"]),
        ("terraform", ["terraform"], ["minio"]),
    ],
)
def test_what_a_server_needs(step: Step, program: Program, monkeypatch: pytest.MonkeyPatch, chosen: str, there: list[str], built: list[str]) -> None:
    """The platform's packages and its provider beside our own, and OpenTofu only where it is asked for or nothing else is there."""
    for name in there:
        program(name, "echo v1.11.4")
    monkeypatch.setenv("TF", chosen)
    asked: list[object] = []
    monkeypatch.setattr(tools, "ensure_packages", lambda _step, wanted: asked.append(wanted))
    monkeypatch.setattr(tools, "build", lambda _step, names: asked.append(names))
    monkeypatch.setattr(tools, "ensure_provider", lambda _step, name: asked.append(name))
    tools.ensure(step, packages={"virsh": "libvirt-clients"}, provider="provider-libvirt")
    assert asked == [{**tools.DEBIAN_PACKAGES, "virsh": "libvirt-clients"}, built, "provider-libvirt"]
