"""The verb `train`: from a table to a registered version of a model, with everything about it recorded."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape

from longrun_training import evaluation, figures, provenance, terminal
from longrun_training.data import Dataset, load
from longrun_training.errors import ProblemError
from longrun_training.model import Settings, fit, predict
from longrun_training.tracking import Run, Server

# What a registered model's name may not hold, and how long names may be.
FORBIDDEN_CHARACTERS = "/:"
LONGEST_NAME = 250


@dataclass(frozen=True)
class Result:
    """What a training came to.

    Attributes:
        run_id: Of the run.
        experiment_id: Of its experiment.
        model_name: Of the registered model.
        model_version: The version that the run added to it.
        run_url: Where MLflow's pages show the run.
        metrics: `cv_<score>_mean`, `cv_<score>_std` and `holdout_<score>` for rmse and mae (in the target's unit) and r2.
    """

    run_id: str
    experiment_id: str
    model_name: str
    model_version: str
    run_url: str
    metrics: Mapping[str, float]


def _check_name(option: str, name: str, forbidden: str = "") -> None:
    if not name.strip() or name in {".", ".."} or len(name) > LONGEST_NAME or any(character in forbidden or not character.isprintable() for character in name):
        without = f", without {' and '.join(forbidden)}" if forbidden else ""
        message = f"{name!r} is no name that MLflow takes: write --{option} NAME, 1 to {LONGEST_NAME} characters{without}"
        raise ProblemError(message)


def _parameters(dataset: Dataset, settings: Settings) -> dict[str, object]:
    return {
        "estimators": settings.estimators,
        "max_depth": settings.max_depth,
        "folds": settings.folds,
        "repeats": settings.repeats,
        "seed": settings.seed,
        "holdout_fraction": evaluation.HOLDOUT_FRACTION,
        "target": dataset.target,
        "rows": len(dataset.table),
        "features": dataset.features.shape[1],
        "data_sha256": dataset.sha256,
    }


def _tags(server: Server, dataset: Dataset, source: provenance.Source) -> dict[str, str]:
    tags = {
        "mlflow.user": server.username,
        "mlflow.source.name": "longrun train",
        "mlflow.source.type": "JOB" if os.environ.get("CI") else "LOCAL",
        "mlflow.source.git.commit": source.commit,
        "mlflow.source.git.branch": source.branch,
        "longrun.git_dirty": None if source.dirty is None else str(source.dirty).lower(),
        "longrun.data_sha256": dataset.sha256,
        "longrun.data_source": str(dataset.source),
    }
    return {name: value for name, value in tags.items() if value}


def train(*, data: Path | None, target: str | None, experiment: str | None, model: str | None, settings: Settings) -> Result:
    """Train a random forest and record the run.

    A fifth of the rows is held out; the rest is cross-validated, then fitted once more as a whole. That last model is scored on
    the hold-out and registered.

    Args:
        data: A CSV or Parquet file; scikit-learn's diabetes data where None.
        target: The file's column to predict.
        experiment: Name of the experiment; the data set's where None.
        model: Name of the registered model; the experiment's where None.
        settings: Of the model and its evaluation.

    Raises:
        ProblemError: The data, the server or the login can't be used. Before the run begins, nothing is left behind on the server.
    """
    with terminal.waiting("reading the data"):
        dataset = load(data, target)
        parts = evaluation.split(dataset, settings)
    experiment = dataset.name if experiment is None else experiment
    model = experiment if model is None else model
    _check_name("experiment", experiment)
    _check_name("model", model, FORBIDDEN_CHARACTERS)
    server = Server.from_environment()
    with terminal.waiting(f"reaching {server.address}"):
        found = server.find(experiment)
        source = provenance.source()
    with server.run(experiment, model, found, _tags(server, dataset, source)) as run:
        terminal.console.print(f"[bold]{escape(experiment)}[/] on {escape(server.address)}", soft_wrap=True)
        terminal.note(f"{dataset.label}: {len(dataset.table)} rows × {dataset.features.shape[1]} features, target {dataset.target}")
        terminal.note(f"SHA-256 of the data {dataset.sha256[:12]}…")
        terminal.note(f"git commit {source.commit[:12]}" if source.commit else "no git commit here, so the run carries none")
        return _record(run, dataset, parts, model, settings)


def _record(run: Run, dataset: Dataset, parts: evaluation.Split, model: str, settings: Settings) -> Result:
    parameters = _parameters(dataset, settings)
    run.log_parameters(parameters)
    run.log_dataset(dataset)
    run.log_json(provenance.environment(), "environment.json")

    fits = settings.folds * settings.repeats
    with terminal.step("cross-validation", fits, f"{settings.folds} folds × {settings.repeats}") as advance:
        scores = []
        # Steps begin at 1: MLflow would copy those of step 0 to the model, as if they were its own.
        for step, fold in enumerate(evaluation.cross_validate(parts, settings), 1):
            run.log_metrics({f"cv_{name}": value for name, value in fold.items()}, step)
            scores.append(fold)
            advance()
    with terminal.step("final model", remark=f"{len(parts.features)} rows, {len(parts.holdout_features)} held out"):
        forest = fit(settings, parts.features, parts.answers)
        predicted = predict(forest, parts.holdout_features)
        holdout = evaluation.score(parts.holdout_answers, predicted)
        metrics = {**evaluation.summarize(scores), **{f"holdout_{name}": value for name, value in holdout.items()}}
        run.log_metrics(metrics)
    with terminal.step("figures"), figures.styled():
        run.log_figure(figures.residuals(parts.holdout_answers, predicted, dataset), "residuals.png")
        run.log_figure(figures.importance(figures.measure_importance(forest, parts, settings.seed), dataset), "importance.png")
    with terminal.step("model to the server"):
        run.log_model(forest, dataset, parameters)
        version = run.register_model()
    return Result(run.run_id, run.experiment_id, model, version, run.url, metrics)
