"""The numbers that a team will compare for years: they must be what their names say, and NaN where they have no meaning."""

import math
from typing import Any

import numpy as np
import pytest
from longrun_training.scores import METRICS, Probabilities, metrics_of, rows, score
from longrun_training.statistics import METRICS as JUDGED
from sklearn import metrics as reference

RANDOM = np.random.default_rng(20261126)
CLASSES = ("a", "b", "c")


def classified(names: tuple[str, ...], count: int = 60) -> tuple[Any, Any, Probabilities]:
    """Return actual classes, predicted ones, and the probabilities that these come from."""
    values = RANDOM.dirichlet(np.ones(len(names)), size=count)
    actual = np.array([RANDOM.choice(names, p=row) for row in values], dtype=object)
    return actual, np.array(names, dtype=object)[values.argmax(axis=1)], Probabilities(names, values)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("rmse", math.sqrt(1.5)), ("mae", 1.0), ("r2", -0.2), ("median_ae", 1.0)],
)
def test_scores_by_hand(name: str, expected: float) -> None:
    """Errors 1, -1, 2, 0 around the mean 2.5: RMSE √(6/4), MAE 4/4, R² 1 - 6/5, median of 0, 1, 1, 2."""
    assert score(name, [1, 2, 3, 4], [0, 3, 1, 4]) == pytest.approx(expected)


@pytest.mark.parametrize("name", metrics_of("regression", with_probabilities=True))
def test_perfect_predictions(name: str) -> None:
    """The best there is."""
    assert score(name, [1, 2, 3], [1, 2, 3]) == (1.0 if name == "r2" else 0.0)


@pytest.mark.parametrize("names", [CLASSES, CLASSES[:2]])
def test_classes_are_scored_as_scikit_learn_does(names: tuple[str, ...]) -> None:
    """Somebody who checks our number with the library that everybody knows finds the same one."""
    actual, predicted, given = classified(names)
    area = reference.roc_auc_score(actual, given.values, multi_class="ovr") if len(names) > 2 else reference.roc_auc_score(actual == "b", given.values[:, 1])
    expected = {
        "accuracy": reference.accuracy_score(actual, predicted),
        "balanced_accuracy": reference.balanced_accuracy_score(actual, predicted),
        "f1": reference.f1_score(actual, predicted, average="macro"),
        "log_loss": reference.log_loss(actual, given.values, labels=list(names)),
        "roc_auc": area,
    }
    assert set(expected) == set(metrics_of("classification", with_probabilities=True))
    assert {name: score(name, actual, predicted, given) for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("name", list(METRICS))
def test_what_is_not_defined_is_nan(name: str) -> None:
    """A gate must not meet a number that means nothing, nor a traceback."""
    nothing = np.empty((0, 3))
    assert math.isnan(score(name, [], [], Probabilities(CLASSES, nothing)))
    if METRICS[name].task == "regression":
        for bad in (math.nan, math.inf):
            assert math.isnan(score(name, [1.0, 2.0], [1.0, bad]))
    if METRICS[name].needs_probability:
        assert math.isnan(score(name, ["a", "b"], ["a", "b"]))
        assert math.isnan(score(name, ["a", "b"], ["a", "b"], Probabilities(CLASSES, np.full((2, 3), math.nan))))


def test_single_rows_and_single_classes() -> None:
    """One row has no R², and rows of one class have no ROC; a class that nobody predicted has an F1 of 0, and no warning."""
    assert math.isnan(score("r2", [1.0], [1.0]))
    assert score("rmse", [1.0], [3.0]) == 2.0
    given = Probabilities(("a", "b"), np.array([[0.9, 0.1], [0.2, 0.8]]))
    assert math.isnan(score("roc_auc", ["a", "a"], ["a", "b"], given))
    assert score("accuracy", ["a", "a"], ["a", "b"], given) == 0.5
    assert score("f1", ["a", "b"], ["a", "a"]) == pytest.approx(1 / 3)


def test_a_class_that_the_model_never_saw() -> None:
    """It gave it no probability at all, which is as wrong as scikit-learn counts, and finite."""
    given = Probabilities(("a", "b"), np.array([[0.9, 0.1], [0.2, 0.8]]))
    assert score("log_loss", ["a", "z"], ["a", "b"], given) == pytest.approx((-math.log(0.9) - math.log(np.finfo(float).eps)) / 2)


def test_rows_add_up_to_the_metric() -> None:
    """What the gate resamples row by row is the metric that it judges."""
    actual, predicted = RANDOM.normal(size=30), RANDOM.normal(size=30)
    for name in METRICS:
        classes = classified(CLASSES)
        values = rows(name, *((actual, predicted, None) if METRICS[name].task == "regression" else classes))
        assert (values is not None) == METRICS[name].per_row
        if values is not None:
            mean = float(np.mean(values))
            expected = score(name, actual, predicted) if METRICS[name].task == "regression" else score(name, *classes)
            assert (math.sqrt(mean) if name == "rmse" else mean) == pytest.approx(expected)


def test_the_gate_knows_the_same_metrics() -> None:
    """A metric that could be trained and not judged, or whose better side differs, would let a worse model through."""
    assert {name: kind.direction == "higher" for name, kind in METRICS.items()} == JUDGED


def test_rows_can_be_taken() -> None:
    """By position and by mask."""
    given = Probabilities(CLASSES, RANDOM.dirichlet(np.ones(3), size=4))
    assert (given.take([2, 0]).values == given.values[[2, 0]]).all()
    assert (given.take(np.array([True, False, False, True])).values == given.values[[0, 3]]).all()
