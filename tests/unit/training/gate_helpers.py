"""Runs for the tests of the gate, made as `longrun train` would leave them on the server, but without training."""

import hashlib
import json
import subprocess
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from longrun_training.config import Configuration
from longrun_training.lookup import Place
from longrun_training.predictions import Predictions
from longrun_training.server import Server
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

SEED = 20261124
ROWS = 200


def regression(noise: float = 1.0, *, rows: int = ROWS, seed: int = 1, shift: float = 0.0) -> pd.DataFrame:
    """Return the predictions of a model: the same rows each time, with errors of its own (noise: their standard deviation)."""
    actual = np.random.default_rng(SEED).normal(100, 20, rows)
    errors = np.random.default_rng(SEED + seed).normal(shift, noise, rows) if noise else np.full(rows, shift)
    return pd.DataFrame({"row_id": [f"{number:016x}-0" for number in range(rows)], "actual": actual, "predicted": actual + errors})


def classification(wrong: Sequence[int] = (), *, rows: int = ROWS, probabilities: bool = True) -> pd.DataFrame:
    """Return the predictions of a classifier that is wrong about some rows."""
    actual = np.array(["no", "yes"] * rows, dtype=object)[:rows]
    predicted = actual.copy()
    predicted[list(wrong)] = np.where(actual[list(wrong)] == "yes", "no", "yes")
    frame = pd.DataFrame({"row_id": [f"{number:016x}-0" for number in range(rows)], "actual": actual, "predicted": predicted})
    if probabilities:
        sure = np.where(predicted == "yes", 0.9, 0.1)
        frame["probability_no"], frame["probability_yes"] = 1 - sure, sure
    return frame


def configuration(model: str, **tables: Any) -> Configuration:  # noqa: ANN401 - tables of longrun.toml
    """Return a configuration of a model with these tables of longrun.toml; RMSE with a margin of 0.5 where no metrics are given."""
    return Configuration.model_validate({"model": {"name": model}, "metrics": {"rmse": {"margin": 0.5}}, **tables})


@dataclass
class Bench:
    """A model of its own on the real server, to which a test adds runs."""

    place: Place
    started: int = field(default=1_760_000_000_000)

    @classmethod
    def open(cls, uri: str, model: str) -> "Bench":
        """Make the experiment and the registered model."""
        client = MlflowClient(uri, uri)
        client.create_registered_model(model)
        experiment = client.get_experiment(client.create_experiment(model))
        return cls(Place(client, Server(uri, ""), experiment, model))

    @property
    def client(self) -> MlflowClient:
        """The stock client."""
        return self.place.client

    def run(  # noqa: PLR0913 - what a run may have
        self,
        frame: pd.DataFrame | None,
        *,
        commit: str | None = None,
        branch: str = "main",
        pull_request: str | None = None,
        exit_status: int | None = None,
        verdict: str = "pass",
        status: str = "FINISHED",
        metrics: Mapping[str, float] | None = None,
        folds: Mapping[str, Sequence[float]] | None = None,
        tags: Mapping[str, str | None] | None = None,
        register: bool = True,
        ended: int | None = None,
    ) -> Run:
        """Make a run.

        Args:
            frame: Its predictions; None: it has none, and says nothing of its hold-out.
            commit: Of its code.
            branch: Where that was.
            pull_request: Its number; None: of no pull request.
            exit_status: What its gate ended with; None: it was not judged.
            verdict: What its gate said.
            status: How it ended.
            metrics: Logged besides.
            folds: Scores of the cross-validation, by metric.
            tags: Others; None takes one away.
            register: Whether it made a version.
            ended: Milliseconds since 1970; now and then where None, each run later than the one before.
        """
        self.started += 1000
        marks: dict[str, str | None] = {
            "longrun.uuid": str(uuid.uuid4()),
            "longrun.model": self.place.model,
            "longrun.kind": "train",
            "longrun.data_sha256": "d" * 64,
            "longrun.split_version": "1",
            "longrun.metric_version": "1",
            "mlflow.source.git.commit": commit,
            "mlflow.source.git.branch": branch,
            "longrun.pull_request": pull_request,
            "longrun.repository": "acme/models",
        }
        if frame is not None:
            marks["longrun.holdout_sha256"] = hashlib.sha256(
                json.dumps([list(frame["row_id"]), [str(value) for value in frame["actual"]]]).encode()
            ).hexdigest()
        if exit_status is not None:
            marks |= {"longrun.gate.exit_status": str(exit_status), "longrun.gate.verdict": verdict}
        marks |= dict(tags or {})
        client, experiment = self.client, self.place.experiment.experiment_id
        run_id = client.create_run(experiment, self.started, {name: value for name, value in marks.items() if value is not None}).info.run_id
        values = [Metric(name, value, self.started, 0) for name, value in (metrics or {}).items()]
        for name, scores in (folds or {}).items():
            values += [Metric(f"cv_{name}", score, self.started, step) for step, score in enumerate(scores, 1)]
        params = [Param(name, value) for name, value in {"folds": "5", "repeats": "3", "seed": "0", "holdout_fraction": "0.2"}.items()]
        client.log_batch(run_id, values, params)
        if frame is not None:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "predictions.parquet"
                Predictions(frame).write(path)
                client.log_artifact(run_id, str(path))
        if status != "RUNNING":
            client.set_terminated(run_id, status, self.started + 500 if ended is None else ended)
        if register:
            version = client.create_model_version(self.place.model, f"runs:/{run_id}/model", run_id)
            client.set_registered_model_alias(self.place.model, "candidate", version.version)
        return client.get_run(run_id)

    def version(self, run: Run) -> str:
        """Return the number of the version that a run made."""
        found = self.client.search_model_versions(f"name = '{self.place.model}' and run_id = '{run.info.run_id}'")
        return str(found[0].version)

    def tags(self, run: Run) -> dict[str, str]:
        """Return a run's tags as they are now."""
        return dict(self.client.get_run(run.info.run_id).data.tags)

    def mark(self, run: Run, **tags: str) -> None:
        """Set tags that begin with `longrun.gate.`."""
        self.client.log_batch(run.info.run_id, tags=[RunTag(f"longrun.gate.{name}", value) for name, value in tags.items()])

    def champion(self) -> str | None:
        """Return the version that has the alias."""
        try:
            return str(self.client.get_model_version_by_alias(self.place.model, "champion").version)
        except MlflowException:
            return None


class Repository:
    """A git repository with a history as a test wants it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commits = 0
        folder.mkdir(parents=True, exist_ok=True)
        self.git("init", "--quiet", "--initial-branch", "main")

    def git(self, *arguments: str) -> str:
        """Run git here, without the settings of whoever runs the tests."""
        settings = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null"]
        done = subprocess.run(["git", "-C", str(self.folder), *settings, *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(self) -> str:
        """Make an empty commit and return its hash."""
        # Two commits of one second with one message and one parent would be one.
        self.commits += 1
        self.git("commit", "--quiet", "--allow-empty", "--message", f"change {self.commits}")
        return self.git("rev-parse", "HEAD")

    def branch(self, name: str, start: str = "HEAD") -> None:
        """Make a branch and go there."""
        self.git("checkout", "--quiet", "-b", name, start)

    def go(self, name: str) -> None:
        """Check a branch or commit out."""
        self.git("checkout", "--quiet", name)
