"""What a person writes into an environment's folder, and every way to get it wrong."""

import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from longrun_controller.environment import Environment, cache_directory, check_name, create, load_yaml
from longrun_controller.errors import ProblemError

Edit = Callable[[str, str], Path]
TFVARS = 'platform = "container"\nname = "local"\n'


@pytest.mark.parametrize("name", ["a", "local", "team-b2", "a" * 30])
def test_good_names(name: str) -> None:
    """These are host names, container names and DNS labels alike."""
    check_name(name)


@pytest.mark.parametrize("name", ["", "A", "2b", "-a", "a b", "a_b", "../local", "a" * 31, "a\n", "ä"])
def test_bad_names_are_refused(name: str) -> None:
    """The name ends up in paths, container names and certificates; a `../` in it would leave the folder."""
    with pytest.raises(ProblemError, match="can't name a server"):
        check_name(name)


def test_the_cache_can_be_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small home directory is a reason to build elsewhere; an empty variable is none."""
    monkeypatch.setenv("LONGRUN_CACHE", "/srv/cache")
    assert cache_directory() == Path("/srv/cache")
    monkeypatch.setenv("LONGRUN_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert cache_directory() == Path("/var/cache/longrun")


def one_line(error: BaseException) -> str:
    """Return the text of an error, which must be one line."""
    text = str(error)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", "vars.yml, line 3: "),
        ("a: 1\n\tb: 2\n", "vars.yml, line 2: "),
        ("- a\n- b\n", "vars.yml must hold `name: value` lines"),
        ("just words\n", "vars.yml must hold `name: value` lines"),
        ("1: one\n", "vars.yml must hold `name: value` lines"),
    ],
)
def test_bad_yaml_names_file_and_line(edit: Edit, content: str, expected: str) -> None:
    """A person has to find the place without knowing how a parser speaks."""
    path = edit("vars.yml", content)
    with pytest.raises(ProblemError) as caught:
        load_yaml(path)
    assert one_line(caught.value).startswith(f"environments/local/{expected}")


def test_unreadable_yaml_is_one_line(project: Path) -> None:
    """Neither a missing file, nor a folder in its place, nor an old encoding ends in a traceback."""
    local = project / "environments" / "local"
    with pytest.raises(ProblemError, match=r"none\.yml is missing: copy it from environments/local"):
        load_yaml(local / "none.yml")
    (local / "latin.yml").write_bytes("name: Jürgen\n".encode("latin-1"))
    (local / "folder.yml").mkdir()
    for name in ("latin.yml", "folder.yml"):
        with pytest.raises(ProblemError, match=f"{name} can't be read") as caught:
            load_yaml(local / name)
        one_line(caught.value)


def test_an_empty_yaml_file_holds_nothing(edit: Edit) -> None:
    """A vars.yml with comments only is a usual thing."""
    assert load_yaml(edit("vars.yml", "---\n# nothing yet\n")) == {}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("users: ci\n", "must be a list"),
        ("users:\n  - ci\n", "must be a list"),
        ("users:\n  - login: ci\n", "must be a list"),
        ("users:\n  - name: 7\n", "must be a list"),
        ("users:\n  - name: ci\n  - name: ann\n  - name: ci\n", "'ci' stands there twice"),
        ("users:\n  - name: admin\n", "'admin' stands there twice"),
    ],
)
def test_bad_users_are_refused(edit: Edit, local: Environment, content: str, expected: str) -> None:
    """Found after the deploy, the mistake would cost minutes; a user twice would get one of two passwords."""
    edit("users.yml", content)
    with pytest.raises(ProblemError, match=expected) as caught:
        local.check()
    assert one_line(caught.value).startswith("environments/local/users.yml")


def test_users_without_a_list(edit: Edit, local: Environment) -> None:
    """A server may do with its administrator."""
    edit("users.yml", "---\n")
    assert local.users() == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('platform = "container\n', "is not in Terraform's syntax"),
        ("", '`platform = "..."` is missing'),
        ('platform = "container"\n', '`name = "..."` is missing'),
        ('platform = "container"\nname = "other"\n', "name is 'other', but the folder is 'local'"),
        (f"{TFVARS}https_port = 70000\n", "https_port is 70000, but must be a port number"),
        (f'{TFVARS}https_port = "https"\n', "https_port is 'https', but must be a port number"),
        (f"{TFVARS}ssh_port = 0\n", "ssh_port is 0, but must be a port number"),
        (f"{TFVARS}debian_release = 11\n", "debian_release is 11, but must be 12 or 13"),
        (f"{TFVARS}hosts = 2\n", "hosts must be a map"),
        (f'{TFVARS}server_name = "https://mlflow.example.org"\n', "server_name is 'https://mlflow.example.org', but must be a host name"),
        (f'{TFVARS}server_name = "höst"\n', "server_name is 'höst', but must be a host name"),
    ],
)
def test_bad_tfvars_are_refused(edit: Edit, project: Path, content: str, expected: str) -> None:
    """These values are used before Terraform sees them: for ports, the image and the certificate."""
    assert project.is_dir()
    edit("server.tfvars", content)
    with pytest.raises(ProblemError) as caught:
        Environment.load("local")
    assert one_line(caught.value).startswith("environments/local/server.tfvars")
    assert expected in str(caught.value)


def test_tfvars_that_are_no_text(project: Path) -> None:
    """An editor that saves in another encoding must not cause a traceback."""
    (project / "environments/local/server.tfvars").write_bytes(b'platform = "\xff"\n')
    with pytest.raises(ProblemError, match="is not in Terraform's syntax") as caught:
        Environment.load("local")
    one_line(caught.value)


def test_an_unknown_environment_names_those_there_are(project: Path) -> None:
    """The usual cause is a slip of the pen."""
    assert project.is_dir()
    with pytest.raises(ProblemError, match=r"no environment 'lokal' \(there are: local\): `make new ENV=lokal`"):
        Environment.load("lokal")


def test_values_are_plain(local: Environment) -> None:
    """The parser keeps quotation marks around strings, which must not reach a container's name."""
    assert local.values["name"] == local.name == "local"
    assert local.platform == "container"
    assert local.values["https_port"] == 8443
    assert not [key for key in local.values if key.startswith("__")]


def test_values_within_values_are_plain_too(edit: Edit) -> None:
    """Whether or not a name stands in quotation marks, it is the same host; a comment is none."""
    edit("server.tfvars", TFVARS + 'hosts = {\n  # the first\n  "data" = { groups = ["minio"] }\n  web = { groups = ["nginx"] }\n}\n')
    assert Environment.load("local").values["hosts"] == {"data": {"groups": ["minio"]}, "web": {"groups": ["nginx"]}}


def listener(port: int) -> socket.socket:
    """Listen on a loopback port; skip the test where somebody else does."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
    except OSError:
        # The machine's own server: as good as ours.
        return listening
    listening.listen()
    return listening


def test_create_takes_ports_of_its_own(project: Path) -> None:
    """Two servers on one machine must not meet; neither must a server and whatever else listens there."""
    with listener(8444), listener(8423):
        made = create("staging", "container")
        assert made.name == "staging"
        assert made.values["https_port"] > 8444
        assert made.values["ssh_port"] > 8423
        another = create("another", "container")
    ports = [{int(e.values["https_port"]), int(e.values["ssh_port"])} for e in (Environment.load("local"), made, another)]
    assert len(set.union(*ports)) == 6, ports
    assert {path.name for path in made.directory.iterdir()} == {"server.tfvars", "vars.yml", "users.yml"}
    assert not list((project / "environments").glob(".*"))


def test_another_environments_mistake_stops_nobody(project: Path) -> None:
    """A colleague's half-written folder must not keep the others from being made and served."""
    broken = project / "environments" / "broken"
    broken.mkdir()
    (broken / "server.tfvars").write_text('platform = "container\n')
    assert create("staging", "container").name == "staging"
    assert [environment.name for environment in Environment.all()] == ["local", "staging"]


def test_a_platform_with_addresses_of_its_own_takes_no_ports(project: Path) -> None:
    """A virtual machine listens on 443 and 22 of its own: ports in its file would say what is not so."""
    assert project.is_dir()
    made = create("vm", "libvirt")
    assert (made.name, made.platform) == ("vm", "libvirt")
    assert not {"https_port", "ssh_port"} & set(made.values)
    assert made.ports() == set()
    assert create("staging", "container").ports() == Environment.load("staging").ports() != set()


def test_create_leaves_room_for_every_host(project: Path, edit: Edit) -> None:
    """Each further host takes the next ssh port, although server.tfvars names the first one only."""
    assert project.is_dir()
    first = 18422
    edit("server.tfvars", TFVARS + f"ssh_port = {first}\nhosts = {{ a = {{ groups = [] }}, b = {{ groups = [] }}, c = {{ groups = [] }} }}\n")
    assert Environment.load("local").ports() == {8443, first, first + 1, first + 2}
    assert create("staging", "container").values["https_port"] != 8443
    edit("server.tfvars", TFVARS + "ssh_port = 8422\nhosts = { a = { groups = [] }, b = { groups = [] }, c = { groups = [] } }\n")
    assert create("another", "container").values["ssh_port"] > 8424


@pytest.mark.parametrize(
    ("platform", "own"), [("container", ["name", "https_port", "ssh_port"]), ("libvirt", ["name"]), ("aws", ["name"])], ids=["container", "libvirt", "aws"]
)
def test_create_follows_the_platforms_model(project: Path, platform: str, own: list[str]) -> None:
    """The new file is a person's to read and edit, like its model, comments and all; the other files come from environments/local."""
    model = (project / "terraform" / "platforms" / platform / "server.tfvars").read_text().splitlines()
    made = create("staging", platform)
    lines = (made.directory / "server.tfvars").read_text().splitlines()
    assert len(lines) == len(model)
    changed = [new.split()[0] for old, new in zip(model, lines, strict=True) if old != new]
    assert changed == own
    assert [line for line in lines if line.startswith("#")]
    for file in ("vars.yml", "users.yml"):
        assert (made.directory / file).read_bytes() == (project / "environments/local" / file).read_bytes()


def test_create_copies_no_secret(project: Path) -> None:
    """A second server with the first one's passwords would fall together with it."""
    for name in ("vault.yml", ".vault-password", "ssh_key", "terraform.tfstate"):
        (project / "environments/local" / name).write_text("secret")
    assert {path.name for path in create("staging", "container").directory.iterdir()} == {"server.tfvars", "vars.yml", "users.yml"}


def test_create_refuses_what_is_there(project: Path) -> None:
    """A typing mistake must not replace a folder with a vault in it."""
    before = (project / "environments/local/server.tfvars").read_text()
    with pytest.raises(ProblemError, match="is there already"):
        create("local", "container")
    assert (project / "environments/local/server.tfvars").read_text() == before


def test_create_goes_on_after_an_interruption(project: Path) -> None:
    """What an interrupted `make new` left must not keep the next one from working."""
    shutil.copytree(project / "environments/local", project / "environments/.staging.part")
    assert create("other", "container").name == "other"
    assert create("staging", "container").name == "staging"
