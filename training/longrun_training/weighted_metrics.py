"""Every metric as a function of how often each row counts, so that thousands of resamples are one matrix product.

A resample of rows with replacement is a vector of whole weights. Most metrics depend on it only through a few weighted sums (of squared errors, of a
confusion matrix); the others need the rows in order, which are sorted once. Both give what scikit-learn gives for the same rows, repeated.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Labels = NDArray[Any]

# Name -> whether higher is better.
METRICS: dict[str, bool] = {
    "rmse": False,
    "mae": False,
    "median_ae": False,
    "r2": True,
    "accuracy": True,
    "balanced_accuracy": True,
    "f1": True,
    "log_loss": False,
    "roc_auc": True,
}
REGRESSION = frozenset({"rmse", "mae", "median_ae", "r2"})
WITH_PROBABILITIES = frozenset({"log_loss", "roc_auc"})


class UndefinedError(ValueError):
    """A metric has no value here; the text is one clause a person can read.

    Attributes:
        side: Why: the `candidate`'s answers, the `baseline`'s (or both), or the `rows` (too few, only one class): then no model could be scored.
    """

    def __init__(self, side: Literal["candidate", "baseline", "rows"], reason: str) -> None:
        super().__init__(reason)
        self.side = side


@dataclass(frozen=True)
class Answers:
    """What one model answered to n rows.

    Attributes:
        predicted: (n,) numbers of a regression, or classes.
        probabilities: (n, classes); only log_loss and roc_auc ask for them.
        classes: The (classes,) labels of the columns.
    """

    predicted: ArrayLike
    probabilities: ArrayLike | None = None
    classes: ArrayLike | None = None


@dataclass(frozen=True)
class Scorer:
    """One model's metric over weighted rows.

    Attributes:
        columns: (n, k) per row what is summed with the weights.
        finish: Takes the (draws, k) weighted sums and gives (draws,) values; NaN where undefined.
        by_rows: Takes (draws, n) weights instead, for a metric that no sums determine; None where there are sums.
    """

    columns: Floats
    finish: Callable[[Floats], Floats]
    by_rows: Callable[[Floats], Floats] | None = None

    def value(self) -> float:
        """Return the metric with each row counted once."""
        ones = np.ones((1, len(self.columns)))
        return float((self.by_rows(ones) if self.by_rows else self.finish(ones @ self.columns))[0])


def _divide(above: Floats, below: Floats) -> Floats:
    # 0 / 0 is undefined, not an error: a resample may hold no row of a class.
    undefined = np.full(np.broadcast_shapes(above.shape, below.shape), np.nan)
    return np.asarray(np.divide(above, below, out=undefined, where=below > 0), dtype=np.float64)


def _mean_of_defined(values: Floats) -> Floats:
    """Return each row's mean of what is not NaN; NaN where all is."""
    there = np.isfinite(values)
    return _divide(np.where(there, values, 0.0).sum(axis=1), there.sum(axis=1).astype(np.float64))


def _mean(losses: Floats) -> Scorer:
    return Scorer(np.column_stack([losses, np.ones(len(losses))]), lambda sums: _divide(sums[:, 0], sums[:, 1]))


def _r2(actual: Floats, predicted: Floats) -> Scorer:
    # Around the mean, so that the sum of squares is not the small difference of two large numbers.
    centred = actual - actual.mean()
    spread = float(np.square(centred).sum())

    def finish(sums: Floats) -> Floats:
        total = sums[:, 2] - np.square(sums[:, 1]) / sums[:, 3]
        # What is left of a constant target is rounding.
        return 1.0 - _divide(sums[:, 0], np.where(total > 1e-12 * spread, total, 0.0))

    return Scorer(np.column_stack([np.square(actual - predicted), centred, np.square(centred), np.ones(len(actual))]), finish)


def _median(losses: Floats) -> Scorer:
    order = np.argsort(losses, kind="stable")
    ordered = losses[order]

    def by_rows(weights: Floats) -> Floats:
        reached = np.cumsum(weights[:, order], axis=1)
        total = reached[:, -1:]
        # The middle one, or both middle ones of an even number.
        lower = np.argmax(reached > (total - 1) // 2, axis=1)
        upper = np.argmax(reached > total // 2, axis=1)
        return np.asarray((ordered[lower] + ordered[upper]) / 2.0, dtype=np.float64)

    return Scorer(losses[:, None], lambda sums: sums[:, 0], by_rows)


def _confusion(actual: Labels, predicted: Labels, average: Callable[[Floats, Floats, Floats], Floats]) -> Scorer:
    """Build a scorer from each class's right answers, rows and predictions: (draws, classes) each."""
    labels = np.unique(np.concatenate([actual, predicted]))
    is_actual, is_predicted = actual[:, None] == labels, predicted[:, None] == labels
    columns = np.hstack([is_actual & is_predicted, is_actual, is_predicted]).astype(np.float64)
    count = len(labels)
    return Scorer(columns, lambda sums: average(sums[:, :count], sums[:, count : 2 * count], sums[:, 2 * count :]))


def _f1(right: Floats, rows: Floats, predictions: Floats) -> Floats:
    # A class that is neither there nor predicted doesn't count.
    return _mean_of_defined(_divide(2.0 * right, rows + predictions))


def _balanced_accuracy(right: Floats, rows: Floats, _predictions: Floats) -> Floats:
    return _mean_of_defined(_divide(right, rows))


def _one_roc_auc(positive: NDArray[np.bool_], score: Floats) -> Callable[[Floats], Floats]:
    order = np.argsort(score, kind="stable")
    # Rows of an equal score are one step of the curve.
    starts = np.flatnonzero(np.diff(score[order], prepend=-np.inf))
    flags = positive[order].astype(np.float64)

    def by_rows(weights: Floats) -> Floats:
        ordered = weights[:, order]
        positives = np.add.reduceat(ordered * flags, starts, axis=1)
        negatives = np.add.reduceat(ordered * (1.0 - flags), starts, axis=1)
        below = np.cumsum(negatives, axis=1) - negatives / 2.0
        return _divide((positives * below).sum(axis=1), positives.sum(axis=1) * negatives.sum(axis=1))

    return by_rows


def _roc_auc(actual: Labels, probabilities: Floats, classes: Labels) -> Scorer:
    # One against the rest, the plain mean over the classes that have rows; for two classes both are the same number.
    columns = range(1, 2) if len(classes) == 2 else range(len(classes))  # noqa: PLR2004
    curves = [_one_roc_auc(actual == classes[column], probabilities[:, column]) for column in columns]

    def by_rows(weights: Floats) -> Floats:
        return _mean_of_defined(np.column_stack([curve(weights) for curve in curves]))

    return Scorer(np.ones((len(actual), 1)), lambda sums: sums[:, 0], by_rows)


def _log_loss(actual: Labels, probabilities: Floats, classes: Labels) -> Scorer:
    # No certainty is so wrong that its loss is infinite, as in scikit-learn; a class that the model has never seen got no probability at all.
    given = (probabilities * (actual[:, None] == classes)).sum(axis=1)
    return _mean(-np.log(np.clip(given, np.finfo(np.float64).eps, 1.0)))


def finite(answers: Answers) -> bool:
    """Say whether no prediction and no probability is NaN or infinite."""
    numbers = [np.asarray(part) for part in (answers.predicted, answers.probabilities) if part is not None]
    return all(np.isfinite(part.astype(np.float64)).all() for part in numbers if part.dtype.kind in "fiubc")


def _with_probabilities(metric: str, actual: Labels, answers: Answers) -> Scorer:
    if answers.probabilities is None or answers.classes is None:
        message = f"{metric} needs probabilities and their classes"
        raise ValueError(message)
    probabilities, classes = np.asarray(answers.probabilities, dtype=np.float64), np.asarray(answers.classes)
    return (_log_loss if metric == "log_loss" else _roc_auc)(actual, probabilities, classes)


def scorer(metric: str, actual: ArrayLike, answers: Answers) -> Scorer:
    """Prepare one model's answers for a metric of METRICS.

    Args:
        metric: Its name; f1 is the macro average, roc_auc one against the rest.
        actual: (n,) what is true.
        answers: Of one model, finite.

    Raises:
        ValueError: The metric is unknown, or needs probabilities that aren't there.
    """
    labels, predicted = np.asarray(actual), np.asarray(answers.predicted)
    if metric in REGRESSION:
        truth, numbers = labels.astype(np.float64), predicted.astype(np.float64)
        errors = truth - numbers
        if metric == "rmse":
            squares = _mean(np.square(errors))
            return Scorer(squares.columns, lambda sums: np.sqrt(squares.finish(sums)))
        if metric == "r2":
            return _r2(truth, numbers)
        return (_mean if metric == "mae" else _median)(np.abs(errors))
    if metric in WITH_PROBABILITIES:
        return _with_probabilities(metric, labels, answers)
    if metric == "accuracy":
        return _mean((labels == predicted).astype(np.float64))
    if metric in {"f1", "balanced_accuracy"}:
        return _confusion(labels, predicted, _f1 if metric == "f1" else _balanced_accuracy)
    message = f"{metric!r} is no metric that is known here: {', '.join(METRICS)}"
    raise ValueError(message)


def constant(metric: str, actual: ArrayLike, classes: ArrayLike | None = None) -> Answers:
    """Return the answers of a model that has learnt nothing: always the mean (the median), or the most frequent class and the classes' shares."""
    labels = np.asarray(actual)
    n = len(labels)
    if metric in REGRESSION:
        truth = labels.astype(np.float64)
        return Answers(np.full(n, np.mean(truth) if metric in {"rmse", "r2"} else np.median(truth)))
    known = np.unique(labels) if classes is None else np.asarray(classes)
    shares = np.array([(labels == label).mean() for label in known])
    return Answers(np.full(n, known[np.argmax(shares)]), np.tile(shares, (n, 1)), known)
