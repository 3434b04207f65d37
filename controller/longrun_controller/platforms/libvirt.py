"""The libvirt platform: libvirt's daemons, the disk image, KVM or emulation, stopping and starting."""

import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from longrun_controller import tools
from longrun_controller.environment import ROOT, cache_directory
from longrun_controller.errors import ProblemError
from longrun_controller.locks import alone
from longrun_controller.platforms import debian

# The resources that hold the history, and which only `make destroy` may remove.
PROTECTED = ("libvirt_volume.data", "libvirt_pool.this")
# The type of resource that is a host.
HOST = "libvirt_domain"
PROVIDER = "provider-libvirt"
PACKAGES = {
    "libvirtd": "libvirt-daemon-system",
    "virsh": "libvirt-clients",
    "dnsmasq": "dnsmasq-base",
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    # The provider makes the cloud-init disk with it.
    "mkisofs": "genisoimage",
    "mke2fs": "e2fsprogs",
} | debian.PACKAGES
# Attributes that `prepare` changes itself, by resource: a plan that is made before it leaves them alone.
PREPARED = {"libvirt_volume.data": "size"}
URI = "qemu:///system"
SHARED = ROOT / "terraform" / "host"
IMAGE = ROOT / "terraform" / "platforms" / "libvirt" / "image"
IMAGE_DISK_GB = 6
GIB = 2**30
DAEMON_TIMEOUT_SECONDS = 30.0
STOP_TIMEOUT_SECONDS = 300.0
# A boot sector that tells QEMU's isa-debug-exit device to end with status (0x10 << 1) | 1: mov al, 0x10; out 0xf4, al; hlt.
PROBE = bytes.fromhex("b010e6f4f4").ljust(510, b"\0") + b"\x55\xaa"
PROBE_STATUS = 33
PROBE_TIMEOUT_SECONDS = 20.0

Values = dict[str, Any]


def _virsh(*arguments: str, check: bool = True) -> str:
    """Run virsh on the system's libvirt and return its output."""
    command = [*tools.sudo(), "virsh", "--connect", URI, "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env={**os.environ, "LC_ALL": "C"})
    if check and done.returncode:
        lines = [line.removeprefix("error: ") for line in done.stderr.splitlines() if line.strip()]
        message = f"virsh {arguments[0]}: {' '.join(lines) or f'status {done.returncode}'}"
        raise ProblemError(message)
    return done.stdout.strip()


def _answers() -> bool:
    command = [*tools.sudo(), "virsh", "--connect", URI, "--quiet", "uri"]
    return subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL).returncode == 0


def _ensure_daemons() -> None:
    """Make sure that libvirt answers; without systemd nobody else starts it.

    Raises:
        ProblemError: It does not answer, and what to do.
    """
    if not shutil.which("virsh"):
        message = "libvirt is not installed: `make tools` installs it, with ENV= as here"
        raise ProblemError(message)
    if _answers():
        return
    if Path("/run/systemd/system").is_dir():
        message = "libvirtd is not running: `sudo systemctl enable --now libvirtd`, then run this again"
        raise ProblemError(message)
    for daemon in ("virtlogd", "libvirtd"):
        path = shutil.which(daemon, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if not path:
            message = f"libvirtd is not running, and {daemon} is not installed: `make tools` installs it, with ENV= as here"
            raise ProblemError(message)
        subprocess.run([*tools.sudo(), path, "-d"], check=False, capture_output=True, stdin=subprocess.DEVNULL)
    deadline = time.monotonic() + DAEMON_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if _answers():
            return
        time.sleep(0.2)
    message = "libvirtd was started and does not answer: run `sudo libvirtd` in another terminal and put right what it says"
    raise ProblemError(message)


@functools.cache
def kvm_works() -> bool:
    """Return whether a guest with this machine's processor runs under KVM: /dev/kvm can be there and yet run none."""
    if not Path("/dev/kvm").exists():
        return False
    with tempfile.TemporaryDirectory(prefix="longrun-kvm-") as temporary:
        disk = Path(temporary) / "probe"
        disk.write_bytes(PROBE)
        command = [
            *tools.sudo(),
            *(
                "qemu-system-x86_64",
                "-accel",
                "kvm",
                "-cpu",
                "host",
                "-smp",
                "2",
                "-m",
                "16",
                "-nographic",
                "-monitor",
                "none",
                "-serial",
                "none",
                "-no-reboot",
            ),
            *("-device", "isa-debug-exit,iobase=0xf4,iosize=0x04", "-drive", f"file={disk},format=raw,if=ide,readonly=off"),
        ]
        try:
            done = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL, timeout=PROBE_TIMEOUT_SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == PROBE_STATUS


def image_path(release: int) -> Path:
    """Return where the disk image lies, whose name changes with its recipe; kernel and initrd lie beside it."""
    recipe = hashlib.sha256()
    for path in (SHARED / "packages", IMAGE / "packages", IMAGE / "prepare", IMAGE / "setup"):
        recipe.update(path.read_bytes())
    return cache_directory() / "images" / f"debian-{release}-{recipe.hexdigest()[:12]}.qcow2"


def _run(what: str, *command: str | Path) -> None:
    done = subprocess.run([*tools.sudo(), *map(str, command)], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        message = f"the disk image could not be made ({what}): {lines[0] if lines else 'it said nothing'}"
        raise ProblemError(message)


def ensure_image(release: int, say: Callable[[str], None]) -> Path:
    """Build the disk image where it is missing, from Debian's packages.

    Args:
        release: Debian release, 12 or 13.
        say: Shows one line of progress.

    Raises:
        ProblemError: No room, or Debian's mirror does not answer.
    """
    image = image_path(release)
    if image.exists():
        return image
    with alone("image", lambda: say(f"disk image of Debian {release}: waiting for another run that builds one")):
        # That one may have built it.
        if not image.exists():
            _build_image(release, image, say)
    return image


def _build_image(release: int, image: Path, say: Callable[[str], None]) -> None:
    tools.check_disk(image, IMAGE_DISK_GB)
    image.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=image.parent, prefix="part-") as temporary:
        work = Path(temporary)
        tree, raw, part = work / "tree", work / "disk.raw", work / "disk.qcow2"
        say(f"disk image of Debian {release}: installing its packages (three minutes)")
        try:
            debian.bootstrap(release, [SHARED / "packages", IMAGE / "packages"], IMAGE / "setup", tree, IMAGE / "prepare")
            for name, pattern in (("vmlinuz", "vmlinuz-*"), ("initrd", "initrd.img-*")):
                found = sorted((tree / "boot").glob(pattern))
                _run("kernel", "install", "-m", "0644", found[-1], work / name)
            say(f"disk image of Debian {release}: writing the file system")
            _run("mke2fs", "mke2fs", "-q", "-t", "ext4", "-L", "longrun-root", "-d", tree, raw, "3G")
            _run("qemu-img", "qemu-img", "convert", "-c", "-O", "qcow2", raw, part)
        finally:
            _run("cleaning up", "rm", "-rf", tree)
        for name in ("vmlinuz", "initrd"):
            (work / name).replace(image.with_name(f"{image.name}.{name}"))
        part.replace(image)


def terraform_variables(_directory: Path, values: Values) -> dict[str, str]:
    """Return what Terraform is told beside `server.tfvars`."""
    given = {}
    if not values.get("host_image"):
        given["host_image"] = str(image_path(int(values.get("debian_release", 13))))
    if not values.get("libvirt_domain_type"):
        given["libvirt_domain_type"] = "kvm" if kvm_works() else "qemu"
    return given


def process_environment() -> dict[str, str]:
    """Return the environment variables that the provider reads, once libvirt answers."""
    _ensure_daemons()
    return {}


def prepare(values: Values, say: Callable[[str], None]) -> None:
    """Make sure that libvirt answers and the image is there, and let the data volumes grow."""
    _ensure_daemons_and_image(values, say)
    if not kvm_works():
        say("no KVM on this machine: the hosts run under emulation, about ten times slower")
    _grow(values, say)


def foresee(values: Values, say: Callable[[str], None]) -> list[str]:
    """Make sure that a plan can be made, and return what `prepare` would do to a server before Terraform does anything.

    The image is built where it is missing, into the cache and for no server yet: whether a kernel lies beside it is part of the plan.

    Args:
        values: `server.tfvars`.
        say: Shows one line of progress.

    Returns:
        A sentence for each thing.

    Raises:
        ProblemError: libvirt does not answer, the image can't be made, or a data volume would have to shrink.
    """
    _ensure_daemons_and_image(values, say)
    return [f"enlarge the data volume of {host} from {size_gb} to {_data_size_gb(values)} GiB" for host, size_gb in _growing(values).items()]


def _ensure_daemons_and_image(values: Values, say: Callable[[str], None]) -> None:
    say("libvirt")
    _ensure_daemons()
    if not values.get("host_image"):
        ensure_image(int(values.get("debian_release", 13)), say)


def _growing(values: Values) -> dict[str, int]:
    """Return the hosts whose data volumes are smaller than they should be, and how large they are, in GiB.

    Raises:
        ProblemError: A volume is larger than `data_size_gb`.
    """
    name, growing = str(values["name"]), {}
    wanted_gb = _data_size_gb(values)
    for host in values.get("hosts") or ("server",):
        found = re.search(r"Capacity:\s+(\d+) bytes", _virsh("vol-info", "--bytes", "--pool", f"longrun-{name}", f"{host}-data.qcow2", check=False))
        if not found:
            continue
        present_gb = int(found[1]) // GIB
        if present_gb > wanted_gb:
            message = (
                f"environments/{name}/server.tfvars: data_size_gb is {wanted_gb}, but the data volume of {host} has {present_gb}, "
                f"and none can shrink: write data_size_gb = {present_gb}"
            )
            raise ProblemError(message)
        if present_gb < wanted_gb:
            growing[host] = present_gb
    return growing


def _data_size_gb(values: Values) -> int:
    return int(values.get("data_size_gb", 20))


def _grow(values: Values, say: Callable[[str], None]) -> None:
    """Enlarge data volumes that are smaller than they should be: the provider itself would make new ones."""
    pool, size_gb = f"longrun-{values['name']}", _data_size_gb(values)
    for host in _growing(values):
        say(f"enlarging the data volume of {host} to {size_gb} GiB")
        domain = f"{pool}-{host}"
        if _virsh("domstate", domain, check=False) == "running":
            _virsh("blockresize", domain, "vdb", f"{size_gb}G")
            _virsh("pool-refresh", pool)
        else:
            _virsh("vol-resize", "--pool", pool, f"{host}-data.qcow2", f"{size_gb}G")


def _domains(name: str) -> dict[str, str]:
    """Return the state of each host of the environment by the domain's name."""
    if not shutil.which("virsh") or not _answers():
        return {}
    names = [line for line in _virsh("list", "--all", "--name").splitlines() if _belongs(line, name)]
    return {domain: _virsh("domstate", domain) for domain in names}


def _belongs(domain: str, name: str) -> bool:
    """Return whether the domain is one of the environment's: names may hold hyphens, so its disks decide."""
    return domain.startswith(f"longrun-{name}-") and f"/{name}/" in _virsh("domblklist", domain)


def strays(values: Values, known: set[str]) -> list[str]:
    """Return what `discard` would remove."""
    name, found = str(values["name"]), []
    volumes = {}
    for host in values.get("hosts") or ("server",):
        domain = f"longrun-{name}-{host}"
        if f'libvirt_domain.host["{host}"]' not in known and _virsh("domid", domain, check=False) and _belongs(domain, name):
            found.append(f"domain {domain}")
        volumes[f'libvirt_volume.root["{host}"]'] = f"{host}-root.qcow2"
        volumes[f'libvirt_cloudinit_disk.host["{host}"]'] = f"{host}-cloud-init.iso"
    # Half of a large file, where the copying of the image was interrupted.
    image = Path(str(values.get("host_image") or image_path(int(values.get("debian_release", 13))))).name
    volumes["libvirt_volume.image"] = image
    volumes |= {f'libvirt_volume.boot["{kind}"]': f"{image}.{kind}" for kind in ("vmlinuz", "initrd")}
    for address, volume in volumes.items():
        # An image of one's own may bear any name.
        if address not in known and not volume.endswith("-data.qcow2") and _virsh("vol-path", "--pool", f"longrun-{name}", volume, check=False):
            found.append(f"volume {volume}")
    if "libvirt_network.this" not in known and _virsh("net-uuid", f"longrun-{name}", check=False):
        found.append(f"network longrun-{name}")
    return found


def discard(values: Values, known: set[str]) -> list[str]:
    """Remove what an interrupted `apply` made and Terraform's state does not hold; never a data volume.

    Args:
        values: `server.tfvars`.
        known: Addresses of the resources in the state.

    Returns:
        What was removed.
    """
    unknown = strays(values, known)
    for thing in unknown:
        match thing.split(" ", 1):
            case ["domain", domain]:
                _virsh("destroy", domain, check=False)
                _virsh("undefine", domain)
            case ["volume", volume]:
                _virsh("vol-delete", "--pool", f"longrun-{values['name']}", volume)
            case ["network", network]:
                _virsh("net-destroy", network, check=False)
                _virsh("net-undefine", network)
    return unknown


def is_running(values: Values) -> bool:
    """Return whether every host of the environment runs; False where there is none."""
    states = _domains(str(values["name"]))
    return bool(states) and all(state == "running" for state in states.values())


def start(_values: Values) -> None:
    """Leave it to Terraform, which starts hosts that are stopped."""


def stop(values: Values) -> None:
    """Shut the hosts down; systemd stops its services in order.

    Raises:
        ProblemError: There is nothing to stop, or a host does not go down.
    """
    name = str(values["name"])
    states = _domains(name)
    if not states:
        message = f"environment {name!r} has no host on this machine: nothing to stop"
        raise ProblemError(message)
    running = [domain for domain, state in states.items() if state == "running"]
    for domain in running:
        _virsh("shutdown", domain)
    deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
    for domain in running:
        while _virsh("domstate", domain) != "shut off":
            if time.monotonic() > deadline:
                message = f"{domain} did not shut down within {STOP_TIMEOUT_SECONDS:.0f} s: look at it with `virsh console {domain}`"
                raise ProblemError(message)
            time.sleep(0.5)


def leftovers(values: Values) -> list[str]:
    """Return what libvirt still holds of the environment: domains, networks, pools and their folder."""
    name = str(values["name"])
    left = [f"domain {domain}" for domain in _domains(name)]
    for kind in ("net", "pool") if shutil.which("virsh") else ():
        left += [f"{kind} {line}" for line in _virsh(f"{kind}-list", "--all", "--name").splitlines() if line == f"longrun-{name}"]
    folder = Path(str(values.get("libvirt_directory", "/var/lib/libvirt/longrun"))) / name
    if subprocess.run([*tools.sudo(), "test", "-e", folder], check=False).returncode == 0:
        left.append(f"folder {folder}")
    return left


def preflight(_values: Values) -> None:
    """Check this machine before anything is made: the daemons and the image are made in `prepare`."""


def explain(problem: str) -> str | None:
    """Return what to do about an error of the provider, if it is a known one."""
    if "failed to connect to the hypervisor" in problem or "failed to dial libvirt" in problem:
        return "libvirt does not answer: `sudo systemctl enable --now libvirtd`, then run this again"
    if "qemu unexpectedly closed the monitor" in problem and "kvm" in problem:
        return 'KVM does not run the host here: write libvirt_domain_type = "qemu" into server.tfvars (emulation, about ten times slower)'
    if "storage volume" in problem and "already exists" in problem:
        return f"{problem}: Terraform's state does not know it; delete it with virsh vol-delete if nothing is on it, else bring the state back from a copy"
    if "is already in use by interface" in problem or "overlap" in problem.lower():
        return "the hosts' network overlaps one that is there: set another `subnet`, a /24, in server.tfvars"
    return None
