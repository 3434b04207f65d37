"""Pipelines: our workflows, run with act in host mode, against a repository and an API that stand in for GitHub's."""

import itertools
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.stand_ins.github import TOKEN, Forge, PullRequest
from tests.servers import ROOT

WORKFLOWS = ROOT / ".github" / "workflows"
STAND_INS = Path(__file__).with_name("stand_ins")
# Where each action that we use is played.
PLAYED = {"actions/checkout": "checkout", "actions/cache": "cache", "actions/upload-artifact": "upload_artifact"}
# Of the machine's environment: what says where things are, and nothing that would look like GitHub's or a person's own.
KEPT = re.compile(r"PATH|HOME|LANG|LC_.*|TMPDIR|XDG_.*|SSL_CERT_.*|REQUESTS_CA_BUNDLE|PIP_.*|UV_.*|OPENBLAS_.*|PYENV.*|LONGRUN_CACHE|.*_PROXY|.*_proxy")
MINUTES = 15
# What colours a terminal, and act's own marks before a line.
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def act() -> Path:
    """Return the program, which `make lint` and the tests' tools build."""
    cache = Path(os.environ.get("LONGRUN_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "longrun")
    return cache / "bin" / "act"


def pins() -> list[str]:
    """Return `owner/name@commit` of every action that our workflows and actions use."""
    text = "".join(path.read_text() for path in sorted((ROOT / ".github").rglob("*.yml")))
    return sorted(set(re.findall(r"uses: ([\w.-]+/[\w.-]+@[0-9a-f]{40})", text)))


@dataclass(frozen=True)
class Ended:
    """A pipeline that has ended.

    Attributes:
        number: GITHUB_RUN_ID.
        status: act's exit status.
        text: What it printed, without colours.
        seconds: How long it took.
    """

    number: int
    status: int
    text: str
    seconds: float

    @property
    def lines(self) -> list[str]:
        """What the steps printed."""
        return [line.partition("  | ")[2] for line in self.text.splitlines() if "  | " in line]

    @property
    def gate(self) -> int | None:
        """The exit status of `longrun gate`, as the workflow saw it; None where it did not run."""
        found = re.search(r"longrun gate ended with (\d+)", self.text)
        return int(found[1]) if found else None

    @property
    def summary(self) -> str:
        """What the jobs wrote into their summaries."""
        return "\n".join(re.findall(r"Summary - (.*?)(?=\n\[)", self.text + "\n[", re.DOTALL))


@dataclass
class Running:
    """A pipeline on its way."""

    number: int
    process: subprocess.Popen[str]
    log: Path
    started: float

    def wait(self) -> Ended:
        """Wait for the end."""
        try:
            self.process.wait(MINUTES * 60)
        finally:
            if self.process.poll() is None:
                self.process.kill()
        return Ended(self.number, self.process.returncode, self.text, time.monotonic() - self.started)

    @property
    def text(self) -> str:
        """What was printed so far."""
        return COLOURS.sub("", self.log.read_text(errors="replace"))

    def await_text(self, wanted: str, seconds: float = 240) -> None:
        """Wait until the pipeline prints something."""
        deadline = time.monotonic() + seconds
        while wanted not in self.text:
            assert self.process.poll() is None, f"it ended without {wanted!r}:\n{self.text[-3000:]}"
            assert time.monotonic() < deadline, f"no {wanted!r} within {seconds} s:\n{self.text[-3000:]}"
            time.sleep(0.1)

    def training(self) -> int:
        """Return the process that trains."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
                environment = path.with_name("environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"train" in words and any(word.endswith(b"/longrun") for word in words) and f"GITHUB_RUN_ID={self.number}".encode() in environment:
                return int(path.parent.name)
        message = f"no process of pipeline {self.number} trains"
        raise AssertionError(message)

    def cancel(self) -> None:
        """Cancel the job as GitHub's runner does: a signal to the step's process, then the steps that run `always()`."""
        training = self.training()
        os.kill(training, signal.SIGINT)
        deadline = time.monotonic() + 30
        while Path(f"/proc/{training}").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        self.process.send_signal(signal.SIGINT)

    def lose(self) -> None:
        """End the job as a runner that loses its machine does: nobody is told."""
        os.kill(self.training(), signal.SIGKILL)
        self.process.kill()


@dataclass
class Pipelines:
    """Starts workflows of a forge's repository.

    Attributes:
        forge: The repository, and who plays GitHub.
        api: Where the forge answers.
        logs: A folder for what act prints.
        others: What else workflows use: `owner/name@commit`, and the folder where that is checked out.
    """

    forge: Forge
    api: str
    logs: Path
    others: Mapping[str, Path] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1001))

    def push(self, secrets: Mapping[str, str], *, workflow: str = "model") -> Running:
        """Start a workflow for the last commit of main."""
        commit = self.forge.git("rev-parse", "refs/heads/main", folder=self.forge.bare)
        event = {"ref": "refs/heads/main", "before": "0" * 40, "after": commit, "deleted": False}
        return self._start("push", workflow, commit, "refs/heads/main", event, secrets)

    def pull_request(self, pull: PullRequest, secrets: Mapping[str, str], *, workflow: str = "model") -> Running:
        """Start a workflow for a pull request."""
        event = {"action": "synchronize", "number": pull.number, "pull_request": pull.event}
        return self._start("pull_request", workflow, pull.merge, f"refs/pull/{pull.number}/merge", event, secrets, actor=pull.author, head=pull)

    def comment(self, ended: Ended) -> Ended:
        """Run the workflow that writes comments, as GitHub starts it once another one has ended."""
        commit = self.forge.git("rev-parse", "refs/heads/main", folder=self.forge.bare)
        event = {"action": "completed", "workflow_run": self.forge.runs[ended.number], "workflow": {"name": self.forge.runs[ended.number]["name"]}}
        return self._start("workflow_run", "comment", commit, "refs/heads/main", event, {}).wait()

    def scheduled(self, workflow: str, secrets: Mapping[str, str], job: str) -> Ended:
        """Run one job of a workflow that the clock starts."""
        commit = self.forge.git("rev-parse", "refs/heads/main", folder=self.forge.bare)
        return self._start("schedule", workflow, commit, "refs/heads/main", {}, secrets, job=job).wait()

    def _start(  # noqa: PLR0913 - what an event is made of
        self,
        kind: str,
        workflow: str,
        commit: str,
        ref: str,
        event: Mapping[str, Any],
        secrets: Mapping[str, str],
        *,
        actor: str = "developer",
        head: PullRequest | None = None,
        job: str | None = None,
    ) -> Running:
        number = next(self._numbers)
        place = self.forge.folder / "jobs" / str(number)
        checkout = place / "workflows"
        # What a runner keeps between its jobs; where it lies is act's own choice.
        kept = self.forge.folder / "tools"
        kept.mkdir(exist_ok=True)
        (place / "work").mkdir(parents=True)
        (place / "work" / "tool_cache").symlink_to(kept)
        # What GitHub reads the workflows from; the jobs themselves check out anew.
        self.forge.git("clone", "-q", "--no-checkout", self.forge.bare, checkout, folder=place)
        self.forge.git("fetch", "-q", "origin", commit, folder=checkout)
        self.forge.git("checkout", "-q", "--detach", commit, folder=checkout)
        name = self._note_run(number, kind, workflow, commit, actor, head)
        whole = {**event, "repository": {"full_name": self.forge.repository, "default_branch": "main"}}
        (place / "event.json").write_text(json.dumps(whole))
        # JSON is YAML, which takes a certificate's many lines.
        keys = place / "secrets.yml"
        keys.touch(mode=0o600)
        keys.write_text(json.dumps({"GITHUB_TOKEN": TOKEN, **secrets}))
        command = [
            act(),
            kind,
            "--directory",
            checkout,
            "--workflows",
            checkout / ".github" / "workflows" / f"{workflow}.yml",
            "--eventpath",
            place / "event.json",
        ]
        command += [*(["--job", job] if job else []), "--actor", actor, "--secret-file", keys, "--platform", "ubuntu-24.04=-self-hosted"]
        command += ["--action-cache-path", place / "work", "--no-cache-server", "--no-skip-checkout", "--defaultbranch", "main"]
        for variable, value in {
            "GITHUB_REPOSITORY": self.forge.repository,
            "GITHUB_RUN_ID": str(number),
            "GITHUB_API_URL": self.api,
            "GITHUB_REF": ref,
            # What act takes for the commit; GITHUB_SHA would be made from the checkout.
            "SHA_REF": commit,
        }.items():
            command += ["--env", f"{variable}={value}"]
        played = {pin: STAND_INS / PLAYED[pin.partition("@")[0]] for pin in pins()}
        for pin, folder in {**played, **self.others}.items():
            command += ["--local-repository", f"{pin}={folder}"]
        log = self.logs / f"pipeline-{number}-{name}.log"
        environment = {key: value for key, value in os.environ.items() if KEPT.fullmatch(key)}
        with log.open("w") as output:
            process = subprocess.Popen(
                [str(word) for word in command],
                cwd=place,
                env={**environment, "LONGRUN_STAND_INS": str(self.forge.folder), "NO_COLOR": "1", "TERM": "dumb"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                text=True,
                start_new_session=True,
            )
        return Running(number, process, log, time.monotonic())

    def _note_run(self, number: int, kind: str, workflow: str, commit: str, actor: str, head: PullRequest | None) -> str:
        repository = head.repository if head else self.forge.repository
        self.forge.runs[number] = {
            "id": number,
            "name": workflow,
            "workflow_id": sum(map(ord, workflow)),
            "event": kind,
            "head_sha": head.head if head else commit,
            "head_branch": head.branch if head else "main",
            "head_repository": {"full_name": repository, "owner": {"login": repository.partition("/")[0]}},
            "run_attempt": 1,
            "actor": {"login": actor},
            "triggering_actor": {"login": actor},
            "html_url": f"https://github.com/{self.forge.repository}/actions/runs/{number}",
        }
        return f"{workflow}-{head.branch.replace('/', '-')}" if head else f"{workflow}-{kind}"


@contextmanager
def pipelines(folder: Path, logs: Path, changes: Mapping[str, str]) -> Iterator[Pipelines]:
    """Make a repository of this one's files and changes, have GitHub played, and yield what starts its workflows."""
    assert act().is_file(), f"{act()} is missing: `make test-tools` builds it"
    logs.mkdir(parents=True, exist_ok=True)
    for old in logs.glob("pipeline-*.log"):
        old.unlink()
    forge = Forge(folder)
    forge.create(ROOT, changes)
    with forge.serving() as api:
        yield Pipelines(forge, api, logs)
