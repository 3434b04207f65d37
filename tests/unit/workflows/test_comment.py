"""The comment on a pull request: written once, renewed in place, and never by what the pull request's code would like."""

import json
from collections.abc import Callable
from typing import Any

import comment
import pytest

from tests.e2e.stand_ins.github import BOT, Forge, PullRequest
from tests.unit.workflows.conftest import Runner, upload

HEAD = "a" * 40
BODY = "<!-- longrun: model diabetes -->\n## diabetes passes\n\nSee what @someone changed.\n"
GOOD = {"format": 1, "head_sha": HEAD, "workflow": "model", "model": "diabetes", "verdict": "pass", "body": BODY}


def built(forge: Forge, *, repository: str = Forge.REPOSITORY, attempt: int = 1, actor: str = "developer") -> dict[str, Any]:
    """Return what GitHub tells of the workflow run of pull request 7."""
    forge.pulls[7] = PullRequest(7, "better", HEAD, "b" * 40, "c" * 40, repository, actor)
    return {
        "id": 1001,
        "event": "pull_request",
        "head_sha": HEAD,
        "head_branch": "better",
        "head_repository": {"full_name": repository, "owner": {"login": repository.partition("/")[0]}},
        "run_attempt": attempt,
        "actor": {"login": actor},
    }


@pytest.fixture
def post(forge: Forge, job: Runner) -> Callable[..., str]:
    """Run the script for a workflow run that left a file, and return the text of the pull request's last comment."""

    def run(run: dict[str, Any], content: object = GOOD, name: str = "longrun-comment-models-diabetes-1") -> str:
        upload(forge, name, 1001, {"comment.json": json.dumps(content).encode()})
        job.event({"workflow_run": run, "workflow": {"name": "model"}})
        comment.main()
        written = forge.comments.get(7, [])
        return str(written[-1]["body"]) if written else ""

    return run


def test_written_and_renewed_in_place(forge: Forge, post: Callable[..., str]) -> None:
    """A second run changes the comment of the first, and a reader finds one comment however often somebody pushes."""
    first = post(built(forge))
    assert first.startswith("<!-- longrun: model diabetes -->\n## diabetes passes")
    second = post(built(forge, attempt=2), {**GOOD, "verdict": "fail", "body": BODY.replace("passes", "fails")}, "longrun-comment-models-diabetes-2")
    assert "fails" in second
    assert len(forge.comments[7]) == 1


def test_each_model_has_its_own(forge: Forge, post: Callable[..., str], job: Runner) -> None:
    """Two models of one pull request, and a person's comment that looks like ours: three comments, the person's untouched."""
    other = GOOD | {"model": "houses", "body": BODY.replace("diabetes", "houses")}
    forge.comments[7] = [{"id": 1, "user": {"login": "somebody"}, "body": BODY}]
    # More than one page, so that the second is read.
    forge.comments[7] += [{"id": 10 + number, "user": {"login": BOT}, "body": "something else"} for number in range(120)]
    upload(forge, "longrun-comment-houses-1", 1001, {"comment.json": json.dumps(other).encode()})
    post(built(forge))
    comment.main()
    ours = [each["body"].splitlines()[0] for each in forge.comments[7][121:]]
    assert sorted(ours) == ["<!-- longrun: model diabetes -->", "<!-- longrun: model houses -->"]
    assert forge.comments[7][0]["body"] == BODY
    del job


def test_the_workflow_is_the_one_that_github_names(forge: Forge, post: Callable[..., str]) -> None:
    """A file that claims to be another workflow's would write over that one's comment."""
    other = {**GOOD, "workflow": "other", "body": BODY.replace("model diabetes", "other diabetes")}
    assert post(built(forge), other).splitlines()[0] == "<!-- longrun: model diabetes -->"


def test_mentions_call_nobody(forge: Forge, post: Callable[..., str]) -> None:
    """A report must not write to people, whoever put their names into it."""
    assert "@someone" not in post(built(forge))


@pytest.mark.parametrize(("repository", "actor"), [(Forge.FORK, "stranger"), (Forge.REPOSITORY, "dependabot[bot]")])
def test_outsiders_reports_say_so(forge: Forge, post: Callable[..., str], repository: str, actor: str) -> None:
    """The pull request is found although GitHub names none for a fork, and a reader is told whose words these are."""
    text = post(built(forge, repository=repository, actor=actor))
    assert text.splitlines()[0] == "<!-- longrun: model diabetes -->"
    assert "[!WARNING]" in text
    assert "[!WARNING]" not in post(built(forge))


def test_a_pull_request_that_moved_on_is_left_alone(forge: Forge, post: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    """The newer commit's own run will comment; this one's verdict would be read as its."""
    run = built(forge)
    forge.pulls[7] = PullRequest(7, "better", "d" * 40, "b" * 40, "c" * 40, Forge.REPOSITORY, "developer")
    assert post(run) == ""
    assert "nothing to post" in capsys.readouterr().out


@pytest.mark.parametrize("event", ["push", "schedule", "workflow_dispatch"])
def test_other_events_write_nothing(forge: Forge, post: Callable[..., str], event: str) -> None:
    """Only pull requests have comments."""
    assert post({**built(forge), "event": event}) == ""
    assert not forge.asked


def test_artifacts_of_other_attempts_and_names_are_not_read(forge: Forge, post: Callable[..., str]) -> None:
    """A job that was started again says what holds; an earlier attempt's file is older."""
    assert post(built(forge, attempt=2)) == ""
    assert post(built(forge), name="longrun-report-models-diabetes-1") != ""
    assert len(forge.comments[7]) == 1


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"format": 2}, "format"),
        ({"format": True}, "format"),
        ({"head_sha": "e" * 40}, "head_sha"),
        ({"workflow": "deploy"}, "marker"),
        ({"verdict": "excellent"}, "verdict"),
        ({"verdict": None}, "verdict"),
        ({"body": ""}, "body"),
        ({"body": ["x"]}, "body"),
        ({"body": "no marker\n"}, "marker"),
        ({"body": BODY.replace("diabetes -->", "houses -->")}, "marker"),
        ({"body": BODY + "<!-- longrun: model houses -->"}, "another marker"),
        ({"body": BODY + "x" * 65_000}, "65000"),
        ({"body": BODY + "\x1b[2J"}, "control"),
        ({"model": "x --> <script>"}, "model"),
        ({"model": "two\nlines"}, "model"),
        ({"extra": 1}, "keys"),
    ],
)
def test_another_shape_is_refused(forge: Forge, post: Callable[..., str], capsys: pytest.CaptureFixture[str], change: dict[str, Any], word: str) -> None:
    """One line says what is wrong, the job fails, and nothing is posted."""
    with pytest.raises(SystemExit):
        post(built(forge), {**GOOD, **change})
    told = capsys.readouterr().out
    assert word in told
    assert told.count("::error::") == 1
    assert "Traceback" not in told
    assert not forge.comments


@pytest.mark.parametrize(
    "files",
    [
        {"comment.json": b"\xff\xfe"},
        {"comment.json": b"[]"},
        {"comment.json": b"{"},
        {"other.json": b"{}"},
        {"comment.json": json.dumps(GOOD).encode(), "second.json": b"{}"},
        {"../comment.json": json.dumps(GOOD).encode()},
        # A few hundred bytes in the archive, and a gigabyte's worth of trouble for who unpacks it unasked.
        {"comment.json": b" " * 5_000_000},
    ],
    ids=["encoding", "list", "half", "name", "two", "path", "bomb"],
)
def test_another_archive_is_refused(forge: Forge, job: Runner, files: dict[str, bytes]) -> None:
    """What is in the artifact is the pull request's to choose."""
    upload(forge, "longrun-comment-models-diabetes-1", 1001, files)
    job.event({"workflow_run": built(forge), "workflow": {"name": "model"}})
    with pytest.raises(SystemExit):
        comment.main()
    assert not forge.comments


def test_the_token_stays_with_github(forge: Forge, post: Callable[..., str]) -> None:
    """Artifacts lie behind a redirect to another host; the stand-in's refuses a request that brings the token along."""
    post(built(forge))
    assert any(line.startswith("GET /store/") for line in forge.asked)


def test_a_refusal_of_github_is_one_line(forge: Forge, post: Callable[..., str], job: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    """A token that may not, for example."""
    job.set(GITHUB_TOKEN="another")  # noqa: S106 - of nobody
    with pytest.raises(SystemExit):
        post(built(forge))
    told = capsys.readouterr().out
    assert "401" in told
    assert "Bad credentials" in told
    assert told.count("\n") == 1
