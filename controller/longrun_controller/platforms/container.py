"""The container platform: podman's Docker-compatible socket, the host image, stopping and starting."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from longrun_controller import tools
from longrun_controller.environment import ROOT, Environment, cache_directory
from longrun_controller.errors import ProblemError
from longrun_controller.locks import alone
from longrun_controller.platforms import debian

# The resources that hold the history, and which only `make destroy` may remove.
PROTECTED = ("docker_volume.data",)
# The type of resource that is a host.
HOST = "docker_container"
PROVIDER = "provider-docker"
PACKAGES = {
    "podman": "podman",
    "runc": "runc",
    "iptables": "iptables",
} | debian.PACKAGES
# Attributes that `prepare` changes itself, by resource: a plan that is made before it leaves them alone.
PREPARED: dict[str, str] = {}
SYSTEM_SOCKET = Path("/run/podman/podman.sock")
OWN_SOCKET = Path("/run/longrun/podman.sock")
SOURCE = ROOT / "terraform"
IMAGE = SOURCE / "platforms" / "container" / "image"
RECIPE = (SOURCE / "host" / "packages", SOURCE / "host" / "setup", IMAGE / "setup", IMAGE / "Containerfile")
# A host takes 2.5 GB, its image 0.5 GB.
DISK_GB = 5
REGISTRY_TIMEOUT_SECONDS = 5.0

Values = dict[str, Any]


def _podman(*arguments: str | Path, check: bool = True) -> str:
    """Run podman on the system's engine and return its output."""
    command = [*tools.sudo(), "podman", *(str(argument) for argument in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if check and done.returncode:
        reason = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"status {done.returncode}"
        message = f"podman {arguments[0]}: {reason}"
        raise ProblemError(message)
    return done.stdout.strip()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2)
        return probe.connect_ex(str(path)) == 0


def engine() -> str:
    """Return the address of the container engine, started if it has to be.

    A machine with systemd starts podman's socket; elsewhere (a container, a minimal system) we start the service
    ourselves, and it ends by itself after ten idle minutes.

    Raises:
        ProblemError: podman is missing, may not be started, or does not answer within 20 s.
    """
    if given := os.environ.get("DOCKER_HOST"):
        return given
    if not shutil.which("podman"):
        message = "podman is not installed: `make tools` installs it"
        raise ProblemError(message)
    for path in (SYSTEM_SOCKET, OWN_SOCKET):
        if os.access(path, os.R_OK | os.W_OK) and _answers(path):
            return f"unix://{path}"
    prefix = tools.sudo()
    # Inside a user's session sudo's podman makes a socket that only root may open; hand it to whoever runs make.
    subprocess.run([*prefix, "install", "-d", "-m", "0700", "-o", str(os.getuid()), OWN_SOCKET.parent], check=True)
    subprocess.run([*prefix, "rm", "-f", OWN_SOCKET], check=True)
    subprocess.Popen(
        [*prefix, "podman", "system", "service", "--time=600", f"unix://{OWN_SOCKET}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        # It serves other clones too, and where its folder is gone no container starts.
        cwd="/",
    )
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if OWN_SOCKET.exists():
            if prefix:
                subprocess.run([*prefix, "chown", str(os.getuid()), OWN_SOCKET], check=True)
            if _answers(OWN_SOCKET):
                return f"unix://{OWN_SOCKET}"
        time.sleep(0.1)
    message = "podman's service does not answer: try `podman info` and put right what it says"
    raise ProblemError(message)


def image_tag(release: int) -> str:
    """Return the name of the host image, which changes with its recipe."""
    recipe = hashlib.sha256()
    for path in RECIPE:
        recipe.update(path.read_bytes())
    return f"localhost/longrun-host:{release}-{recipe.hexdigest()[:12]}"


def _registry_answers() -> bool:
    try:
        with socket.create_connection(("registry-1.docker.io", 443), timeout=REGISTRY_TIMEOUT_SECONDS):
            return True
    except OSError:
        return False


def ensure_image(release: int, say: Callable[[str], None]) -> str:
    """Build the host image where it is missing: from the registry's Debian, else from Debian's packages.

    Args:
        release: Debian release, 12 or 13.
        say: Shows one line of progress.

    Raises:
        ProblemError: Neither way worked.
    """
    tag = image_tag(release)
    if _podman("images", "--quiet", tag):
        return tag
    with alone("image", lambda: say(f"host image of Debian {release}: waiting for another run that builds one")):
        # That one may have built it.
        if not _podman("images", "--quiet", tag):
            _build_image(release, tag, say)
    return tag


def _build_image(release: int, tag: str, say: Callable[[str], None]) -> None:
    tools.check_disk(Path("/var/lib/containers"), DISK_GB)
    if _registry_answers():
        say(f"host image of Debian {release}: building on the registry's debian:{release}")
        _podman("build", "--quiet", "--build-arg", f"RELEASE={release}", "--file", IMAGE / "Containerfile", "--tag", tag, SOURCE)
        return
    say(f"host image of Debian {release}: no container registry here, so from Debian's packages (half a minute)")
    cache_directory().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_directory(), prefix="image-") as temporary:
        archive = Path(temporary) / "host.tar"
        debian.bootstrap(release, [SOURCE / "host" / "packages"], IMAGE / "setup", archive)
        _podman("import", "--quiet", "--change", 'CMD ["/sbin/init"]', archive, tag)


def terraform_variables(_directory: Path, values: Values) -> dict[str, str]:
    """Return what Terraform is told beside `server.tfvars`."""
    return {} if values.get("host_image") else {"host_image": image_tag(int(values.get("debian_release", 13)))}


def process_environment() -> dict[str, str]:
    """Return the environment variables that the provider reads."""
    return {"DOCKER_HOST": engine()}


def prepare(values: Values, say: Callable[[str], None]) -> None:
    """Make sure that the engine answers and the image is there."""
    say("container engine")
    engine()
    if not values.get("host_image"):
        ensure_image(int(values.get("debian_release", 13)), say)


def _containers(name: str) -> list[dict[str, Any]]:
    if not shutil.which("podman"):
        return []
    listed = _podman("ps", "--all", "--filter", f"label=longrun.environment={name}", "--format", "json")
    found: list[dict[str, Any]] = json.loads(listed or "[]") or []
    return found


def foresee(values: Values, say: Callable[[str], None]) -> list[str]:
    """Make sure that a plan can be made, and return what `prepare` and `start` would do to a server before Terraform does anything.

    The image is not built for it: a plan needs its name only. The engine has to answer; its service is not the server's.

    Args:
        values: `server.tfvars`.
        say: Shows one line of progress.

    Returns:
        A sentence for each thing.
    """
    say("container engine")
    engine()
    return [f"start container {host['Names'][0]}" for host in _containers(str(values["name"])) if host["State"] != "running"]


def strays(values: Values, known: set[str]) -> list[str]:
    """Return what `discard` would remove."""
    name = str(values["name"])
    hosts = [host["Names"][0] for host in _containers(name)]
    return [f"container {host}" for host in hosts if f'docker_container.host["{host.removeprefix(f"longrun-{name}-")}"]' not in known]


def discard(values: Values, known: set[str]) -> list[str]:
    """Remove what an interrupted `apply` made and Terraform's state does not hold; never a data volume.

    Args:
        values: `server.tfvars`.
        known: Addresses of the resources in the state.

    Returns:
        What was removed.
    """
    unknown = strays(values, known)
    for container in unknown:
        _podman("rm", "--force", container.removeprefix("container "))
    return unknown


def is_running(values: Values) -> bool:
    """Return whether every host of the environment runs; False where there is none."""
    hosts = _containers(str(values["name"]))
    return bool(hosts) and all(host["State"] == "running" for host in hosts)


def start(values: Values) -> None:
    """Start the hosts that exist and are stopped."""
    for host in _containers(str(values["name"])):
        if host["State"] != "running":
            _podman("start", host["Names"][0])


def stop(values: Values) -> None:
    """Stop the hosts; systemd stops its services in order.

    Raises:
        ProblemError: There is nothing to stop.
    """
    name = str(values["name"])
    hosts = _containers(name)
    if not hosts:
        message = f"environment {name!r} has no host on this machine: nothing to stop"
        raise ProblemError(message)
    for host in hosts:
        _podman("stop", host["Names"][0])


def leftovers(values: Values) -> list[str]:
    """Return what the engine still holds of the environment: containers, volumes, networks."""
    if not shutil.which("podman"):
        return []
    name = str(values["name"])
    label = f"label=longrun.environment={name}"
    left = [f"container {host['Names'][0]}" for host in _containers(name)]
    for kind in ("volume", "network"):
        left += [f"{kind} {line}" for line in _podman(kind, "ls", "--filter", label, "--format", "{{.Name}}").splitlines()]
    return left


def preflight(values: Values) -> None:
    """Check this machine before anything is made.

    Raises:
        ProblemError: A port is taken by something that is not this environment's own host, or is another environment's.
    """
    name = str(values["name"])
    if any(host["State"] == "running" for host in _containers(name)):
        return
    address = str(values.get("listen_address", "127.0.0.1"))
    hosts = len(values.get("hosts", {})) or 1
    first = int(values.get("ssh_port", 8422))
    ports = [("https_port", address, int(values.get("https_port", 8443)))]
    ports += [("ssh_port", "127.0.0.1", first + index) for index in range(hosts)]
    for other in Environment.all():
        if other.name != name and other.platform == "container" and other.state.exists():
            for key, _, port in ports:
                if port in other.ports():
                    message = (
                        f"port {port} is environment {other.name!r}'s: set another {key} in environments/{name}/server.tfvars (`make new` picks free ones)"
                    )
                    raise ProblemError(message)
    for key, where, port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((where, port))
            except OSError as error:
                message = (
                    f"port {port} on {where} can't be used ({error.strerror}): "
                    f"stop what listens there, or set another {key} in environments/{name}/server.tfvars"
                )
                raise ProblemError(message) from None


def explain(problem: str) -> str | None:
    """Return what to do about an error of the provider, if it is a known one."""
    if "Cannot connect to the Docker daemon" in problem:
        return "the container engine does not answer: try `podman info` and put right what it says"
    return None
