"""The metrics: what they are called, which way is better, and how they are computed. Light to import: scikit-learn comes with the first score."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
import numpy.typing as npt

# Of how the metrics are computed: runs with different ones can't be compared. Change it with any change of a number.
METRIC_VERSION = "1"

Task = Literal["regression", "classification"]
Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MetricKind:
    """What a metric is.

    Attributes:
        name: What runs and longrun.toml call it.
        title: What people call it.
        task: What it scores.
        direction: Which way is better.
        per_row: Whether it is (a root of) the mean of one value a row, see `rows`.
        needs_probability: Whether it needs the probability of every class.
        in_unit: Whether it has the target's unit.
    """

    name: str
    title: str
    task: Task
    direction: Literal["higher", "lower"]
    per_row: bool = False
    needs_probability: bool = False
    in_unit: bool = False


_KINDS = (
    MetricKind("rmse", "RMSE", "regression", "lower", per_row=True, in_unit=True),
    MetricKind("mae", "MAE", "regression", "lower", per_row=True, in_unit=True),
    MetricKind("r2", "R²", "regression", "higher"),
    MetricKind("median_ae", "median absolute error", "regression", "lower", in_unit=True),
    MetricKind("accuracy", "accuracy", "classification", "higher", per_row=True),
    MetricKind("balanced_accuracy", "balanced accuracy", "classification", "higher"),
    MetricKind("f1", "F1 (macro)", "classification", "higher"),
    MetricKind("log_loss", "log loss", "classification", "lower", per_row=True, needs_probability=True),
    MetricKind("roc_auc", "ROC AUC (one class against the rest)", "classification", "higher", needs_probability=True),
)
METRICS: Mapping[str, MetricKind] = MappingProxyType({kind.name: kind for kind in _KINDS})


@dataclass(frozen=True)
class Probabilities:
    """What a classifier gives each class.

    Attributes:
        classes: Their names, in the order of the columns.
        values: Rows x classes, each row's sum 1.
    """

    classes: tuple[str, ...]
    values: Vector

    def take(self, rows: npt.ArrayLike) -> "Probabilities":
        """Return those of some rows, by position or mask."""
        return Probabilities(self.classes, self.values[np.asarray(rows)])


def metrics_of(task: Task, *, with_probabilities: bool) -> list[str]:
    """Return the names of all metrics that can be computed."""
    return [kind.name for kind in METRICS.values() if kind.task == task and (with_probabilities or not kind.needs_probability)]


def score(name: str, actual: npt.ArrayLike, predicted: npt.ArrayLike, probabilities: Probabilities | None = None) -> float:
    """Return one metric of some rows.

    `rmse`, `mae` and `median_ae` are in the target's unit; the others have none. `r2`: 1 is perfect, 0 is as good as the mean. `f1` is the mean over the
    classes; `roc_auc` is the mean over the classes, each against the rest (with two classes: of the second).

    Args:
        name: A key of METRICS.
        actual: One value a row: numbers, or the names of classes.
        predicted: The same for what the model says.
        probabilities: Where the metric needs them.

    Returns:
        The metric, or NaN where it is not defined: no row, a prediction that is not finite, R² of one row, a metric of probabilities without them,
        `roc_auc` where a class has no rows.
    """
    kind = METRICS[name]
    if kind.per_row:
        values = rows(name, actual, predicted, probabilities)
        if values is None or not values.size:
            return float("nan")
        mean = float(np.mean(values))
        return float(np.sqrt(mean)) if name == "rmse" else mean
    with warnings.catch_warnings():
        # What is undefined is NaN here, and nobody reads a library's warning.
        warnings.simplefilter("ignore")
        return _regression(name, actual, predicted) if kind.task == "regression" else _classification(name, actual, predicted, probabilities)


def rows(name: str, actual: npt.ArrayLike, predicted: npt.ArrayLike, probabilities: Probabilities | None = None) -> Vector | None:
    """Return what each row adds to a metric whose mean it is; None for the other metrics, and without the probabilities that it needs.

    Squared errors for `rmse` (the metric is the root of their mean), absolute errors for `mae`, 1 and 0 for `accuracy`, -log(p) for `log_loss`.
    A row is NaN where its prediction is not finite.
    """
    if name in {"rmse", "mae"}:
        errors = np.asarray(actual, dtype=np.float64) - np.asarray(predicted, dtype=np.float64)
        errors[~np.isfinite(errors)] = np.nan
        return np.square(errors) if name == "rmse" else np.abs(errors)
    if name == "accuracy":
        return np.asarray(_classes(actual) == _classes(predicted), dtype=np.float64)
    if name == "log_loss" and probabilities is not None:
        return _log_losses(_classes(actual), probabilities)
    return None


def _classes(values: npt.ArrayLike) -> npt.NDArray[np.object_]:
    return np.asarray(values, dtype=object)


def _log_losses(actual: npt.NDArray[np.object_], probabilities: Probabilities) -> Vector:
    position = {name: index for index, name in enumerate(probabilities.classes)}
    columns = np.array([position.get(name, -1) for name in actual], dtype=int)
    given = np.where(columns >= 0, probabilities.values[np.arange(len(columns)), columns], 0.0)
    # A certainty that was wrong would be infinitely bad; scikit-learn bounds it the same way.
    smallest = float(np.finfo(np.float64).eps)
    return np.asarray(-np.log(np.clip(given, smallest, 1.0 - smallest)), dtype=np.float64)


def _regression(name: str, actual: npt.ArrayLike, predicted: npt.ArrayLike) -> float:
    from sklearn.metrics import median_absolute_error, r2_score  # noqa: PLC0415 - a second of import that reading a configuration does not need

    truth, guess = np.asarray(actual, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if not truth.size or not np.isfinite(truth).all() or not np.isfinite(guess).all():
        return float("nan")
    return float(r2_score(truth, guess) if name == "r2" else median_absolute_error(truth, guess))


def _classification(name: str, actual: npt.ArrayLike, predicted: npt.ArrayLike, probabilities: Probabilities | None) -> float:
    from sklearn.metrics import balanced_accuracy_score, f1_score  # noqa: PLC0415 - as above

    truth, guess = _classes(actual), _classes(predicted)
    if not truth.size:
        return float("nan")
    if name == "roc_auc":
        return float("nan") if probabilities is None else _roc_auc(truth, probabilities)
    if name == "f1":
        return float(f1_score(truth, guess, average="macro", zero_division=0))
    return float(balanced_accuracy_score(truth, guess))


def _roc_auc(actual: npt.NDArray[np.object_], probabilities: Probabilities) -> float:
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415 - as above

    if not np.isfinite(probabilities.values).all():
        return float("nan")
    # Of two classes, one is the other's mirror; a class without rows has no curve, and then there is no mean.
    columns = range(1, 2) if len(probabilities.classes) == 2 else range(len(probabilities.classes))  # noqa: PLR2004
    areas = []
    for column in columns:
        positive = actual == probabilities.classes[column]
        if not positive.any() or positive.all():
            return float("nan")
        areas.append(float(roc_auc_score(positive, probabilities.values[:, column])))
    return float(np.mean(areas))
