"""The whole way on a virtual machine of libvirt: its own kernel, a disk of its own for the data, and another machine in its place.

Under emulation this takes some three quarters of an hour, so it is no part of `make test`; and as Python takes some seconds to start there, Ansible starts it
once for all of its tasks, which is not how it works elsewhere (`hurried`). Tests run in the order they stand here.
"""

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import pytest
from longrun_controller.environment import Environment
from longrun_controller.platforms import libvirt
from longrun_controller.progress import Progress
from longrun_controller.terraform import Terraform

from tests.e2e.conftest import fresh
from tests.servers import ENVIRONMENTS, ROOT, Server, api, artifacts_of, hurried, remove, run, runs_of, say, versions_of

NAME = "e2e-vm"
HEARTBEAT_SECONDS = 30.0
# Only to end what hangs: a slow machine may take twice as long as a quick one.
MAKE_TIMEOUT_SECONDS = 5400.0
# Libvirt's daemons, where no systemd runs them: stopped again if they were started for this.
DAEMONS = ("libvirtd", "virtlogd")


class Machine(Server):
    """An environment on libvirt, whose long commands show their progress."""

    @cached_property
    def real(self) -> bool:
        """Whether its processor is one, and not emulated."""
        return libvirt.kvm_works()

    def slowly(self, *arguments: str) -> str:
        """Run `make`, with the last line that it said every half a minute, and return all that it said."""
        say(f"make {' '.join(arguments)}")
        started, before = time.monotonic(), self.log.stat().st_size if self.log.exists() else 0
        done = threading.Event()

        def show() -> None:
            while not done.wait(HEARTBEAT_SECONDS):
                lines = self.log.read_text()[before:].splitlines() or ["..."]
                say(f"{time.monotonic() - started:5.0f} s  {lines[-1].strip()}")

        thread = threading.Thread(target=show)
        thread.start()
        try:
            with self.log.open("a") as log:
                status = subprocess.run(
                    ["make", "-s", *arguments, f"ENV={self.name}"],
                    cwd=ROOT,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    timeout=MAKE_TIMEOUT_SECONDS,
                    check=False,
                    env={**os.environ, **({} if self.real else hurried())},
                ).returncode
        finally:
            done.set()
            thread.join()
        text = self.log.read_text()[before:]
        for line in text.splitlines():
            if line.startswith(("✓", "✗")):
                say(f"       {line}")
        if status:
            pytest.fail(f"make {' '.join(arguments)} ended with {status}:\n{text[-3000:]}", pytrace=False)
        return text

    def ssh(self, command: str) -> str:
        """Run a command as root on the host and return what it printed."""
        address = self.outputs()["hosts"]["server"]["address"]
        options: list[str | Path] = [
            "-i",
            self.directory / "ssh_key",
            "-o",
            f"UserKnownHostsFile={self.directory / 'known_hosts'}",
            "-o",
            "StrictHostKeyChecking=yes",
            # A machine that hangs says so within minutes, not at the end of the test's time.
            "-o",
            "ConnectTimeout=60",
            "-o",
            "ServerAliveInterval=15",
            "-o",
            "ServerAliveCountMax=8",
        ]
        return run(["ssh", *options, f"longrun@{address}", f"sudo {command}"], log=self.log).stdout


def _daemons() -> list[int]:
    return [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/comm")
        if path.exists() and path.read_text().strip() in DAEMONS and "-d" in (path.parent / "cmdline").read_text()
    ]


@pytest.fixture(scope="session")
def machine(logs: Path) -> Iterator[Machine]:
    """Make a fresh server on a virtual machine; whatever happens, nothing of it is left."""
    there = _daemons()
    remove(NAME)
    server = Machine(NAME, fresh(logs / "vm.log"))
    server.make("new", "PLATFORM=libvirt")
    server.edit("server.tfvars", r"(?m)^memory_mb.*$", "memory_mb      = 2560")
    server.edit("server.tfvars", r"(?m)^data_size_gb.*$", "data_size_gb   = 8")
    # An emulated processor takes three minutes to start an instance; two at once are the container platform's test.
    server.edit("vars.yml", r"mlflow_instances: 2", "mlflow_instances: 1\nmlflow_start_seconds: 900")
    try:
        server.slowly("up")
        yield server
    finally:
        say(f"removing {NAME}")
        remove(NAME)
        for process in set(_daemons()) - set(there):
            subprocess.run(["kill", str(process)], check=False)


def test_up_makes_a_machine_of_its_own(machine: Machine) -> None:
    """Not this machine's kernel, and the data on a disk that was formatted once."""
    assert machine.ssh("systemd-detect-virt").strip() in {"kvm", "qemu"}
    assert machine.ssh("cat /proc/sys/kernel/random/boot_id") != Path("/proc/sys/kernel/random/boot_id").read_text()
    mount = machine.ssh("findmnt --noheadings --output SOURCE,FSTYPE,SIZE --bytes /srv/longrun").split()
    assert mount[:2] == ["/dev/vdb", "ext4"]
    assert int(mount[2]) > 7 * 2**30
    assert machine.ssh("stat -c %a /srv/longrun/ssh/ssh_host_ed25519_key").strip() == "600"
    client = machine.client()
    assert len(runs_of(client, "diabetes")) == 1
    assert versions_of(client, "diabetes") == [1]


def test_the_next_plan_is_empty(machine: Machine) -> None:
    """What libvirt fills in by itself must not come back as a change, for on this platform a change is another machine."""
    with Progress(machine.directory / "logs").step("host") as step:
        assert not Terraform(Environment.load(NAME)).apply(step)


def test_read_only_checks(machine: Machine) -> None:
    """`tests/server` and `make verify` hold here as on any server."""
    done = run([sys.executable, "-m", "pytest", "-q", "tests/server"], environment={"LONGRUN_ENV": NAME}, log=machine.log, check=False)
    if done.status:
        pytest.fail(done.stdout[-3000:], pytrace=False)
    assert re.search(r"[1-9]\d* passed", done.stdout)
    machine.slowly("verify")


def test_a_smaller_disk_is_refused(machine: Machine) -> None:
    """A volume can't shrink; the only way to obey would be a new one."""
    before = machine.edit("server.tfvars", r"(?m)^data_size_gb.*$", "data_size_gb   = 6")
    failed = machine.make("provision", check=False)
    (machine.directory / "server.tfvars").write_text(before)
    assert failed.status != 0
    lines = [line for line in failed.stderr.splitlines() if line.startswith("longrun:")]
    assert len(lines) == 1
    assert "data_size_gb = 8" in lines[0]


def test_another_machine_keeps_the_data(machine: Machine) -> None:
    """Shut down, then a new image, more memory and a larger disk: another machine, the same volume, every run, model and artifact."""
    client = machine.client()
    runs = runs_of(client, "diabetes")
    artifacts = artifacts_of(client, runs[0])
    assert "figures/residuals.png" in artifacts
    old = machine.ssh("cat /etc/machine-id")
    authority = (machine.directory / "ca.crt").read_bytes()
    image = libvirt.image_path(13)
    other = ENVIRONMENTS / NAME / "other.qcow2"
    for path in (image, *(image.with_name(f"{image.name}.{kind}") for kind in ("vmlinuz", "initrd"))):
        shutil.copy(path, other.with_name(path.name.replace(image.name, other.name)))
    machine.slowly("down")
    failed = machine.make("status", check=False)
    assert failed.status != 0
    assert "stopped" in failed.text
    machine.edit("server.tfvars", r"(?m)^memory_mb.*$", f'memory_mb      = 3072\nhost_image     = "{other}"')
    machine.edit("server.tfvars", r"(?m)^data_size_gb.*$", "data_size_gb   = 10")
    machine.slowly("provision")
    machine.slowly("deploy")
    assert machine.ssh("cat /etc/machine-id") != old
    assert int(machine.ssh("findmnt --noheadings --output SIZE --bytes /srv/longrun")) > 9 * 2**30
    assert (machine.directory / "ca.crt").read_bytes() == authority
    assert runs_of(client, "diabetes") == runs
    assert artifacts_of(client, runs[0]) == artifacts
    assert api(client, "registered-models/get", name="diabetes")["registered_model"]["name"] == "diabetes"


def test_destroy_leaves_nothing(machine: Machine) -> None:
    """No machine, network, pool, or file."""
    values = Environment.load(NAME).values
    machine.slowly("destroy", f"CONFIRM={NAME}")
    assert libvirt.leftovers(values) == []
    listed = run(["virsh", "--connect", libvirt.URI, "list", "--all", "--name"]).stdout
    assert NAME not in listed
    assert not (machine.directory / "terraform.tfstate").exists()
