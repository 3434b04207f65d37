"""The verb `train`: from a table to a registered version of a model, with everything about it recorded."""

import math
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.pandas_dataset import from_pandas
from rich.markup import escape

from longrun_training import data, evaluation, figures, last_run, model, predictions, provenance, scores, terminal
from longrun_training.config import Configuration
from longrun_training.data import Dataset
from longrun_training.errors import ProblemError
from longrun_training.predictions import Predictions
from longrun_training.tracking import Description, LoggedData, Recorder, Server, record

if TYPE_CHECKING:
    import numpy as np

# What a registered model's name may not hold, and how long names may be.
FORBIDDEN_CHARACTERS = "/:"
LONGEST_NAME = 250
DIGEST_CHARACTERS = 12
# One-row predictions: some to warm up, and then as many as the median is of.
WARM_UP, TIMED = 3, 25

Kind = Literal["train", "calibration", "sweep"]
# The kinds whose runs end with a version of the registered model.
REGISTERED = frozenset({"train", "sweep"})
# What begins once the run is recorded, and says what is trained in it.
Choose = Callable[[Recorder], Configuration]


@dataclass(frozen=True)
class Result:
    """What a training came to.

    Attributes:
        uuid: The client's own name for the run, on and off the server.
        run_id: On the server; None where it never reached it. Likewise the next ones.
        experiment_id: Of its experiment.
        experiment: The experiment's name.
        model_name: Of the registered model.
        model_version: The version that the run added to it.
        run_url: Where MLflow's pages show the run.
        spooled: The folder in which the run waits for `longrun sync`; None where the server has all of it.
        metrics: `cv_<score>_mean`, `cv_<score>_std`, `holdout_<score>`, and what was measured of the model itself.
        folds: The scores of each fold, in order.
        predictions: What the model says of the hold-out.
    """

    uuid: str
    run_id: str | None
    experiment_id: str | None
    experiment: str
    model_name: str
    model_version: str | None
    run_url: str | None
    spooled: str | None
    metrics: Mapping[str, float]
    folds: tuple[Mapping[str, float], ...] = field(default=(), repr=False)
    predictions: Predictions | None = field(default=None, repr=False, compare=False)

    @property
    def summary(self) -> dict[str, object]:
        """What a program reads, fit for JSON: a metric that is not finite is null."""
        left_out = {"folds", "predictions", "metrics"}
        plain = {name: value for name, value in vars(self).items() if name not in left_out}
        return plain | {"metrics": {name: value if math.isfinite(value) else None for name, value in self.metrics.items()}}


def prepare(configuration: Configuration) -> Dataset:
    """Check a configuration against what there is, and load its data; nothing is recorded.

    Raises:
        ProblemError: A name, the estimator, a metric, a slice or the data can't be used.
    """
    _check_name("experiment", configuration.experiment)
    _check_name("model", configuration.model.name, FORBIDDEN_CHARACTERS)
    task = model.task(configuration)
    _check_metrics(configuration, task)
    dataset = data.load(configuration, task)
    predictions.masks(dataset, configuration)
    evaluation.split(dataset, configuration)
    return dataset


def _check_name(option: str, name: str, forbidden: str = "") -> None:
    if not name.strip() or name in {".", ".."} or len(name) > LONGEST_NAME or any(character in forbidden or not character.isprintable() for character in name):
        without = f", without {' and '.join(forbidden)}" if forbidden else ""
        message = f"{name!r} is no name that MLflow takes: write --{option} NAME, 1 to {LONGEST_NAME} characters{without}"
        raise ProblemError(message)


def _check_metrics(configuration: Configuration, task: scores.Task) -> None:
    estimator, name = model.build(configuration), configuration.estimator.name
    known = scores.metrics_of(task, with_probabilities=hasattr(estimator, "predict_proba"))
    for key, wanted in [(("metrics", metric), metric) for metric in configuration.metrics] + [(("sweep", "metric"), configuration.sweep.metric)]:
        if wanted is None or wanted in known:
            continue
        why = f"{name} gives no probabilities" if scores.METRICS[wanted].task == task else f"{name} is for {task}"
        raise configuration.problem(key, f"can't be computed: {why}; take some of {', '.join(known)}")


def train(
    configuration: Configuration,
    dataset: Dataset,
    *,
    kind: Kind = "train",
    spool: Path,
    server: Server,
    choose: Choose | None = None,
) -> Result:
    """Train the configured estimator and record the run.

    Some rows are held out; the rest is cross-validated, then fitted once more as a whole. That last model is scored on the hold-out and registered.
    A `calibration` stores no model and no figures: there are many, and they are read as numbers.

    Args:
        configuration: What to train, as `prepare` found it usable.
        dataset: What `prepare` loaded.
        kind: Of the run.
        spool: Where the run waits if the server is away.
        server: Where it is recorded.
        choose: Called within the run, before anything is trained: what it returns is trained instead. Data, seed and names may not differ.

    Raises:
        ProblemError: The server refuses, or the estimator does. Before the run begins, nothing is left behind on the server.
    """
    parts, slices = evaluation.split(dataset, configuration), predictions.masks(dataset, configuration)
    source = provenance.source()
    tags = describe(configuration, server, dataset, source) | {"longrun.holdout_sha256": predictions.holdout_sha256(parts)}
    description = Description(configuration.experiment, configuration.model.name, kind, tags)
    # Before the run begins, so that nothing is left of one that can't be trained.
    model.build(configuration)
    with record(description, spool=spool, server=server) as recorder:
        _introduce(configuration, server, dataset, source)
        recorder.log_dataset(logged(dataset))
        if choose is not None:
            configuration = choose(recorder)
        started = time.monotonic()
        parameters = list_parameters(configuration, dataset, model.parameters(configuration, model.build(configuration)))
        recorder.log_parameters(parameters)
        _log_circumstances(recorder, configuration)
        folds = _cross_validate(recorder, configuration, parts)
        remark = f"{len(parts.training)} rows, {len(parts.holdout)} held out"
        with terminal.step("final model", remark=remark):
            estimator = model.fit(configuration, parts.features, parts.answers)
            said = _predict(parts, estimator, slices)
            metrics = {**evaluation.summarize(folds), **_holdout_scores(said, dataset)}
            metrics["latency_ms"] = latency(estimator, parts)
        _log_predictions(recorder, said)
        if kind in REGISTERED:
            _log_figures(recorder, parts, estimator, said, configuration)
            _log_model(recorder, dataset, estimator, metrics, parameters, started)
        else:
            recorder.log_metrics(metrics | {"duration_seconds": time.monotonic() - started})
    outcome = recorder.outcome
    if kind in REGISTERED:
        last_run.write(outcome, description, server.address, spool)
    return Result(
        uuid=outcome.uuid,
        run_id=outcome.run_id,
        experiment_id=outcome.experiment_id,
        experiment=configuration.experiment,
        model_name=configuration.model.name,
        model_version=outcome.version,
        run_url=outcome.url,
        spooled=None if outcome.spooled is None else str(outcome.spooled),
        metrics=metrics,
        folds=tuple(folds),
        predictions=said,
    )


def _introduce(configuration: Configuration, server: Server, dataset: Dataset, source: provenance.Source) -> None:
    terminal.console.print(f"[bold]{escape(configuration.experiment)}[/] on {escape(server.address)}", soft_wrap=True)
    grouped = "" if dataset.groups is None else f", {dataset.groups.nunique()} groups by {dataset.group}"
    classes = f" of {len(dataset.classes)} classes" if dataset.classes else ""
    terminal.note(f"{dataset.label}: {len(dataset.table)} rows × {dataset.features.shape[1]} features, target {dataset.target}{classes}{grouped}")
    terminal.note(f"SHA-256 of the data {dataset.sha256[:12]}…")
    terminal.note(f"git commit {source.commit[:12]}" if source.commit else "no git commit here, so the run carries none")
    if source.pull_request:
        terminal.note(f"pull request {source.pull_request}" + (f" of {source.repository}" if source.repository else ""))


def describe(configuration: Configuration, server: Server, dataset: Dataset, source: provenance.Source) -> dict[str, str]:
    """Return the tags that a run of this configuration begins with."""
    tags = {
        # What a person knows it by; without a commit, MLflow makes a name up.
        "mlflow.runName": f"{source.branch or 'detached'} {source.commit[:8]}" if source.commit else None,
        "mlflow.user": server.username,
        "mlflow.source.name": "longrun train",
        "mlflow.source.type": "JOB" if os.environ.get("CI") else "LOCAL",
        **source.tags,
        "longrun.data_sha256": dataset.sha256,
        "longrun.data_source": str(dataset.source),
        "longrun.schema_sha256": dataset.schema_sha256,
        "longrun.split_version": evaluation.SPLIT_VERSION,
        "longrun.metric_version": scores.METRIC_VERSION,
        "longrun.seed": str(configuration.evaluation.seed),
    }
    return {name: value for name, value in tags.items() if value}


def list_parameters(configuration: Configuration, dataset: Dataset, of_estimator: Mapping[str, object]) -> dict[str, object]:
    """Return the parameters of a run: those of its estimator, and ours."""
    settings = configuration.evaluation
    ours: dict[str, object] = {
        "estimator": configuration.estimator.name,
        "scale": configuration.estimator.scale,
        "folds": settings.folds,
        "repeats": settings.repeats,
        "seed": settings.seed,
        "holdout_fraction": settings.holdout,
        "target": dataset.target,
        "rows": len(dataset.table),
        "features": dataset.features.shape[1],
        "data_sha256": dataset.sha256,
    }
    if dataset.group is not None:
        ours["group"] = dataset.group
    # An estimator's own parameter could have one of our names.
    return {f"estimator.{name}" if name in ours else name: value for name, value in of_estimator.items()} | ours


def logged(dataset: Dataset) -> LoggedData:
    """Return the data set as the run's input: name, digest, source, schema and size, not the rows themselves."""
    digest = dataset.sha256[:DIGEST_CHARACTERS]
    source = str(dataset.source) if isinstance(dataset.source, Path) else CodeDatasetSource({"mlflow.source.name": dataset.source})
    return LoggedData(**from_pandas(dataset.table, source, dataset.target, dataset.name, digest).to_dict())


def _cross_validate(recorder: Recorder, configuration: Configuration, parts: evaluation.Split) -> list[dict[str, float]]:
    settings = configuration.evaluation
    folds = []
    with terminal.step("cross-validation", settings.folds * settings.repeats, f"{settings.folds} folds × {settings.repeats}") as advance:
        # Steps begin at 1: MLflow would copy those of step 0 to the model, as if they were its own.
        for number, fold in enumerate(evaluation.cross_validate(parts, configuration), 1):
            recorder.log_metrics({f"cv_{name}": value for name, value in fold.items()}, number)
            folds.append(fold)
            advance()
    return folds


def _predict(parts: evaluation.Split, estimator: model.Estimator, slices: Mapping[str, "np.ndarray[tuple[int], np.dtype[np.bool_]]"]) -> Predictions:
    features = parts.holdout_features
    return predictions.collect(parts, model.predict(estimator, features), model.probabilities(estimator, features, parts.dataset.classes), slices)


def _holdout_scores(said: Predictions, dataset: Dataset) -> dict[str, float]:
    found = evaluation.scores_of(said.actual, said.predicted, said.probabilities, dataset.classes)
    return {f"holdout_{name}": value for name, value in found.items()}


def latency(estimator: model.Estimator, parts: evaluation.Split) -> float:
    """Return the median time of predicting one row, in milliseconds."""
    times = []
    for number in range(WARM_UP + TIMED):
        row = parts.holdout_features.iloc[[number % len(parts.holdout)]]
        started = time.perf_counter()
        model.predict(estimator, row)
        times.append(time.perf_counter() - started)
    return statistics.median(times[WARM_UP:]) * 1000


def _log_circumstances(recorder: Recorder, configuration: Configuration) -> None:
    recorder.log_json(configuration.model_dump(mode="json"), "configuration.json")
    recorder.log_json(provenance.environment(), "environment.json")
    recorder.log_text(provenance.lock(), "requirements.txt")


def _log_predictions(recorder: Recorder, said: Predictions) -> None:
    with TemporaryDirectory(prefix="longrun-") as folder:
        path = Path(folder) / predictions.FILE_NAME
        said.write(path)
        recorder.log_file(path, predictions.FILE_NAME)


def _log_figures(recorder: Recorder, parts: evaluation.Split, estimator: model.Estimator, said: Predictions, configuration: Configuration) -> None:
    dataset = parts.dataset
    with terminal.step("figures"), figures.styled():
        if dataset.task == "regression":
            recorder.log_figure(figures.residuals(said.actual, said.predicted, dataset), "figures/residuals.png")
        else:
            recorder.log_figure(figures.confusion(said.actual, said.predicted, dataset), "figures/confusion.png")
        if said.probabilities is not None:
            recorder.log_figure(figures.probabilities(said.actual, said.probabilities, dataset), "figures/probabilities.png")
        found = figures.measure_importance(estimator, parts, configuration.evaluation.seed)
        recorder.log_figure(figures.importance(found, dataset), "figures/importance.png")


def _log_model(
    recorder: Recorder, dataset: Dataset, estimator: model.Estimator, metrics: dict[str, float], parameters: Mapping[str, object], started: float
) -> None:
    """Store and register the model, after the metrics that describe it: MLflow copies those of step 0 to it."""
    with terminal.step("model"), TemporaryDirectory(prefix="longrun-") as folder:
        saved = Path(folder) / "model"
        metrics["model_size_bytes"] = float(model.save(estimator, dataset, saved))
        metrics["duration_seconds"] = time.monotonic() - started
        recorder.log_metrics(metrics)
        recorder.log_model(saved, parameters=parameters, model_type="regressor" if dataset.task == "regression" else "classifier")
        recorder.register()
