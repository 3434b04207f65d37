"""The command line: a person's mistake is one line and status 1, before anything is made or deleted."""

from pathlib import Path

import pytest
from longrun_controller import secrets, status, tools
from longrun_controller.environment import Environment
from longrun_controller.errors import ProblemError
from longrun_controller.platforms import PLATFORMS, container, libvirt, platform_of

from tests.unit.controller.conftest import Run


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["up", "--env", "No Such"], "can't name a server"),
        (["up", "--env", "nosuch"], "there is no environment 'nosuch'"),
        (["plan", "--env", "No Such"], "can't name a server"),
        (["plan", "--env", "nosuch"], "there is no environment 'nosuch'"),
        (["provision", "--env", "nosuch", "--plan", "0" * 64], "there is no environment 'nosuch'"),
        (["provision", "--env", "local", "--plan", ""], "PLAN is empty: give the 64 digits"),
        (["provision", "--env", "local", "--plan", " "], "PLAN ' ' is not a plan's digest: "),
        (["provision", "--env", "local", "--plan", "0" * 63], "is not a plan's digest: "),
        (["provision", "--env", "local", "--plan", "0" * 65], "is not a plan's digest: "),
        (["provision", "--env", "local", "--plan", "0" * 64 + "\n"], "is not a plan's digest: "),
        (["provision", "--env", "local", "--plan", "G" * 64], "that `make plan ENV=local` ends with"),
        (["deploy", "--env", "local"], "environment 'local' has no server yet"),
        (["users", "--env", "local"], "environment 'local' has no server yet"),
        (["verify", "--env", "local"], "environment 'local' has no server yet"),
        (["status", "--env", "local"], "environment 'local' has no server yet"),
        (["env", "--env", "local"], "environment 'local' has no server yet"),
        (["password", "--env", "local"], "environments/local/vault.yml is not there yet"),
        (["destroy", "--env", "local"], "this deletes every run, model and artifact of 'local' for ever"),
        (["destroy", "--env", "local", "--confirm", "yes"], "CONFIRM=local"),
        (["new", "--env", "local"], "environments/local is there already"),
        (["new", "--env", "../x"], "can't name a server"),
        (["new", "--env", "staging", "--platform", "../x"], "no platform '../x' (there are: container, "),
        (["tools", "--env", "nosuch"], "there is no environment 'nosuch'"),
    ],
)
def test_a_mistake_is_one_line(run: Run, arguments: list[str], expected: str) -> None:
    """What, where, what to do; nothing on standard output, which a program may be reading."""
    code, out, err = run(*arguments)
    assert code == 1
    assert not out
    lines = [line for line in err.splitlines() if line.startswith("longrun:")]
    assert len(lines) == 1
    assert expected in lines[0]


def test_broken_values_stop_before_anything_is_made(run: Run, project: Path) -> None:
    """A vault or a key made for values that are wrong would stay."""
    (project / "environments/local/users.yml").write_text("users: [ci\n")
    code, _, err = run("up", "--env", "local")
    assert code == 1
    assert "environments/local/users.yml, line " in err
    assert {path.name for path in (project / "environments/local").iterdir()} == {"server.tfvars", "vars.yml", "users.yml"}


def test_new_says_what_comes_next(run: Run, project: Path) -> None:
    """A folder alone is no server yet."""
    code, _, err = run("new", "--env", "staging")
    assert code == 0
    assert "make up ENV=staging" in err
    assert (project / "environments/staging/server.tfvars").exists()


def test_new_takes_the_platform_that_was_asked_for(run: Run, project: Path) -> None:
    """A server on a platform without ports of this machine has none to tell."""
    code, _, err = run("new", "--env", "vm", "--platform", "libvirt")
    assert code == 0
    assert 'platform       = "libvirt"' in (project / "environments/vm/server.tfvars").read_text()
    assert "port" not in err


def test_an_unknown_platform_stops_before_anything_is_made(run: Run, project: Path) -> None:
    """A slip in server.tfvars must not leave a vault behind, nor a traceback."""
    (project / "environments/local/server.tfvars").write_text('platform = "contaner"\nname = "local"\n')
    for command in ("tools", "up", "plan", "provision"):
        code, out, err = run(command, "--env", "local")
        assert (code, out) == (1, "")
        assert "no platform 'contaner' (there are: container, " in " ".join(err.split())
    assert {path.name for path in (project / "environments/local").iterdir()} <= {"server.tfvars", "vars.yml", "users.yml", "logs"}


def test_tools_are_those_of_the_platform(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has servers in a cloud needs no hypervisor, and the other way round."""
    asked: list[tuple[dict[str, str], str]] = []
    monkeypatch.setattr(tools, "ensure", lambda _step, *, packages, provider: asked.append((packages, provider)))
    run("new", "--env", "vm", "--platform", "libvirt")
    assert [run("tools", "--env", name)[0] for name in ("local", "vm")] == [0, 0]
    assert asked == [(container.PACKAGES, "provider-docker"), (libvirt.PACKAGES, "provider-libvirt")]


def test_a_provider_that_only_tests_need_may_be_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without registry and mirror the tests of the other platforms still run; it is said which do not."""
    asked: list[str] = []

    def ensure_provider(_step: object, name: str) -> None:
        asked.append(name)
        if name == "provider-libvirt":
            message = f"{name}: nobody has it"
            raise ProblemError(message)

    monkeypatch.setattr(tools, "ensure", lambda _step, *, packages, provider: asked.append(provider) if packages else None)
    monkeypatch.setattr(tools, "ensure_packages", lambda _step, wanted: asked.extend(wanted))
    monkeypatch.setattr(tools, "build", lambda _step, names: asked.extend(names))
    monkeypatch.setattr(tools, "ensure_provider", ensure_provider)
    code, _, err = run("tools", "--test", "--env", "local")
    assert code == 0
    assert asked == ["provider-docker", *tools.TEST_PACKAGES, "tflint", "actionlint", "act", *(platform_of(platform).PROVIDER for platform in PLATFORMS)]
    assert "provider-libvirt: nobody has it; the tests that need it are left out" in " ".join(err.split())


def test_a_password_is_all_of_standard_output(run: Run, local: Environment) -> None:
    """`make -s password` may be piped into another program."""
    secrets.ensure(local)
    values = secrets.read(local)
    assert run("password", "--env", "local") == (0, f"{values['vault_mlflow_admin_password']}\n", "")
    assert run("password", "--env", "local", "--login", "ci") == (0, f"{values['vault_user_passwords']['ci']}\n", "")
    code, out, err = run("password", "--env", "local", "--login", "ann")
    assert (code, out) == (1, "")
    assert "has no user 'ann' (there are: admin, ci)" in " ".join(err.split())


GIB = 1024**3
REPORT = {
    "health": 200,
    "certificate_until": "20991226213434Z",
    "history": {"experiments": 2, "runs": 7, "model_versions": 3, "users": 2},
    "hosts": {
        "server": {
            "system": "Debian 13",
            "up_since": "Tue 2026-11-24 21:00:00 UTC",
            "data": {"path": "/srv/longrun", "filled_bytes": 3 * GIB, "free_bytes": GIB, "used_bytes": GIB},
            "units": [{"name": "nginx", "state": "active", "version": "1.26.3"}],
        }
    },
}


@pytest.mark.parametrize(
    ("change", "healthy"),
    [
        ({}, True),
        ({"health": 0}, False),
        ({"health": 429}, False),
        ({"certificate_until": None, "history": {}}, True),
    ],
)
def test_status_says_whether_all_is_well(change: dict[str, object], healthy: bool, capfd: pytest.CaptureFixture[str]) -> None:  # noqa: FBT001
    """Its exit status is what a monitor looks at; a value that could not be had must not break the table."""
    assert status.show("https://localhost:8443", {**REPORT, **change}) is healthy
    shown = capfd.readouterr().err
    assert "https://localhost:8443" in shown
    assert ("NOT healthy" in shown) is not healthy
    assert "75% full" in shown


def test_a_dead_service_is_not_healthy(capfd: pytest.CaptureFixture[str]) -> None:
    """/health may answer although a second instance is down."""
    host = {**REPORT["hosts"]["server"], "units": [{"name": "mlflow@2", "state": "failed", "version": ""}]}  # type: ignore[index]
    assert status.show("https://localhost:8443", {**REPORT, "hosts": {"server": host}}) is False
    assert "failed" in capfd.readouterr().err
