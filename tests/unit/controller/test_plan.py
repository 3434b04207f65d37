"""What would be done is shown first, changes nothing, and is what is done then: the real Terraform, on a platform without a provider."""

import fcntl
import itertools
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from longrun_controller import cli, playbooks, secrets, terraform
from longrun_controller.environment import Environment
from longrun_controller.plan import Plan
from longrun_controller.terraform import Terraform

from tests.unit.controller.conftest import Platform, Run, change, lay_out, resources, step

KEY = "ssh-ed25519 AAAA longrun\n"
VALUES = 'platform = "container"\nname = "local"\n'
REPLACED = f"{VALUES}host_size = 2\n"
MISMATCH = "what was shown is not what would be done now, so nothing was changed: run `make plan ENV=local` again"
Edit = Callable[[str, str], Path]


@pytest.fixture(scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The state of a server that was made once, for Terraform takes its time."""
    directory = tmp_path_factory.mktemp("original")
    lay_out(directory / "source")
    (directory / "server.tfvars").write_text(VALUES)
    environment = Environment("local", directory, {"platform": "container", "name": "local"})
    environment.ssh_public_key.write_text(KEY)
    mask = os.umask(0o022)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(terraform, "SOURCE", directory / "source")
        patch.setattr(terraform, "platform_of", {"container": Platform()}.__getitem__)
        assert Terraform(environment).apply(step())
    os.umask(mask)
    return environment.state.read_bytes()


@pytest.fixture
def server(local: Environment, source: Path, platform: Platform, state: bytes, edit: Edit) -> Iterator[Environment]:
    """The environment `local` of the platform, with that server's state."""
    assert source.is_dir()
    assert platform.calls == []
    mask = os.umask(0o022)
    edit("server.tfvars", VALUES)
    local.ssh_public_key.write_text(KEY)
    local.state.write_bytes(state)
    yield Environment.load("local")
    os.umask(mask)


@pytest.fixture
def command(run: Run, platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Run one command for that platform, up to what Ansible would do."""
    monkeypatch.setattr(cli, "platform_of", {"container": platform}.__getitem__)

    def ensure(_environment: Environment) -> bool:
        platform.calls.append("secrets")
        return False

    monkeypatch.setattr(secrets, "ensure", ensure)
    monkeypatch.setattr(secrets, "ensure_authority", lambda _environment, _name: False)
    monkeypatch.setattr(playbooks, "run", lambda _step, _environment, _playbook: 0)
    platform.calls.clear()
    mask = os.umask(0o022)
    yield run
    os.umask(mask)


@pytest.fixture
def digest(server: Environment, command: Run, platform: Platform) -> Callable[[], str]:
    """Make a plan and return its digest."""
    assert server.state.exists()

    def plan() -> str:
        status, out, _ = command("plan", "--env", "local")
        assert status == 0
        platform.calls.clear()
        return found(out)

    return plan


def found(out: str) -> str:
    """Return the digest in the last line of what `plan` printed."""
    last = out.splitlines()[-1]
    assert re.fullmatch(r"plan: [0-9a-f]{64}", last)
    assert out.endswith(f"{last}\n")
    return last.removeprefix("plan: ")


def files(environment: Environment) -> dict[str, bytes]:
    """Return all that is in an environment's folder, but the logs."""
    return {str(path): path.read_bytes() for path in environment.directory.rglob("*") if path.is_file() and not path.is_relative_to(environment.logs)}


def refused(answer: tuple[int, str, str]) -> str:
    """Return the one line with which a command ended that printed and did nothing."""
    status, out, err = answer
    assert (status, out) == (1, "")
    [line] = [line for line in err.splitlines() if line.startswith("longrun:")]
    return line


def test_a_plan_is_shown_and_nothing_changes(server: Environment, command: Run, platform: Platform, edit: Edit) -> None:
    """Not the state, not the copy of the folder that other commands read; nothing is prepared, started, stopped or removed."""
    edit("server.tfvars", REPLACED)
    before = files(server)
    status, out, err = command("plan", "--env", "local")
    assert status == 0
    found(out)
    assert 'module.host["server"].terraform_data.host must be replaced' in out
    assert "1 to add, 0 to change, 1 to destroy" in out
    assert "\x1b" not in out
    assert "plan (Terraform)" in err
    assert platform.calls == ["foresee"]
    assert files(server) == before
    assert not list(server.directory.glob(".terraform/plan-*"))


def test_a_plan_in_colour(server: Environment, tmp_path: Path, edit: Edit) -> None:
    """On a terminal, as Terraform itself shows it."""
    edit("server.tfvars", REPLACED)
    terraform = Terraform(server, tmp_path / "scratch")
    plan = terraform.plan(step(), [])
    plain, coloured = (terraform.readable(plan, colour=colour) for colour in (False, True))
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured).split() == plain.split()


def test_nothing_to_do_is_a_plan(digest: Callable[[], str], command: Run, platform: Platform) -> None:
    """A pipeline that asks every night gets a digest, and `provision` finds nothing to do."""
    before = digest()
    status, out, _ = command("plan", "--env", "local")
    assert status == 0
    assert "No changes." in out
    assert found(out) == before
    assert command("provision", "--env", "local", "--plan", before)[0] == 0
    assert platform.stopped == 0


def test_the_first_plan(local: Environment, edit: Edit, command: Run, platform: Platform, source: Path) -> None:
    """Before there is a server: the ssh key is made, for the hosts are told of it, and neither vault nor state. What an interrupted run left is named."""
    assert source.is_dir()
    edit("server.tfvars", VALUES)
    status, out, err = command("plan", "--env", "local")
    assert status == 0
    assert out.startswith("Before Terraform does anything:\n  - remove container longrun-local-server, which an interrupted run had made")
    assert "2 to add, 0 to change, 0 to destroy" in out
    assert "ssh key made" in err
    assert {path.name for path in local.directory.iterdir()} == {
        *("server.tfvars", "vars.yml", "users.yml"),
        *("ssh_key", "ssh_key.pub", ".terraform", "logs"),
    }
    assert platform.calls == ["foresee"]
    _, again, err = command("plan", "--env", "local")
    assert again == out
    assert "ssh key made" not in err
    platform.calls.clear()
    assert command("provision", "--env", "local", "--plan", found(out))[0] == 0
    assert platform.asked == [set()]
    assert len(resources(local)) == 2


def test_the_public_key_is_enough(server: Environment, command: Run, digest: Callable[[], str]) -> None:
    """Whoever only shows plans need not be able to log in; another key would be another host."""
    assert not server.ssh_key.exists()
    digest()
    assert not server.ssh_key.exists()
    server.ssh_public_key.rename(server.ssh_key)
    assert "ssh_key.pub is missing: `ssh-keygen -y" in refused(command("plan", "--env", "local"))


def test_a_digest_is_that_of_all_that_would_be_done(digest: Callable[[], str], platform: Platform, source: Path, edit: Edit) -> None:
    """Equal for equal plans; another one for another value, image, host, output, or step before Terraform's."""
    digests = [digest()]
    for line in ('label = "other"', "host_size = 2", "host_size = 3"):
        edit("server.tfvars", f"{VALUES}{line}\n")
        digests.append(digest())
    assert digest() == digests[-1]
    edit("server.tfvars", VALUES)
    platform.foreseen.append("enlarge the data volume of server from 20 to 30 GiB")
    digests.append(digest())
    platform.foreseen.clear()
    for pattern, replacement in (
        (re.escape('default = ["server"]'), 'default = ["server", "web"]'),
        # What Ansible is told, without any resource.
        (re.escape('["server", "web"]'), '["server"]\n}\noutput "more" {\n  value = 1'),
        ("value = 1\n", "value = 2\n"),
        # What the platform tells Terraform: the image.
        ("given = var.given\n", 'given = "image-2"\n'),
        ("image-2", "image-3"),
    ):
        change(source, pattern, replacement)
        digests.append(digest())
    assert digest() == digests[-1]
    assert len(set(digests)) == len(digests) == 10


def test_what_is_not_known_yet_is_part_of_it(digest: Callable[[], str], source: Path) -> None:
    """A value that only `apply` learns is another thing than none."""
    change(source, re.escape("value = {}"), "value = { id = terraform_data.later.id }")
    with (source / "main.tf").open("a") as main:
        main.write('\nresource "terraform_data" "later" {\n  input = null\n}\n')
    known = digest()
    change(source, "input = null", "input = timestamp()")
    unknown = digest()
    assert unknown != known
    assert digest() == unknown


def test_a_secret_value_is_part_of_it_and_never_shown(server: Environment, command: Run, source: Path, edit: Edit) -> None:
    """Another password is another change, though nobody sees which."""
    change(source, 'default = "data"\n', 'default = "data"\n  sensitive = true\n')
    digests = []
    for secret in ("hush-hush", "hush-hunt"):
        edit("server.tfvars", f'{VALUES}label = "{secret}"\n')
        status, out, err = command("plan", "--env", "local")
        assert status == 0
        assert "(sensitive value)" in out
        assert not [text for text in (out, err, *(path.read_text() for path in server.logs.iterdir())) if "hush" in text]
        digests.append(found(out))
    assert len(set(digests)) == 2


def test_a_plan_is_done_as_it_was_shown(server: Environment, digest: Callable[[], str], command: Run, platform: Platform, edit: Edit) -> None:
    """The check comes before everything that `provision` starts, removes or stops."""
    edit("server.tfvars", REPLACED)
    host = 'module.host["server"].terraform_data.host.None'
    before = resources(server)
    assert command("provision", "--env", "local", "--plan", digest())[0] == 0
    assert resources(server)[host]["id"] != before[host]["id"]
    assert platform.calls == ["secrets", "foresee", "prepare", "start", "discard", "stop", "start"]


def test_what_was_not_shown_is_not_done(server: Environment, digest: Callable[[], str], command: Run, platform: Platform, edit: Edit) -> None:
    """Another line in server.tfvars, or a plan that was carried out already: one line, and everything as it was."""
    shown = digest()
    edit("server.tfvars", REPLACED)
    before = server.state.read_bytes()
    assert MISMATCH in refused(command("provision", "--env", "local", "--plan", shown))
    assert server.state.read_bytes() == before
    assert platform.calls == ["secrets", "foresee"]
    shown = digest()
    assert command("provision", "--env", "local", "--plan", shown)[0] == 0
    assert MISMATCH in refused(command("provision", "--env", "local", "--plan", shown))


def test_a_host_that_stands_still_is_started_only_as_shown(digest: Callable[[], str], command: Run, platform: Platform) -> None:
    """What is done beside Terraform is in the list, so the list is part of the digest."""
    shown = digest()
    platform.foreseen.append("start container longrun-local-server")
    assert MISMATCH in refused(command("provision", "--env", "local", "--plan", shown))
    status, out, _ = command("plan", "--env", "local")
    assert status == 0
    assert out.startswith("Before Terraform does anything:\n  - start container longrun-local-server\n")


def test_no_digest_is_no_check(server: Environment, command: Run, platform: Platform, edit: Edit) -> None:
    """Without one, `provision` does what it always did, in the same order."""
    edit("server.tfvars", f'{VALUES}label = "other"\n')
    assert command("provision", "--env", "local")[0] == 0
    assert resources(server)["terraform_data.volume.server"]["input"]["value"] == "other"
    assert platform.calls == ["secrets", "prepare", "start", "discard", "start"]


@pytest.mark.parametrize("given", ["", "0" * 63, "plan: " + "0" * 64])
def test_no_digest_at_all_is_refused_at_once(server: Environment, command: Run, platform: Platform, given: str) -> None:
    """A pipeline whose step before printed nothing must not provision unseen."""
    before = files(server)
    assert "leave PLAN out to provision without a check" in refused(command("provision", "--env", "local", "--plan", given))
    assert platform.calls == []
    assert files(server) == before


def test_a_plan_that_deletes_data_is_refused(server: Environment, command: Run, platform: Platform, edit: Edit) -> None:
    """It is no plan that anybody could agree to, so it gets no digest."""
    edit("server.tfvars", f"{VALUES}size = 30\n")
    before = files(server)
    assert 'this would delete or replace terraform_data.volume["server"], with the history' in refused(command("plan", "--env", "local"))
    assert files(server) == before
    assert "with the history of every run" in refused(command("provision", "--env", "local", "--plan", "0" * 64))
    assert server.state.read_bytes() == before[str(server.state)]
    assert platform.calls == ["foresee", "secrets", "foresee"]


def test_what_the_platform_does_itself_is_not_terraforms(server: Environment, command: Run, platform: Platform, source: Path, edit: Edit) -> None:
    """Libvirt's data volumes are enlarged before Terraform's plan, which by itself would replace them; the guard stays."""
    platform.PREPARED["terraform_data.volume"] = "triggers_replace"
    platform.foreseen.append("enlarge the data volume of server from 20 to 30 GiB")
    edit("server.tfvars", f'{VALUES}size = 30\nlabel = "other"\n')
    status, out, _ = command("plan", "--env", "local")
    assert status == 0
    assert "  - enlarge the data volume of server from 20 to 30 GiB\n" in out
    assert "0 to add, 1 to change, 0 to destroy" in out
    before = resources(server)
    assert command("provision", "--env", "local", "--plan", found(out))[0] == 0
    after = resources(server)
    assert after["terraform_data.volume.server"]["id"] == before["terraform_data.volume.server"]["id"]
    assert after["terraform_data.volume.server"]["input"]["value"] == "other"
    change(source, re.escape('["server"]'), '["web"]')
    assert "with the history of every run" in refused(command("plan", "--env", "local"))


def test_a_state_that_cannot_be_read_gives_no_plan(server: Environment, command: Run, platform: Platform) -> None:
    """It must not pass for one that holds nothing, of which the plan would be to make everything."""
    server.state.write_text('{"version": 4, ')
    before = files(server)
    for arguments in (["plan"], ["provision", "--plan", "0" * 64]):
        assert refused(command(arguments[0], "--env", "local", *arguments[1:]))
    assert server.state.read_bytes() == before[str(server.state)]
    assert platform.calls == ["foresee", "secrets", "foresee"]


def test_a_state_out_of_reach_gives_no_plan(server: Environment, command: Run, tmp_path: Path) -> None:
    """A backend that does not answer, here one that Terraform does not know."""
    server.backend.write_text('terraform {\n  backend "nowhere" {}\n}\n')
    server.state.rename(tmp_path / "elsewhere.tfstate")
    assert "nowhere" in refused(command("plan", "--env", "local"))


def test_a_plan_disturbs_nobody(server: Environment, command: Run, digest: Callable[[], str]) -> None:
    """While somebody applies, the state is locked and its folder in use: a plan waits for neither and takes neither away."""
    shown = digest()
    mark = server.directory / ".terraform" / "tree" / "in-use"
    mark.parent.mkdir(parents=True)
    mark.touch()
    with server.state.open("r+") as state:
        fcntl.lockf(state, fcntl.LOCK_EX)
        assert digest() == shown
        assert mark.exists()
        assert "lock" in refused(command("provision", "--env", "local", "--plan", shown))


def test_a_state_that_has_to_move_stays_where_it_is(server: Environment, command: Run, tmp_path: Path, edit: Edit) -> None:
    """A plan only says so; the same plan is then carried out on the state where it went."""
    elsewhere = tmp_path / "shared" / "team.tfstate"
    elsewhere.parent.mkdir()
    server.backend.write_text(f'terraform {{\n  backend "local" {{\n    path = "{elsewhere}"\n  }}\n}}\n')
    edit("server.tfvars", f'{VALUES}label = "other"\n')
    before = files(server)
    status, out, err = command("plan", "--env", "local")
    assert status == 0
    assert "0 to add, 1 to change, 0 to destroy" in out
    assert "will first move the state to where environments/local/backend.tf says" in " ".join(err.split())
    assert files(server) == before
    assert not elsewhere.exists()
    assert command("provision", "--env", "local", "--plan", found(out))[0] == 0
    assert not server.state.exists()
    assert '"value": "other"' in elsewhere.read_text()


def entry(name: str, *actions: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return one change of a plan as `terraform show -json` gives it."""
    return {"address": name, "type": "terraform_data", "name": name, "change": {"actions": list(actions), "before": {"x": 1}, "after": {"x": 2}}, **more}


def plan(*changes: dict[str, Any], environment: str = "local", beforehand: tuple[str, ...] = (), **more: Any) -> Plan:  # noqa: ANN401
    """Return a plan with these changes."""
    return Plan(environment, Path("make.tfplan"), {"resource_changes": list(changes), **more}, beforehand)


def test_order_and_time_make_no_difference() -> None:
    """Nor does what stays as it is, though something in it may have been read anew."""
    same = [
        plan(entry("a", "update"), entry("b", "create"), timestamp="2026-11-26T07:00:00Z"),
        plan(entry("b", "create"), entry("a", "update"), timestamp="2026-11-26T08:00:00Z", prior_state={"values": {}}),
        plan(entry("b", "create"), dict(reversed(entry("a", "update").items()))),
        plan(entry("b", "create"), entry("a", "update"), entry("c", "no-op"), output_changes={"public_url": {"actions": ["no-op"], "after": "https://a"}}),
    ]
    assert len({one.digest for one in same}) == 1


def test_each_difference_is_one() -> None:
    """All that Terraform says of a change counts, for all of it would be done."""
    unlike = [
        plan(),
        plan(environment="staging"),
        plan(beforehand=("start host",)),
        plan(entry("a", "update")),
        plan(entry("b", "update")),
        plan(entry("a", "delete", "create")),
        plan(entry("a", "create", "delete")),
        plan(entry("a", "update", deposed="0a1b2c3d")),
        plan(entry("a", "no-op", previous_address="b")),
        plan({**entry("a", "update"), "change": {"actions": ["update"], "before": {"x": 0}, "after": {"x": 2}}}),
        plan({**entry("a", "update"), "change": {"actions": ["update"], "before": {"x": 1}, "after": {"x": 3}}}),
        plan({**entry("a", "update"), "change": {"actions": ["update"], "before": {"x": 1}, "after": {"x": "2"}}}),
        plan({**entry("a", "update"), "change": {"actions": ["update"], "before": {"x": 1}, "after": {}, "after_unknown": {"x": True}}}),
        plan({**entry("a", "update"), "change": {"actions": ["update"], "before": {"x": 1}, "after": {}, "after_unknown": {"x": False}}}),
        plan({**entry("a", "no-op"), "change": {"actions": ["no-op"], "importing": {"id": "a"}}}),
        plan(output_changes={"public_url": {"actions": ["update"], "before": "https://a", "after": "https://b"}}),
        plan(action_invocations=[{"address": "action.reboot.host"}]),
    ]
    for one, other in itertools.combinations(unlike, 2):
        assert one.digest != other.digest, (one, other)
    assert not [one for one in unlike if not re.fullmatch("[0-9a-f]{64}", one.digest)]


def test_nothing_to_do_is_told_from_something() -> None:
    """`apply` asks."""
    assert plan(entry("a", "update")).changes
    assert not Plan("local", Path("make.tfplan"), {}).changes
