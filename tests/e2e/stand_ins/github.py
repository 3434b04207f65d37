"""Stands in for GitHub: bare repositories with pull requests on the disk, and the part of the REST API that our scripts use."""

import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "a-token-of-a-job"  # noqa: S105 - of nobody
BOT = "github-actions[bot]"
# Of nobody either, and without what the machine's user has set for git.
GIT = {
    "GIT_AUTHOR_NAME": "A Developer",
    "GIT_AUTHOR_EMAIL": "developer@example.org",
    "GIT_COMMITTER_NAME": "A Developer",
    "GIT_COMMITTER_EMAIL": "developer@example.org",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
}


@dataclass(frozen=True)
class PullRequest:
    """An open pull request.

    Attributes:
        number: Its number.
        branch: Of its head.
        head: Its commit.
        merge: The commit that GitHub makes to try the merge.
        base: The commit of main that it would be merged into.
        repository: Where its head is; another one than ours for a fork.
        author: Who opened it.
        into: The repository that it would be merged into.
    """

    number: int
    branch: str
    head: str
    merge: str
    base: str
    repository: str
    author: str
    into: str = "acme/models"

    @property
    def event(self) -> dict[str, Any]:
        """What GitHub tells a workflow of it, as far as ours look."""
        return {
            "number": self.number,
            "head": {"ref": self.branch, "sha": self.head, "repo": {"full_name": self.repository}},
            "base": {"ref": "main", "sha": self.base, "repo": {"full_name": self.into}},
            "user": {"login": self.author},
        }


@dataclass
class Forge:
    """One repository on a GitHub of our own.

    Attributes:
        folder: Everything lies here, other repositories of the same GitHub too.
        repository: As owner/name.
        pulls: By number.
        comments: Of each pull request, in the order in which they were written.
        runs: Workflow runs by id, as the API shows them.
        asked: Method and path of each request.
    """

    REPOSITORY = "acme/models"
    FORK = "somebody/models"

    folder: Path
    repository: str = REPOSITORY
    pulls: dict[int, PullRequest] = field(default_factory=dict)
    comments: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    runs: dict[int, dict[str, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    # --- the repository ---

    @property
    def bare(self) -> Path:
        """The repository as a server has it."""
        return self.folder / "repositories" / f"{self.repository}.git"

    @property
    def clone(self) -> Path:
        """The developer's clone of it."""
        return self.folder / "developer" / self.repository

    @property
    def artifacts(self) -> Path:
        """Where the stand-in for actions/upload-artifact puts them."""
        return self.folder / "artifacts"

    def git(self, *arguments: str | Path, folder: Path | None = None) -> str:
        """Run git and return what it prints."""
        done = subprocess.run(
            ["git", *arguments], cwd=folder or self.clone, env={**os.environ, **GIT}, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, f"git {arguments}: {done.stderr}"
        return done.stdout.strip()

    def create(self, source: Path | None, changes: Mapping[str, str]) -> str:
        """Make the repository with one commit: what git would take of a folder as it is now, and some changes."""
        self.bare.parent.mkdir(parents=True, exist_ok=True)
        self.git("init", "-q", "--bare", "--initial-branch=main", self.bare, folder=self.folder)
        # As on GitHub, any commit can be fetched by its hash.
        self.git("config", "uploadpack.allowAnySHA1InWant", "true", folder=self.bare)
        self.git("clone", "-q", self.bare, self.clone, folder=self.folder)
        self.git("checkout", "-q", "-B", "main")
        names = self.git("ls-files", "-z", "--cached", "--others", "--exclude-standard", folder=source).split("\0") if source else []
        for name in names:
            if source and name and (source / name).is_file():
                (self.clone / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source / name, self.clone / name)
        return self._publish(self._commit(changes, "Begin"))

    def _commit(self, changes: Mapping[str, str], subject: str) -> str:
        for name, text in changes.items():
            (self.clone / name).parent.mkdir(parents=True, exist_ok=True)
            (self.clone / name).write_text(text)
        self.git("add", "--all")
        self.git("commit", "-q", "--allow-empty", "-m", subject)
        return self.git("rev-parse", "HEAD")

    def _publish(self, commit: str) -> str:
        self.git("push", "-q", "origin", f"{commit}:refs/heads/main")
        self.git("fetch", "-q", "origin")
        return commit

    def push(self, changes: Mapping[str, str], subject: str = "Change main") -> str:
        """Commit to main and return the commit."""
        self.git("checkout", "-q", "-B", "main", "origin/main")
        return self._publish(self._commit(changes, subject))

    def pull_request(self, branch: str, changes: Mapping[str, str], *, fork: bool = False, author: str = "developer") -> PullRequest:
        """Open a pull request, or push once more to the one of this branch."""
        known = next((pull for pull in self.pulls.values() if pull.branch == branch), None)
        self.git("fetch", "-q", "origin")
        self.git("checkout", "-q", "-B", branch, known.head if known else "origin/main")
        head = self._commit(changes, f"Change {branch}")
        number = known.number if known else len(self.pulls) + 1
        base = self.git("rev-parse", "origin/main")
        self.git("checkout", "-q", "--detach", base)
        self.git("merge", "-q", "--no-ff", "-m", f"Merge {head} into {base}", head)
        merge = self.git("rev-parse", "HEAD")
        self.git("push", "-q", "--force", "origin", f"{head}:refs/pull/{number}/head", f"{merge}:refs/pull/{number}/merge")
        if not fork:
            self.git("push", "-q", "--force", "origin", f"{head}:refs/heads/{branch}")
        self.pulls[number] = PullRequest(number, branch, head, merge, base, self.FORK if fork else self.repository, author, self.repository)
        return self.pulls[number]

    # --- the API ---

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Answer the API on loopback for the block, and yield its address."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()

    def stored(self, run: int | None = None) -> list[dict[str, Any]]:
        """Return the artifacts of a run, or all of them, as the API shows them."""
        notes = [json.loads(path.read_text()) for path in sorted(self.artifacts.glob("*.json"))]
        return [
            {"id": note["id"], "name": note["name"], "expired": note.get("expired", False), "workflow_run": {"id": note["run"]}}
            for note in notes
            if run in {None, note["run"]}
        ]

    def answer(self, method: str, path: str, query: Mapping[str, str], body: Any) -> tuple[int, Any]:  # noqa: ANN401 - JSON
        """Return status and content of a request; its path is below /repos/<owner>/<name>."""
        answers: dict[tuple[str, str], Callable[..., tuple[int, Any]]] = {
            ("GET", r"/pulls"): lambda: (200, self._open(query)),
            ("GET", r"/actions/artifacts"): lambda: (200, {"artifacts": self.stored()}),
            ("GET", r"/actions/runs/(\d+)/artifacts"): lambda run: (200, {"artifacts": self.stored(run)}),
            ("GET", r"/actions/runs/(\d+)"): lambda run: (200, self.runs[run]),
            ("DELETE", r"/actions/artifacts/(\d+)"): self._delete,
            ("GET", r"/issues/(\d+)/comments"): lambda number: (200, self.comments.get(number, [])),
            ("POST", r"/issues/(\d+)/comments"): lambda number: self._write(number, body),
            ("PATCH", r"/issues/comments/(\d+)"): lambda comment: self._rewrite(comment, body),
        }
        for (verb, pattern), reply in answers.items():
            if verb == method and (found := re.fullmatch(pattern, path)):
                status, content = reply(*map(int, found.groups()))
                return status, _paged(content, query)
        return 404, {"message": f"Not Found: {method} {path}"}

    def _open(self, query: Mapping[str, str]) -> list[dict[str, Any]]:
        assert query["state"] == "open"
        return [pull.event for pull in self.pulls.values() if f"{pull.repository.split('/')[0]}:{pull.branch}" == query["head"]]

    def _delete(self, artifact: int) -> tuple[int, None]:
        for suffix in (".json", ".zip"):
            (self.artifacts / str(artifact)).with_suffix(suffix).unlink()
        return 204, None

    def _write(self, number: int, body: Mapping[str, str]) -> tuple[int, Any]:
        written = self.comments.setdefault(number, [])
        written.append({"id": 1000 * number + len(written), "user": {"login": BOT}, "body": body["body"]})
        return 201, written[-1]

    def _rewrite(self, comment: int, body: Mapping[str, str]) -> tuple[int, Any]:
        there = next(each for every in self.comments.values() for each in every if each["id"] == comment)
        there["body"] = body["body"]
        return 200, there


def _paged(content: Any, query: Mapping[str, str]) -> Any:  # noqa: ANN401 - JSON
    """Return one page of a list, wherever in the answer it is."""
    page, size = int(query.get("page", 1)), int(query.get("per_page", 30))
    if isinstance(content, list):
        return content[(page - 1) * size : page * size]
    if isinstance(content, dict) and set(content) == {"artifacts"}:
        return {"artifacts": _paged(content["artifacts"], query)}
    return content


def _handler(forge: Forge) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _reply(self, status: int, content: bytes, headers: Mapping[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "null")
            forge.asked.append(f"{self.command} {parts.path}")
            # The store of artifacts is somebody else's: a token that is sent there is a token given away.
            if stored := re.fullmatch(r"/store/(\d+)", parts.path):
                if "Authorization" in self.headers:
                    self._reply(400, b"a token was sent to the store")
                else:
                    self._reply(200, (forge.artifacts / f"{stored[1]}.zip").read_bytes())
                return
            prefix = f"/repos/{forge.repository}"
            if self.headers.get("Authorization") != f"Bearer {TOKEN}" or not parts.path.startswith(prefix):
                self._reply(401, b'{"message": "Bad credentials"}')
                return
            below = parts.path.removeprefix(prefix)
            if download := re.fullmatch(r"/actions/artifacts/(\d+)/zip", below):
                self._reply(302, b"", {"Location": f"http://{self.headers['Host']}/store/{download[1]}"})
                return
            status, content = forge.answer(self.command, below, {key: values[0] for key, values in parse_qs(parts.query).items()}, body)
            self._reply(status, b"" if content is None else json.dumps(content).encode(), {"Content-Type": "application/json"})

        do_GET = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815 - the names that http.server looks for

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
