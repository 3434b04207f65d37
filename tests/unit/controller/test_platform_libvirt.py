"""The libvirt platform without a hypervisor: what is removed, what grows, what is only said, and above all what is left alone."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml
from longrun_controller import tools
from longrun_controller.environment import ROOT
from longrun_controller.errors import ProblemError
from longrun_controller.platforms import debian, libvirt

GIB = 2**30
ONE = {"name": "unit", "platform": "libvirt"}
TWO = {**ONE, "hosts": {"data": {"groups": []}, "web": {"groups": []}}}
CHANGING = {"destroy", "undefine", "shutdown", "vol-delete", "vol-resize", "blockresize", "net-destroy", "net-undefine", "pool-destroy", "pool-undefine"}


class Hypervisor:
    """A libvirt in virsh's place, which remembers what it was asked."""

    def __init__(self) -> None:
        self.domains: dict[str, str] = {}
        self.volumes: dict[tuple[str, str], int] = {}
        self.networks: set[str] = set()
        self.calls: list[tuple[str, ...]] = []
        # Whether a host goes down when it is asked to.
        self.obedient = True

    def host(self, environment: str, host: str, state: str = "running", size_gb: int = 20) -> None:
        """Make a host with its volumes, as `apply` does."""
        pool = f"longrun-{environment}"
        self.domains[f"{pool}-{host}"] = state
        self.networks.add(pool)
        for volume, size in ((f"{host}-root.qcow2", 20), (f"{host}-cloud-init.iso", 1), (f"{host}-data.qcow2", size_gb)):
            self.volumes[pool, volume] = size * GIB

    def changes(self) -> list[tuple[str, ...]]:
        """Return the calls that changed something."""
        return [call for call in self.calls if call[0] in CHANGING]

    def __call__(self, *arguments: str, check: bool = True) -> str:
        self.calls.append(arguments)
        answer = self._answer(*arguments)
        if answer is None and check:
            message = f"virsh {arguments[0]}: failed"
            raise ProblemError(message)
        return answer or ""

    def _answer(self, *arguments: str) -> str | None:  # noqa: C901, PLR0911, PLR0912 - a case a command
        match arguments:
            case ("list", "--all", "--name"):
                return "\n".join(self.domains)
            case (("net-list" | "pool-list"), "--all", "--name"):
                return "\n".join(sorted(self.networks))
            case ("domstate", domain):
                return self.domains.get(domain)
            case ("domid", domain):
                return None if domain not in self.domains else "7" if self.domains[domain] == "running" else "-"
            case ("domblklist", domain):
                pools = {pool.removeprefix("longrun-") for pool, volume in self.volumes if f"{pool}-{volume.removesuffix('-data.qcow2')}" == domain}
                return "\n".join(f"vda /var/lib/libvirt/longrun/{name}/server-root.qcow2" for name in pools)
            case ("destroy", domain) if self.domains.get(domain) == "running":
                self.domains[domain] = "shut off"
                return ""
            case ("undefine", domain) if domain in self.domains:
                del self.domains[domain]
                return ""
            case ("shutdown", domain):
                self.domains[domain] = "shut off" if self.obedient else "running"
                return ""
            case ("vol-info", "--bytes", "--pool", pool, volume) if (pool, volume) in self.volumes:
                return f"Name:           {volume}\nType:           file\nCapacity:       {self.volumes[pool, volume]} bytes\nAllocation:     200704 bytes"
            case ("vol-path", "--pool", pool, volume) if (pool, volume) in self.volumes:
                return f"/var/lib/libvirt/longrun/{pool}/{volume}"
            case ("vol-delete", "--pool", pool, volume) if (pool, volume) in self.volumes:
                del self.volumes[pool, volume]
                return ""
            case ("vol-resize", "--pool", pool, volume, size) if (pool, volume) in self.volumes:
                self.volumes[pool, volume] = int(size.removesuffix("G")) * GIB
                return ""
            case ("blockresize", domain, "vdb", size) if self.domains.get(domain) == "running":
                pool, _, host = domain.rpartition("-")
                self.volumes[pool, f"{host}-data.qcow2"] = int(size.removesuffix("G")) * GIB
                return ""
            case ("pool-refresh", _):
                return ""
            case ("net-uuid", network) if network in self.networks:
                return "5b6f6d5c"
            case ("net-destroy", network) if network in self.networks:
                return ""
            case ("net-undefine", network) if network in self.networks:
                self.networks.remove(network)
                return ""
        return None


@pytest.fixture
def hypervisor(monkeypatch: pytest.MonkeyPatch) -> Hypervisor:
    """A libvirt that answers and holds nothing."""
    made = Hypervisor()
    monkeypatch.setattr(libvirt, "_virsh", made)
    monkeypatch.setattr(libvirt, "_answers", lambda: True)
    monkeypatch.setattr(tools, "sudo", list)
    monkeypatch.setattr(shutil, "which", lambda name, **_: f"/usr/bin/{name}")
    monkeypatch.setattr(libvirt, "STOP_TIMEOUT_SECONDS", 0.0)
    return made


def known(*hosts: str) -> set[str]:
    """Return the addresses in the state of an environment with these hosts."""
    each = ("libvirt_domain.host", "libvirt_volume.root", "libvirt_volume.data", "libvirt_cloudinit_disk.host", "module.cloud_init")
    return {"libvirt_network.this", "libvirt_pool.this", "libvirt_volume.image"} | {f'{address}["{host}"]' for address in each for host in hosts}


def test_what_the_state_holds_is_left_alone(hypervisor: Hypervisor) -> None:
    """Every `make up` asks; a running server must not notice."""
    for host in ("data", "web"):
        hypervisor.host("unit", host)
    assert libvirt.discard(TWO, known("data", "web")) == []
    assert not hypervisor.changes()
    assert len(hypervisor.domains) == 2


def test_what_an_interrupted_run_left_is_removed(hypervisor: Hypervisor) -> None:
    """Terraform would fail on each of these for ever, as it was made and not written down."""
    hypervisor.host("unit", "server")
    strays = libvirt.strays(ONE, set())
    assert not hypervisor.changes()
    removed = libvirt.discard(ONE, set())
    assert removed == strays == ["domain longrun-unit-server", "volume server-root.qcow2", "volume server-cloud-init.iso", "network longrun-unit"]
    assert (hypervisor.domains, hypervisor.networks) == ({}, set())
    assert libvirt.discard(ONE, set()) == []


@pytest.mark.parametrize("values", [ONE, TWO], ids=["one host", "two hosts"])
@pytest.mark.parametrize("state", ["running", "shut off"])
def test_no_data_volume_is_ever_named(hypervisor: Hypervisor, values: libvirt.Values, state: str) -> None:
    """Even where nothing is known any more: a lost state must not cost the history."""
    hosts = list(values.get("hosts", {"server": {}}))
    for host in hosts:
        hypervisor.host("unit", host, state)
    assert len(libvirt.discard(values, set())) == 3 * len(hosts) + 1
    assert set(hypervisor.volumes) == {("longrun-unit", f"{host}-data.qcow2") for host in hosts}
    assert not [call for call in hypervisor.calls if any(argument.endswith("-data.qcow2") for argument in call)]
    assert not [call for call in hypervisor.calls if call[0].startswith("pool-") or "--remove-all-storage" in call]


def test_only_the_unknown_is_removed(hypervisor: Hypervisor) -> None:
    """Of two hosts, the one that was finished goes on running; so does the network that both are in."""
    for host in ("data", "web"):
        hypervisor.host("unit", host)
    assert libvirt.discard(TWO, known("data") | {'libvirt_volume.root["web"]'}) == ["domain longrun-unit-web", "volume web-cloud-init.iso"]
    assert hypervisor.domains == {"longrun-unit-data": "running"}
    assert ("longrun-unit", "web-root.qcow2") in hypervisor.volumes
    assert hypervisor.networks == {"longrun-unit"}


def test_another_environment_is_left_alone(hypervisor: Hypervisor) -> None:
    """Names may begin alike; nothing of a neighbour's is even asked for."""
    for name in ("unit-b", "un"):
        hypervisor.host(name, "server")
    assert libvirt.discard(ONE, set()) == []
    assert not hypervisor.changes()
    assert len(hypervisor.domains) == 2


def test_a_neighbours_host_may_bear_the_same_name(hypervisor: Hypervisor) -> None:
    """Host b-c of environment a, and host c of environment a-b: one name for two domains, and only its disks say whose it is."""
    hypervisor.host("a-b", "c")
    assert libvirt.discard({"name": "a", "hosts": {"b-c": {}}}, set()) == []
    assert hypervisor.domains == {"longrun-a-b-c": "running"}


def test_half_an_image_is_removed(hypervisor: Hypervisor, recipe: Path) -> None:
    """Copying it into the pool takes longest, so that is where most runs are interrupted; a data volume's name protects it even here."""
    assert recipe.is_dir()
    image = libvirt.image_path(13).name
    for volume in (image, f"{image}.vmlinuz", f"{image}.initrd", "server-data.qcow2"):
        hypervisor.volumes["longrun-unit", volume] = GIB
    assert libvirt.discard(ONE, known("server")) == [f"volume {image}.{kind}" for kind in ("vmlinuz", "initrd")]
    assert libvirt.discard(ONE, known("server") - {"libvirt_volume.image"}) == [f"volume {image}"]
    assert libvirt.discard({**ONE, "host_image": "/srv/server-data.qcow2"}, set()) == []
    assert set(hypervisor.volumes) == {("longrun-unit", "server-data.qcow2")}


def said() -> tuple[list[str], Callable[[str], None]]:
    """Return a list, and what writes progress into it."""
    lines: list[str] = []
    return lines, lines.append


def test_a_volume_of_the_right_size_is_left_alone(hypervisor: Hypervisor) -> None:
    """20 GiB is the default, here as in Terraform; a host that is not made yet has nothing that could grow."""
    lines, say = said()
    libvirt._grow(ONE, say)
    hypervisor.host("unit", "server", size_gb=20)
    libvirt._grow(ONE, say)
    libvirt._grow({**ONE, "data_size_gb": 20}, say)
    assert not hypervisor.changes()
    assert lines == []


def test_a_volume_grows_while_its_host_is_off(hypervisor: Hypervisor) -> None:
    """The provider would make a new, empty volume of the size that is asked for."""
    lines, say = said()
    hypervisor.host("unit", "server", "shut off")
    libvirt._grow({**ONE, "data_size_gb": 50}, say)
    assert hypervisor.changes() == [("vol-resize", "--pool", "longrun-unit", "server-data.qcow2", "50G")]
    assert hypervisor.volumes["longrun-unit", "server-data.qcow2"] == 50 * GIB
    assert lines == ["enlarging the data volume of server to 50 GiB"]


def test_a_volume_grows_under_its_running_host(hypervisor: Hypervisor) -> None:
    """Changed beneath a running host, the file would be torn: the hypervisor itself does it, on the second disk of that host."""
    _, say = said()
    for host in ("data", "web"):
        hypervisor.host("unit", host)
    hypervisor.volumes["longrun-unit", "web-data.qcow2"] = 50 * GIB
    libvirt._grow({**TWO, "data_size_gb": 50}, say)
    assert hypervisor.changes() == [("blockresize", "longrun-unit-data", "vdb", "50G")]
    assert ("pool-refresh", "longrun-unit") in hypervisor.calls
    assert {size // GIB for (_, name), size in hypervisor.volumes.items() if name.endswith("-data.qcow2")} == {50}


def test_a_volume_does_not_shrink(hypervisor: Hypervisor) -> None:
    """The refusal says which size to write, and nothing is changed."""
    _, say = said()
    hypervisor.host("unit", "server", size_gb=50)
    with pytest.raises(ProblemError) as caught:
        libvirt._grow({**ONE, "data_size_gb": 30}, say)
    text = str(caught.value)
    assert text.startswith("environments/unit/server.tfvars: data_size_gb is 30, but the data volume")
    assert text.endswith("none can shrink: write data_size_gb = 50")
    assert "\n" not in text
    assert not hypervisor.changes()


def test_growth_is_foreseen(hypervisor: Hypervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan is made before anything grows, so it has to be told; the image is built, for the plan looks for the kernel beside it."""
    built: list[int] = []
    monkeypatch.setattr(libvirt, "ensure_image", lambda release, _say: built.append(release))
    for host, size_gb in (("data", 20), ("web", 50)):
        hypervisor.host("unit", host, size_gb=size_gb)
    values = {**TWO, "data_size_gb": 50}
    assert libvirt.foresee(values, print) == ["enlarge the data volume of data from 20 to 50 GiB"]
    assert libvirt.foresee({**values, "host_image": "/srv/debian.qcow2"}, print) == libvirt.foresee(values, print)
    assert built == [13, 13]
    assert not hypervisor.changes()
    with pytest.raises(ProblemError, match="none can shrink: write data_size_gb = 50"):
        libvirt.foresee({**TWO, "data_size_gb": 30}, print)
    libvirt._grow(values, print)
    assert libvirt.foresee(values, print) == []


def test_one_volume_does_not_grow_where_another_would_shrink(hypervisor: Hypervisor) -> None:
    """The refusal comes before the first change, whichever host is looked at first."""
    for host, size_gb in (("data", 20), ("web", 50)):
        hypervisor.host("unit", host, size_gb=size_gb)
    with pytest.raises(ProblemError, match="the data volume of web has 50"):
        libvirt._grow({**TWO, "data_size_gb": 30}, print)
    assert not hypervisor.changes()


def test_nothing_to_stop(hypervisor: Hypervisor) -> None:
    """`make down` for a server that is not here, or a neighbour's of a name that begins alike."""
    hypervisor.host("unit-b", "server")
    with pytest.raises(ProblemError, match="environment 'unit' has no host on this machine: nothing to stop"):
        libvirt.stop(ONE)
    assert hypervisor.domains == {"longrun-unit-b-server": "running"}


def test_stop_shuts_down_in_order(hypervisor: Hypervisor) -> None:
    """Never by pulling the plug: PostgreSQL has to end first. What is off already is not asked."""
    hypervisor.host("unit", "data")
    hypervisor.host("unit", "web", "shut off")
    hypervisor.host("unit-b", "server")
    assert not libvirt.is_running(TWO)
    libvirt.stop(TWO)
    assert hypervisor.changes() == [("shutdown", "longrun-unit-data")]
    assert hypervisor.domains["longrun-unit-b-server"] == "running"
    assert not libvirt.is_running(TWO)


def test_a_host_that_does_not_go_down_is_named(hypervisor: Hypervisor) -> None:
    """It is left running: a person decides whether to pull the plug."""
    hypervisor.host("unit", "server")
    hypervisor.obedient = False
    with pytest.raises(ProblemError, match="longrun-unit-server did not shut down within 0 s: look at it with `virsh console longrun-unit-server`"):
        libvirt.stop(ONE)
    assert libvirt.is_running(ONE)
    assert hypervisor.changes() == [("shutdown", "longrun-unit-server")]


def test_running_is_all_of_them(hypervisor: Hypervisor) -> None:
    """No host is no server; one of two is not the server either."""
    assert not libvirt.is_running(TWO)
    hypervisor.host("unit", "data")
    assert libvirt.is_running(TWO)
    hypervisor.host("unit", "web", "shut off")
    assert not libvirt.is_running(TWO)


def test_leftovers_are_found_and_not_removed(hypervisor: Hypervisor, tmp_path: Path) -> None:
    """After `make destroy`, nothing of the environment may be left, and everything of its neighbours must be."""
    values = {**ONE, "libvirt_directory": str(tmp_path)}
    hypervisor.host("unit-b", "server")
    assert libvirt.leftovers(values) == []
    hypervisor.host("unit", "server", "shut off")
    (tmp_path / "unit").mkdir()
    assert libvirt.leftovers(values) == ["domain longrun-unit-server", "net longrun-unit", "pool longrun-unit", f"folder {tmp_path}/unit"]
    assert not hypervisor.changes()


def test_without_libvirt_it_is_said_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs of a platform come with `make tools` for an environment on it, not with any."""
    monkeypatch.setattr(shutil, "which", lambda _name, **_: None)
    with pytest.raises(ProblemError, match="libvirt is not installed: `make tools` installs it, with ENV= as here"):
        libvirt.prepare(ONE, print)
    assert not libvirt.is_running(ONE)
    with pytest.raises(ProblemError, match="nothing to stop"):
        libvirt.stop(ONE)
    assert libvirt.leftovers(ONE) == []


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in /dev/kvm's place, which is not there yet, and a folder that is the whole PATH."""
    kvm = tmp_path / "kvm"
    libvirt.kvm_works.cache_clear()
    monkeypatch.setattr(libvirt, "Path", lambda path: kvm if path == "/dev/kvm" else Path(path))
    monkeypatch.setattr(tools, "sudo", list)
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("sh", "sleep", "wc"):
        (programs / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(programs))
    return kvm


def emulator(device: Path, script: str) -> None:
    """Put a program in QEMU's place."""
    program = device.parent / "programs" / "qemu-system-x86_64"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_no_kvm_without_its_device(device: Path) -> None:
    """The usual case in a virtual machine or a container: nothing is tried."""
    assert not device.exists()
    emulator(device, f"touch {device.parent}/called; exit 33")
    assert not libvirt.kvm_works()
    assert not (device.parent / "called").exists()


@pytest.mark.parametrize(
    ("script", "works"),
    [
        ("exit 33", True),
        ("echo 'qemu-system-x86_64: failed to initialize kvm: Permission denied' >&2; exit 1", False),
        ("exit 0", False),
        ("sleep 30", False),
        ("kill -ABRT $$", False),
    ],
    ids=["the guest says so", "refused", "ends by itself", "hangs", "crashes"],
)
def test_kvm_works_only_where_a_guest_ran(device: Path, monkeypatch: pytest.MonkeyPatch, script: str, *, works: bool) -> None:
    """A device that is there and runs no guest would let every host fail on start; only the guest's own status counts."""
    device.touch()
    monkeypatch.setattr(libvirt, "PROBE_TIMEOUT_SECONDS", 0.3)
    emulator(device, f'echo "$@" > {device.parent}/arguments\n{script}')
    assert libvirt.kvm_works() is works
    assert "-accel kvm -cpu host" in (device.parent / "arguments").read_text()


def test_no_kvm_without_an_emulator(device: Path) -> None:
    """Before `make tools` there is none; that is no traceback."""
    device.touch()
    assert not libvirt.kvm_works()


def test_the_probe_is_a_boot_sector() -> None:
    """A firmware boots nothing else."""
    assert len(libvirt.PROBE) == 512
    assert libvirt.PROBE.endswith(b"\x55\xaa")


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what the disk image is made from, and a cache of its own."""
    folder = tmp_path / "recipe"
    for name, path in (("SHARED", libvirt.SHARED), ("IMAGE", libvirt.IMAGE)):
        shutil.copytree(path, folder / name)
        monkeypatch.setattr(libvirt, name, folder / name)
    monkeypatch.setenv("LONGRUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tools, "check_disk", lambda _directory, _needed_gb: None)
    return folder


@pytest.mark.parametrize("file", ["SHARED/packages", "IMAGE/packages", "IMAGE/prepare", "IMAGE/setup"])
def test_another_recipe_is_another_image(recipe: Path, tmp_path: Path, file: str) -> None:
    """Terraform knows an image by its name: an old one must not pass for a new one."""
    before = {release: libvirt.image_path(release) for release in (12, 13)}
    assert len(set(before.values())) == 2
    assert all(path.parent == tmp_path / "cache" / "images" for path in before.values())
    assert before == {release: libvirt.image_path(release) for release in (12, 13)}
    with (recipe / file).open("a") as changed:
        changed.write("\n# another\n")
    assert not set(before.values()) & {libvirt.image_path(release) for release in (12, 13)}


def test_the_image_has_what_the_roles_install() -> None:
    """What is missing would be unpacked by an emulated processor; another user's number than the role's would leave the data volume to a stranger."""
    base = yaml.safe_load((ROOT / "ansible" / "roles" / "base" / "vars" / "main.yml").read_text())
    installed = {*(libvirt.SHARED / "packages").read_text().split(), *(libvirt.IMAGE / "packages").read_text().split()}
    assert installed >= {*base["_base_packages"], "brotli", "libnginx-mod-http-brotli-static", "nginx", "postgresql", "python3-psycopg2"}
    number = base["_base_service_users"]["postgres"]
    prepare = (libvirt.IMAGE / "prepare").read_text()
    assert f"postgres:*:{number}:{number}:" in prepare
    assert f"postgres:*:{number}:\\n" in prepare


def fake_bootstrap(_release: int, _packages: Sequence[Path], _setup: Path, tree: Path, _prepare: Path) -> None:
    """Make the folder that Debian would be installed into, with what the image takes from it."""
    (tree / "boot").mkdir(parents=True)
    for name in ("vmlinuz-6.12.1-amd64", "initrd.img-6.12.1-amd64"):
        (tree / "boot" / name).write_text(f"{name}\n")


def fake_run(_say: str, *command: str | Path) -> None:
    """Do in a folder what the image's programs do, without them."""
    match list(map(str, command)):
        case ["install", "-m", "0644", source, target]:
            shutil.copy(source, target)
        case ["mke2fs", *_, raw, "3G"]:
            Path(raw).write_text("disk\n")
        case ["qemu-img", *_, raw, part]:
            shutil.copy(raw, part)
        case ["rm", "-rf", tree]:
            shutil.rmtree(tree, ignore_errors=True)
        case other:
            pytest.fail(f"not expected: {other}")


def test_the_image_is_made_once(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Disk, kernel and initrd lie side by side, as main.tf looks for them, and nothing else does."""
    assert recipe.is_dir()
    lines, say = said()
    monkeypatch.setattr(debian, "bootstrap", fake_bootstrap)
    monkeypatch.setattr(libvirt, "_run", fake_run)
    image = libvirt.ensure_image(13, say)
    assert {path.name: path.read_text() for path in image.parent.iterdir()} == {
        image.name: "disk\n",
        f"{image.name}.vmlinuz": "vmlinuz-6.12.1-amd64\n",
        f"{image.name}.initrd": "initrd.img-6.12.1-amd64\n",
    }
    assert lines
    monkeypatch.setattr(libvirt, "_run", lambda *command: pytest.fail(f"not expected: {command}"))
    assert libvirt.ensure_image(13, say) == image


@pytest.mark.parametrize("broken", ["install", "mke2fs", "qemu-img"])
def test_half_an_image_is_none(recipe: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """An image without its kernel, or cut off, would be taken for a whole one by the next run."""
    assert recipe.is_dir()

    def run(say: str, *command: str | Path) -> None:
        if command[0] == broken:
            message = f"the disk image could not be made ({say}): no space left on device"
            raise ProblemError(message)
        fake_run(say, *command)

    monkeypatch.setattr(debian, "bootstrap", fake_bootstrap)
    monkeypatch.setattr(libvirt, "_run", run)
    with pytest.raises(ProblemError, match="the disk image could not be made"):
        libvirt.ensure_image(13, print)
    assert not libvirt.image_path(13).exists()
    assert not list(libvirt.image_path(13).parent.iterdir())


def test_what_a_person_chose_is_not_looked_for(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk image or a domain type in server.tfvars wins, and costs neither a build nor a probe."""
    assert recipe.is_dir()
    monkeypatch.setattr(libvirt, "kvm_works", lambda: True)
    assert libvirt.terraform_variables(recipe, ONE) == {"host_image": str(libvirt.image_path(13)), "libvirt_domain_type": "kvm"}
    assert libvirt.terraform_variables(recipe, {**ONE, "debian_release": 12})["host_image"] == str(libvirt.image_path(12))
    monkeypatch.setattr(libvirt, "kvm_works", lambda: False)
    assert libvirt.terraform_variables(recipe, ONE)["libvirt_domain_type"] == "qemu"
    monkeypatch.setattr(libvirt, "kvm_works", lambda: pytest.fail("KVM was tried"))
    assert libvirt.terraform_variables(recipe, {**ONE, "host_image": "/srv/debian.qcow2", "libvirt_domain_type": "qemu"}) == {}


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        ("Error: failed to dial libvirt: dial unix /var/run/libvirt/libvirt-sock: connect: no such file or directory", "systemctl enable --now libvirtd"),
        ("failed to connect to the hypervisor", "libvirt does not answer"),
        ("internal error: qemu unexpectedly closed the monitor: failed to initialize kvm: Permission denied", 'write libvirt_domain_type = "qemu"'),
        ("error creating libvirt volume: storage volume 'server-data.qcow2' already exists", "bring the state back from a copy"),
        ("internal error: Network is already in use by interface virbr1", "set another `subnet`, a /24, in server.tfvars"),
        ("bridge name 'virbr2' overlaps with another network", "set another `subnet`"),
        ("internal error: qemu unexpectedly closed the monitor: Cannot allocate memory", None),
        ("something else", None),
    ],
)
def test_known_errors_say_what_to_do(problem: str, expected: str | None) -> None:
    """The provider speaks of sockets and monitors; an error that we don't know is shown as it is."""
    explained = libvirt.explain(problem)
    assert (explained is None) is (expected is None)
    assert "\n" not in (explained or "")
    assert (expected or "") in (explained or "")
