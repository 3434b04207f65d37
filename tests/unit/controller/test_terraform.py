"""How the controller drives Terraform: the real program, on a platform without a provider. What holds history is never deleted."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from longrun_controller.environment import Environment
from longrun_controller.errors import ProblemError
from longrun_controller.terraform import Terraform, lost_data

from tests.unit.controller.conftest import GUARD, VOLUME, Platform, change, resources, step


def refused(environment: Environment) -> str:
    """Apply, which must be refused and leave everything as it is; return the sentence."""
    before = environment.state.read_bytes()
    with pytest.raises(ProblemError) as caught:
        Terraform(environment).apply(step())
    assert environment.state.read_bytes() == before
    text = str(caught.value)
    assert "\n" not in text
    assert "with the history of every run on it, so nothing was changed" in text
    assert text.endswith("to delete data on purpose there is `make destroy`")
    return text


def test_made_once(server: Environment, platform: Platform) -> None:
    """The second run finds nothing to do, and hands on which resources are known, whatever lies about on the machine."""
    assert sorted(resources(server)) == ['module.host["server"].terraform_data.host.None', "terraform_data.volume.server"]
    assert Terraform(server).apply(step()) is False
    assert platform.asked == [{'terraform_data.volume["server"]', 'module.host["server"].terraform_data.host'}]
    assert platform.stopped == 0
    assert Terraform(server).outputs() == {"public_url": "https://1.example.org", "hosts": {}}


def test_the_first_run_discards_what_an_interrupted_one_left(local: Environment, platform: Platform, source: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Without a state nothing is known; what was removed is said."""
    assert source.is_dir()
    local.ssh_key.with_name("ssh_key.pub").write_text("ssh-ed25519 AAAA longrun\n")
    mask = os.umask(0o022)
    try:
        assert Terraform(local).apply(step())
    finally:
        os.umask(mask)
    assert platform.asked == [set()]
    assert "removed container longrun-local-server, which an interrupted run had made and not written down" in capfd.readouterr().err


def test_a_state_that_cannot_be_read_is_not_an_empty_one(server: Environment, platform: Platform) -> None:
    """What the state does not hold is removed from the machine: with the state out of reach, that would be every host."""
    server.state.write_text('{"version": 4, ')
    with pytest.raises(ProblemError) as caught:
        Terraform(server).apply(step())
    assert "\n" not in str(caught.value)
    assert platform.asked == []


def test_the_source_stays_as_it_is(server: Environment, source: Path) -> None:
    """Two environments never share a lock file, and git sees no change; the copy holds the modules and no test."""
    files = {str(path.relative_to(source.parents[1])) for path in source.parents[1].rglob("*") if path.is_file()}
    assert files == {
        "platforms/container/main.tf",
        "platforms/container/tests/plan.tftest.hcl",
        "platforms/container/.terraform.lock.hcl",
        "modules/host/main.tf",
    }
    copy = server.directory / ".terraform" / "tree"
    assert {str(path.relative_to(copy)) for path in copy.rglob("*.*")} - {"platforms/container/.terraform.lock.hcl"} == {
        "platforms/container/main.tf",
        "modules/host/main.tf",
    }
    assert "no lock file" not in "".join(path.read_text() for path in copy.rglob("*.hcl"))
    assert not list((server.directory / ".terraform").rglob("*.tftest.hcl"))


def test_the_copy_is_made_anew(server: Environment, source: Path) -> None:
    """A file that the platform lost would otherwise go on making things."""
    copy = server.directory / ".terraform" / "tree" / "platforms" / "container"
    (copy / "old.tf").write_text('resource "terraform_data" "old" {}\n')
    (copy / "destroy_override.tf").write_text('resource "terraform_data" "volume" {\n  lifecycle {\n    prevent_destroy = false\n  }\n}\n')
    change(source, "var.size\n", "var.size + 1\n")
    assert 'terraform_data.volume["server"]' in refused(server)
    assert not (copy / "old.tf").exists()
    assert not (copy / "destroy_override.tf").exists()


def test_the_state_is_nobody_elses_to_read(server: Environment) -> None:
    """It may hold secrets, and so may a plan."""
    assert server.state.stat().st_mode & 0o077 == 0
    assert (server.directory / ".terraform" / "make.tfplan").stat().st_mode & 0o077 == 0


def test_a_guarded_volume_is_not_replaced(server: Environment, edit: Callable[[str, str], Path]) -> None:
    """Terraform's own words for it tell a person to take out the guard; ours say what to do instead."""
    edit("server.tfvars", 'platform = "container"\nname = "local"\nsize = 30\n')
    text = refused(server)
    assert 'this would delete or replace terraform_data.volume["server"], with the history' in text
    assert "lifecycle" not in text


def test_every_volume_at_stake_is_named(server: Environment, edit: Callable[[str, str], Path]) -> None:
    """Two hosts, two volumes: both are named, so that nobody takes out the first cause only."""
    edit("server.tfvars", 'platform = "container"\nname = "local"\nhosts = ["server", "web"]\n')
    assert Terraform(server).apply(step())
    edit("server.tfvars", 'platform = "container"\nname = "local"\nhosts = ["server", "web"]\nsize = 30\n')
    text = refused(server)
    assert set(re.findall(r'terraform_data\.volume\["(\w+)"\]', text)) == {"server", "web"}


def test_a_host_that_is_taken_out_keeps_its_volume(server: Environment, edit: Callable[[str, str], Path]) -> None:
    """Another name for the one host would delete the volume of the old one."""
    edit("server.tfvars", 'platform = "container"\nname = "local"\nhosts = ["web"]\n')
    assert 'terraform_data.volume["server"]' in refused(server)


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        (re.escape(GUARD), ""),
        (re.escape(VOLUME), ""),
        (re.escape(VOLUME), "\nremoved {\n  from = terraform_data.volume\n\n  lifecycle {\n    destroy = false\n  }\n}\n"),
    ],
    ids=["guard taken out", "resource taken out", "forgotten"],
)
def test_without_its_guard_the_data_is_kept_too(server: Environment, source: Path, edit: Callable[[str, str], Path], pattern: str, replacement: str) -> None:
    """`prevent_destroy` stands in the block that somebody may delete: then only the plan says what would happen."""
    change(source, pattern, replacement)
    edit("server.tfvars", 'platform = "container"\nname = "local"\nsize = 30\n')
    assert 'this would delete or replace terraform_data.volume["server"], with' in refused(server)


def test_what_holds_no_history_may_change(server: Environment, platform: Platform, edit: Callable[[str, str], Path]) -> None:
    """A label of the volume changes in place, and a host is replaced once it was stopped in order."""
    before = resources(server)
    edit("server.tfvars", 'platform = "container"\nname = "local"\nlabel = "other"\n')
    assert Terraform(server).apply(step())
    assert platform.stopped == 0
    edit("server.tfvars", 'platform = "container"\nname = "local"\nlabel = "other"\nhost_size = 2\n')
    assert Terraform(server).apply(step())
    assert platform.stopped == 1
    # Hosts beside the one that is replaced were stopped with it.
    assert platform.started > 0
    after = resources(server)
    assert after["terraform_data.volume.server"]["id"] == before["terraform_data.volume.server"]["id"]
    assert after["terraform_data.volume.server"]["input"]["value"] == "other"
    host = 'module.host["server"].terraform_data.host.None'
    assert after[host]["id"] != before[host]["id"]


def test_destroy_removes_all_of_it(server: Environment, source: Path) -> None:
    """The guard is lifted in the copy only, and the next command says that there is no server."""
    text = (source / "main.tf").read_text()
    Terraform(server).destroy(step())
    assert (source / "main.tf").read_text() == text
    assert not list(server.directory.glob("terraform.tfstate*"))
    assert not (server.directory / ".terraform" / "tree").exists()
    with pytest.raises(ProblemError, match="has no server yet"):
        Terraform(server).outputs()


def backend(server: Environment, path: Path) -> None:
    """Have the state of an environment lie elsewhere from now on."""
    path.parent.mkdir(exist_ok=True)
    server.backend.write_text(f'terraform {{\n  backend "local" {{\n    path = "{path}"\n  }}\n}}\n')


def test_a_state_that_lies_elsewhere(server: Environment, tmp_path: Path) -> None:
    """A team's backend.tf takes the place of the file in the environment's folder, for every command."""
    elsewhere = tmp_path / "shared" / "team.tfstate"
    backend(server, elsewhere)
    server.state.rename(elsewhere)
    assert Terraform(server).apply(step()) is False
    assert not server.state.exists()
    assert Terraform(server).outputs()["public_url"] == "https://1.example.org"
    Terraform(server).destroy(step())
    assert json.loads(elsewhere.read_text())["resources"] == []


def test_the_state_follows_a_new_backend(server: Environment, platform: Platform, tmp_path: Path) -> None:
    """A server that is there already must not be taken for one that nobody wrote down, and removed."""
    elsewhere = tmp_path / "shared" / "team.tfstate"
    before = sorted(resources(server))
    backend(server, elsewhere)
    assert Terraform(server).apply(step()) is False
    assert [len(known) for known in platform.asked] == [len(before)]
    assert len(json.loads(elsewhere.read_text())["resources"]) == len(before)
    assert not server.state.exists()
    assert Terraform(server).outputs()["public_url"] == "https://1.example.org"


def test_another_servers_state_is_left_alone(server: Environment, platform: Platform, tmp_path: Path) -> None:
    """The path of somebody else's state in backend.tf is a slip that must cost neither server anything."""
    elsewhere = tmp_path / "shared" / "team.tfstate"
    backend(server, elsewhere)
    state = json.loads(server.state.read_text())
    elsewhere.write_text(json.dumps({**state, "lineage": "00000000-0000-0000-0000-000000000000", "resources": []}))
    before = (server.state.read_bytes(), elsewhere.read_bytes())
    with pytest.raises(ProblemError, match="lineage"):
        Terraform(server).apply(step())
    assert (server.state.read_bytes(), elsewhere.read_bytes()) == before
    assert platform.asked == []


def test_a_known_problem_is_said_in_the_platforms_words(server: Environment, platform: Platform, edit: Callable[[str, str], Path]) -> None:
    """What to do on this platform; of an unknown one, Terraform's first error as one line."""
    edit("server.tfvars", 'platform = "container"\nname = "local"\nsize = "large"\n')
    with pytest.raises(ProblemError) as caught:
        Terraform(server).apply(step())
    assert "Invalid value for" in str(caught.value)
    platform.explained["a number is required"] = "write a number"
    with pytest.raises(ProblemError) as caught:
        Terraform(server).apply(step())
    assert str(caught.value) == "host (Terraform): write a number"


GUARDED = {
    "Terraform": """
Error: Instance cannot be destroyed

  on main.tf line 61:
  61: resource "docker_volume" "data" {

Resource docker_volume.data["server"] has lifecycle.prevent_destroy set, but
the plan calls for this resource to be destroyed. To avoid this error and
continue with the plan, either disable lifecycle.prevent_destroy or reduce
the scope of the plan using the -target option.
""",
    "OpenTofu": """
Error: Resource instance cannot be destroyed

  on main.tf line 61:
  61: resource "docker_volume" "data" {

Resource instance docker_volume.data["server"] has prevent_destroy set, but
the plan calls for it to be destroyed.

To proceed, either disable prevent_destroy for this resource or exclude
instances of this resource from this round using:
    -exclude="docker_volume.data"
""",
}


@pytest.mark.parametrize("program", GUARDED)
def test_a_guard_is_explained_whoever_says_it(local: Environment, program: str) -> None:
    """Both programs tell a person to take out the guard, each in words of its own."""
    text = Terraform(local)._explain(GUARDED[program].splitlines())
    assert text
    assert text.startswith('this would delete or replace docker_volume.data["server"], with the history of every run on it')


def planned(kind: str, name: str, *actions: str, module: str = "") -> dict[str, Any]:
    """Return one change of a plan as `terraform show -json` gives it."""
    address = f'{module}{kind}.{name}["server"]'
    return {"address": address, "mode": "managed", "type": kind, "name": name, "index": "server", "change": {"actions": list(actions)}}


@pytest.mark.parametrize("actions", [["delete"], ["delete", "create"], ["create", "delete"], ["forget"], ["create", "forget"]], ids="-".join)
def test_each_way_to_lose_data_is_found(actions: list[str]) -> None:
    """Deleted, replaced in either order, or no longer known to Terraform, whose next run would make an empty one."""
    plan = {"resource_changes": [planned("libvirt_domain", "host", "delete", "create"), planned("libvirt_volume", "data", *actions)]}
    assert lost_data(plan, ("libvirt_volume.data", "libvirt_pool.this")) == ['libvirt_volume.data["server"]']


@pytest.mark.parametrize("actions", [["no-op"], ["create"], ["read"], ["update"]], ids="-".join)
def test_other_changes_of_data_are_allowed(actions: list[str]) -> None:
    """A volume that is made, or that grows in place, loses nothing."""
    assert lost_data({"resource_changes": [planned("aws_ebs_volume", "data", *actions)]}, ("aws_ebs_volume.data",)) == []


def test_only_the_named_resources_count() -> None:
    """A root disk is of the data volume's type, and a network may bear the data volume's name; both may go."""
    changes = [planned("libvirt_volume", "root", "delete"), planned("libvirt_network", "data", "delete"), planned("libvirt_volume", "database", "delete")]
    assert lost_data({"resource_changes": changes}, ("libvirt_volume.data",)) == []
    assert lost_data({}, ("libvirt_volume.data",)) == []


def test_data_within_a_module_counts() -> None:
    """Moved into a module, a volume has another address and the same history."""
    plan = {"resource_changes": [planned("libvirt_volume", "data", "delete", module="module.disks."), planned("libvirt_pool", "this", "delete")]}
    assert lost_data(plan, ("libvirt_volume.data", "libvirt_pool.this")) == ['module.disks.libvirt_volume.data["server"]', 'libvirt_pool.this["server"]']
