"""Dead runs end, and live ones do not."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from longrun_training.errors import OutageError, ProblemError
from longrun_training.reap import reap
from longrun_training.server import Server
from mlflow import MlflowClient
from mlflow.entities import Run

HOUR = 3_600_000


def left_open(experiment: str, *, hours: float, ours: bool = True, beat_hours: float | None = None) -> Run:
    """Make a RUNNING run that began some hours ago."""
    client = MlflowClient()
    found = client.get_experiment_by_name(experiment)
    number = found.experiment_id if found else client.create_experiment(experiment)
    now = int(time.time() * 1000)
    tags = {"longrun.uuid": "u"} if ours else {}
    if beat_hours is not None:
        tags["longrun.heartbeat"] = str(now - int(beat_hours * HOUR))
    return client.create_run(number, start_time=now - int(hours * HOUR), tags=tags)


def state(run: Run) -> tuple[str, bool]:
    """Return a run's status, and whether it carries the reaper's tag."""
    found = MlflowClient().get_run(run.info.run_id)
    return found.info.status, "longrun.reaped" in found.data.tags


@pytest.mark.usefixtures("server")
def test_only_the_dead_end() -> None:
    """Silence is counted from the last sign of life, and a run that is not ours is only touched when asked for."""
    server, client = Server.from_environment(), MlflowClient()
    dead = left_open("reaped", hours=5, beat_hours=3)
    metered = left_open("reaped", hours=5)
    client.log_metric(metered.info.run_id, "rmse", 1.0, timestamp=int(time.time() * 1000) - HOUR // 2)
    alive, young = left_open("reaped", hours=5, beat_hours=0.1), left_open("reaped", hours=0.5)
    foreign = left_open("reaped", hours=5, ours=False)
    finished = left_open("reaped", hours=5)
    client.set_terminated(finished.info.run_id)
    elsewhere = left_open("elsewhere", hours=5)

    assert [run.run_id for run in reap(server, ["reaped"], silence_minutes=60, dry_run=True)] == [dead.info.run_id]
    assert state(dead) == ("RUNNING", False)
    [ended] = reap(server, ["reaped"], silence_minutes=60, watch_seconds=0)
    assert (ended.run_id, ended.silent_minutes) == (dead.info.run_id, 180)
    assert state(dead) == ("KILLED", True)
    after = client.get_run(dead.info.run_id)
    assert after.info.end_time == ended.last_sign
    assert after.data.tags["longrun.reaped"].endswith("no sign of life for 180 min")
    assert [state(run) for run in (metered, alive, young, foreign, elsewhere)] == [("RUNNING", False)] * 5
    assert state(finished) == ("FINISHED", False)

    assert {run.run_id for run in reap(server, None, silence_minutes=60, watch_seconds=0)} >= {elsewhere.info.run_id}
    assert [run.run_id for run in reap(server, ["reaped"], silence_minutes=60, watch_seconds=0, all_clients=True)] == [foreign.info.run_id]
    assert reap(server, ["reaped"], silence_minutes=60, watch_seconds=0) == []
    with pytest.raises(ProblemError, match="no experiment 'nowhere'"):
        reap(server, ["nowhere"], silence_minutes=60)


@pytest.mark.usefixtures("server")
def test_a_run_that_wakes_up_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A live run whose clock is wrong, or which could not reach the server for hours, beats while it is watched."""
    server = Server.from_environment()
    run = left_open("wakes", hours=9, beat_hours=8)
    done = left_open("wakes", hours=9, beat_hours=8)

    def meanwhile(_: float) -> None:
        MlflowClient().set_tag(run.info.run_id, "longrun.heartbeat", str(int(time.time() * 1000) - 7 * HOUR))
        MlflowClient().set_terminated(done.info.run_id)

    monkeypatch.setattr("longrun_training.reap.time.sleep", meanwhile)
    assert reap(server, ["wakes"], silence_minutes=60) == []
    assert state(run) == ("RUNNING", False)
    assert state(done) == ("FINISHED", False)


def test_reap_without_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage is one, and no traceback."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(OutageError, match="can't be reached"):
        reap(Server.from_environment(), None, silence_minutes=60)


@pytest.mark.usefixtures("server")
def test_the_commands(longrun: Callable[..., Any], tmp_path: Path) -> None:
    """What a person and a nightly job call."""
    Server.from_environment()
    left_open("nightly", hours=2)
    done = longrun("reap", "--experiment", "nightly", "--watch", "0", "--json")
    assert done.status == 0, done.stderr
    assert '"silent_minutes": 120' in done.stdout
    assert "silent for 120 min, is KILLED" in done.stderr
    assert "no silent run" in longrun("reap", "--experiment", "nightly").stderr
    assert longrun("reap").status == 4
    assert "take --all" in longrun("reap", "--all", "--experiment", "x").error
    done = longrun("sync", "--spool", str(tmp_path / "none"), "--json")
    assert (done.status, done.stdout) == (0, '{"sent": [], "left": [], "outage": null}\n')
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "journal.sqlite3").write_text("x", encoding="utf-8")
    assert longrun("sync", "--spool", str(tmp_path)).status == 4
