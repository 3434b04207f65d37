"""Runs the playbooks of `ansible/` against one environment."""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from longrun_controller import tools
from longrun_controller.environment import ROOT, Environment, cache_directory
from longrun_controller.progress import Step

TASK = re.compile(r"^(?:TASK|RUNNING HANDLER) \[(.+?)\] \**$")
RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)")


def describe(line: str) -> str | None:
    """Return the name of the task that begins with this line, if one does."""
    found = TASK.match(line)
    return found[1] if found else None


def diagnose(lines: Sequence[str]) -> str | None:
    """Return the host, the task and the message of the first failure as one line."""
    task = ""
    for number, line in enumerate(lines):
        task = describe(line) or task
        if found := re.match(r"^(?:fatal|failed): \[(\S+?)\].*?(FAILED|UNREACHABLE)", line):
            message = _message(lines[number:])
            if "REMOTE HOST IDENTIFICATION HAS CHANGED" in message:
                message = "its ssh key is not the one it had before: if you made its data volume anew yourself, delete known_hosts in the environment's folder"
            return f"{found[1]}: {task}: {message}"
    return next((line.removeprefix("ERROR! ") for line in lines if "ERROR" in line), None)


def _message(lines: Sequence[str]) -> str:
    """Return the text of the `msg` key in a result printed as YAML, or on one line as JSON."""
    for number, line in enumerate(lines):
        if found := re.match(r"^(\s+)msg: ?(.*)$", line):
            block = [found[2].strip("|->+\"' 0123456789") if found[2].startswith(("|", ">")) else found[2]]
            for following in lines[number + 1 :]:
                if not following.startswith(f"{found[1]} "):
                    break
                block.append(following.strip())
            return " ".join(part for part in block if part).strip("'\"")
        if found := re.search(r'"msg": "((?:[^"\\]|\\.)*)"', line):
            return found[1].replace("\\n", " ").replace('\\"', '"')
    return lines[0]


def run(step: Step, environment: Environment, playbook: str, *, variables: Sequence[str] = ()) -> int:
    """Run `ansible/<playbook>.yml`.

    Args:
        step: Shows the tasks and keeps the output.
        environment: The server to work on.
        playbook: The verb, without `.yml`.
        variables: `name=value` pairs for `-e`; never a secret, for `ps` shows them.

    Returns:
        The number of tasks, over all hosts, that changed something.

    Raises:
        ProblemError: A task failed; the text names host, task and reason.
    """
    changed = 0

    def watch(line: str) -> str | None:
        nonlocal changed
        if found := RECAP.match(line):
            changed += int(found[3])
        return describe(line)

    extra = [part for variable in variables for part in ("-e", variable)]
    step.run(
        [Path(sys.executable).with_name("ansible-playbook"), f"{playbook}.yml", *extra],
        cwd=ROOT / "ansible",
        environment={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "LONGRUN_ENV": environment.name,
            "LONGRUN_CACHE": str(cache_directory()),
            "TF": tools.terraform(),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_FORCE_COLOR": "0",
        },
        describe=watch,
        diagnose=diagnose,
    )
    return changed
