"""`train --sweep`: every combination of the swept parameters is a child run, and the best one is trained, stored and registered by the parent run.

The children are measured by a crew (see there) and recorded by this process alone, while the crew goes on: a worker needs neither server nor spool, and its
end costs the trial that it was at, which another worker repeats.
"""

import csv
import difflib
import io
import json
import math
import queue
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Literal

import requests
from mlflow import MlflowClient
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from sklearn.pipeline import Pipeline

from longrun_training import crew, evaluation, figures, model, provenance, sweep_figure, terminal, train
from longrun_training.config import Configuration, Origin, Parameter
from longrun_training.crew import Crew, CrewError
from longrun_training.data import Dataset
from longrun_training.errors import OutageError, ProblemError, StoppedError
from longrun_training.scores import METRICS, metrics_of
from longrun_training.server import Server, impatient
from longrun_training.tracking import Description, LoggedData, Outcome, Recorder, record
from longrun_training.trial import Measured

Status = Literal["FINISHED", "FAILED", "KILLED"]

MOST_TRIALS = 10_000
# Trials that are begun or ended on the server while the workers are busy with others.
SPARE_LANES = 8
# A server that went away is looked for this often.
LOOK_SECONDS = 60.0
# A signal that comes just before the main thread falls asleep, or to another thread, is heard when the main thread wakes: this often.
HEAR_SECONDS = 0.5
# How long an interrupted sweep waits for the children that end: what is not sent by then waits in the spool.
STOP_SECONDS = 10.0
# Failed trials that the screen names.
NAMED_FAILURES = 5
LONGEST_NAME = 250
TABLE, SHEET, FIGURE = "sweep.json", "sweep.csv", "figures/sweep.png"
ERROR = "longrun.error"
METRIC, TRIALS, FINISHED, FAILED, BEST, BEST_PARAMETERS = (
    f"longrun.sweep.{name}" for name in ("metric", "trials", "finished", "failed", "best_trial", "best_parameters")
)


@dataclass(frozen=True)
class Combination:
    """One point of the grid.

    Attributes:
        number: From 1, in the order of longrun.toml, the last parameter changing first.
        parameters: The swept ones.
        configuration: Everything.
    """

    number: int
    parameters: Mapping[str, Parameter]
    configuration: Configuration = field(repr=False, compare=False)

    @property
    def label(self) -> str:
        """`max_depth=4, n_estimators=50`."""
        return ", ".join(f"{name}={value}" for name, value in self.parameters.items())


@dataclass(frozen=True)
class Trial:
    """What became of a combination.

    Attributes:
        combination: Which.
        status: FINISHED, FAILED or KILLED.
        outcome: Where its run is.
        measured: None where it did not come to an end.
        error: Why it failed, one line.
    """

    combination: Combination
    status: Status
    outcome: Outcome
    measured: Measured | None = None
    error: str | None = None

    def value(self, metric: str) -> float:
        """Return its mean over the folds; NaN without one."""
        return self.measured.scores[f"cv_{metric}_mean"] if self.measured else math.nan

    def row(self) -> dict[str, object]:
        """Return it as a line of the table."""
        scores = self.measured.scores if self.measured else {}
        return {
            "trial": self.combination.number,
            "status": self.status,
            "parameters": dict(self.combination.parameters),
            "metrics": {name: value if math.isfinite(value) else None for name, value in scores.items()},
            "seconds": round(self.measured.seconds, 3) if self.measured else None,
            "run_id": self.outcome.run_id,
            "uuid": self.outcome.uuid,
            "error": self.error,
        }


@dataclass(frozen=True)
class Sweep:
    """What a sweep came to.

    Attributes:
        result: The parent run, which has the best combination's model.
        metric: By which it was chosen: its mean over the folds.
        trials: All of them, by their number.
        best: The chosen one.
    """

    result: train.Result
    metric: str
    trials: tuple[Trial, ...]
    best: Trial

    @property
    def summary(self) -> dict[str, object]:
        """What a program reads: the parent run as of any training, and `sweep`."""
        counts = Counter(trial.status for trial in self.trials)
        found = {"metric": self.metric, "trials": len(self.trials), "finished": counts["FINISHED"], "failed": counts["FAILED"]}
        return self.result.summary | {"sweep": {**found, "best": self.best.row(), "failures": [trial.row() for trial in self.trials if trial.error]}}


class _TrialOrigin(Origin):
    """Where a trial's keys were written: its own parameters stand in [sweep]."""

    def __init__(self, configuration: Configuration, swept: Sequence[str]) -> None:
        super().__init__()
        self._configuration = configuration
        self._swept = frozenset(swept)

    def where(self, key: Sequence[str]) -> str:
        if tuple(key[:2]) == ("estimator", "parameters") and len(key) > 2 and key[2] in self._swept:  # noqa: PLR2004 - the table's two and a name
            key = ("sweep", *key[1:])
        return self._configuration.where(*key)


def plan(configuration: Configuration) -> list[Combination]:
    """Return every combination of the swept parameters, each once.

    Raises:
        ProblemError: There are none, or too many, or the estimator has no such parameter.
    """
    swept = configuration.sweep.parameters
    if not swept:
        fault = "names nothing to try: write [sweep] parameters = { max_depth = [4, 8] }, or leave out --sweep"
        raise configuration.problem(("sweep", "parameters"), fault)
    built = model.build(configuration)
    estimator = built[-1] if isinstance(built, Pipeline) else built
    known = estimator.get_params(deep=False)
    for name, values in swept.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(known)}"
            raise configuration.problem(("sweep", "parameters", name), f"is not a parameter of {configuration.estimator.name}: {hint}")
        if not values:
            raise configuration.problem(("sweep", "parameters", name), "has no values: write some, or leave it out")
    # 1, 1.0 and true are equal for Python, and not for every estimator.
    distinct = [list({repr(value): value for value in values}.values()) for values in swept.values()]
    count = math.prod(len(values) for values in distinct)
    if count > MOST_TRIALS:
        raise configuration.problem(("sweep", "parameters"), f"makes {count} combinations, and {MOST_TRIALS} are the most: leave out some values")
    return [_combine(configuration, number, dict(zip(swept, values, strict=True))) for number, values in enumerate(product(*distinct), 1)]


def _combine(configuration: Configuration, number: int, parameters: Mapping[str, Parameter]) -> Combination:
    estimator = configuration.estimator.model_copy(update={"parameters": {**configuration.estimator.parameters, **parameters}})
    changed = configuration.model_copy(update={"estimator": estimator})
    changed.remember(_TrialOrigin(configuration, list(parameters)))
    return Combination(number, parameters, changed)


def chosen_metric(configuration: Configuration) -> str:
    """Return the metric that decides: the named one, else the first of [metrics], else the task's first."""
    task = model.task(configuration)
    return configuration.sweep.metric or next(iter(configuration.metrics), None) or metrics_of(task, with_probabilities=False)[0]


def sweep(configuration: Configuration, dataset: Dataset, *, spool: Path, server: Server, jobs: int | None = None, cluster: str | None = None) -> Sweep:
    """Measure every combination, record each as a child run, and train the best one as the parent run's model.

    Args:
        configuration: With [sweep], as `train.prepare` found it usable.
        dataset: What `train.prepare` loaded.
        spool: Where runs wait if the server is away.
        server: Where they are recorded.
        jobs: Processes of this machine, None for one a processor.
        cluster: The address of a Dask scheduler, where its workers are wanted instead.

    Raises:
        ProblemError: No combination can be trained, nobody is left who could, or the server refuses.
    """
    combinations = plan(configuration)
    workers = crew.gather(evaluation.split(dataset, configuration), jobs=jobs and min(jobs, len(combinations)), cluster=cluster)
    try:
        search = _Search(configuration, dataset, combinations, workers, spool, server)
        with terminal.distinct():
            result = train.train(configuration, dataset, kind="sweep", spool=spool, server=server, choose=search.choose)
    finally:
        workers.stop()
    return Sweep(result, search.metric, tuple(search.trials), search.best())


class _Search:
    """The children of one sweep.

    Attributes:
        metric: Which decides.
        trials: What is done, by number.
    """

    def __init__(self, configuration: Configuration, dataset: Dataset, combinations: Sequence[Combination], workers: Crew, spool: Path, server: Server) -> None:
        self.metric = chosen_metric(configuration)
        self.trials: list[Trial] = []
        self._configuration = configuration
        self._dataset = dataset
        self._combinations = combinations
        self._crew = workers
        self._spool = spool
        self._server = _Watched(server.uri, server.username)
        self._tags = train.describe(configuration, server, dataset, provenance.source())
        self._input: LoggedData = train.logged(dataset)
        self._base = model.parameters(configuration, model.build(configuration))
        self._waiting: queue.SimpleQueue[Combination] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Trial | BaseException] = queue.SimpleQueue()
        self._stopped = threading.Event()

    def choose(self, recorder: Recorder) -> Configuration:
        """Measure all combinations, sum them up in the parent run, and return the best one's configuration.

        Raises:
            ProblemError: None can be trained; or nobody is left who could.
        """
        recorder.set_tags({METRIC: self.metric, TRIALS: str(len(self._combinations))})
        try:
            self._measure(recorder.uuid)
            best = self.best()
        except BaseException:
            # What is known is kept, however the sweep ends.
            with suppress(ProblemError):
                self._sum_up(recorder)
            raise
        finally:
            # The processors and the memory are the last training's now.
            self._crew.stop()
        self._sum_up(recorder)
        recorder.set_tags({BEST: best.outcome.uuid, BEST_PARAMETERS: json.dumps(dict(best.combination.parameters))})
        with figures.styled():
            recorder.log_figure(sweep_figure.draw(self._points(), self.metric, self._dataset), FIGURE)
        self._tell(best)
        return best.combination.configuration

    def best(self) -> Trial:
        """Return the best trial, the first of equals.

        Raises:
            ProblemError: None has a metric that is a number.
        """
        finite = [trial for trial in self.trials if math.isfinite(trial.value(self.metric))]
        if finite:
            sign = 1 if METRICS[self.metric].direction == "higher" else -1
            return max(finite, key=lambda trial: (sign * trial.value(self.metric), -trial.combination.number))
        failed = next((trial for trial in self.trials if trial.error), None)
        if failed is None:
            message = f"no trial of the sweep has a {self.metric} that is a number: take another [sweep] metric"
            raise ProblemError(message)
        message = f"all {len(self.trials)} trials of the sweep failed; the first one, {failed.combination.label}: {failed.error}"
        raise ProblemError(message)

    # The trials

    def _measure(self, parent: str) -> None:
        for combination in self._combinations:
            self._waiting.put(combination)
        total = len(self._combinations)
        count = min(total, self._crew.size + min(self._crew.size, SPARE_LANES))
        # Daemons: whoever interrupts a sweep does not wait for a server that hangs.
        lanes = [threading.Thread(target=self._lane, args=(parent,), name=f"longrun-trial-{number}", daemon=True) for number in range(count)]
        with terminal.step(
            "sweep", total, f"{total} combinations × {self._configuration.evaluation.folds * self._configuration.evaluation.repeats} folds, " + self._crew.name
        ) as advance:
            try:
                for lane in lanes:
                    lane.start()
                for _ in self._combinations:
                    done = self._next()
                    if isinstance(done, BaseException):
                        raise done  # noqa: TRY301 - as if it had happened here
                    self._keep(done)
                    advance()
            except BaseException as error:
                self._stop(lanes)
                if isinstance(error, CrewError):
                    raise self._interrupted(error) from error
                raise

    def _next(self) -> Trial | BaseException:
        while True:
            with suppress(queue.Empty):
                return self._done.get(timeout=HEAR_SECONDS)

    def _keep(self, trial: Trial) -> None:
        self.trials.append(trial)
        self.trials.sort(key=lambda known: known.combination.number)

    def _stop(self, lanes: Sequence[threading.Thread]) -> None:
        """End the children that run, and wait a little for the server to know."""
        self._stopped.set()
        self._crew.stop()
        deadline = time.monotonic() + STOP_SECONDS
        for lane in lanes:
            if lane.ident is not None:
                lane.join(max(0.0, deadline - time.monotonic()))
        with suppress(queue.Empty):
            while True:
                done = self._done.get_nowait()
                if isinstance(done, Trial):
                    self._keep(done)

    def _interrupted(self, error: CrewError) -> CrewError:
        known = {trial.combination.number for trial in self.trials if trial.status != "KILLED"}
        missing = [combination for combination in self._combinations if combination.number not in known]
        first = f"{len(missing)} of {len(self._combinations)} trials are missing, the first is {missing[0].label}" if missing else "all trials are done"
        return CrewError(f"{error}: {first}; the others are recorded")

    def _lane(self, parent: str) -> None:
        while not self._stopped.is_set():
            try:
                self._done.put(self._try(self._waiting.get_nowait(), parent))
            except (queue.Empty, StoppedError):
                return
            except BaseException as error:  # noqa: BLE001 - whoever waits for the trials raises it
                self._done.put(error)
                return

    def _try(self, combination: Combination, parent: str) -> Trial:
        """Measure one combination, and record it as it goes.

        Raises:
            CrewError: Nobody is left.
            ProblemError: The server refuses the child, or there is no room for it in the spool.
            StoppedError: The sweep ends before the trial began.
        """
        # The worker begins before the server hears of it, so that it never waits for the server.
        job = self._crew.start(combination.configuration)
        tags = self._tags | {"mlflow.runName": f"trial {combination.number}: {combination.label}"[:LONGEST_NAME]}
        description = Description(self._configuration.experiment, self._configuration.model.name, "trial", tags, parent)
        measured: Measured | None = None
        failure: str | None = None
        recorder: Recorder | None = None
        try:
            with record(description, spool=self._spool, server=self._server) as recorder:
                recorder.log_parameters(train.list_parameters(combination.configuration, self._dataset, {**self._base, **combination.parameters}))
                recorder.log_dataset(self._input)
                try:
                    measured = job.result()
                except CrewError:
                    raise
                except ProblemError as error:
                    failure = str(error)
                    recorder.set_tags({ERROR: failure})
                    raise
                _log(recorder, measured)
        except StoppedError:
            if recorder is None:
                raise
            return Trial(combination, "KILLED", recorder.outcome)
        except ProblemError as error:
            if recorder is None or (measured is None and failure is None):
                raise
            if measured is not None:
                # It is measured, and all of it is in the spool: the line says why the server does not take it.
                terminal.note(str(error))
        if recorder.outcome.spooled is not None:
            self._server.doubt()
        return Trial(combination, "FAILED" if failure else "FINISHED", recorder.outcome, measured, failure)

    # What they came to

    def _sum_up(self, recorder: Recorder) -> None:
        counts = Counter(trial.status for trial in self.trials)
        recorder.set_tags({FINISHED: str(counts["FINISHED"]), FAILED: str(counts["FAILED"])})
        recorder.log_json(
            {
                "metric": f"cv_{self.metric}_mean",
                "direction": METRICS[self.metric].direction,
                "parameters": {name: list(values) for name, values in self._configuration.sweep.parameters.items()},
                "combinations": len(self._combinations),
                "trials": [trial.row() for trial in self.trials],
            },
            TABLE,
        )
        recorder.log_text(to_csv(self.trials), SHEET)

    def _points(self) -> list[sweep_figure.Point]:
        best = self.best()
        spread = f"cv_{self.metric}_std"
        return [
            sweep_figure.Point(trial.combination.number, trial.combination.parameters, trial.value(self.metric), trial.measured.scores[spread], trial is best)
            for trial in self.trials
            if trial.measured is not None
        ]

    def _tell(self, best: Trial) -> None:
        failed = [trial for trial in self.trials if trial.error]
        for trial in failed[:NAMED_FAILURES]:
            terminal.note(f"trial {trial.combination.number} ({trial.combination.label}) failed: {trial.error}")
        if len(failed) > NAMED_FAILURES:
            terminal.note(f"{len(failed) - NAMED_FAILURES} more trials failed: {SHEET} of the run says why")
        value = f"{METRICS[self.metric].title} {best.value(self.metric):.4g}"
        terminal.note(f"best of {len(self.trials) - len(failed)}: trial {best.combination.number}, {best.combination.label}: {value}; now trained as a whole")


def _log(recorder: Recorder, measured: Measured) -> None:
    for number, fold in enumerate(measured.folds, 1):
        recorder.log_metrics({f"cv_{name}": value for name, value in fold.items()}, number)
    recorder.log_metrics(measured.scores | {"duration_seconds": measured.seconds})


def to_csv(trials: Sequence[Trial]) -> str:
    """Return the trials as a table: their number, status, each parameter and metric, and where their runs are."""
    rows = [trial.row() for trial in trials]
    parameters = list(dict.fromkeys(name for trial in trials for name in trial.combination.parameters))
    metrics = list(dict.fromkeys(name for trial in trials if trial.measured for name in trial.measured.scores))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "status", *parameters, *metrics, "seconds", "run_id", "uuid", "error"])
    for trial, row in zip(trials, rows, strict=True):
        scores = trial.measured.scores if trial.measured else {}
        values = [*(trial.combination.parameters.get(name) for name in parameters), *(scores.get(name) for name in metrics)]
        writer.writerow([row["trial"], row["status"], *values, row["seconds"], row["run_id"], row["uuid"], row["error"]])
    return text.getvalue()


@dataclass
class _Watch:
    guard: threading.Lock = field(default_factory=threading.Lock)
    found: Experiment | None = None
    outage: str | None = None
    look_again: float = 0.0


@dataclass(frozen=True)
class _Watched(Server):
    """The server, as hundreds of runs see it that begin one after another: it is looked for once, and once it is away, by one of them a minute."""

    watch: _Watch = field(default_factory=_Watch, compare=False, repr=False)

    def preflight(self, experiment: str) -> Experiment | None:
        """See `Server`; most answers come from memory."""
        watch = self.watch
        with watch.guard:
            if watch.outage is not None:
                self._look_again(experiment)
            elif watch.found is None:
                try:
                    watch.found = super().preflight(experiment)
                except OutageError as error:
                    self._away(str(error))
                    raise
            return watch.found

    def _look_again(self, experiment: str) -> None:
        watch = self.watch
        error = OutageError(str(watch.outage))
        if time.monotonic() < watch.look_again:
            raise error
        try:
            with impatient():
                watch.found = MlflowClient().get_experiment_by_name(experiment)
        except (MlflowException, requests.RequestException) as again:
            self._away(str(watch.outage))
            raise error from again
        watch.outage = None

    def doubt(self) -> None:
        """Note that a run ended in the spool: the server went away."""
        with self.watch.guard:
            if self.watch.outage is None:
                self._away(f"{self.address} went away during the sweep")

    def _away(self, outage: str) -> None:
        self.watch.outage, self.watch.look_again = outage, time.monotonic() + LOOK_SECONDS
