"""Sends the runs that training jobs could not, because the server was away, and has the gate judge them.

Such a job uploads its spool as an artifact. Only spools of this repository's own pull requests and branches are taken: a
fork could upload anything under the same name. A spool's artifact is deleted once the server has what is in it.
"""

import json
import re
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import runner
from github_api import Api, ApiError

ARTIFACT = "longrun-spool-"
NOTE, SPOOL, FORMAT = "pipeline.json", "spool", 1
SPOOL_BYTES = 4_000_000_000
EVENTS = frozenset({"push", "pull_request", "workflow_dispatch", "schedule"})
RUN = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
COMMIT = re.compile(r"[0-9a-f]{40}")
DEPENDABOT = "dependabot[bot]"
AWAY = 3
VERDICTS = {0: "passed", 1: "failed", 2: "inconclusive", 3: "not judged"}


class RefusedError(Exception):
    """An artifact that is not taken; the text says why."""


@dataclass(frozen=True)
class Note:
    """What the training job noted beside its spool.

    Attributes:
        config: The model's longrun.toml, relative to the repository's root.
        commit: The commit that was checked out; it may be gone.
        runs: The runs' uuids.
    """

    config: str
    commit: str
    runs: tuple[str, ...]


def parse(content: bytes) -> Note:
    """Read pipeline.json.

    Raises:
        RefusedError: Another shape, or a path that leads out of the repository.
    """
    try:
        found = json.loads(content)
        note = Note(found["config"], found["commit"], tuple(found["runs"]))
        path = PurePosixPath(note.config)
        good = found["format"] == FORMAT and not path.is_absolute() and ".." not in path.parts and path.suffix == ".toml"
        good = good and (not note.commit or COMMIT.fullmatch(note.commit) is not None) and all(RUN.fullmatch(run) for run in note.runs)
    except (ValueError, KeyError, TypeError) as error:
        message = f"{NOTE} is not what a training job writes: {error}"
        raise RefusedError(message) from error
    if not good:
        message = f"{NOTE} is not what a training job writes"
        raise RefusedError(message)
    return note


def trusted(run: Mapping[str, Any], repository: str) -> bool:
    """Say whether a workflow run was of this repository's own code, started by somebody who may see the server."""
    head = (run.get("head_repository") or {}).get("full_name")
    people = {(run.get(key) or {}).get("login") for key in ("actor", "triggering_actor")}
    return head == repository and run["event"] in EVENTS and DEPENDABOT not in people


def unpack(api: Api, artifact: Mapping[str, Any], folder: Path) -> Note:
    """Download a spool into a folder of its own.

    Raises:
        RefusedError: It is no archive of a spool.
        ApiError: GitHub did not give it.
    """
    with tempfile.TemporaryFile() as archive:
        api.download(f"/actions/artifacts/{int(artifact['id'])}/zip", SPOOL_BYTES, archive)
        try:
            with zipfile.ZipFile(archive) as opened:
                if sum(member.file_size for member in opened.infolist()) > SPOOL_BYTES:
                    message = f"it has more than {SPOOL_BYTES} bytes"
                    raise RefusedError(message)
                # zipfile itself keeps every member below the folder.
                opened.extractall(folder)
        except (zipfile.BadZipFile, RuntimeError, EOFError) as error:
            message = f"it is no archive: {error}"
            raise RefusedError(message) from error
    try:
        note = parse((folder / NOTE).read_bytes())
    except OSError as error:
        message = f"it has no {NOTE}"
        raise RefusedError(message) from error
    if not (folder / SPOOL).is_dir():
        message = f"it has no folder {SPOOL}"
        raise RefusedError(message)
    return note


def _longrun(*arguments: str, folder: Path | None = None) -> int:
    return subprocess.run(["longrun", *arguments], cwd=folder, check=False).returncode


def _git(*arguments: str | Path) -> bool:
    return subprocess.run(["git", *arguments], check=False, stderr=subprocess.DEVNULL).returncode == 0


def checked_out(commit: str, folder: Path) -> bool:
    """Check out a commit beside the workspace; False where the repository does not have it any more.

    What is on a branch is here already. Asking for more needs no login in a public repository, and is in vain in a private one.
    """
    there = _git("cat-file", "-e", f"{commit}^{{commit}}") or _git("fetch", "--quiet", "--no-tags", "origin", commit)
    return there and _git("worktree", "add", "--quiet", "--detach", folder, commit)


def judge(note: Note, folder: Path) -> Iterator[str]:
    """Have the gate judge the runs that were sent, each with the longrun.toml of its own commit; yield what became of each."""
    there = folder / "commit"
    if not note.commit or not checked_out(note.commit, there):
        yield from (f"{run}: sent; not judged, for its commit is gone" for run in note.runs)
        return
    try:
        for run in note.runs:
            output = folder / f"gate-{run}.json"
            status = _longrun("gate", "--config", note.config, "--candidate", run, "--output", str(output), folder=there)
            yield f"{run}: sent; {VERDICTS.get(status, f'the gate ended with {status}')}"
    finally:
        _git("worktree", "remove", "--force", there)


def spools(api: Api) -> Iterator[dict[str, Any]]:
    """Yield the artifacts that may be spools of ours, oldest first: a run may be the baseline of a later one."""
    found = [artifact for artifact in api.pages("/actions/artifacts", "artifacts") if artifact["name"].startswith(ARTIFACT) and not artifact["expired"]]
    for artifact in sorted(found, key=lambda each: int(each["id"])):
        run = api.get(f"/actions/runs/{int(artifact['workflow_run']['id'])}")
        if trusted(run, api.repository):
            yield artifact
        else:
            runner.warning(f"{artifact['name']} is left alone: it comes from outside ({run['html_url']})")


def send(api: Api, artifact: Mapping[str, Any]) -> list[str]:
    """Send one spool, judge its runs, and delete the artifact; return what became of each run.

    Raises:
        RefusedError: It is no spool, or the server did not take all of it.
        ApiError: GitHub did not give it.
    """
    folder = Path(tempfile.mkdtemp(prefix="spool-", dir=runner.needed("RUNNER_TEMP")))
    try:
        note = unpack(api, artifact, folder)
        status = _longrun("sync", "--spool", str(folder / SPOOL))
        if status == AWAY:
            runner.fail("the server is away: the spools stay where they are, and this is tried again at the next run", AWAY)
        if status:
            message = f"`longrun sync` ended with {status}: see its line above"
            raise RefusedError(message)
        told = list(judge(note, folder))
        api.send("DELETE", f"/actions/artifacts/{int(artifact['id'])}")
        return told
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Send every spool that is waiting; one that can't be sent stops no other."""
    api, lines, refused = Api.from_environment(), [], []
    try:
        for artifact in spools(api):
            try:
                lines += send(api, artifact)
            except RefusedError as error:
                refused.append(f"{artifact['name']}: {error}")
    except ApiError as error:
        runner.fail(str(error))
    for line in [*lines, *refused] or ["no run was waiting"]:
        print(line)
        runner.summary(f"- {line}")
    if refused:
        runner.fail("; ".join(refused))


if __name__ == "__main__":
    main()
