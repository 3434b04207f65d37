"""The verb `reap`: runs that a killed job left RUNNING become KILLED, so that they neither look alive nor are waited for."""

import datetime
import time
from collections.abc import Sequence
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import Experiment, Run, ViewType

from longrun_training import records
from longrun_training.errors import ProblemError
from longrun_training.heartbeat import INTERVAL_SECONDS
from longrun_training.server import Server, calm, impatient, one_try
from longrun_training.spool import now

# A run of ours that lives beats within this; watching so long tells it from a dead one even where a clock is wrong or the server was away.
WATCH_SECONDS = 1.5 * INTERVAL_SECONDS
PAGE = 1000


@dataclass(frozen=True)
class Reaped:
    """A run that gave no sign of life.

    Attributes:
        run_id: On the server.
        experiment: Its name.
        last_sign: Milliseconds since 1970.
        silent_minutes: Since then.
        url: Where MLflow's pages show it.
    """

    run_id: str
    experiment: str
    last_sign: int
    silent_minutes: int
    url: str


@dataclass(frozen=True)
class _Silent:
    """A run that seems dead, and what made it seem so."""

    run_id: str
    experiment: Experiment
    sign: int


def reap(
    server: Server,
    experiments: Sequence[str] | None,
    *,
    silence_minutes: float,
    watch_seconds: float = WATCH_SECONDS,
    dry_run: bool = False,
    all_clients: bool = False,
) -> list[Reaped]:
    """End runs that are RUNNING and silent.

    The last sign of life is the heartbeat's tag, else the newest of start and metrics. Silent runs are watched for a while before they are
    ended, and looked at once more right before.

    Args:
        server: Where.
        experiments: Their names; None: all that we may see.
        silence_minutes: How long a run may be silent.
        watch_seconds: How long a silent run is watched.
        dry_run: Change nothing, and do not watch.
        all_clients: End runs as well that longrun did not make; those have no heartbeat.

    Returns:
        The runs that were ended, or would be.

    Raises:
        OutageError: The server is away.
        ProblemError: It refuses, or an experiment is not there.
    """
    client = MlflowClient()
    with calm(), one_try(), server.explaining("experiments"):
        with impatient():
            client.search_experiments(max_results=1)
        silent = [
            found
            for experiment in _experiments(client, experiments, server)
            for run in _running(client, experiment)
            if (found := _judge(client, run, experiment, silence_minutes, all_clients=all_clients)) is not None
        ]
        if silent and not dry_run:
            time.sleep(watch_seconds)
        ended = []
        for found in silent:
            if dry_run or _end(client, found, silence_minutes, all_clients=all_clients):
                minutes = int((now() - found.sign) / 60_000)
                url = server.run_url(found.experiment.experiment_id, found.run_id)
                ended.append(Reaped(found.run_id, found.experiment.name, found.sign, minutes, url))
    return ended


def _experiments(client: MlflowClient, names: Sequence[str] | None, server: Server) -> list[Experiment]:
    if names is None:
        found: list[Experiment] = []
        token: str | None = None
        while True:
            page = client.search_experiments(view_type=ViewType.ACTIVE_ONLY, max_results=PAGE, page_token=token)
            found += page
            token = page.token
            if not token:
                return found
    found = []
    for name in names:
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            message = f"there is no experiment {name!r} on {server.address}, or we may not see it: check --experiment"
            raise ProblemError(message)
        found.append(experiment)
    return found


def _running(client: MlflowClient, experiment: Experiment) -> list[Run]:
    found: list[Run] = []
    token: str | None = None
    while True:
        page = client.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'", max_results=PAGE, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _judge(client: MlflowClient, run: Run, experiment: Experiment, silence_minutes: float, *, all_clients: bool) -> _Silent | None:
    """Return a run as silent, or None where it is none of ours or lives."""
    if records.UUID not in run.data.tags and not all_clients:
        return None
    limit = now() - int(silence_minutes * 60_000)
    # The start is a sign of life as well; it is looked at first, because the others may cost requests.
    if run.info.start_time > limit:
        return None
    sign = _last_sign(client, run)
    return _Silent(str(run.info.run_id), experiment, sign) if sign <= limit else None


def _last_sign(client: MlflowClient, run: Run) -> int:
    """Return when the run last gave a sign of life, in milliseconds since 1970."""
    beat = run.data.tags.get(records.HEARTBEAT, "")
    if beat.isdecimal():
        return int(beat)
    times = [metric.timestamp for name in run.data.metrics for metric in client.get_metric_history(run.info.run_id, name)]
    return max([int(run.info.start_time), *times])


def _end(client: MlflowClient, found: _Silent, silence_minutes: float, *, all_clients: bool) -> bool:
    """End a run if it is still what it was when it was judged."""
    run = client.get_run(found.run_id)
    if run.info.status != "RUNNING":
        return False
    again = _judge(client, run, found.experiment, silence_minutes, all_clients=all_clients)
    if again is None or again.sign != found.sign:
        return False
    at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    # The tag comes first: broken off between the two, the next reap ends the run.
    client.set_tag(found.run_id, records.REAPED, f"{at}, no sign of life for {(now() - found.sign) / 60_000:.0f} min")
    client.set_terminated(found.run_id, "KILLED", found.sign)
    return True
