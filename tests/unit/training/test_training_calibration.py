"""`longrun gate --calibrate`: equal models that differ by their seed, trained against a real MLflow server, and what is proposed from them."""

import json
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from longrun_training import calibration
from longrun_training.config import load
from longrun_training.predictions import Predictions
from mlflow import MlflowClient

from tests.unit.training.gate_helpers import classification, configuration, regression

Longrun = Callable[..., Any]
METRICS = """
[metrics.rmse]
margin = 0.5
floor = 60.0
slices = false

[metrics.r2]
"""
TRAINING = """
[data]
source = "houses.csv"
target = "price"

[model]
name = "noisy"

[estimator]
name = "RandomForestRegressor"

[estimator.parameters]
n_estimators = 3
max_depth = 4

[evaluation]
folds = 2
repeats = 1
seed = 10
"""


def measure(frames: Sequence[pd.DataFrame], check: bool = True, **tables: Any) -> calibration.Calibration:  # noqa: ANN401, FBT001, FBT002 - tables of longrun.toml
    """Measure the noise between some models."""
    seeds = range(len(frames))
    answered = [Predictions(frame) for frame in frames]
    return calibration.measure(configuration("houses", **tables), list(seeds), [str(seed) for seed in seeds], answered, training_rows=800, check=check)


@pytest.mark.usefixtures("server", "table_csv")
def test_calibrate(longrun: Longrun) -> None:
    """The runs are recorded as what they are and add no version; the margins can be pasted, and the same call proposes the same."""
    Path("longrun.toml").write_text(TRAINING + METRICS, encoding="utf-8")
    done = longrun("gate", "--calibrate", "--seeds", "3", "--json")
    assert done.status == 0
    found = json.loads(done.stdout)
    assert (found["model"], found["seeds"], found["present"]) == ("noisy", [11, 12, 13], {"rmse": 0.5, "r2": None})
    assert (found["checked"], found["alarms"]) == (None, [])
    client = MlflowClient()
    runs = [client.get_run(run_id) for run_id in found["runs"]]
    assert [(run.info.status, run.data.tags["longrun.kind"], run.data.params["seed"]) for run in runs] == [
        ("FINISHED", "calibration", seed) for seed in ("11", "12", "13")
    ]
    assert len({run.data.tags["longrun.holdout_sha256"] for run in runs}) == 1
    assert len({run.data.metrics["holdout_rmse"] for run in runs}) == 3
    assert client.search_model_versions("name = 'noisy'") == []
    for name in ("rmse", "r2"):
        values = [run.data.metrics[f"holdout_{name}"] for run in runs]
        assert found["proposals"][name]["noise"]["mean"] == pytest.approx(sum(values) / 3)
        assert found["proposals"][name]["margin"] > 0

    pasted = tomllib.loads(found["toml"])["metrics"]
    assert pasted["rmse"] == {"margin": found["proposals"]["rmse"]["margin"], "floor": 60.0, "slices": False}
    assert pasted["r2"] == {"margin": found["proposals"]["r2"]["margin"]}

    # With these margins two equal models don't fail; a person sees the same numbers, and standard output is bare TOML.
    Path("calibrated.toml").write_text(TRAINING + found["toml"], encoding="utf-8")
    assert load(Path("calibrated.toml")).metrics["rmse"].margin == pasted["rmse"]["margin"]
    checked = longrun("gate", "--calibrate", "--seeds", "2", "--check", "--config", "calibrated.toml")
    assert (checked.status, checked.stdout) == (0, "")
    assert "OK: the present margins fail no two equal models" in checked.stderr
    assert "of 2" in checked.stderr


@pytest.mark.usefixtures("server")
def test_check_without_margins(longrun: Longrun) -> None:
    """Nothing to check is a wrong call and no success, and trains nothing."""
    Path("longrun.toml").write_text("[metrics.rmse]\n", encoding="utf-8")
    done = longrun("gate", "--calibrate", "--check")
    assert done.status == 4
    assert "no metric has a margin yet" in done.error


def test_margins_that_are_too_narrow_are_told() -> None:
    """Equal models that the present margins fail are named, each pair both ways; wide ones fail nobody."""
    base = regression(10.0)
    shifted = base.assign(predicted=base["actual"] + 1.3 * (base["predicted"] - base["actual"]))
    found = measure([base, base.copy(), shifted], metrics={"rmse": {"margin": 0.5}})
    assert found.checked == {"pass": 4, "fail": 2}
    assert [(alarm.candidate, alarm.baseline) for alarm in found.alarms] == [(2, 0), (2, 1)]
    assert found.alarms[0].sentence.startswith("seed 2 against seed 0: rmse, hold-out: difference -")
    assert json.dumps(found.to_json(), allow_nan=False)
    wide = measure([base, base.copy(), shifted], metrics={"rmse": {"margin": 9.0}})
    assert (wide.checked, wide.alarms) == ({"pass": 6}, ())


def test_a_model_without_chance() -> None:
    """A model that its seed does not change has no noise; its margin comes from what the rows can show, and is a number."""
    base = regression(10.0)
    found = measure([base, base.copy(), base.copy()], metrics={"rmse": {}}, check=False)
    assert found.proposals["rmse"].noise.deviation == 0
    assert found.proposals["rmse"].margin > 0
    assert (found.checked, found.alarms, found.missing) == (None, (), ())


def test_classes_and_what_can_not_be_measured() -> None:
    """All metrics where none is configured; one that has no value is told and keeps its line."""
    frames = [classification(range(start, start + 20)) for start in (0, 5, 10)]
    found = measure(frames, metrics={}, check=False)
    assert list(found.proposals) == ["accuracy", "balanced_accuracy", "f1", "log_loss", "roc_auc"]
    assert all(0 < proposal.margin < 1 for proposal in found.proposals.values())
    broken = regression(10.0)
    broken.loc[0, "predicted"] = float("nan")
    told = measure([broken, regression(10.0, seed=2)], metrics={"rmse": {"margin": 0.25, "floor": 12.0}}, check=False)
    assert told.proposals == {}
    assert told.missing[0].startswith("rmse: ")
    assert tomllib.loads(told.toml) == {"metrics": {"rmse": {"margin": 0.25, "floor": 12.0}}}
