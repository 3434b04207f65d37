"""The other scripts of the workflows, each by itself."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import aggregate
import changes
import connection
import open_environment
import plan
import pytest
import runner
import spool
import verdict

from tests.e2e.stand_ins.github import GIT, Forge
from tests.unit.workflows.conftest import Runner

SECRETS = {"MLFLOW_TRACKING_URI": "https://mlflow.example.org", "MLFLOW_TRACKING_USERNAME": "pipeline", "MLFLOW_TRACKING_PASSWORD": "password"}
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"


def failure(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one annotation of a step that failed."""
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("::error::")]
    return line


# --- runner ---


def test_what_the_runner_reads(job: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    """Values of many lines stay one value, annotations stay one line, a summary stays within what GitHub takes."""
    runner.output("text", "one\ntwo=2\nend")
    runner.output("other", "")
    runner.notice("50 %\nof it")
    runner.summary("ä" * 1_000_000)
    assert job.outputs == {"text": "one\ntwo=2\nend", "other": ""}
    assert capsys.readouterr().out == "::notice::50 %25%0Aof it\n"
    assert len(job.summary.encode()) <= 1_048_576


def test_without_a_runner_nothing_is_written(job: Runner) -> None:
    """A person may start a script by hand."""
    job.environment.delenv("GITHUB_OUTPUT")
    runner.output("name", "value")
    assert not job.outputs


# --- connection ---


def pull_request(repository: str | None, author: str = "developer") -> dict[str, Any]:
    """Return the event of a pull request from a repository; None for one that was deleted since."""
    return {"pull_request": {"head": {"repo": repository and {"full_name": repository}}, "user": {"login": author}}}


def connect(job: Runner, event: object, config: str = "models/diabetes/longrun.toml", **secrets: str) -> None:
    """Run the script."""
    job.event(event)
    job.set(CONFIG=config, **secrets)
    connection.main()


@pytest.mark.parametrize("event", [{}, pull_request(Forge.REPOSITORY), pull_request(Forge.REPOSITORY, "dependabot[bot]")])
def test_with_secrets_the_run_goes_to_the_server(job: Runner, event: object) -> None:
    """On branches and on pull requests of the repository itself; where Dependabot was given secrets, there too."""
    connect(job, event, **SECRETS, MLFLOW_TRACKING_SERVER_CERT=f"\n{CERTIFICATE}\n")
    assert job.outputs == {"mode": "server", "slug": "models-diabetes"}
    assert Path(job.variables["MLFLOW_TRACKING_SERVER_CERT_PATH"]).read_text() == f"{CERTIFICATE}\n"


def test_no_certificate_needs_no_file(job: Runner) -> None:
    """A server with a public authority's certificate."""
    connect(job, {}, **SECRETS)
    assert job.outputs["mode"] == "server"
    assert not job.variables


@pytest.mark.parametrize("event", [pull_request(Forge.FORK), pull_request(None), pull_request(Forge.REPOSITORY, "dependabot[bot]")])
def test_outsiders_get_a_server_of_their_own(job: Runner, event: object, capsys: pytest.CaptureFixture[str]) -> None:
    """They have no secrets, are told so, and do not fail for that."""
    connect(job, event)
    assert job.outputs["mode"] == "local"
    assert "::notice::" in capsys.readouterr().out
    assert "floors only" in job.summary


def test_a_fork_with_secrets_gets_none_of_them(job: Runner) -> None:
    """An organization can hand secrets to forks of private repositories; a fork's code is a stranger's all the same."""
    connect(job, pull_request(Forge.FORK), **SECRETS)
    assert job.outputs["mode"] == "local"


@pytest.mark.parametrize("left_out", list(SECRETS))
def test_a_missing_secret_is_named(job: Runner, left_out: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Everybody else needs all three; the line names the one that is missing and no other."""
    with pytest.raises(SystemExit):
        connect(job, pull_request(Forge.REPOSITORY), **{name: value for name, value in SECRETS.items() if name != left_out})
    told = failure(capsys)
    assert [name for name in SECRETS if name in told] == [left_out]
    assert "mode" not in job.outputs


def test_a_certificate_that_is_none(job: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    """A path in the place of the file's content is the likely mistake."""
    with pytest.raises(SystemExit):
        connect(job, {}, **SECRETS, MLFLOW_TRACKING_SERVER_CERT="/home/me/ca.crt")
    assert "MLFLOW_TRACKING_SERVER_CERT" in failure(capsys)


@pytest.mark.parametrize(
    ("config", "slug"),
    [("longrun.toml", "model"), ("models/a/longrun.toml", "models-a"), ("models/ä b.toml", "models-b-toml"), ("a/b/c/longrun.toml", "a-b-c")],
)
def test_slugs_fit_into_names_of_artifacts(config: str, slug: str) -> None:
    """GitHub refuses slashes and the like."""
    assert connection.slug(config) == slug


# --- changes ---


def repository(folder: Path, *commits: dict[str, str], merge: dict[str, str] | None = None) -> None:
    """Make a repository with some commits, and one merged into the last of them where asked for."""

    def git(*arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=folder, env={**os.environ, **GIT}, check=True, capture_output=True)

    def commit(files: dict[str, str]) -> None:
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        git("add", "--all")
        git("commit", "--quiet", "--message", "x")

    git("init", "--quiet", "--initial-branch=main")
    for files in commits:
        commit(files)
    if merge is not None:
        git("checkout", "--quiet", "-b", "topic")
        commit(merge)
        git("checkout", "--quiet", "main")
        # The branch to merge into went on meanwhile; that is no change of the pull request.
        commit({"training/elsewhere.py": "on main"})
        git("merge", "--quiet", "--no-ff", "--message", "merge", "topic")


FILTERS = """
model = models training
texts = *.md :(exclude)CHANGELOG.md
"""


@pytest.mark.parametrize(
    ("merged", "wanted"),
    [
        ({"models/a.toml": "2"}, {"model": "true", "texts": "false"}),
        ({"README.md": "2"}, {"model": "false", "texts": "true"}),
        ({"CHANGELOG.md": "2"}, {"model": "false", "texts": "false"}),
    ],
)
def test_only_what_a_pull_request_touches(job: Runner, tmp_path: Path, merged: dict[str, str], wanted: dict[str, str]) -> None:
    """Compared with the branch to merge into, as git's pathspecs say."""
    place = tmp_path / "repository"
    place.mkdir()
    repository(place, {"models/a.toml": "1"}, merge=merged)
    job.environment.chdir(place)
    job.set(CHANGES_FILTERS=FILTERS, GITHUB_EVENT_NAME="pull_request")
    changes.main()
    assert job.outputs == wanted


def test_everything_on_other_events_and_where_git_can_not_tell(job: Runner, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On main nothing is left out; nor is it where the checkout is no merge, or too shallow."""
    place = tmp_path / "repository"
    place.mkdir()
    repository(place, {"README.md": "1"})
    job.environment.chdir(place)
    job.set(CHANGES_FILTERS=FILTERS, GITHUB_EVENT_NAME="push")
    changes.main()
    assert "::warning::" not in capsys.readouterr().out
    assert set(job.outputs.values()) == {"true"}
    job.set(GITHUB_EVENT_NAME="pull_request")
    changes.main()
    assert "::warning::" in capsys.readouterr().out
    assert set(job.outputs.values()) == {"true"}


@pytest.mark.parametrize("filters", ["", "model", "model =", "a = x\na = y"])
def test_filters_that_say_nothing(job: Runner, filters: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A filter that matches nothing by mistake would leave its job out for ever."""
    job.set(CHANGES_FILTERS=filters, GITHUB_EVENT_NAME="push")
    with pytest.raises(SystemExit):
        changes.main()
    assert "CHANGES_FILTERS" in failure(capsys)


# --- aggregate ---


def needs(**results: str) -> dict[str, Any]:
    """Return the context of an aggregator that waits for `changes`, `lint`, and `unit`, which may be left out."""
    decided = {"unit": results.pop("decided", "true")}
    return {"changes": {"result": results.pop("changes", "success"), "outputs": decided}, **{name: {"result": result} for name, result in results.items()}}


@pytest.mark.parametrize(
    ("context", "passes"),
    [
        (needs(lint="success", unit="success"), True),
        (needs(lint="success", unit="skipped", decided="false"), True),
        (needs(lint="success", unit="skipped"), False),
        (needs(lint="success", unit="failure"), False),
        (needs(lint="success", unit="cancelled"), False),
        (needs(lint="skipped", unit="success"), False),
        (needs(lint="success", unit="skipped", decided="false", changes="failure"), False),
        (needs(lint="success", unit="skipped", changes="skipped"), False),
    ],
)
def test_one_check_for_all(job: Runner, context: dict[str, Any], *, passes: bool) -> None:
    """A job that was left out on purpose passes; one that was skipped because another failed does not."""
    job.set(NEEDS=json.dumps(context))
    if passes:
        aggregate.main()
    else:
        with pytest.raises(SystemExit):
            aggregate.main()
    assert "| lint |" in job.summary


@pytest.mark.parametrize("context", ["", "{}", json.dumps(needs())])
def test_an_aggregator_of_nothing_fails(job: Runner, context: str) -> None:
    """It would pass for ever."""
    job.set(NEEDS=context)
    with pytest.raises(SystemExit):
        aggregate.main()


# --- verdict ---


@pytest.mark.parametrize(
    ("status", "found", "accept", "mode", "ends"),
    [
        ("0", "pass", "", "server", 0),
        ("0", "no baseline", "", "server", 0),
        ("1", "fail", "inconclusive, not judged", "local", 1),
        ("2", "inconclusive", "inconclusive", "server", 0),
        ("2", "inconclusive", "", "server", 2),
        ("3", "not judged", "inconclusive", "server", 3),
        ("3", "not judged", "inconclusive, not judged", "server", 0),
        ("3", "not judged", "", "local", 0),
        ("4", "", "inconclusive, not judged", "server", 4),
        ("", "", "inconclusive", "server", 1),
        ("0", "pass", "fail", "server", 4),
    ],
)
def test_the_job_ends_as_the_gate_did(job: Runner, tmp_path: Path, status: str, found: str, accept: str, mode: str, ends: int) -> None:  # noqa: PLR0913, PLR0917 - a table
    """With its exit status, unless the caller accepts the verdict; a failing one can't be accepted here."""
    judgement = tmp_path / "gate.json"
    if found:
        judgement.write_text(json.dumps({"verdict": found, "reason": "because"}))
    job.set(GATE_STATUS=status, GATE_FILE=judgement, ACCEPT=accept, MODE=mode)
    if not ends:
        verdict.main()
        assert job.outputs["verdict"] == found
        return
    with pytest.raises(SystemExit) as ended:
        verdict.main()
    assert ended.value.code == ends


# --- spool ---


def test_a_waiting_run_is_noted(job: Runner, tmp_path: Path) -> None:
    """What sync_spools.py reads, beside the spool; nothing where nothing waits, for an upload without files fails."""
    job.set(LONGRUN_SPOOL=tmp_path / "spool", CONFIG="models/a/longrun.toml", NOTE=tmp_path / "pipeline.json", COMMIT="a" * 40)
    spool.main()
    assert job.outputs["waiting"] == "false"
    assert not (tmp_path / "pipeline.json").exists()
    run = "00000000-0000-4000-8000-000000000001"
    (tmp_path / "spool" / run).mkdir(parents=True)
    (tmp_path / "spool" / run / "journal.sqlite3").touch()
    spool.main()
    assert job.outputs["waiting"] == "true"
    assert json.loads((tmp_path / "pipeline.json").read_text()) == {"format": 1, "config": "models/a/longrun.toml", "commit": "a" * 40, "runs": [run]}


# --- plan ---


def test_a_plan_is_shown_and_its_digest_handed_on(job: Runner, tmp_path: Path) -> None:
    """The last line is the digest; what the plan holds can't end the block that it is shown in."""
    printed = tmp_path / "plan.txt"
    printed.write_text(f"~ change\n```\n# heading\nplan: {'0' * 63}a\n")
    job.environment.setattr("sys.argv", ["plan.py", str(printed)])
    plan.main()
    assert job.outputs["digest"] == "0" * 63 + "a"
    assert "````text\n~ change" in job.summary


@pytest.mark.parametrize("printed", ["", "~ change\n", f"plan: {'0' * 64}\nlonger\n", "plan: abc\n"])
def test_without_a_digest_nothing_can_be_approved(job: Runner, tmp_path: Path, printed: str) -> None:
    """What comes after the plan, or half of it, is not what a person would approve."""
    path = tmp_path / "plan.txt"
    path.write_text(printed)
    job.environment.setattr("sys.argv", ["plan.py", str(path)])
    with pytest.raises(SystemExit):
        plan.main()


# --- open_environment ---


@pytest.fixture
def environment(job: Runner, tmp_path: Path) -> Path:
    """The folder of an environment that a job may deploy, in a checkout."""
    folder = tmp_path / "checkout" / "environments" / "prod"
    folder.mkdir(parents=True)
    for name in open_environment.COMMITTED:
        (folder / name).write_text("x")
    job.environment.chdir(tmp_path / "checkout")
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    job.set(ENVIRONMENT="prod", VAULT_PASSWORD="open sesame", SSH_KEY=key.read_text())  # noqa: S106 - of nothing
    return folder


def test_keys_lie_where_make_looks(environment: Path) -> None:
    """And nobody else may read them."""
    open_environment.main()
    assert (environment / ".vault-password").read_text() == "open sesame\n"
    assert (environment / "ssh_key.pub").read_text().startswith("ssh-ed25519 ")
    for name in (".vault-password", "ssh_key"):
        assert (environment / name).stat().st_mode & 0o777 == 0o600


def test_a_plan_opens_nothing(environment: Path, job: Runner) -> None:
    """Its job asks nobody, so it holds no key; the hosts' public one is in the plan."""
    job.set(VAULT_PASSWORD="", SSH_KEY="", SSH_PUBLIC_KEY="ssh-ed25519 AAAA longrun-prod")
    open_environment.main()
    assert (environment / "ssh_key.pub").read_text() == "ssh-ed25519 AAAA longrun-prod\n"
    assert not (environment / "ssh_key").exists()
    assert not (environment / ".vault-password").exists()


@pytest.mark.parametrize("missing", list(open_environment.COMMITTED))
def test_an_environment_that_would_be_lost_with_the_job(environment: Path, missing: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Terraform's state on a job's own disk: the next job would make the server anew."""
    (environment / missing).unlink()
    with pytest.raises(SystemExit):
        open_environment.main()
    assert missing in failure(capsys)
    assert not (environment / ".vault-password").exists()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"ENVIRONMENT": "../prod"}, "names no environment"),
        ({"ENVIRONMENT": ""}, "names no environment"),
        ({"VAULT_PASSWORD": ""}, "LONGRUN_VAULT_PASSWORD"),
        ({"SSH_KEY": ""}, "LONGRUN_SSH_KEY"),
        ({"SSH_KEY": "environments/prod/ssh_key"}, "LONGRUN_SSH_KEY"),
    ],
)
@pytest.mark.usefixtures("environment")
def test_keys_that_are_none(job: Runner, change: dict[str, str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line each, with the name that the person knows."""
    job.set(**change)
    with pytest.raises(SystemExit):
        open_environment.main()
    assert word in failure(capsys)
