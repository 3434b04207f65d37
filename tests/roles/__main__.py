"""Runs molecule on every role and counts what passed: `make test-roles`, or `tests/.venv/bin/python -m tests.roles nginx` for one.

Its hosts and their secrets live for this run only; they are removed however it ends. The whole output lies in `logs/`.
"""

import fcntl
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from longrun_controller import tools

from tests.servers import hurried

ROOT = Path(__file__).resolve().parents[2]
MOLECULE = ROOT / "ansible" / "molecule"
LOGS = Path(__file__).with_name("logs")
LABEL = "label=longrun.test=roles"
HEARTBEAT_SECONDS = 30.0
CHECK_STEPS = ("check", "verify")
STEPS = ("prepare", "converge", "idempotence", "verify")

STEP = re.compile(r"^\S+ +\[(\w+) > (\w+)\] (Executing|Executed: \w+)$")
TASK = re.compile(r"^(?:TASK|RUNNING HANDLER) \[(.+?)\] \**$")
TEST = re.compile(r"^\S+::(\S+) (PASSED|FAILED|ERROR)")
COLOR = re.compile(r"\x1b\[[0-9;]*m")


def say(text: str) -> None:
    """Print one line at once."""
    print(text, flush=True)


@dataclass
class Watch:
    """Reads molecule's output as it comes."""

    started: float = field(default_factory=time.monotonic)
    ended: dict[tuple[str, str], str] = field(default_factory=dict)
    tests: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    # What the step that failed had to say.
    output: list[str] = field(default_factory=list)
    _lines: list[str] = field(default_factory=list)
    _begun: float = 0.0
    _said: float = field(default_factory=time.monotonic)
    _scenario: str = ""
    _doing: str = ""

    def read(self, line: str) -> None:
        """Take in one line; show it if it ends a step, or if nothing was shown for long."""
        now = time.monotonic()
        self._lines.append(line)
        if found := STEP.match(line):
            self._scenario, step, state = found[1], found[2], found[3].removeprefix("Executed: ")
            if state == "Executing":
                self._begun, self._doing, self._lines = now, step, [line]
            elif self._doing == step:
                self._show(now, f"{self._scenario}: {step} {'' if state == 'Successful' else state.lower()}".ljust(28) + f"{now - self._begun:4.0f} s")
                self.ended[self._scenario, step] = state
                if state != "Successful":
                    self.failures.append(f"{self._scenario}: {step}")
                    self.output = self.output or self._lines
        elif found := TEST.match(line):
            self._doing = "verify"
            if found[2] == "PASSED":
                self.tests[self._scenario] = self.tests.get(self._scenario, 0) + 1
            else:
                self.failures.append(f"{self._scenario}: {found[1]}")
        elif (found := TASK.match(line)) and now - self._said > HEARTBEAT_SECONDS:
            self._show(now, f"{self._scenario}: {self._doing}: {found[1]}")

    def _show(self, now: float, text: str) -> None:
        self._said = now
        say(f"{now - self.started:5.0f} s  {text}")


def molecule(arguments: list[str], log: Path, watch: Watch) -> int:
    """Run molecule to its end, or to ours, and keep its output."""
    environment = {
        **os.environ,
        **hurried(),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MOLECULE_COMMAND_BORDERS": "false",
        "NO_COLOR": "1",
        "PY_COLORS": "0",
        "ANSIBLE_NOCOLOR": "1",
        "COLUMNS": "200",
    }
    program = str(Path(sys.executable).with_name("molecule"))
    command = [program, f"--base-config={ROOT / '.config' / 'molecule' / 'config.yml'}", *arguments]
    with log.open("a", encoding="utf-8") as file:
        process = subprocess.Popen(
            command,
            cwd=ROOT / "ansible",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # So that all of it can be stopped, Ansible and its connections too.
            start_new_session=True,
        )
        assert process.stdout
        try:
            for line in process.stdout:
                plain = COLOR.sub("", line)
                file.write(plain)
                file.flush()
                watch.read(plain.rstrip())
            return process.wait()
        except KeyboardInterrupt:
            # Ansible's workers have sessions of their own: only Ansible can end them.
            os.killpg(process.pid, signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=15)
            raise
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def leftovers() -> list[list[str]]:
    """Return the commands that remove what the engine holds of these tests."""
    podman = [*tools.sudo(), "podman"]
    found = []
    for kind, remove in (("container", ["rm", "--force", "--time=0"]), ("volume", ["rm", "--force"])):
        every = ["--all"] if kind == "container" else []
        listed = subprocess.run([*podman, kind, "ls", *every, "--quiet", "--filter", LABEL], capture_output=True, text=True, check=True)
        found += [[*podman, kind, *remove, name] for name in listed.stdout.split()]
    return found


def scenarios() -> list[str]:
    """Return every scenario, in the order in which one stands on another.

    Raises:
        SystemExit: A role has no scenario, or a scenario has no tests.
    """
    order: list[str] = yaml.safe_load((MOLECULE / "inventory" / "hosts.yml").read_text(encoding="utf-8"))["all"]["vars"]["role_order"]
    roles = {path.name for path in (ROOT / "ansible" / "roles").iterdir() if path.is_dir()}
    if untested := sorted(roles.symmetric_difference(order)):
        sys.exit(f"roles: {', '.join(untested)} must stand in ansible/roles and in role_order of ansible/molecule/inventory/hosts.yml")
    every = ["check", *order]
    for name in every:
        if not (MOLECULE / name / "molecule.yml").is_file() or not list(Path(__file__).with_name(name).glob("test_*.py")):
            sys.exit(f"roles: {name} needs ansible/molecule/{name}/molecule.yml and tests/roles/{name}/test_*.py")
    return every


def main(arguments: list[str]) -> int:
    """Run the scenarios that are named, or all."""
    every = scenarios()
    if unknown := sorted(set(arguments).difference(every)):
        sys.exit(f"roles: no scenario {', '.join(unknown)} (there are: {', '.join(every)})")
    chosen = [name for name in every if name in arguments] or every
    LOGS.mkdir(exist_ok=True)
    log = LOGS / "roles.log"
    lock = (LOGS / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit("roles: these tests run already; they use the same hosts, so wait until they have ended")
    log.unlink(missing_ok=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    say(f"roles: {', '.join(chosen)} (whole output: {log.relative_to(ROOT)})")
    watch, status = Watch(), 1
    for command in leftovers():
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory(prefix="longrun-molecule-") as directory:
        os.environ["MOLECULE_EPHEMERAL_DIRECTORY"] = directory
        try:
            status = molecule(["test", *(part for name in chosen for part in ("--scenario-name", name))], log, watch)
        except KeyboardInterrupt:
            watch.failures.append("stopped")
        finally:
            # Once more Ctrl-C must not leave half of it behind.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            for command in leftovers():
                subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
    return report(watch, chosen, status, log)


def report(watch: Watch, chosen: list[str], status: int, log: Path) -> int:
    """Say what passed; what did not run has failed."""
    for name in chosen:
        steps = CHECK_STEPS if name == "check" else STEPS
        missing = [step for step in steps if (name, step) not in watch.ended]
        if not watch.tests.get(name):
            missing.append("tests")
        if missing:
            watch.failures.append(f"{name}: not run: {', '.join(missing)}")
    if status and not watch.failures:
        watch.failures.append(f"molecule ended with {status}")
    passed = sum(watch.tests.values()) + sum(state == "Successful" for (_, step), state in watch.ended.items() if step != "verify")
    if watch.failures:
        say("\n".join([*watch.output, f"(whole output: {log.relative_to(ROOT)})"]))
        say("\n".join(f"FAIL  {failure}" for failure in watch.failures))
    say(f"roles: {passed} passed, {len(watch.failures)} failed in {time.monotonic() - watch.started:.0f} s")
    return 1 if watch.failures or status else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
