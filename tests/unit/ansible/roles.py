"""Reads roles and playbooks the way the static tests look at them."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import yaml
from jinja2 import nodes

ANSIBLE = Path(__file__).resolve().parents[3] / "ansible"
ROLES = sorted(path.name for path in (ANSIBLE / "roles").iterdir() if path.is_dir())
PLAYBOOKS = sorted(ANSIBLE.glob("*.yml"))
PREFIXES = tuple(f"{role}_" for role in ROLES)
# Keys of a task that hold an expression without braces.
EXPRESSIONS = {"when", "that", "changed_when", "failed_when", "until"}
# Keys of a task that are no module.
KEYWORDS = {
    "always", "become", "become_user", "block", "changed_when", "check_mode", "delay", "delegate_to", "environment", "failed_when", "listen", "loop",
    "loop_control", "name", "no_log", "notify", "register", "rescue", "retries", "run_once", "tags", "until", "vars", "when",
}  # fmt: skip
PARSER = jinja2.Environment(autoescape=False, extensions=["jinja2.ext.do"])  # noqa: S701 - nothing is rendered


@dataclass
class Task:
    """One task, where it stands, and what it calls."""

    path: Path
    content: dict[str, Any]

    def __str__(self) -> str:
        """Say where it stands, for a failing test."""
        return f"{self.path.relative_to(ANSIBLE)}: {self.content.get('name', self.content)}"

    @property
    def modules(self) -> list[str]:
        """Everything in it that is no keyword; of a sound task, one name."""
        return [key for key in self.content if key not in KEYWORDS]

    @property
    def is_block(self) -> bool:
        return "block" in self.content

    @property
    def arguments(self) -> dict[str, Any]:
        arguments = self.content[self.modules[0]] if self.modules else {}
        return arguments if isinstance(arguments, dict) else {}


@functools.cache
def load(path: Path) -> Any:  # noqa: ANN401 - YAML
    """Read one YAML file."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def unfold(path: Path, listed: list[dict[str, Any]]) -> Iterator[Task]:
    """Yield every task, those inside blocks as well."""
    for content in listed:
        yield Task(path, content)
        for section in ("block", "rescue", "always"):
            yield from unfold(path, content.get(section, []))


def tasks_of(role: str) -> list[Task]:
    """Return every task and handler of a role."""
    folder = ANSIBLE / "roles" / role
    return [task for path in sorted([*folder.glob("tasks/*.yml"), *folder.glob("handlers/*.yml")]) for task in unfold(path, load(path))]


def plays() -> list[tuple[Path, dict[str, Any]]]:
    """Return every play with its playbook."""
    return [(path, play) for path in PLAYBOOKS for play in load(path)]


def tasks_of_playbooks() -> list[Task]:
    """Return the tasks that stand in playbooks themselves."""
    return [task for path, play in plays() for section in ("pre_tasks", "tasks", "post_tasks", "handlers") for task in unfold(path, play.get(section, []))]


@functools.cache
def all_tasks() -> list[Task]:
    """Return every task of this repository."""
    return [task for role in ROLES for task in tasks_of(role)] + tasks_of_playbooks()


@functools.cache
def options_of(role: str) -> dict[str, dict[str, Any]]:
    """Return the options of all entry points of a role."""
    specs = load(ANSIBLE / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"]
    return {name: option for entry in specs.values() for name, option in entry["options"].items()}


@functools.cache
def names_in(text: str) -> set[str]:
    """Return the variables that a Jinja template reads."""
    return {node.name for node in PARSER.parse(text).find_all(nodes.Name) if node.ctx == "load"}


def names_of(content: object, key: str = "") -> set[str]:
    """Return the variables that a piece of YAML reads."""
    if isinstance(content, dict):
        return set().union(*(names_of(value, str(name)) | names_in(str(name)) for name, value in content.items()))
    if isinstance(content, list):
        return set().union(*(names_of(value, key) for value in content))
    if not isinstance(content, str):
        return set()
    return names_in(f"{{{{ {content} }}}}" if key in EXPRESSIONS else content)


def templates_of(role: str) -> list[Path]:
    """Return a role's templates."""
    return sorted((ANSIBLE / "roles" / role / "templates").glob("*.j2"))
