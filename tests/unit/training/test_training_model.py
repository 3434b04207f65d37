"""Any estimator of scikit-learn by its name: fitted the same way twice, stored without code, and refused with a line where it is none."""

from pathlib import Path
from typing import Any

import mlflow.sklearn
import numpy as np
import pandas as pd
import pytest
from longrun_training import model
from longrun_training.config import Configuration, load
from longrun_training.data import Dataset
from longrun_training.errors import ProblemError

RANDOM = np.random.default_rng(20261126)
FEATURES = pd.DataFrame(RANDOM.normal(size=(60, 2)), columns=["a", "b"])
NUMBERS = FEATURES["a"] * 3 - FEATURES["b"]
NAMES = pd.Series(np.where(NUMBERS > 0, "yes", "no"), dtype=object)


def named(name: str, **parameters: object) -> Configuration:
    """Return a configuration with an estimator."""
    return load(None, {"estimator": {"name": name, "parameters": parameters}})


def problem(configuration: Configuration) -> str:
    """Build what can't be built, and return the line about it."""
    with pytest.raises(ProblemError) as caught:
        model.build(configuration)
    return str(caught.value)


def test_settings_reach_the_model() -> None:
    """Each parameter does what it says, and the seed is the estimator's."""
    configuration = load(None, {"estimator.parameters": {"n_estimators": 4, "max_depth": 2}, "evaluation.seed": 9})
    forest = model.fit(configuration, FEATURES, NUMBERS)
    assert len(forest.estimators_) == 4
    assert max(tree.get_depth() for tree in forest.estimators_) == 2
    assert (forest.random_state, forest.n_jobs) == (9, None)


def test_none_can_be_written() -> None:
    """TOML has no word for Python's None, and some parameters have one value of which it is not the default."""
    assert model.build(named("RandomForestRegressor", max_features="None")).max_features is None


@pytest.mark.parametrize(
    ("configuration", "expected"),
    [
        (
            named("RandomForrestRegressor"),
            "is no classifier or regressor of scikit-learn: did you mean RandomForestRegressor",
        ),
        (named("KMeans"), "is 'KMeans', which is no classifier or regressor"),
        (named("os"), "is 'os', which is no classifier or regressor"),
        (named("Ridge", alfa=1), "is not a parameter of Ridge: did you mean alpha?"),
        (named("Ridge", alpha=-1), "is not right for Ridge: it must be a float in the range [0.0, inf)"),
        (named("RandomForestRegressor", n_estimators=0), "is not right for RandomForestRegressor: it must be an int in the range [1, inf)"),
        (named("LogisticRegression", C="much"), "is not right for LogisticRegression: it must be a float"),
        (named("StackingRegressor"), "made of other estimators and can't be written in longrun.toml"),
    ],
)
def test_estimators_that_can_not_be_made(configuration: Configuration, expected: str) -> None:
    """What scikit-learn would say after an hour, or in a traceback, is said at once and names the key."""
    said = problem(configuration)
    assert said.startswith("--estimator" if "estimator.parameters" not in said else "--set estimator.parameters.")
    assert expected in said


def test_rows_that_an_estimator_refuses() -> None:
    """Some estimators want other numbers than others; scikit-learn's sentence is repeated, without a traceback."""
    with pytest.raises(ProblemError, match="is GammaRegressor, which can't be fitted to these rows: Some value"):
        model.fit(named("GammaRegressor"), FEATURES, NUMBERS)


def test_tasks() -> None:
    """A classifier predicts classes, a regressor numbers."""
    assert (model.task(named("SVC")), model.task(named("SVR"))) == ("classification", "regression")


def test_a_scaler_is_fitted_with_the_model() -> None:
    """It sees the training rows only, and belongs to what is stored."""
    configuration = load(None, {"estimator": {"name": "LogisticRegression", "scale": True}})
    fitted = model.fit(configuration, FEATURES * [1, 1e6], NAMES)
    assert fitted[0].mean_ == pytest.approx((FEATURES * [1, 1e6]).mean())
    assert model.probabilities(fitted, FEATURES, ("no", "yes")) is not None


def test_parameters_say_what_is_not_the_default() -> None:
    """A run lists what a person chose, configured or not scikit-learn's own; the seed has its own name."""
    configuration = named("RandomForestRegressor", n_estimators=5, min_samples_leaf=1)
    assert model.parameters(configuration, model.build(configuration)) == {"n_estimators": 5, "min_samples_leaf": 1}


@pytest.mark.parametrize(
    ("name", "parameters", "answers"),
    [
        ("RandomForestRegressor", {"n_estimators": 3}, NUMBERS),
        ("HistGradientBoostingClassifier", {"max_iter": 2}, NAMES),
        ("GaussianProcessRegressor", {}, NUMBERS),
        ("KNeighborsClassifier", {}, NAMES),
        ("MLPRegressor", {"max_iter": 5}, NUMBERS),
        ("CalibratedClassifierCV", {}, NAMES),
        ("BaggingClassifier", {"n_estimators": 2}, NAMES),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_models_are_stored_without_code(name: str, parameters: dict[str, object], answers: "pd.Series[Any]", tmp_path: Path) -> None:
    """Loading a stored model runs nothing that it brought along, and it predicts as before; the types that it needs are scikit-learn's."""
    configuration = load(None, {"estimator": {"name": name, "parameters": parameters, "scale": name == "KNeighborsClassifier"}})
    fitted = model.fit(configuration, FEATURES, answers)
    dataset = Dataset("made", FEATURES.assign(y=answers), "y", "", "made here", model.task(configuration))
    size = model.save(fitted, dataset, tmp_path / "model")
    assert size == (tmp_path / "model" / "model.skops").stat().st_size > 0
    assert not list((tmp_path / "model").rglob("*.pkl"))
    loaded = mlflow.sklearn.load_model(str(tmp_path / "model"))
    assert (model.predict(loaded, FEATURES) == model.predict(fitted, FEATURES)).all()
    assert all(kind.startswith("sklearn.") for kind in model.trusted_types(fitted))


class Stranger:
    """A type that no scikit-learn model holds."""


def test_strange_types_are_not_trusted() -> None:
    """What somebody slipped into a model is not loaded on a server."""
    fitted = model.fit(named("Ridge"), FEATURES, NUMBERS)
    fitted.stranger = Stranger()
    with pytest.raises(ProblemError, match=r"Ridge holds .*Stranger, which is no type of numpy, scipy, sklearn"):
        model.trusted_types(fitted)


def test_requirements_are_pinned() -> None:
    """A model that is served years later needs the versions that it was made with."""
    assert any(line.startswith("scikit-learn==") for line in model.requirements())
    assert all("==" in line for line in model.requirements())
