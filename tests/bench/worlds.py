"""Simulated data and real models on it whose true loss is known, for the gate's benchmark.

A world has features of a standard normal distribution and an answer that depends on them linearly. Models are fitted to random parts of one training set, as
trainings of the same code with other seeds are. What a fitted model gets wrong is the distance d of its coefficients from the true ones. Only the length of
d matters for the true loss, so a model of any true loss is a fitted one whose d is made longer or shorter: its direction stays what the fit came to.

- Regression: the mean squared error is that of the noise plus |d|², the mean absolute error √(2/π) times its root (errors are normal), and R² is 1 minus its
  share of the variance.
- Classification (logistic): with d at a right angle to the true coefficients, each loss is a function of |d| alone, integrated once over two normal variables.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from longrun_training.margins import CrossValidation, Proposal, propose_margin
from longrun_training.weighted_metrics import METRICS, Answers
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.model_selection import RepeatedKFold

Floats = NDArray[np.float64]

FEATURES = 10
PENALTY, NEWTON_STEPS = 1.0, 8
# As scikit-learn's diabetes data: a target of standard deviation 77, of which a good model leaves 55.
SIGNAL, NOISE = 54.0, 55.0
# Of the log-odds: such a classifier is right in about 85 % of the rows.
LOG_ODDS = 3.0
CLASSES = np.array(["no", "yes"])
# Calibration runs, as `longrun gate --calibrate` makes them.
SEEDS = 5
TRAINING_ROWS_A_HOLDOUT_ROW = 4
# The share of the training rows that one seed fits: two seeds then differ as two of the forests on the diabetes data do.
FITTED = 0.8
# Half of a row's features and errors is its group's.
SHARED = 0.5
LARGEST_DISTANCE = 40.0
INTEGRATION_POINTS = 20_000


@dataclass(frozen=True)
class Scenario:
    """What is simulated.

    Attributes:
        name: Short.
        metrics: Judged together.
        rows: Of the hold-out.
        group_size: Rows of a group; 1: no groups.
        folds: Whether cross-validation scores are judged beside the hold-out.
    """

    name: str
    metrics: tuple[str, ...]
    rows: int
    group_size: int = 1
    folds: CrossValidation | None = None

    @property
    def classifies(self) -> bool:
        return "accuracy" in self.metrics

    @property
    def training_rows(self) -> int:
        return self.folds.rows if self.folds else TRAINING_ROWS_A_HOLDOUT_ROW * self.rows


@dataclass(frozen=True)
class Pair:
    """A baseline and a candidate with a known true loss, both scored on rows that nobody has seen.

    Attributes:
        actual: (rows,) true answers.
        groups: (rows,) group numbers; None without groups.
        baseline: Its answers.
        candidate: Its answers.
        folds: Metric -> scores of the baseline's and of the candidate's folds; empty without cross-validation.
    """

    actual: NDArray[np.generic]
    groups: NDArray[np.intp] | None
    baseline: Answers
    candidate: Answers
    folds: Mapping[str, tuple[Floats, Floats]]


@dataclass(frozen=True)
class _Rows:
    """Features (n x FEATURES), answers (n,), and each row's group."""

    features: Floats
    answers: NDArray[np.generic]
    groups: NDArray[np.intp] | None

    def take(self, rows: NDArray[np.intp]) -> "_Rows":
        return _Rows(self.features[rows], self.answers[rows], None)


def _unit(vector: Floats) -> Floats:
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float64)


def ridge(features: Floats, answers: Floats) -> Floats:
    """Return a ridge regression's coefficients, without intercept. scikit-learn's checks cost fifty times as much as such a small fit."""
    return np.asarray(np.linalg.solve(features.T @ features + PENALTY * np.eye(FEATURES), features.T @ answers), dtype=np.float64)


def logistic(features: Floats, positive: NDArray[np.bool_]) -> Floats:
    """Return a logistic regression's coefficients, with the same penalty, by Newton's method."""
    coefficients = np.zeros(FEATURES)
    for _ in range(NEWTON_STEPS):
        shares = expit(features @ coefficients)
        gradient = features.T @ (positive - shares) - PENALTY * coefficients
        curvature = (features * (shares * (1 - shares))[:, None]).T @ features + PENALTY * np.eye(FEATURES)
        coefficients = coefficients + np.linalg.solve(curvature, gradient)
    return np.asarray(coefficients, dtype=np.float64)


@lru_cache(maxsize=1)
def _curves() -> tuple[Floats, dict[str, Floats]]:
    """Return lengths of a classifier's d, and the true value of each metric at each."""
    first, second = np.random.default_rng(0).normal(size=(2, INTEGRATION_POINTS))
    positive = expit(LOG_ODDS * first)
    lengths = np.linspace(0.0, LARGEST_DISTANCE**0.5, 120) ** 2
    values: dict[str, list[float]] = {metric: [] for metric in ("accuracy", "f1", "log_loss")}
    for length in lengths:
        said = LOG_ODDS * first + length * second
        yes = said > 0
        right = np.array([np.mean((1 - positive) * ~yes), np.mean(positive * yes)])
        there, called = np.array([np.mean(1 - positive), np.mean(positive)]), np.array([np.mean(~yes), np.mean(yes)])
        values["accuracy"].append(float(right.sum()))
        values["f1"].append(float(np.mean(2 * right / (there + called))))
        values["log_loss"].append(float(np.mean(np.logaddexp(0.0, said) - positive * said)))
    return lengths, {metric: np.array(found) for metric, found in values.items()}


class World:
    """One data set with its calibration: the true coefficients, a training set, and the margins that were proposed on a hold-out of its own."""

    def __init__(self, scenario: Scenario, rng: np.random.Generator) -> None:
        self.scenario = scenario
        self.truth = _unit(rng.normal(size=FEATURES)) * (LOG_ODDS if scenario.classifies else SIGNAL)
        self.training = self._rows(scenario.training_rows, rng)
        holdout = self._rows(scenario.rows, rng)
        runs = [self._answers(self._fit(self.training, rng), holdout) for _ in range(SEEDS)]
        self.proposals: dict[str, Proposal] = {
            metric: propose_margin(metric, holdout.answers, runs, groups=holdout.groups, metrics=len(scenario.metrics), cross_validation=scenario.folds)
            for metric in scenario.metrics
        }

    def _shared(self, n: int, width: int, groups: NDArray[np.intp] | None, rng: np.random.Generator) -> Floats:
        """Draw (n, width) standard normal numbers, of which rows of a group have a part in common."""
        own = rng.normal(size=(n, width))
        if groups is None:
            return own
        return np.asarray(np.sqrt(SHARED) * rng.normal(size=(groups.max() + 1, width))[groups] + np.sqrt(1 - SHARED) * own, dtype=np.float64)

    def _rows(self, n: int, rng: np.random.Generator) -> _Rows:
        groups = np.arange(n) // self.scenario.group_size if self.scenario.group_size > 1 else None
        features = self._shared(n, FEATURES, groups, rng)
        linear = features @ self.truth
        if self.scenario.classifies:
            return _Rows(features, CLASSES[(rng.random(n) < expit(linear)).astype(int)], groups)
        return _Rows(features, linear + NOISE * self._shared(n, 1, groups, rng)[:, 0], groups)

    def _fit(self, rows: _Rows, rng: np.random.Generator) -> Floats:
        """Fit a model to some of the rows, and return its coefficients' distance from the true ones."""
        sample = rng.permutation(len(rows.answers))[: round(FITTED * len(rows.answers))]
        features, answers = rows.features[sample], rows.answers[sample]
        if not self.scenario.classifies:
            return ridge(features, answers.astype(np.float64)) - self.truth
        distance = logistic(features, answers == CLASSES[1]) - self.truth
        # What is left is the part that turns the border between the classes.
        return np.asarray(distance - self.truth * (distance @ self.truth) / (self.truth @ self.truth), dtype=np.float64)

    def _answers(self, distance: Floats, rows: _Rows) -> Answers:
        said = rows.features @ (self.truth + distance)
        if not self.scenario.classifies:
            return Answers(said)
        second = expit(said)
        return Answers(CLASSES[(second > 0.5).astype(int)], np.column_stack([1.0 - second, second]), CLASSES)

    def true_values(self, length: float) -> dict[str, float]:
        """Return what the metrics of a model with |d| = length are on infinitely many rows."""
        if self.scenario.classifies:
            lengths, values = _curves()
            return {metric: float(np.interp(length, lengths, values[metric])) for metric in self.scenario.metrics}
        squared = NOISE**2 + length**2
        known = {"rmse": squared**0.5, "mae": (2 / np.pi * squared) ** 0.5, "r2": 1.0 - squared / (NOISE**2 + SIGNAL**2)}
        return {metric: known[metric] for metric in self.scenario.metrics}

    def loss_in_margins(self, length: float, start: float) -> float:
        """Return how many margins a model of |d| = length is worse than one of |d| = start: the most of any metric."""
        new, old = self.true_values(length), self.true_values(start)
        return max((old[name] - new[name]) * (1 if METRICS[name] else -1) / self.proposals[name].margin for name in self.scenario.metrics)

    def _lengthened(self, start: float, loss: float) -> float:
        """Return the |d| that is `loss` margins worse than |d| = start."""
        if loss == 0:
            return start
        near, far = start, 1e4
        for _ in range(60):
            middle = (near + far) / 2.0
            near, far = (middle, far) if self.loss_in_margins(middle, start) < loss else (near, middle)
        return far

    def pair(self, loss: float, rng: np.random.Generator) -> Pair:
        """Train two models on parts of the training set; the candidate's true loss in relation to the baseline's is `loss` margins."""
        if self.scenario.folds:
            self.training = self._rows(self.scenario.training_rows, rng)
        holdout = self._rows(self.scenario.rows, rng)
        baseline, candidate = self._models(self.training, loss, rng)
        folds = self._folds(self.scenario.folds, loss, rng) if self.scenario.folds else {}
        return Pair(holdout.answers, holdout.groups, self._answers(baseline, holdout), self._answers(candidate, holdout), folds)

    def _models(self, training: _Rows, loss: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
        baseline, candidate = self._fit(training, rng), self._fit(training, rng)
        return baseline, _unit(candidate) * self._lengthened(float(np.linalg.norm(baseline)), loss)

    def _folds(self, folds: CrossValidation, loss: float, rng: np.random.Generator) -> dict[str, tuple[Floats, Floats]]:
        cut = RepeatedKFold(n_splits=folds.folds, n_repeats=folds.repeats, random_state=int(rng.integers(2**31)))
        scores = []
        for seen, unseen in cut.split(self.training.features):
            rows = self.training.take(unseen)
            scores.append([self._score(distance, rows) for distance in self._models(self.training.take(seen), loss, rng)])
        return {metric: (np.array([old[metric] for old, _ in scores]), np.array([new[metric] for _, new in scores])) for metric in self.scenario.metrics}

    def _score(self, distance: Floats, rows: _Rows) -> dict[str, float]:
        errors = np.asarray(rows.answers, dtype=np.float64) - rows.features @ (self.truth + distance)
        squared = float(np.mean(np.square(errors)))
        return {"rmse": squared**0.5, "mae": float(np.abs(errors).mean()), "r2": 1.0 - squared / float(np.var(np.asarray(rows.answers, dtype=np.float64)))}
