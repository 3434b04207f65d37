"""What holds for every role and every play, so that the next one keeps to it as well."""

import functools
import re
from typing import Any

import pytest

from .roles import (
    ANSIBLE,
    PLAYBOOKS,
    PREFIXES,
    ROLES,
    Task,
    all_tasks,
    load,
    names_in,
    names_of,
    options_of,
    plays,
    tasks_of,
    templates_of,
)

SECRET = re.compile(r"(password|passwords|secret_key|private_key|token)$")
# These plays go on with the other hosts when one fails.
GOES_ON = {"verify.yml": "changes nothing, and is to report on every host, not on the first that is ill"}
HANDLER = re.compile(r"(Restart|Reload|Update) \S")


@functools.cache
def secrets() -> set[str]:
    """Return every variable that carries a secret."""
    return {name for role in ROLES for name, option in options_of(role).items() if option.get("no_log")}


def test_there_is_something_to_look_at() -> None:
    """None of the rules below may hold because nothing was found."""
    assert {"base", "postgresql", "minio", "mlflow", "nginx"} <= set(ROLES)
    assert {"datastores.yml", "deploy.yml", "users.yml", "status.yml", "verify.yml"} <= {path.name for path in PLAYBOOKS}
    assert len(all_tasks()) > 80
    assert len(plays()) > 10
    assert len(secrets()) >= 8
    assert sum(len(templates_of(role)) for role in ROLES) >= 9


@pytest.mark.parametrize("role", ROLES)
def test_specs_and_defaults_are_the_same(role: str) -> None:
    """Two places say what a default is; a person reads one, Ansible the other."""
    options, defaults = options_of(role), load(ANSIBLE / "roles" / role / "defaults" / "main.yml")
    assert options
    assert defaults
    assert {name: option["default"] for name, option in options.items() if "default" in option} == defaults


@pytest.mark.parametrize("role", ROLES)
def test_every_option_is_described(role: str) -> None:
    """`environments/<name>/vars.yml` is written from these sentences."""
    for name, option in options_of(role).items():
        assert name.startswith(f"{role}_"), name
        assert option.get("type"), name
        assert option.get("required", False) != ("default" in option), f"{name} must have a default or be required, not both"
        description = option.get("description", "")
        assert re.match(r"[A-Z].{15,}\.$", description, re.DOTALL), f"{name}: {description!r} is no sentence"


def test_secrets_are_hidden() -> None:
    """Ansible prints the value of an option that its spec refuses, unless the spec says no_log."""
    looked_at = 0
    for role in ROLES:
        for name, option in options_of(role).items():
            assert bool(SECRET.search(name)) == option.get("no_log", False), name
            looked_at += bool(SECRET.search(name))
    assert looked_at >= 8


def test_every_required_option_is_wired() -> None:
    """A required variable that group_vars leaves out would stop every deploy."""
    wired = load(ANSIBLE / "group_vars" / "all.yml")
    for role in ROLES:
        main = load(ANSIBLE / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"]["main"]["options"]
        assert {name for name, option in main.items() if option.get("required")} <= set(wired), role


@functools.cache
def declared() -> set[str]:
    """Return every variable with a role's prefix that is declared where its underscores say."""
    names: set[str] = set()
    for role in ROLES:
        names |= set(options_of(role))
        names |= {name for name in load(ANSIBLE / "roles" / role / "vars" / "main.yml") if name.startswith("_")}
    for task in all_tasks():
        names.add(task.content.get("loop_control", {}).get("loop_var", ""))
        names |= set(task.content.get("vars", {}))
        if (register := task.content.get("register", "")).startswith("__"):
            names.add(register)
        if "ansible.builtin.set_fact" in task.content:
            names |= {name for name in task.content["ansible.builtin.set_fact"] if name.startswith("__")}
    return names


@functools.cache
def used() -> dict[str, set[str]]:
    """Return every variable with a role's prefix that anything reads, and where."""
    places: dict[str, set[str]] = {}

    def note(names: set[str], place: str) -> None:
        for name in names:
            if name.lstrip("_").startswith(PREFIXES):
                places.setdefault(name, set()).add(place)

    for task in all_tasks():
        note(names_of({key: value for key, value in task.content.items() if key not in {"block", "rescue", "always"}}), str(task))
    for role in ROLES:
        for path in templates_of(role):
            note(names_in(path.read_text()), path.name)
        note(names_of(load(ANSIBLE / "roles" / role / "vars" / "main.yml")), f"{role}/vars")
    note(names_of(load(ANSIBLE / "group_vars" / "all.yml")) | set(load(ANSIBLE / "group_vars" / "all.yml")), "group_vars/all.yml")
    return places


def test_every_variable_is_declared() -> None:
    """A misspelt variable fails on the host, in the middle of a deploy, and only where its task runs."""
    places = used()
    assert len(places) > 80
    undeclared = {name: sorted(where) for name, where in places.items() if name not in declared()}
    assert not undeclared


def test_every_option_is_used() -> None:
    """A variable that changes nothing is worse than none."""
    for role in ROLES:
        unused = set(options_of(role)) - set(used())
        assert not unused, role


def test_registers_begin_with_two_underscores() -> None:
    """A register without them would overwrite a variable of the same name."""
    registers = [(str(task), task.content["register"]) for task in all_tasks() if "register" in task.content]
    assert len(registers) > 20
    for where, name in registers:
        assert re.match(r"__[a-z]", name), f"{where} registers {name}"


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.name)
def test_a_failure_stops_the_play(path: Any) -> None:  # noqa: ANN401 - a Path
    """A half-deployed second host behind a working first one is the hardest state to understand."""
    listed = load(path)
    assert listed
    for play in listed:
        assert play.get("name")
        if path.name in GOES_ON:
            assert "any_errors_fatal" not in play, f"{path.name} is listed as one that goes on"
            continue
        assert play.get("any_errors_fatal") is True, play["name"]
        assert play.get("max_fail_percentage") == 0, play["name"]


def test_mlflow_is_deployed_one_host_after_another() -> None:
    """While one restarts, the others answer."""
    play = next(play for path, play in plays() if path.name == "deploy.yml" and play["hosts"] == "mlflow")
    assert play["serial"] == 1


def test_tasks_are_named_and_call_one_module_by_its_full_name() -> None:
    """The name is what `make up` shows; a short name may find another collection's module."""
    for task in all_tasks():
        assert task.content.get("name"), str(task)
        if task.is_block:
            continue
        assert len(task.modules) == 1, f"{task}: {task.modules}"
        assert re.fullmatch(r"[a-z_]+\.[a-z_]+\.[a-z0-9_]+", task.modules[0]), f"{task}: {task.modules[0]}"


def test_no_shell_and_nothing_latest() -> None:
    """A shell takes names apart that hold a space; `latest` is another program every day."""
    for task in all_tasks():
        assert not {"ansible.builtin.shell", "ansible.builtin.raw"} & set(task.modules), str(task)
        assert task.arguments.get("state") != "latest", str(task)
        if "ansible.builtin.command" in task.modules:
            assert "argv" in task.arguments, f"{task}: arguments as one string are split at spaces"
            assert "changed_when" in task.content or "creates" in task.arguments, f"{task} reports a change every time"


def test_files_have_an_owner_and_a_mode() -> None:
    """What the umask of the day makes of a file is not ours to leave open; 0640 without quotes is another number."""
    written = [task for task in all_tasks() if {"ansible.builtin.template", "ansible.builtin.copy"} & set(task.modules)]
    assert len(written) > 12
    for task in written:
        assert re.fullmatch(r"0[0-7]{3}", str(task.arguments.get("mode", ""))), str(task)
        assert isinstance(task.arguments["mode"], str), str(task)
        assert task.content.get("delegate_to") == "localhost" or task.arguments.get("owner"), str(task)
        # Others may read what is no secret.
        if secrets() & template_names(task):
            assert task.arguments["mode"].endswith("0"), str(task)


def template_names(task: Task) -> set[str]:
    """Return the variables of the template that a task writes."""
    source = str(task.arguments.get("src", ""))
    if "ansible.builtin.template" not in task.modules:
        return set()
    return names_in((task.path.parents[1] / "templates" / source).read_text())


def test_tasks_with_a_secret_show_nothing() -> None:
    """Ansible prints a failed task's arguments, and with -v every task's; one variable lifts it on purpose."""
    hidden = 0
    for task in all_tasks():
        if task.is_block:
            continue
        read = names_of({**task.arguments, "vars": task.content.get("vars", {})}) | template_names(task)
        if read & secrets():
            assert task.content.get("no_log") == "{{ base_no_log | default(true) }}", str(task)
            hidden += 1
        elif "no_log" in task.content:
            # Only what comes out of such a task may be hidden as well.
            assert any("password" in name or "certificate" in name for name in names_of(task.content)), f"{task} hides no secret"
    assert hidden >= 8


def test_no_secret_is_an_argument() -> None:
    """Everybody on the host may read the arguments and, as root, the environment of a process."""
    commands = [task for task in all_tasks() if "ansible.builtin.command" in task.modules]
    assert len(commands) > 15
    for task in commands:
        assert not names_of(task.arguments["argv"]) & secrets(), str(task)
        assert not names_of(task.content.get("environment", {})) & secrets(), str(task)


def test_handlers_say_what_they_do_and_are_called() -> None:
    """A notification for a handler of another name is an error on the host; a handler nobody calls is dead."""
    total = 0
    for role in ROLES:
        listed = load(ANSIBLE / "roles" / role / "handlers" / "main.yml")
        names = {handler["name"] for handler in listed}
        assert all(HANDLER.match(name) for name in names), names
        notified = {name for task in tasks_of(role) for name in as_list(task.content.get("notify"))}
        assert notified == names, role
        total += len(names)
    assert total >= 5


def as_list(value: str | list[str] | None) -> list[str]:
    """Return a keyword's value as a list."""
    return [value] if isinstance(value, str) else value or []


@pytest.mark.parametrize("role", ROLES)
def test_main_is_a_table_of_contents(role: str) -> None:
    """Whoever looks for something begins here; preflight comes before the first change."""
    listed = load(ANSIBLE / "roles" / role / "tasks" / "main.yml")
    assert [list(set(task) & {"ansible.builtin.import_tasks", "ansible.builtin.include_tasks"}) for task in listed] == [["ansible.builtin.import_tasks"]] * len(
        listed
    )
    assert listed[0]["ansible.builtin.import_tasks"] == "preflight.yml"


@pytest.mark.parametrize("role", ROLES)
def test_preflight_changes_nothing_and_names_the_remedy(role: str) -> None:
    """It runs on a server in use; what it refuses, it must explain."""
    path = ANSIBLE / "roles" / role / "tasks" / "preflight.yml"
    checks = 0
    for task in (task for task in tasks_of(role) if task.path == path):
        changing = {"apt", "command", "copy", "file", "group", "pip", "systemd_service", "template", "user"}
        module = task.modules[0].rpartition(".")[2]
        assert module not in changing or task.content.get("changed_when") is False, str(task)
        if module == "assert":
            checks += 1
            assert len(task.arguments["fail_msg"]) > 40, str(task)
            assert task.arguments.get("quiet") is True, str(task)
    assert checks
