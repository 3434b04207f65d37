"""Keeps one comment a pull request, workflow and model up to date, from what a training job left as an artifact.

It runs on `workflow_run`, with a token that may write comments, and so trusts nothing of the pull request: it checks out
none of its code, takes one small JSON file of a known shape, and finds the pull request by the commit that GitHub, not
the file, says was built.
"""

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import runner
from github_api import Api, ApiError

FORMAT = 1
KEYS = frozenset({"format", "head_sha", "workflow", "model", "verdict", "body"})
VERDICTS = frozenset({"pass", "fail", "inconclusive", "not judged", "no baseline"})
ARTIFACT = re.compile(r"longrun-comment-[A-Za-z0-9-]{1,100}-(?P<attempt>[0-9]{1,6})")
FILE = "comment.json"
# GitHub takes 65,536 characters a comment; what we put before the body takes less than the rest.
LONGEST_BODY, LONGEST_MODEL = 65_000, 250
ARTIFACT_BYTES, FILE_BYTES = 1_000_000, 600_000
# What a name may not hold, for it stands within an HTML comment: `-->` would end it.
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
# Written by the workflows' own token; nobody else's comment is touched.
AUTHOR = "github-actions[bot]"
OUTSIDE = """> [!WARNING]
> This report was written by the code of a pull request that may not see the server: its model was held to the floors only,
> and the report is as true as that code.

"""


class RefusedError(Exception):
    """The file is not what a training job writes; the text says in which way."""


@dataclass(frozen=True)
class Comment:
    """What is to be shown; each field was checked."""

    head_sha: str
    workflow: str
    model: str
    verdict: str
    body: str


def marker(workflow: str, model: str) -> str:
    """Return the first line, by which a comment is found again."""
    return f"<!-- longrun: {workflow} {model} -->"


def parse(content: bytes, *, head_sha: str) -> Comment:
    """Read comment.json, and believe it only as far as it agrees with what GitHub says of the run.

    Args:
        content: The file.
        head_sha: The commit that GitHub built.

    Raises:
        RefusedError: Another shape, another commit, too long, or a marker that is not its own.
    """
    try:
        found = json.loads(content.decode("utf-8"))
    except ValueError as error:
        message = f"it is no JSON in UTF-8: {error}"
        raise RefusedError(message) from error
    if not isinstance(found, dict) or set(found) != KEYS:
        message = f"its keys are not {', '.join(sorted(KEYS))}"
        raise RefusedError(message)
    if type(found["format"]) is not int or found["format"] != FORMAT:
        message = f"its format is not {FORMAT}"
        raise RefusedError(message)
    for key in sorted(KEYS - {"format"}):
        if not isinstance(found[key], str) or not found[key] or UNPRINTABLE.search(found[key]):
            message = f"{key} is no text, or holds control characters"
            raise RefusedError(message)
    comment = Comment(**{key: found[key] for key in KEYS - {"format"}})
    problems = {
        "head_sha is not the commit that was built": comment.head_sha != head_sha,
        "model is no name of one line": len(comment.model) > LONGEST_MODEL or "--" in comment.model or "\n" in comment.model or ">" in comment.model,
        "verdict is none that the gate gives": comment.verdict not in VERDICTS,
        f"body has more than {LONGEST_BODY} characters": len(comment.body) > LONGEST_BODY,
        "body does not begin with its marker": comment.body.splitlines()[0] != marker(comment.workflow, comment.model),
        "body holds another marker": comment.body.count("<!-- longrun:") != 1,
    }
    for problem, there in problems.items():
        if there:
            raise RefusedError(problem)
    return comment


def unpack(archive: bytes) -> bytes:
    """Return comment.json of an artifact, which may hold nothing else.

    Raises:
        RefusedError: Another content, or one that is larger than it may be.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            members = opened.infolist()
            if [member.filename for member in members] != [FILE] or members[0].file_size > FILE_BYTES:
                message = f"it does not hold {FILE} alone, of {FILE_BYTES} bytes at most"
                raise RefusedError(message)
            with opened.open(FILE) as file:
                content = file.read(FILE_BYTES + 1)
    except (zipfile.BadZipFile, RuntimeError, EOFError) as error:
        message = f"it is no archive: {error}"
        raise RefusedError(message) from error
    if len(content) > FILE_BYTES:
        message = f"{FILE} has more than {FILE_BYTES} bytes"
        raise RefusedError(message)
    return content


def quiet(body: str) -> str:
    """Return the body so that it calls nobody: a mention in a report must not write to people."""
    return re.sub(r"@(?=[A-Za-z0-9])", "@\N{ZERO WIDTH SPACE}", body)


def text(comment: Comment, workflow: str, *, outside: bool) -> str:
    """Return what is posted: the marker with the workflow that GitHub names, a warning where the writer is not one of us, and the report."""
    _, _, rest = comment.body.partition("\n")
    return f"{marker(workflow, comment.model)}\n{OUTSIDE if outside else ''}{quiet(rest)}"


def read(api: Api, run: Mapping[str, Any]) -> Iterator[Comment]:
    """Yield each comment that the last attempt of a workflow run left.

    Raises:
        RefusedError: One of them is not what a training job writes.
        ApiError: GitHub did not give them.
    """
    for artifact in api.pages(f"/actions/runs/{int(run['id'])}/artifacts", "artifacts"):
        named = ARTIFACT.fullmatch(artifact["name"])
        if named is None or int(named["attempt"]) != run["run_attempt"] or artifact["expired"]:
            continue
        content = io.BytesIO()
        api.download(f"/actions/artifacts/{int(artifact['id'])}/zip", ARTIFACT_BYTES, content)
        try:
            yield parse(unpack(content.getvalue()), head_sha=run["head_sha"])
        except RefusedError as error:
            message = f"the artifact {artifact['name']} is not posted: {error}"
            raise RefusedError(message) from error


def pull_requests(api: Api, run: Mapping[str, Any]) -> list[int]:
    """Return the open pull requests whose head is the commit that was built.

    GitHub names none in the event where the pull request comes from a fork, so they are asked for by the head's branch and
    compared by commit. One that has moved on has another head, and gets the comment of its own run.
    """
    head = f"{run['head_repository']['owner']['login']}:{run['head_branch']}"
    found = api.pages("/pulls", state="open", head=head)
    return [int(pull["number"]) for pull in found if pull["head"]["sha"] == run["head_sha"] and pull["base"]["repo"]["full_name"] == api.repository]


def post(api: Api, number: int, body: str) -> str:
    """Write a comment, over the one with the same first line; return what was done."""
    for there in api.pages(f"/issues/{number}/comments"):
        if there["user"]["login"] == AUTHOR and (there.get("body") or "").splitlines()[:1] == body.splitlines()[:1]:
            api.send("PATCH", f"/issues/comments/{int(there['id'])}", {"body": body})
            return "updated"
    api.send("POST", f"/issues/{number}/comments", {"body": body})
    return "written"


def main() -> None:
    """Post what the workflow run left; a file that is refused fails the job and posts nothing."""
    event = json.loads(Path(runner.needed("GITHUB_EVENT_PATH")).read_text(encoding="utf-8"))
    run, api = event["workflow_run"], Api.from_environment()
    if run["event"] != "pull_request" or not run.get("head_repository"):
        print("not the run of a pull request that is still there: nothing to post")
        return
    outside = run["head_repository"]["full_name"] != api.repository or run["actor"]["login"] == "dependabot[bot]"
    try:
        numbers, comments = pull_requests(api, run), list(read(api, run))
        for number in numbers:
            for comment in comments:
                done = post(api, number, text(comment, event["workflow"]["name"], outside=outside))
                print(f"#{number}: comment of {comment.model} {done} ({comment.verdict})")
    except (RefusedError, ApiError) as error:
        runner.fail(str(error))
    if not numbers:
        runner.notice(f"no open pull request has {run['head_sha'][:10]} as its head any more: nothing to post")
    elif not comments:
        print("the run left no comment: nothing to post")


if __name__ == "__main__":
    main()
