"""`longrun gate` as a person and as CI meet it: verdicts, exit statuses, the file, the run's tags and the screen, against a real MLflow server."""

import math
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from longrun_training import gate_file, lookup
from longrun_training.judgement import Judgement, Override, Verdict
from longrun_training.records import Description, Outcome
from mlflow import MlflowClient
from mlflow.entities import Run

from tests.unit.training.gate_helpers import Bench, Repository, regression

Longrun = Callable[..., Any]
MODEL = "gated"
MARGINS = "[metrics.rmse]\nmargin = 2.0\n"


@pytest.fixture(scope="module")
def shared(server_uri: str) -> tuple[Bench, Mapping[str, Run]]:
    """A model with a baseline and candidates of every kind, which the tests only read; the gate's own tags are all they add."""
    bench = Bench.open(server_uri, MODEL)
    base = regression(10.0)
    nan = base.copy()
    nan.loc[3, "predicted"] = math.nan
    runs = {
        "base": bench.run(base, commit="b" * 40, exit_status=0, metrics={"holdout_rmse": 10.0}, ended=int(time.time() * 1000)),
        "equal": bench.run(base, metrics={"holdout_rmse": 10.3, "model_size_bytes": 2e6, "latency_ms": 3.0}, branch="feature", pull_request="7"),
        "worse": bench.run(regression(14.0, seed=2), branch="feature", pull_request="7"),
        "unsure": bench.run(regression(10.6, seed=3), branch="feature"),
        "nan": bench.run(nan, metrics={"holdout_rmse": math.nan, "latency_ms": math.inf}),
        "other data": bench.run(regression(10.0, rows=150)),
        "running": bench.run(base, status="RUNNING", register=False),
    }
    return bench, runs


def toml(tables: str = MARGINS, model: str = MODEL) -> None:
    """Write the longrun.toml of the current folder."""
    Path("longrun.toml").write_text(f'{tables}\n[model]\nname = "{model}"\n', encoding="utf-8")


def judgement() -> Judgement:
    """Return what the gate wrote."""
    return gate_file.read(Path(".longrun/gate.json"))


@pytest.fixture
def gate(server: str, shared: tuple[Bench, Mapping[str, Run]], longrun: Longrun) -> Callable[..., Any]:  # noqa: ARG001 - named by the contract
    """Judge one of the shared candidates against the shared baseline."""
    runs = shared[1]

    def judge(candidate: str, *arguments: str, tables: str = MARGINS) -> Any:  # noqa: ANN401 - the outcome of a command
        toml(tables)
        return longrun("gate", "--candidate", runs[candidate].info.run_id, "--baseline", runs["base"].info.run_id, *arguments)

    return judge


def test_pass(gate: Callable[..., Any], shared: tuple[Bench, Mapping[str, Run]], server: str) -> None:
    """An equal model passes; the file, the run's tags, its artifact and --json all say the same."""
    bench, runs = shared
    done = gate("equal", "--json")
    assert done.status == 0
    assert done.stderr == ""
    found = judgement()
    assert Judgement.model_validate_json(done.stdout) == found
    assert (found.verdict, found.exit_status, found.baseline_rule, found.stale, found.override) == (Verdict.PASS, 0, "named", None, None)
    assert found.reason == "rmse: no worse than the baseline by more than the margin"
    assert found.candidate is not None
    assert found.candidate.url == f"{server}/#/experiments/{bench.place.experiment.experiment_id}/runs/{runs['equal'].info.run_id}"
    assert (found.candidate.version, found.candidate.pull_request, found.candidate.branch) == (bench.version(runs["equal"]), "7", "feature")
    assert found.baseline is not None
    assert (found.baseline.run_id, found.baseline.commit, found.baseline.finished) == (runs["base"].info.run_id, "b" * 40, runs["base"].info.end_time)
    tags = bench.tags(runs["equal"])
    assert {name: tags[f"longrun.gate.{name}"] for name in ("verdict", "exit_status", "baseline", "reason", "judged_at", "override")} == {
        "verdict": "pass",
        "exit_status": "0",
        "baseline": runs["base"].info.run_id,
        "reason": found.reason,
        "judged_at": found.judged_at,
        "override": "",
    }
    stored = bench.client.download_artifacts(runs["equal"].info.run_id, "gate.json", str(Path.cwd()))
    assert gate_file.read(Path(stored)) == found


def test_fail(gate: Callable[..., Any], shared: tuple[Bench, Mapping[str, Run]]) -> None:
    """A worse model ends with 1, and a person reads by how much, and the verdict last."""
    done = gate("worse")
    assert (done.status, done.stdout) == (1, "")
    found = judgement()
    assert (found.verdict, found.exit_status) == (Verdict.FAIL, 1)
    lines = done.stderr.splitlines()
    assert any(line.startswith("candidate  version") and line.endswith("branch feature, pull request 7") for line in lines)
    (row,) = [line for line in lines if "RMSE ↓" in line]
    assert "fail: worse, and by the margin or more" in row
    assert "against the baseline" in lines
    assert lines[-2].startswith("FAIL: rmse on the hold-out against the baseline: worse, and by the margin or more: difference -")
    assert lines[-1] == ".longrun/gate.json"
    assert "\x1b" not in done.stderr
    assert shared[0].tags(shared[1]["worse"])["longrun.gate.exit_status"] == "1"


@pytest.mark.parametrize(("option", "setting", "status"), [(None, None, 2), ("pass", None, 0), ("fail", None, 1), (None, "fail", 1), ("report", "fail", 2)])
def test_inconclusive(gate: Callable[..., Any], option: str | None, setting: str | None, status: int) -> None:
    """What can't be told ends as the team wants it; the verdict stays inconclusive."""
    tables = "[metrics.rmse]\nmargin = 0.1\n" + (f'[gate]\ninconclusive = "{setting}"\n' if setting else "")
    done = gate("unsure", *(("--inconclusive", option) if option else ()), tables=tables)
    assert done.status == status
    assert (judgement().verdict, judgement().exit_status) == (Verdict.INCONCLUSIVE, status)


def test_not_judged(gate: Callable[..., Any]) -> None:
    """Other data is no regression and no pass; a metric without a margin, or one that neither has, judges nothing."""
    done = gate("other data")
    assert done.status == 3
    assert "was scored on other data" in done.stderr.splitlines()[-2]
    assert (judgement().verdict, judgement().comparisons) == (Verdict.NOT_JUDGED, ())
    assert gate("worse", tables="").status == 3
    assert "`longrun gate --calibrate` proposes them" in judgement().reason
    assert gate("equal", tables="[metrics.accuracy]\nmargin = 0.1\n").status == 3
    assert judgement().reason.startswith("accuracy on the hold-out: this is a metric of classification, and the predictions are not")
    assert gate("equal", tables=f"{MARGINS}[gate]\nminimum_rows = 500\n").status == 3


def test_nan_fails(gate: Callable[..., Any]) -> None:
    """A model that answers NaN is worse than any baseline; a limit is broken by what is NaN, infinite or not there."""
    assert gate("nan").status == 1
    assert "candidate predicts NaN" in judgement().reason
    tables = "[metrics.rmse]\nfloor = 20.0\n[gate]\nlatency_ms = 5.0\nmodel_size_mb = 5.0\n"
    assert gate("nan", tables=tables).status == 1
    assert [(rule.name, rule.kept, rule.reason) for rule in judgement().rules] == [
        ("floor", False, "holdout_rmse is not a finite number"),
        ("model size", False, "model_size_bytes is missing"),
        ("latency", False, "latency_ms is not a finite number"),
    ]
    assert judgement().reason == "floor of rmse: holdout_rmse is not a finite number; and 2 more"


@pytest.mark.parametrize(
    ("limits", "broken"),
    [
        ("[metrics.rmse]\nmargin = 2.0\nfloor = 10.3\n[gate]\nmodel_size_mb = 2.0\nlatency_ms = 3.0\n", None),
        ("[metrics.rmse]\nmargin = 2.0\nfloor = 10.2\n", "floor of rmse: 10.3; accepted is at most 10.2"),
        (f"{MARGINS}[gate]\nmodel_size_mb = 1.9\n", "model size: 2 MB; accepted is at most 1.9 MB"),
        (f"{MARGINS}[gate]\nlatency_ms = 2.9\n", "latency: 3 ms; accepted is at most 2.9 ms"),
        ("[metrics.rmse]\nmargin = 2.0\n[metrics.r2]\nfloor = 0.9\n", "floor of r2: holdout_r2 is missing"),
    ],
)
def test_rules(gate: Callable[..., Any], limits: str, broken: str | None) -> None:
    """Floors, size and latency are limits of their own: a model that is as good as the baseline can break them."""
    done = gate("equal", tables=limits)
    assert done.status == (1 if broken else 0)
    assert broken is None or judgement().reason == broken
    assert all(rule.kept for rule in judgement().rules) == (broken is None)
    assert ("broken" in done.stderr) == (broken is not None)


def test_no_baseline(server: str, longrun: Longrun) -> None:
    """The first run has nothing to be compared with and passes; its floors gate all the same."""
    bench = Bench.open(server, "first")
    bench.run(regression(10.0), metrics={"holdout_rmse": 10.0})
    toml("[metrics.rmse]\nmargin = 1.0\nfloor = 11.0\n", "first")
    done = longrun("gate")
    assert done.status == 0
    assert (judgement().verdict, judgement().baseline) == (Verdict.NO_BASELINE, None)
    assert "NO BASELINE: there is no run to compare with yet; every rule is kept" in done.stderr
    assert "champion: no version of the model has this alias yet" in done.stderr
    toml("[metrics.rmse]\nmargin = 1.0\nfloor = 9.0\n", "first")
    assert longrun("gate").status == 1


def test_a_pull_request_from_main_to_main(server: str, longrun: Longrun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way: main is judged and becomes the baseline of a pull request, and of the next commit of main; nobody names a run."""
    repository = Repository(tmp_path / "repository")
    monkeypatch.chdir(repository.folder)
    bench = Bench.open(server, "way")
    toml(model="way")
    first = bench.run(regression(10.0), commit=repository.commit())
    assert longrun("gate").status == 0
    assert judgement().verdict is Verdict.NO_BASELINE
    repository.branch("feature")
    bench.run(regression(10.0), commit=repository.commit(), branch="feature", pull_request="7")
    assert longrun("gate").status == 0
    found = judgement()
    assert found.baseline is not None
    assert (found.verdict, found.baseline.run_id, found.baseline_rule, found.baseline_distance) == (Verdict.PASS, first.info.run_id, "merge base", 0)
    bench.run(regression(14.0, seed=2), commit=repository.commit(), branch="feature", pull_request="7")
    assert longrun("gate").status == 1
    repository.go("main")
    bench.run(regression(14.0, seed=2), commit=repository.commit(), branch="main")
    assert longrun("gate").status == 1
    found = judgement()
    assert found.baseline is not None
    assert (found.baseline.run_id, found.baseline_rule, found.baseline_distance) == (first.info.run_id, "ancestor", 1)


def test_slow_drift_is_caught_by_the_reference(server: str, longrun: Longrun) -> None:
    """Each step is within its margin, and all of them together are not: the pinned version sees it."""
    bench = Bench.open(server, "drift")
    pinned = bench.run(regression(10.0), exit_status=0)
    last = regression(10.0).assign(predicted=lambda frame: frame["actual"] + 1.25 * (frame["predicted"] - frame["actual"]))
    bench.client.set_registered_model_alias("drift", "champion", bench.version(bench.run(last, exit_status=0)))
    now = last.assign(predicted=lambda frame: frame["actual"] + 1.05 * (frame["predicted"] - frame["actual"]))
    candidate = bench.run(now)
    toml(model="drift")
    assert longrun("gate").status == 0
    toml(f"{MARGINS}[baseline]\nreference = {bench.version(pinned)}\n", "drift")
    done = longrun("gate")
    assert done.status == 1
    found = judgement()
    assert found.reference is not None
    assert (found.reference.run_id, found.baseline_rule) == (pinned.info.run_id, "champion")
    assert [entry.verdict for entry in (*found.comparisons, *found.reference_comparisons) if entry.kind == "hold-out"] == [Verdict.PASS, Verdict.FAIL]
    assert "against the reference" in done.stderr
    assert "against the reference: worse" in found.reason
    toml(f"{MARGINS}[baseline]\nreference = {bench.version(pinned)}\nreference_margin_factor = 2.0\n", "drift")
    assert longrun("gate").status == 0
    assert judgement().reference_comparisons[0].margin == 4.0
    toml(f"{MARGINS}[baseline]\nreference = {bench.version(candidate)}\n", "drift")
    assert longrun("gate").status == 0
    assert any("it is the candidate itself" in sentence for sentence in judgement().missing)


def test_an_override_lets_through(server: str, longrun: Longrun) -> None:
    """The verdict stays, the status becomes 0, also for another run of the same commit; every judgement shows it while it lasts."""
    bench = Bench.open(server, "accepted")
    old = bench.run(regression(10.0), exit_status=0, ended=int((time.time() - 40 * 86400) * 1000))
    bench.client.set_registered_model_alias("accepted", "champion", bench.version(old))
    first = bench.run(regression(14.0, seed=2), commit="f" * 40)
    toml(model="accepted")
    assert longrun("gate").status == 1
    assert longrun("override", "--version", bench.version(first), "--reason", "the price we pay", "--who", "ada").status == 0
    again = bench.run(regression(14.0, seed=2), commit="f" * 40)
    done = longrun("gate")
    assert done.status == 0
    found = judgement()
    assert (found.verdict, found.exit_status) == (Verdict.FAIL, 0)
    assert found.override is not None
    assert found.override.reason == "the price we pay"
    assert [entry.version for entry in found.standing_overrides] == [bench.version(first)]
    assert "FAIL, accepted by the override above: rmse" in done.stderr
    assert bench.tags(again)["longrun.gate.exit_status"] == "0"
    assert Override.model_validate_json(bench.tags(again)["longrun.gate.override"]) == found.override
    # 40 days are more than 30: a person hears that the baseline is stale.
    assert found.stale == "the baseline is 40 days old; [baseline] stale_days is 30"
    other = bench.run(regression(14.0, seed=2), commit="e" * 40)
    assert longrun("gate").status == 1
    assert (judgement().override, len(judgement().standing_overrides)) == (None, 1)
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    expired = Override(reason="was fine", who="ada", since=past, expires=past).model_dump_json()
    bench.client.set_model_version_tag("accepted", bench.version(other), lookup.OVERRIDE, expired)
    assert longrun("gate").status == 1


def test_the_server_is_away(longrun: Longrun, monkeypatch: pytest.MonkeyPatch) -> None:
    """No verdict and no traceback: status 3, and a file that says why, for the report."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    toml()
    started = time.monotonic()
    done = longrun("gate")
    assert time.monotonic() - started < 5
    assert done.status == 3
    found = judgement()
    assert (found.verdict, found.candidate, found.exit_status) == (Verdict.NOT_JUDGED, None, 3)
    assert "can't be reached (connection refused)" in found.reason
    assert "NOT JUDGED: http://127.0.0.1:1 can't be reached" in done.stderr


def test_the_server_goes_away_after_the_verdict(gate: Callable[..., Any], shared: tuple[Bench, Mapping[str, Run]], monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdict stands and is written; only the run does not know it, and a person hears that."""
    real = gate_file.publish
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    # The server of all tests can't be stopped for one of them; a client of a port where nobody is meets the same.
    monkeypatch.setattr(gate_file, "publish", lambda _, judged: real(MlflowClient("http://127.0.0.1:1"), judged))
    before = shared[0].tags(shared[1]["equal"]).get("longrun.gate.judged_at")
    assert gate("equal").status == 0
    assert judgement().verdict is Verdict.PASS
    assert "the verdict did not reach the server" in judgement().missing[-1]
    assert shared[0].tags(shared[1]["equal"]).get("longrun.gate.judged_at") == before


def spooled(server: str, model: str, uuid: str, folder: Path | None, run_id: str | None = None) -> None:
    """Leave the note that `longrun train` leaves."""
    from longrun_training import last_run  # noqa: PLC0415 - beside what it is for

    outcome = Outcome(uuid, run_id, None, None, None, folder)
    last_run.write(outcome, Description(model, model, "train", {}), server, Path(".longrun/spool"))


def test_a_spooled_candidate(server: str, longrun: Longrun) -> None:
    """A run that waits is not judged, rather than another one in its place; after the sync it is."""
    bench = Bench.open(server, "waits")
    other = bench.run(regression(10.0))
    toml(model="waits")
    mine = "11111111-1111-4111-8111-111111111111"
    spooled(server, "waits", mine, Path(".longrun/spool") / mine)
    done = longrun("gate")
    assert done.status == 3
    assert f"(uuid {mine}) is not on the server yet but waits in .longrun/spool/{mine}: `longrun sync` sends it" in done.stderr
    assert judgement().candidate is None
    sent = bench.run(regression(14.0, seed=2), tags={"longrun.uuid": mine}, register=False)
    assert longrun("gate").status == 0
    found = judgement().candidate
    assert found is not None
    assert found.run_id == sent.info.run_id
    # A note of another server's run, or of another model's, is none of this gate.
    spooled("https://elsewhere", "waits", mine, Path(".longrun/spool") / mine)
    assert longrun("gate").status == 0
    found = judgement().candidate
    assert found is not None
    assert found.run_id == other.info.run_id


def test_wrong_calls(gate: Callable[..., Any], shared: tuple[Bench, Mapping[str, Run]], server: str, longrun: Longrun) -> None:
    """One line each, status 4, and no judgement is left that could be taken for one."""
    assert f"run {shared[1]['running'].info.run_id} is RUNNING, so there is nothing to judge: wait for its end" in gate("running").error
    base = shared[1]["base"].info.run_id
    for arguments, fault in {
        ("--candidate", "f" * 32): "--candidate ffffffffffffffffffffffffffffffff is not on the server",
        ("--candidate", "99"): "has no version 99",
        ("--candidate", base, "--baseline", base): "it is the candidate itself",
        ("--candidate", base, "--baseline", "nobody"): "has no alias 'nobody'",
        ("--inconclusive", "maybe"): "'maybe' is not one of 'report', 'pass', 'fail'",
        ("--seeds", "3"): "--seeds belongs to --calibrate",
        ("--check",): "--check belongs to --calibrate",
        ("--calibrate", "--candidate", base): "--calibrate judges no candidate",
        ("--calibrate", "--seeds", "1"): "should be greater than or equal to 2",
        ("--config", "nowhere.toml"): "nowhere.toml does not exist",
        ("--output", "longrun.toml/gate.json", "--candidate", base): "longrun.toml/gate.json can't be written",
    }.items():
        done = longrun("gate", *arguments)
        assert (done.status, done.stdout) == (4, ""), arguments
        assert fault in done.error, arguments
    toml(model="no-such-model")
    assert f"there is no experiment 'no-such-model' on {server}, so there is no candidate" in longrun("gate").error
    assert not Path(".longrun/gate.json").exists()
