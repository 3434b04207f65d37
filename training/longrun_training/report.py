"""The verb `report`: what the gate found, for people: Markdown for the pull request, a page for everybody, and the trend."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from longrun_training import gate_file, markdown, page, provenance, trend, trend_figure
from longrun_training.config import Configuration
from longrun_training.contents import Contents
from longrun_training.errors import OutageError, ProblemError
from longrun_training.judgement import Judgement
from longrun_training.server import PATIENCE, Server, calm, one_try, patience, settings

DEFAULT = Path(".longrun/report")
MARKDOWN, PAGE, PICTURE, COMMENT = "report.md", "report.html", "trend.png", "comment.json"
COMMENT_FORMAT = 1
# A report is worth less than a training: it waits only so long for a server that restarts.
WAIT_SECONDS = 15.0
# What GitHub takes for the summary of a step.
SUMMARY_BYTES = 1024 * 1024
CUT = "\n\n✂️ The summary was cut to fit.\n"
ADDRESS = re.compile(r"https?://[\w.:-]+(/[\w./-]*)?")
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
LOCAL = "local"


@dataclass(frozen=True)
class Written:
    """Where a report is.

    Attributes:
        judgement: What it is about.
        markdown: The file for the pull request.
        page: The HTML file.
        picture: The trend; None where there is none.
        comment: The file for the workflow that writes the comment.
        no_trend: Why there is no trend; None where there is one.
        stored: Address of the page on the server; None where it is not there.
        notes: What did not work besides, one sentence each.
    """

    judgement: Judgement
    markdown: Path
    page: Path
    picture: Path | None
    comment: Path
    no_trend: str | None
    stored: str | None
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class _Place:
    """The server, and the experiment there."""

    client: MlflowClient
    server: Server
    experiment_id: str


def report(configuration: Configuration, *, gate: Path, output: Path, limit: int = markdown.LIMIT, summary: Path | None = None) -> Written:
    """Write a report about a judgement; its files go to the candidate's run as well, where the server answers.

    A server that is away, or refuses, costs the trend and the upload, and the report says so.

    Args:
        configuration: The model's: the main branch, the target's unit, which metrics come first.
        gate: The judgement's file.
        output: The folder; made where it is missing.
        limit: Of the Markdown, in characters.
        summary: The file that GitHub shows as the job's summary; the Markdown is added to it.

    Raises:
        ProblemError: There is no judgement, or no place for the files.
    """
    judgement = gate_file.read(gate)
    with calm(), one_try():
        place, why = _reach(configuration)
        found: trend.Trend | None = None
        if place is not None:
            found, why = _read_trend(place, configuration, judgement)
        stored = f"{judgement.candidate.url}/artifactPath/{PAGE}" if place is not None and why is None and judgement.candidate is not None else None
        contents = Contents(
            judgement,
            workflow=os.environ.get("GITHUB_WORKFLOW") or LOCAL,
            unit=configuration.data.unit,
            repository=_repository(),
            trend=found,
            no_trend=why or (None if found else f"There is no judged run on {configuration.baseline.branch} yet."),
            stored=stored,
        )
        written = _write(contents, output, limit)
        notes = [] if summary is None else _summarize(written.markdown, summary)
        if place is not None and stored is not None and judgement.candidate is not None:
            notes += _upload(place, judgement.candidate.run_id, written)
    return Written(**{**vars(written), "notes": tuple(notes)})


def _reach(configuration: Configuration) -> tuple[_Place | None, str | None]:
    """Return the experiment's place on the server, or None and why it can't be had."""
    try:
        server = Server.from_environment()
        with settings({PATIENCE: str(min(patience(), WAIT_SECONDS))}):
            experiment = server.preflight(configuration.experiment)
    except ProblemError as problem:
        return None, _unasked(problem)
    if experiment is None:
        return None, f"There is no trend: the server has no experiment {configuration.experiment!r}."
    return _Place(MlflowClient(), server, experiment.experiment_id), None


def _unasked(problem: ProblemError) -> str:
    """Return why there is no trend. What the person who starts the command can do about it is on the screen, not in the report."""
    if isinstance(problem, OutageError):
        return f"The server was away when this report was written, so it shows no trend and is not stored there: {problem}"
    return f"The server could not be asked, so this report shows no trend and is not stored there: {problem}"


def _read_trend(place: _Place, configuration: Configuration, judgement: Judgement) -> tuple[trend.Trend | None, str | None]:
    try:
        with place.server.explaining(f"experiment {configuration.experiment!r}"):
            found = trend.read(
                place.client,
                judgement,
                experiment_id=place.experiment_id,
                branch=configuration.baseline.branch,
                metrics=list(configuration.metrics),
                unit=configuration.data.unit,
            )
    except ProblemError as problem:
        return None, _unasked(problem)
    return found, None


def _repository() -> str | None:
    """Return the address of the repository's pages, as CI knows it."""
    host, name = (os.environ.get("GITHUB_SERVER_URL") or "https://github.com").rstrip("/"), os.environ.get("GITHUB_REPOSITORY", "")
    return f"{host}/{name}" if ADDRESS.fullmatch(host) and REPOSITORY.fullmatch(name) else None


def _write(contents: Contents, output: Path, limit: int) -> Written:
    pictures = None
    if contents.trend is not None:
        pictures = trend_figure.png(contents.trend), trend_figure.png(contents.trend, trend_figure.DARK)
    text = markdown.render(contents, limit)
    with _writing(output):
        output.mkdir(parents=True, exist_ok=True)
        files = {name: output / name for name in (MARKDOWN, PAGE, PICTURE, COMMENT)}
        files[MARKDOWN].write_text(text, encoding="utf-8")
        files[PAGE].write_text(page.render(contents, pictures), encoding="utf-8")
        files[COMMENT].write_text(_comment(contents, text), encoding="utf-8")
        # The picture of an earlier report would be taken for this one's.
        files[PICTURE].unlink(missing_ok=True)
        if pictures is not None:
            files[PICTURE].write_bytes(pictures[0])
    picture = files[PICTURE] if pictures else None
    return Written(contents.judgement, files[MARKDOWN], files[PAGE], picture, files[COMMENT], contents.no_trend, contents.stored)


@contextmanager
def _writing(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"the report can't be written to {output}: {error.strerror or error}: choose another --output"
        raise ProblemError(message) from error


def _comment(contents: Contents, text: str) -> str:
    """Return what the workflow that may write comments reads; it believes the commit only where GitHub says the same."""
    judgement = contents.judgement
    commit, own = provenance.source().commit, judgement.candidate.commit if judgement.candidate else None
    content = {
        "format": COMMENT_FORMAT,
        "head_sha": (commit or own if os.environ.get("GITHUB_SHA") else own or commit) or "",
        "workflow": markdown.safe_name(contents.workflow),
        "model": markdown.safe_name(judgement.model),
        "verdict": judgement.verdict.value,
        "body": text,
    }
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


def _summarize(text: Path, summary: Path) -> list[str]:
    """Add the Markdown to the job's summary, cut to what GitHub takes; return what went wrong, for a report is no reason to fail a job."""
    try:
        there = summary.stat().st_size if summary.exists() else 0
        content = text.read_bytes()
        if there + len(content) > SUMMARY_BYTES:
            room = max(SUMMARY_BYTES - there - len(CUT.encode()), 0)
            content = content[:room].decode(errors="ignore").rpartition("\n\n")[0].encode() + CUT.encode() if room else b""
        with summary.open("ab") as file:
            file.write(content)
    except OSError as error:
        return [f"the job's summary {summary} can't be written: {error.strerror or error}"]
    return []


def _upload(place: _Place, run_id: str, written: Written) -> list[str]:
    """Store the report's files with the candidate's run; return what went wrong."""
    try:
        with place.server.explaining(f"run {run_id}"):
            for path in (written.markdown, written.page, written.picture):
                if path is not None:
                    place.client.log_artifact(run_id, str(path))
    except (ProblemError, MlflowException, requests.RequestException, OSError) as error:
        return [f"the report is not stored on the server: {' '.join(str(error).split())}"]
    return []
