"""Runs the playbooks of `ansible/` against one environment."""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from longrun_controller import tools
from longrun_controller.environment import ROOT, Environment, cache_directory
from longrun_controller.progress import Step

TASK = re.compile(r"^(?:TASK|RUNNING HANDLER) \[(.+?)\] \**$")
FAILURE = re.compile(r"^(?:fatal|failed): \[([^\]\s]+)[^\]]*\].*?=> ?(.*)$")
RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)")


def describe(line: str) -> str | None:
    """Return the name of the task that begins with this line, if one does."""
    found = TASK.match(line)
    return found[1] if found else None


def diagnose(lines: Sequence[str]) -> str | None:
    """Return the host, the task and the message of the failure that ended the run as one line.

    Failures that a play ignores or rescues come before it; of several hosts or items, the first one speaks for all.
    """
    task, failed_task, reason = "", None, None
    for number, line in enumerate(lines):
        task = describe(line) or task
        if not (found := FAILURE.match(line)):
            continue
        block, ignored = _block(lines[number + 1 :])
        if ignored or task == failed_task:
            continue
        message = _message(found[2], block)
        if "REMOTE HOST IDENTIFICATION HAS CHANGED" in message:
            message = "its ssh key is not the one it had before: if you made its data volume anew yourself, delete known_hosts in the environment's folder"
        failed_task, reason = task, f"{found[1]}: {task}: {message}"
    return reason or next((re.sub(r"^\[?ERROR\]?[:!] ", "", line) for line in lines if "ERROR" in line), None)


def _block(lines: Sequence[str]) -> tuple[str, bool]:
    """Return the indented lines that a result consists of, and whether the play goes on all the same."""
    length = next((number for number, line in enumerate(lines) if not line.startswith(" ")), len(lines))
    return "\n".join(lines[:length]), lines[length : length + 1] == ["...ignoring"]


def _message(text: str, block: str) -> str:
    """Return what a failed task says, from its result as JSON on one line or as YAML below it."""
    try:
        result = yaml.safe_load(text or block)
    except yaml.YAMLError:
        result = None
    if not isinstance(result, dict):
        return " ".join((text or block).split()) or "it gives no reason"
    if "censored" in result:
        return "what it says is hidden, for there may be a secret in it; with `base_no_log: false` in vars.yml the log shows it"
    message = str(result.get("msg") or "it gives no reason")
    if message == "non-zero return code" and (said := str(result.get("stderr") or result.get("stdout") or "").strip()):
        message = f"status {result.get('rc')}: {said.splitlines()[-1]}"
    return " ".join(message.split())


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
