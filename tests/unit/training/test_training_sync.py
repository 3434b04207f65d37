"""A run leaves the spool exactly once, whatever breaks off its way, and only after it was read back."""

import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from longrun_training import last_run
from longrun_training.errors import ProblemError
from longrun_training.spool import Journal, waiting
from longrun_training.sync import SyncResult, sync
from longrun_training.tracking import Outcome, Server, record
from mlflow import MlflowClient

from tests.unit.training import record_helpers as helpers
from tests.unit.training.record_helpers import KILL, LOSE, PASS, REFUSE, Proxy

# More requests than any run of these tests makes.
ENDLESS = 200


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is left of a model when each file costs requests: the one that changes on its way."""
    saved = helpers.save_model(tmp_path_factory.mktemp("saved") / "model")
    for path in saved.iterdir():
        if path.name != "MLmodel":
            path.unlink()
    return saved


@pytest.fixture
def proxy(server_uri: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy before the real server, which the client contract names."""
    with helpers.proxied(server_uri) as made:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", made.uri)
        monkeypatch.setenv("LONGRUN_PATIENCE_SECONDS", "0")
        yield made


def recorded(experiment: str, spool: Path, model: Path | None, kind: str = "train", parent: str | None = None) -> Outcome:
    """Record a small run for the server that the environment names."""
    with record(helpers.description(experiment, kind, parent), spool=spool, server=Server.from_environment()) as recorder:
        recorder.log_parameters({"seed": 1})
        recorder.log_metrics({"rmse": 0.1})
        recorder.log_text("x", "x.txt")
        if model is not None:
            recorder.log_model(model, parameters={"a": 1}, model_type="regressor")
            recorder.register()
    return recorder.outcome


def spooled(experiment: str, spool: Path, model: Path | None, proxy: Proxy, kind: str = "train", parent: str | None = None) -> Outcome:
    """Record a run while the server is away."""
    proxy.reset(lambda _: REFUSE)
    outcome = recorded(experiment, spool, model, kind, parent)
    assert outcome.spooled is not None
    proxy.reset()
    return outcome


def breaking(number: int, fate: str) -> Callable[[int], str]:
    """Return what becomes of each request: one is special, and after it there is no server."""
    return lambda n: PASS if n < number else fate if n == number else REFUSE


def synced(spool: Path) -> SyncResult:
    """Sync without patience."""
    return sync(spool, Server.from_environment())


def writes(proxy: Proxy) -> list[int]:
    """Return which requests (from 1) changed something; where one that only reads is lost, the server is as after the write before."""
    return [number for number, asked in enumerate(proxy.asked, 1) if not asked.startswith("GET") and not asked.endswith("/search")]


def test_recording_interrupted_at_every_request(proxy: Proxy, tmp_path: Path, model: Path) -> None:
    """Whichever answer is lost for good, the sync makes of it the run that an undisturbed recording makes: nothing missing, nothing twice."""
    spool = tmp_path / "spool"
    recorded("every", spool, model)
    proxy.reset()
    whole = recorded("every", spool, model)
    uuids = []
    numbers = writes(proxy)
    assert len(numbers) > 10
    for number in numbers:
        # The server does it, its answer is lost, and then the server is away.
        proxy.reset(breaking(number, LOSE))
        outcome = recorded("every", spool, model)
        assert outcome.spooled is not None, number
        uuids.append(outcome.uuid)
    proxy.reset()
    assert {sent.uuid for sent in synced(spool).sent} == set(uuids)
    assert waiting(spool) == []
    runs = helpers.runs_of("every")
    # The first two, and one for each interruption.
    assert len(runs) == len(numbers) + 2
    assert all(len(helpers.models_of(run)) == 1 for run in runs)
    assert len(MlflowClient().search_model_versions("name = 'every'")) == len(numbers) + 2
    # The sync has read each of them back; what it can't see is what is there besides.
    compared = {whole.uuid, *uuids[::4]}
    everything = [helpers.everything(run, tmp_path) for run in runs if run.data.tags["longrun.uuid"] in compared]
    assert len(everything) == len(compared) >= 4
    assert all(found == everything[0] for found in everything)


def test_sync_killed_at_every_request(proxy: Proxy, tmp_path: Path, model: Path) -> None:
    """A sync whose process is killed when the server has done its n-th request, for every n, on the same run; the last one ends it."""
    spool = tmp_path / "spool"
    recorded("sync", spool, model)
    outcome = spooled("sync", spool, model, proxy)
    fork = multiprocessing.get_context("fork")
    killed: list[tuple[str, int]] = []

    def fate(number: int) -> str:
        # Each write is killed when it comes for the first time; the second log-batch is another than the first.
        asked = proxy.asked[number - 1]
        this = asked, proxy.asked.count(asked)
        if this in killed or number not in writes(proxy):
            return PASS
        killed.append(this)
        return KILL

    for _ in range(ENDLESS):
        before = len(killed)
        proxy.reset(fate)
        child = fork.Process(target=synced, args=(spool,))
        child.start()
        proxy.victim = child.pid
        child.join(60)
        assert child.exitcode in {0, -9}
        if len(killed) == before:
            break
        assert waiting(spool) == [outcome.spooled], killed
    assert len(killed) > 10, killed
    proxy.reset()
    assert waiting(spool) == []
    assert synced(spool) == SyncResult((), ())
    one, two = sorted(helpers.runs_of("sync"), key=lambda run: run.info.start_time)
    assert two.data.tags["longrun.uuid"] == outcome.uuid
    assert helpers.everything(two, tmp_path) == helpers.everything(one, tmp_path)
    assert len(MlflowClient().search_model_versions("name = 'sync'")) == 2


def test_two_syncs_at_once(proxy: Proxy, tmp_path: Path, model: Path) -> None:
    """Two processes with one spool, and two with a copy of it each, make the run once."""
    spool = tmp_path / "spool"
    spooled("two", spool, model, proxy)
    shutil.copytree(spool, tmp_path / "copy")
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=synced, args=(folder,)) for folder in (spool, spool, tmp_path / "copy")]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    # What gave way to the other process stays in its spool, and finds everything there.
    for folder in (spool, tmp_path / "copy"):
        assert synced(folder).left == ()
        assert waiting(folder) == []
    [run] = helpers.runs_of("two")
    assert len(helpers.models_of(run)) == 1
    assert len(MlflowClient().search_model_versions("name = 'two'")) == 1
    assert len(MlflowClient().get_metric_history(run.info.run_id, "rmse")) == 1


def recording_until_killed(spool: Path, begun: Connection, go_on: Connection) -> None:
    """Record a little, and die when told."""
    with record(helpers.description("killed-recording"), spool=spool, server=Server.from_environment()) as recorder:
        recorder.log_metrics({"rmse": 0.5}, 1)
        begun.send(recorder.uuid)
        go_on.recv()
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.usefixtures("server")
def test_a_killed_process_leaves_its_run(tmp_path: Path) -> None:
    """SIGKILL asks nobody: the next sync ends the run as KILLED, at its last record, with all that was recorded. A run that lives is left alone."""
    spool, fork = tmp_path / "spool", multiprocessing.get_context("fork")
    (begun, tell_begun), (go_on, tell_go_on) = fork.Pipe(duplex=False), fork.Pipe(duplex=False)
    process = fork.Process(target=recording_until_killed, args=(spool, tell_begun, go_on))
    process.start()
    uuid = begun.recv()
    [left] = synced(spool).left
    assert left.busy
    tell_go_on.send("now")
    process.join(30)
    [sent] = synced(spool).sent
    assert (sent.uuid, sent.status, sent.version) == (uuid, "KILLED", None)
    [run] = helpers.runs_of("killed-recording")
    assert run.info.status == "KILLED"
    assert run.data.metrics == {"rmse": 0.5}


def test_parents_come_first(proxy: Proxy, tmp_path: Path) -> None:
    """Children find their parent, whether it was sent before them, with them or after them."""
    parent = spooled("sweep", tmp_path / "a", None, proxy, kind="sweep")
    spooled("sweep", tmp_path / "a", None, proxy, kind="trial", parent=parent.uuid)
    recorded("sweep", tmp_path / "a", None, kind="trial", parent=parent.uuid)
    assert len(synced(tmp_path / "a").sent) == 2
    recorded("sweep", tmp_path / "a", None, kind="trial", parent=parent.uuid)
    runs = helpers.runs_of("sweep")
    [root] = [run for run in runs if run.data.tags["longrun.kind"] == "sweep"]
    children = [run for run in runs if run is not root]
    assert len(children) == 3
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {root.info.run_id}


def test_an_old_run_does_not_take_the_alias(proxy: Proxy, tmp_path: Path, model: Path) -> None:
    """A run that was sent later than a newer one is no candidate any more."""
    old = spooled("alias", tmp_path, model, proxy)
    newer = recorded("alias", tmp_path, model)
    [sent] = synced(tmp_path).sent
    assert (sent.uuid, sent.version) == (old.uuid, "2")
    assert MlflowClient().get_model_version_by_alias("alias", "candidate").run_id == newer.run_id


def test_read_back_before_removal(proxy: Proxy, tmp_path: Path) -> None:
    """A file that rotted on the server is sent again; one that rotted here is not sent, and neither leaves the spool silently."""
    outcome = spooled("rot", tmp_path, None, proxy)
    assert outcome.spooled is not None
    [stored] = (outcome.spooled / "files").rglob("x.txt")
    # The server has another file of the same size: only reading it back tells.
    proxy.reset(lambda number: PASS if number < 12 else REFUSE)
    assert synced(tmp_path).outage is not None
    proxy.reset()
    [run] = helpers.runs_of("rot")
    other = tmp_path / "x.txt"
    other.write_text("y", encoding="utf-8")
    MlflowClient().log_artifact(run.info.run_id, str(other))
    stored.write_text("z", encoding="utf-8")
    [left] = synced(tmp_path).left
    assert "is not the file that was recorded" in left.reason
    stored.write_text("x", encoding="utf-8")
    assert len(synced(tmp_path).sent) == 1
    assert helpers.everything(run, tmp_path / "got")["artifacts"] == {"x.txt": b"x"}


def test_an_outage_leaves_everything(proxy: Proxy, tmp_path: Path) -> None:
    """A server that is away is status 3 for the command; nothing changes."""
    outcome = spooled("kept", tmp_path, None, proxy)
    proxy.reset(lambda _: REFUSE)
    result = synced(tmp_path)
    assert result.sent == ()
    assert [left.folder for left in result.left] == [str(outcome.spooled)]
    assert result.outage is not None
    assert "can't be reached" in result.outage
    assert len(proxy.asked) == 1


def test_journals_that_can_not_be_read(proxy: Proxy, tmp_path: Path) -> None:
    """A broken journal is named and does not keep the others; what a deletion left behind goes."""
    outcome = spooled("others", tmp_path, None, proxy)
    for name in ("broken", "newer", "gone.sent"):
        (tmp_path / name).mkdir()
    (tmp_path / "broken" / "journal.sqlite3").write_bytes(b"no database at all" * 100)
    with sqlite3.connect(tmp_path / "newer" / "journal.sqlite3") as connection:
        connection.execute("CREATE TABLE note (name, value)")
        connection.execute("INSERT INTO note VALUES ('format', '99')")
    connection.close()
    result = synced(tmp_path)
    assert [sent.uuid for sent in result.sent] == [outcome.uuid]
    assert sorted(left.reason.partition("journal.sqlite3 ")[2].partition(" (")[0][:20] for left in result.left) == ["can't be read", "has format 99, and t"]
    assert not (tmp_path / "gone.sent").exists()
    empty = Journal.create(tmp_path, "empty")
    empty.close()
    synced(tmp_path)
    assert not empty.folder.exists()
    assert synced(tmp_path / "nowhere") == SyncResult((), ())


def test_the_last_run_is_found_after_a_sync(proxy: Proxy, tmp_path: Path) -> None:
    """The gate asks for it by the note beside the spool."""
    spool = tmp_path / ".longrun" / "spool"
    with pytest.raises(ProblemError, match="run `longrun train` first"):
        last_run.read(spool)
    outcome = spooled("last", spool, None, proxy)
    last_run.write(outcome, helpers.description("last"), "http://server", spool)
    assert last_run.read(spool).run_id is None
    assert last_run.read(spool).spooled == str(outcome.spooled)
    [sent] = synced(spool).sent
    assert json.loads((tmp_path / ".longrun" / "last-run.json").read_text(encoding="utf-8")) == {
        "uuid": outcome.uuid,
        "run_id": sent.run_id,
        "experiment": "last",
        "model": "last",
        "version": None,
        "server": "http://server",
        "spooled": None,
    }
    last_run.place(spool).write_text("{}", encoding="utf-8")
    with pytest.raises(ProblemError, match="can't be read"):
        last_run.read(spool)
    assert list(spool.iterdir()) == []
