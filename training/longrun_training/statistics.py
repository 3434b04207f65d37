"""How sure a difference between two models is: paired intervals, tests, Holm's correction and the three verdicts.

A difference is always candidate minus baseline, turned so that above 0 is better. Everything here works on arrays in memory and knows no server.

In short:
    estimate = paired_bootstrap("rmse", actual, candidate, baseline, margin=2.0, groups=groups)   # one metric on one set of rows
    estimate = mcnemar(candidate_correct, baseline_correct, margin=0.02)                          # accuracy, rows without groups
    estimate = corrected_t(candidate_folds, baseline_folds, test_ratio=0.25, higher=False, margin=2.0)   # cross-validation scores
    decisions = decide([estimate, ...], confidence=0.95)                                          # Holm over all of them, in their order
Margins from calibration runs are proposed by margins.py.

Sources:
    Hesterberg, "What teachers should know about the bootstrap", The American Statistician 69 (2015) 371-386: percentiles are too narrow for few rows, and
        how far out to read them instead.
    McNemar, "Note on the sampling error of the difference between correlated proportions or percentages", Psychometrika 12 (1947) 153-157.
    Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample design", Statistics in Medicine 17 (1998) 891-908.
    Newcombe, "Improved confidence intervals for the difference between binomial proportions based on paired data", Statistics in Medicine 17 (1998) 2635-2650:
        compares such intervals; Wald's, the usual one, misses too often.
    Nadeau and Bengio, "Inference for the generalization error", Machine Learning 52 (2003) 239-281: cross-validation's folds share training rows.
    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6 (1979) 65-70.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import bdtr, ndtr, ndtri, stdtr, stdtrit

from longrun_training.judgement import Verdict
from longrun_training.weighted_metrics import METRICS, Answers, Scorer, UndefinedError, finite, scorer

__all__ = [
    "METRICS",
    "Answers",
    "Decision",
    "Estimate",
    "Interval",
    "Statistic",
    "UndefinedError",
    "corrected_t",
    "decide",
    "holm",
    "mcnemar",
    "paired_bootstrap",
]

Floats = NDArray[np.float64]
Statistic = Callable[["NDArray[Any]", "NDArray[Any]", "Floats | None"], float]

# From so many pairs that only one model gets right, McNemar's test needs no exact distribution.
ENOUGH_DISCORDANT = 25
# More rows than this are drawn in random blocks: the interval is as good, and the draws fit into memory.
MOST_UNITS = 10_000
# Weights made at a time, and weights kept for the next metric on the same rows (8 bytes each).
CHUNK = 4_000_000
KEPT = 8_000_000
# The outermost draws say little about where the tail goes on.
OUTERMOST = 5


class _Distribution(Protocol):
    """How far the true difference may lie from the measured one."""

    def low(self, tail: float) -> float:
        """Return the bound that the true difference is below with probability `tail`."""

    def high(self, tail: float) -> float:
        """Return the bound that it is above with probability `tail`."""

    def p_at_most(self, value: float) -> float:
        """Return the one-sided p of "the difference is at most value"."""

    def p_at_least(self, value: float) -> float:
        """Return the one-sided p of "the difference is at least value"."""


@dataclass(frozen=True)
class Interval:
    """A difference with bounds. `deviation` is its standard error. Bounds are infinite where nothing can be said (one row)."""

    difference: float
    low: float
    high: float
    deviation: float


@dataclass(frozen=True)
class Estimate:
    """One paired difference and how sure it is.

    Attributes:
        difference: Above 0: the candidate is better. In the metric's unit.
        deviation: Standard error of the difference.
        candidate: The candidate's value of the metric, not oriented.
        baseline: The baseline's.
        margin: How far below 0 is accepted; None: never judged.
        method: `paired bootstrap`, `McNemar`, `McNemar, exact` or `corrected t`.
        n: Rows (or folds).
        groups: Groups that were resampled; None where rows were.
    """

    difference: float
    deviation: float
    candidate: float
    baseline: float
    margin: float | None
    method: str
    n: int
    groups: int | None
    _distribution: _Distribution

    @property
    def p_worse(self) -> float | None:
        """One-sided p of "the difference is at or below -margin": small speaks for a pass. None without a margin."""
        if self.margin is None:
            return None
        # Without any spread the difference is what it is, and no worse than accepted is enough.
        if self.deviation == 0.0 and self.difference == -self.margin:
            return 0.0
        return self._distribution.p_at_most(-self.margin)

    @property
    def p_better(self) -> float:
        """One-sided p of "the difference is at or above 0": small says that the candidate is worse."""
        return self._distribution.p_at_least(0.0)

    def low(self, tail: float) -> float:
        """Return the lower bound that is missed with probability `tail`; it is above -margin just where p_worse <= tail."""
        return self._distribution.low(tail)

    def high(self, tail: float) -> float:
        """Return the upper bound that is missed with probability `tail`; it is below 0 just where p_better <= tail."""
        return self._distribution.high(tail)

    def interval(self, confidence: float = 0.95) -> Interval:
        """Return the two-sided interval with equal tails, for this comparison alone."""
        tail = (1.0 - confidence) / 2.0
        return Interval(self.difference, self.low(tail), self.high(tail), self.deviation)


# scipy.special's functions are those of scipy.stats without checks that cost more than the rest.


def _student_score(tail: float, freedom: int) -> float:
    """Return what Student's t is above with probability `tail`."""
    return -float(stdtrit(freedom, tail))


def _student_tail(score: float, freedom: int) -> float:
    """Return the probability that Student's t is above `score`."""
    return float(stdtr(freedom, -score))


@dataclass(frozen=True)
class _Certain:
    """No spread at all: equal answers, or a difference that is the same in every row or fold."""

    difference: float
    deviation: float = 0.0

    def low(self, tail: float) -> float:  # noqa: ARG002
        return self.difference

    def high(self, tail: float) -> float:  # noqa: ARG002
        return self.difference

    def p_at_most(self, value: float) -> float:
        return 0.0 if self.difference > value else 1.0

    def p_at_least(self, value: float) -> float:
        return 0.0 if self.difference < value else 1.0


@dataclass(frozen=True)
class _Unknown:
    """One row, one group or one fold shows no spread to go by."""

    deviation: float = math.inf

    def low(self, tail: float) -> float:  # noqa: ARG002
        return -math.inf

    def high(self, tail: float) -> float:  # noqa: ARG002
        return math.inf

    def p_at_most(self, value: float) -> float:  # noqa: ARG002
        return 1.0

    def p_at_least(self, value: float) -> float:  # noqa: ARG002
        return 1.0


@dataclass(frozen=True)
class _Student:
    """Student's t around the difference."""

    difference: float
    deviation: float
    freedom: int

    def low(self, tail: float) -> float:
        return self.difference - _student_score(tail, self.freedom) * self.deviation

    def high(self, tail: float) -> float:
        return self.difference + _student_score(tail, self.freedom) * self.deviation

    def p_at_most(self, value: float) -> float:
        return _student_tail((self.difference - value) / self.deviation, self.freedom)

    def p_at_least(self, value: float) -> float:
        return _student_tail((value - self.difference) / self.deviation, self.freedom)


@lru_cache(maxsize=8)
def _normal_scores(draws: int) -> Floats:
    return np.asarray(ndtri((np.arange(draws) + 0.5) / draws), dtype=np.float64)


class _Draws:
    """Bootstrap draws, read as Hesterberg's expanded percentile interval: percentiles that are as far out as Student's t is for so few units.

    Between the draws it is interpolated; beyond the outermost ones the tail goes on as a normal one, so that a strict correction for many comparisons asks no
    question that the draws can't answer. Every step is monotone, so a p-value is the tail whose bound is the value asked for.
    """

    def __init__(self, draws: Floats, units: int) -> None:
        self.freedom = units - 1
        self.widening = math.sqrt(units / (units - 1))
        self.draws = np.sort(draws)
        self.deviation = float(np.std(draws, ddof=1))
        self.scores = _normal_scores(len(draws))
        self.edge = min(OUTERMOST, len(draws) // 4)

    def _quantile(self, score: float) -> float:
        """Return the draws' quantile at a quantile of the standard normal."""
        first, last = self.scores[self.edge], self.scores[-1 - self.edge]
        if score < first:
            return float(self.draws[self.edge] - (first - score) * self.deviation)
        if score > last:
            return float(self.draws[-1 - self.edge] + (score - last) * self.deviation)
        return float(np.interp(score, self.scores, self.draws))

    def _score(self, tail: float) -> float:
        return _student_score(tail, self.freedom) * self.widening

    def low(self, tail: float) -> float:
        return self._quantile(-self._score(tail))

    def high(self, tail: float) -> float:
        return self._quantile(self._score(tail))

    def _score_at(self, value: float, side: Literal["left", "right"]) -> float:
        """Invert `_quantile`: the last score of a quantile below the value (left), or the first of one above it (right)."""
        low, high = self.draws[self.edge], self.draws[-1 - self.edge]
        if value < low or (value == low and side == "left"):
            return float(self.scores[self.edge] - (low - value) / self.deviation)
        if value > high or (value == high and side == "right"):
            return float(self.scores[-1 - self.edge] + (value - high) / self.deviation)
        above = int(np.searchsorted(self.draws, value, side))
        share = (value - self.draws[above - 1]) / (self.draws[above] - self.draws[above - 1])
        return float(self.scores[above - 1] + share * (self.scores[above] - self.scores[above - 1]))

    def p_at_most(self, value: float) -> float:
        return _student_tail(-self._score_at(value, "right") / self.widening, self.freedom)

    def p_at_least(self, value: float) -> float:
        return _student_tail(self._score_at(value, "left") / self.widening, self.freedom)


class _Tango:
    """The score test of a paired difference of two shares, inverted; at 0 it is McNemar's, exact where there are few discordant pairs."""

    def __init__(self, gained: int, lost: int, n: int) -> None:
        self.gained, self.lost, self.n = gained, lost, n
        self.exact = gained + lost < ENOUGH_DISCORDANT

    def _score(self, difference: float) -> float:
        """Return Tango's statistic for a true difference in (-1, 1); decreasing in it."""
        n, b, c, d = self.n, self.gained, self.lost, difference
        linear = -b - c + (2 * n - b + c) * d
        share = (math.sqrt(max(linear * linear + 8 * n * c * d * (1 - d), 0.0)) - linear) / (4 * n)
        variance = n * (2 * share + d * (1 - d))
        return (b - c - n * d) / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, b - c - n * d)

    def _bound(self, score: float) -> float:
        limit = 1.0 - 1e-9
        if self._score(-limit) < score:
            return -1.0
        if self._score(limit) > score:
            return 1.0
        return float(brentq(lambda difference: self._score(difference) - score, -limit, limit, xtol=1e-10))

    # Both bounds say of 0 what the exact test says of it.

    def low(self, tail: float) -> float:
        bound, p = self._bound(-float(ndtri(tail))), self.p_at_most(0.0)
        return max(bound, math.nextafter(0.0, 1.0)) if p <= tail else min(bound, 0.0)

    def high(self, tail: float) -> float:
        bound, p = self._bound(float(ndtri(tail))), self.p_at_least(0.0)
        return min(bound, math.nextafter(0.0, -1.0)) if p <= tail else max(bound, 0.0)

    def p_at_most(self, value: float) -> float:
        if value == 0.0 and self.exact:
            return float(bdtr(self.lost, self.gained + self.lost, 0.5))
        return 0.0 if value <= -1.0 else float(ndtr(-self._score(value)))

    def p_at_least(self, value: float) -> float:
        if value == 0.0 and self.exact:
            return float(bdtr(self.gained, self.gained + self.lost, 0.5))
        return 0.0 if value >= 1.0 else float(ndtr(self._score(value)))


def _rounding(*values: float) -> int:
    """Return how many decimals hold all that is no rounding error of such values, so that equal differences are equal."""
    scale = max(abs(value) for value in values)
    return 12 - math.ceil(math.log10(scale)) if scale > 0 else 12


def _units(n: int, groups: ArrayLike | None, seed: int) -> tuple[NDArray[np.intp], int, int | None]:
    """Return each row's unit of resampling, how many units there are, and how many groups (None where rows are drawn)."""
    if groups is not None:
        names, unit = np.unique(np.asarray(groups).astype(str), return_inverse=True)
        return unit.astype(np.intp), len(names), len(names)
    if n <= MOST_UNITS:
        return np.arange(n), n, None
    return np.random.default_rng(seed).permutation(np.arange(n) % MOST_UNITS), MOST_UNITS, None


def _draw(rng: np.random.Generator, units: int, draws: int) -> Floats:
    """Return (draws, units) weights: how often each unit is in a resample as large as the sample."""
    picked = rng.integers(0, units, size=(draws, units)) + (np.arange(draws) * units)[:, None]
    return np.bincount(picked.ravel(), minlength=draws * units).reshape(draws, units).astype(np.float64)


@lru_cache(maxsize=2)
def _kept_weights(units: int, resamples: int, seed: int) -> Floats:
    weights = _draw(np.random.default_rng(seed), units, resamples)
    weights.setflags(write=False)
    return weights


@dataclass(frozen=True)
class _Sampled:
    """What one model's metric is over all rows, and over each resample."""

    value: float
    draws: Floats


@dataclass(frozen=True)
class _Resampling:
    """What is drawn: each row's unit (the row itself, its group, or its block), how many units there are, how often, and the draws' seed."""

    unit: NDArray[np.intp]
    units: int
    resamples: int
    seed: int

    def of_units(self) -> Iterator[Floats]:
        """Yield all resamples as (draws, units) weights, in chunks; the same for every metric with the same seed."""
        if self.units * self.resamples <= KEPT:
            yield _kept_weights(self.units, self.resamples, self.seed)
            return
        rng = np.random.default_rng(self.seed)
        size = max(1, CHUNK // self.units)
        for start in range(0, self.resamples, size):
            yield _draw(rng, self.units, min(size, self.resamples - start))

    def of_rows(self) -> Iterator[Floats]:
        """Yield the same as (draws, rows) weights."""
        size = max(1, CHUNK // len(self.unit))
        for weights in self.of_units():
            for start in range(0, len(weights), size):
                yield weights[start : start + size][:, self.unit]


def _sample_scorer(prepared: Scorer, how: _Resampling) -> _Sampled:
    if prepared.by_rows is not None:
        return _Sampled(prepared.value(), np.concatenate([prepared.by_rows(weights) for weights in how.of_rows()]))
    # Sums of a unit's rows first: then a draw is as cheap with many rows as with few.
    sums = np.column_stack([np.bincount(how.unit, column, how.units) for column in prepared.columns.T])
    drawn = [prepared.finish(weights @ sums) for weights in how.of_units()]
    return _Sampled(prepared.value(), np.concatenate(drawn))


def _sample_statistic(statistic: Statistic, actual: NDArray[Any], answers: Answers, how: _Resampling) -> _Sampled:
    predicted = np.asarray(answers.predicted)
    probabilities = None if answers.probabilities is None else np.asarray(answers.probabilities, dtype=np.float64)

    def of(rows: NDArray[np.intp]) -> float:
        return float(statistic(actual[rows], predicted[rows], None if probabilities is None else probabilities[rows]))

    everything = np.arange(len(actual))
    drawn = [of(np.repeat(everything, row.astype(np.intp))) for weights in how.of_rows() for row in weights]
    return _Sampled(of(everything), np.array(drawn))


def _same(candidate: Answers, baseline: Answers) -> bool:
    pairs = [(candidate.predicted, baseline.predicted), (candidate.probabilities, baseline.probabilities)]
    return all(a is b or (a is not None and b is not None and np.array_equal(np.asarray(a), np.asarray(b))) for a, b in pairs)


def _check(n: int, candidate: Answers, baseline: Answers, groups: ArrayLike | None) -> None:
    lengths = {n, len(np.asarray(candidate.predicted)), len(np.asarray(baseline.predicted)), n if groups is None else len(np.asarray(groups))}
    if len(lengths) != 1:
        message = f"rows, answers and groups differ in number: {sorted(lengths)}"
        raise ValueError(message)
    if n == 0:
        raise UndefinedError(side="rows", reason="there is no row")
    if not finite(candidate):
        raise UndefinedError(side="candidate", reason="the candidate predicts NaN or infinity")
    if not finite(baseline):
        raise UndefinedError(side="baseline", reason="the baseline predicts NaN or infinity")


def _check_values(candidate: float, baseline: float) -> None:
    undefined = (not math.isfinite(candidate), not math.isfinite(baseline))
    if all(undefined):
        raise UndefinedError(side="rows", reason="the metric has no value on these rows")
    if undefined[0]:
        raise UndefinedError(side="candidate", reason="the candidate's metric is NaN or infinite")
    if undefined[1]:
        raise UndefinedError(side="baseline", reason="the baseline's metric is NaN or infinite")


def paired_bootstrap(  # noqa: PLR0913
    metric: str | Statistic,
    actual: ArrayLike,
    candidate: Answers,
    baseline: Answers,
    *,
    margin: float | None,
    higher: bool | None = None,
    groups: ArrayLike | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Resample rows (or groups) and score both models on the same ones.

    The interval is Hesterberg's expanded percentile interval. In simulations with 30 to 300 rows it missed as seldom as Efron's bias-corrected and accelerated
    one, and for R² it is far better than a standard error with Student's t, which is too wide on one side. Resamples without a value (R² where all targets are
    equal) are left out; where that is every second one, the bounds are infinite, as they are for one row or one group. Equal answers have the interval [0, 0].

    Args:
        metric: A name of METRICS, or a function of (actual, predicted, probabilities), which is much slower.
        actual: (n,) what is true.
        candidate: Answers to the same rows.
        baseline: Answers to the same rows.
        margin: In the metric's unit, at least 0; None: not judged.
        higher: Whether higher is better; known for METRICS.
        groups: (n,) rows with an equal value are drawn together.
        resamples: Draws.
        seed: Of the draws.

    Raises:
        UndefinedError: There is no row, a prediction is NaN or infinite (`side` is the candidate where both are), or the metric has no value on these rows.
        ValueError: Lengths differ, the metric is unknown, or a function comes without `higher`.
    """
    truth = np.asarray(actual)
    _check(len(truth), candidate, baseline, groups)
    unit, units, group_count = _units(len(truth), groups, seed)
    how = _Resampling(unit, units, resamples, seed)
    if isinstance(metric, str):
        sampled = [_sample_scorer(scorer(metric, truth, answers), how) for answers in (candidate, baseline)]
        higher = METRICS[metric]
    else:
        sampled = [_sample_statistic(metric, truth, answers, how) for answers in (candidate, baseline)]
    if higher is None:
        message = "say whether higher is better for a metric of your own"
        raise ValueError(message)
    new, old = sampled
    _check_values(new.value, old.value)
    sign = 1.0 if higher else -1.0
    decimals = _rounding(old.value, new.value)
    difference = round(sign * (new.value - old.value), decimals) + 0.0
    draws = np.round(sign * (new.draws - old.draws), decimals) + 0.0
    distribution = _distribution_of(difference, draws[np.isfinite(draws)], resamples, units, equal=_same(candidate, baseline))
    return Estimate(difference, distribution.deviation, new.value, old.value, margin, "paired bootstrap", len(truth), group_count, distribution)


def _distribution_of(difference: float, draws: Floats, resamples: int, units: int, *, equal: bool) -> "_Draws | _Certain | _Unknown":
    if equal:
        return _Certain(0.0)
    if units == 1 or len(draws) < resamples / 2:
        return _Unknown()
    if np.ptp(draws) == 0.0:
        return _Certain(difference)
    return _Draws(draws, units)


def mcnemar(candidate_correct: ArrayLike, baseline_correct: ArrayLike, *, margin: float | None) -> Estimate:
    """Compare two accuracies on the same rows.

    p_better is McNemar's test (one side of it), exact below 25 discordant pairs and without a continuity correction from there on. Bounds and p_worse are
    Tango's score test, which is McNemar's at a difference of 0. No discordant pair at all: the difference is 0 and so is its interval, as for equal answers.

    Args:
        candidate_correct: (n,) booleans: which rows the candidate got right.
        baseline_correct: (n,) booleans, the same rows.
        margin: As a share (0.02 are two points); None: not judged.

    Raises:
        UndefinedError: There is no row.
        ValueError: Lengths differ.
    """
    new, old = np.asarray(candidate_correct, dtype=bool), np.asarray(baseline_correct, dtype=bool)
    if new.shape != old.shape:
        message = f"{len(new)} rows of the candidate can't be paired with {len(old)} of the baseline"
        raise ValueError(message)
    n = len(new)
    if n == 0:
        raise UndefinedError(side="rows", reason="there is no row")
    gained, lost = int(np.count_nonzero(new & ~old)), int(np.count_nonzero(old & ~new))
    difference = (gained - lost) / n
    deviation = math.sqrt(max(gained + lost - (gained - lost) ** 2 / n, 0.0)) / n
    method = "McNemar, exact" if gained + lost < ENOUGH_DISCORDANT else "McNemar"
    distribution: _Distribution = _Tango(gained, lost, n) if gained + lost else _Certain(0.0)
    return Estimate(difference, deviation, float(new.mean()), float(old.mean()), margin, method, n, None, distribution)


def corrected_t(candidate_folds: ArrayLike, baseline_folds: ArrayLike, *, test_ratio: float, higher: bool, margin: float | None) -> Estimate:
    """Compare cross-validation scores of the same folds by Nadeau and Bengio's corrected t.

    The folds' training rows overlap, so that their scores are no independent draws: the variance of the mean of J differences with variance s² is taken as
    (1/J + test_ratio) · s² instead of s²/J, with J - 1 degrees of freedom. Equal differences in all folds have no spread: the interval is one point.

    Args:
        candidate_folds: (folds x repeats,) scores.
        baseline_folds: The same folds', in the same order.
        test_ratio: Rows tested over rows trained in one fold: 1 / (folds - 1).
        higher: Whether higher is better.
        margin: In the metric's unit; None: not judged.

    Raises:
        UndefinedError: There is no fold, or one has no finite score.
        ValueError: The numbers of folds differ.
    """
    new, old = np.asarray(candidate_folds, dtype=np.float64), np.asarray(baseline_folds, dtype=np.float64)
    if new.shape != old.shape:
        message = f"{len(new)} folds of the candidate can't be paired with {len(old)} of the baseline"
        raise ValueError(message)
    if len(new) == 0:
        raise UndefinedError(side="rows", reason="there is no fold")
    _check_values(float(new.sum()), float(old.sum()))
    decimals = _rounding(*new, *old)
    differences = np.round((new - old) * (1.0 if higher else -1.0), decimals) + 0.0
    difference, folds = round(float(differences.mean()), decimals) + 0.0, len(differences)
    distribution: _Certain | _Unknown | _Student
    if not differences.any():
        distribution = _Certain(0.0)
    elif folds == 1:
        distribution = _Unknown()
    elif np.ptp(differences) == 0.0:
        distribution = _Certain(difference := float(differences[0]))
    else:
        distribution = _Student(difference, math.sqrt((1.0 / folds + test_ratio) * float(np.var(differences, ddof=1))), folds - 1)
    return Estimate(difference, distribution.deviation, float(new.mean()), float(old.mean()), margin, "corrected t", folds, None, distribution)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected by Holm's step-down method, in the order given: each may be compared with the level for all of them together."""
    corrected, largest = [1.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[index] = largest
    return corrected


def _levels(p_values: Sequence[float], level: float) -> list[float]:
    """Return the level at which Holm's method tests each p-value: the strictest for the smallest; from the first that is kept on, they all have that one's."""
    levels, current, kept = [level] * len(p_values), level, False
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        if not kept:
            current = level / (len(p_values) - place)
            kept = p_values[index] > current
        levels[index] = current
    return levels


@dataclass(frozen=True)
class Decision:
    """What one of several comparisons came to, corrected for their number.

    Attributes:
        verdict: pass, fail, inconclusive, or not judged where the estimate has no margin.
        low: Lower bound at the level that Holm's correction left to it; minus infinity where nothing can be said.
        high: Upper bound likewise.
        p_value: p_worse, Holm-corrected and doubled, as the interval has two tails: at most 1 - confidence just where low is above -margin. None without one.
    """

    verdict: Verdict
    low: float
    high: float
    p_value: float | None


def _verdict(estimate: Estimate, low_level: float, high_level: float) -> Verdict:
    if estimate.margin is None or estimate.p_worse is None:
        return Verdict.NOT_JUDGED
    if estimate.p_worse <= low_level:
        return Verdict.PASS
    if estimate.p_better <= high_level and estimate.difference <= -estimate.margin:
        return Verdict.FAIL
    return Verdict.INCONCLUSIVE


def decide(estimates: Sequence[Estimate], confidence: float = 0.95) -> list[Decision]:
    """Judge comparisons together: pass where low is above -margin, fail where high is below 0 and the difference at or below -margin, else inconclusive.

    Holm's method is applied once to "worse than the margin" and once to "worse at all", each at half of 1 - confidence, so that of equal models at most that
    share is ever called worse by any of the metrics. A bound is at the level at which Holm tested it, so bounds and verdicts agree. Estimates without a margin
    are shown with an interval of their own, and count for nobody's correction.

    Args:
        estimates: In any order; the decisions come in the same.
        confidence: Of the two-sided intervals, all together.
    """
    tail = (1.0 - confidence) / 2.0
    judged = [(estimate, estimate.p_worse) for estimate in estimates if estimate.p_worse is not None]
    worse = [p for _, p in judged]
    levels = iter(zip(_levels(worse, tail), _levels([estimate.p_better for estimate, _ in judged], tail), holm(worse), strict=True))
    decisions = []
    for estimate in estimates:
        low_level, high_level, p = (tail, tail, None) if estimate.margin is None else next(levels)
        p_value = None if p is None else min(1.0, 2.0 * p)
        decisions.append(Decision(_verdict(estimate, low_level, high_level), estimate.low(low_level), estimate.high(high_level), p_value))
    return decisions
