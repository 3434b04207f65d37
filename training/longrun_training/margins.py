"""The margin that a metric's gate should have, from a few trainings of the same code with other seeds (calibration).

A margin m has to do two things at once. Let `z(q)` be the quantile that a share of q lies below, and a the share that each tail of the interval is given: half
of 1 - confidence, divided by the number of metrics judged together (Holm's strictest level).

1. Equal models pass. Two trainings that differ only by their seed differ by D, whose standard deviation is √2 times that of the metric over the seeds (s, from
   k runs on the same hold-out); the gate sees D with a standard error of e0. Its lower bound D - z(1 - a) · e0 must be above -m:

       to_pass = z(1 - a) · e0 + t(passing; k - 1) · √2 · s

   Student's t stands for how little k runs say about s; it is the usual prediction interval for the difference of two further runs.

2. A loss of two margins fails. A model that loses L is seen to lose it with a standard error of e(L), and `fail` asks for two things: the upper bound below
   0, so L >= (z(1 - a) + z(catching)) · e(L), and the measured difference at or below -m, so L - m = m >= z(catching) · e(L):

       to_catch = L / 2 for the smallest L with L >= max(z(1 - a) + z(catching), 2 · z(catching)) · e(L)

   e(L) is larger than e0, as a model that loses something answers differently in many rows, and it grows with L. So it is not taken from e0, but measured:
   the runs' own answers are made worse step by step, by noise in proportion to their spread (on the scale of log-probabilities for classes), and compared
   with another run's answers as the gate would. A standard error from n rows has one of its own, about 1/√(2n) of it; e(L) is taken to be larger by that,
   since a margin is set once, and must hold for what comes.

   How far down that can go is the rows' to say, not the method's. A model whose errors have the mean square S, and that is right on average, loses L = U of
   it by anything that moves its answers by a mean square of U, and a row's paired difference then has a variance of about 4SU. So the smallest loss that
   is caught is about 4z²S/n, z being z(1 - a) + z(catching): with 89 rows and z = 3.6 that is 58 % of the mean squared error, or 26 % of the RMSE. It falls
   with 1/n, not with 1/√n: four times the rows make a quarter of the margin.

Where cross-validation is judged as well, a loss need be caught by one of the two; to pass is asked of the hold-out only, as the gate does. Nadeau and Bengio
(2003) give the mean difference of J = folds · repeats scores of r rows the variance (1/J + 1/(folds - 1)) · v/r, v being a row's variance, where n rows of a
hold-out have v/n: it is worth r / (1/J + 1/(folds - 1)) rows, and Student's t has J - 1 degrees of freedom. Where a run is compared with one of other data or
folds, the gate has the hold-out alone, and sees less.

Two margins should be a small part of what the model has learnt, which is its distance from the best constant answer; where the rows are too few for that,
the proposal says so and how many would do. For the sake of `to_catch` it never asks for more than half of that distance, as a margin beyond it would accept
a model that has learnt next to nothing; `power` then says how often a loss of two such margins is caught.

Sources: Nadeau and Bengio 2003, Holm 1979, McNemar 1947 and Tango 1998 as in statistics.py; non-inferiority margins and their sample size as in Tango 1998.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import chi2, norm
from scipy.stats import t as student

from longrun_training.statistics import mcnemar, paired_bootstrap
from longrun_training.weighted_metrics import METRICS, REGRESSION, Answers, Floats, constant, scorer

# How strong the noise of the simulated losses is, in spreads of the answers, and how often each is drawn.
STRENGTHS = np.geomspace(0.03, 4.0, 22)
REPETITIONS = 8
RESAMPLES = 200
# More runs than this give more pairs than are needed.
MOST_PAIRS = 12
# Two margins are at most this part of what the model has learnt, else the margin isn't tight.
TIGHT = 0.25
LEAST_RUNS = 2


@dataclass(frozen=True)
class Noise:
    """How a metric varies between runs of the same code with other seeds.

    Attributes:
        mean: Of the metric.
        deviation: Its sample standard deviation.
        low: Lower bound of the standard deviation's 90 % interval, for normal noise.
        high: Upper bound.
        runs: How many.
    """

    mean: float
    deviation: float
    low: float
    high: float
    runs: int


@dataclass(frozen=True)
class CrossValidation:
    """The cross-validation that is judged beside the hold-out.

    Attributes:
        rows: Training rows.
        folds: Of one repeat.
        repeats: Of the whole.
        slices: Slices of the hold-out that are judged in the same family, so that Holm's correction is stricter for it.
    """

    rows: int
    folds: int
    repeats: int
    slices: int = 0

    @property
    def freedom(self) -> int:
        """Degrees of freedom of the corrected t."""
        return self.folds * self.repeats - 1

    @property
    def worth(self) -> float:
        """How many rows of a hold-out give the same standard error."""
        return self.rows / self.folds / (1.0 / (self.folds * self.repeats) + 1.0 / (self.folds - 1))


@dataclass(frozen=True)
class Proposal:
    """A margin and why. All in the metric's unit.

    Attributes:
        margin: Proposed: the larger of `to_pass` and `to_catch`, but not more than half of `learnt` for the latter; rounded up to two digits.
        to_pass: The smallest margin with which two runs of the same code pass with the wanted probability.
        to_catch: The smallest margin of which a loss of two fails with the wanted probability; infinite where these rows can't catch any.
        power: Expected share of fail verdicts at a loss of two proposed margins.
        noise: Of the metric between seeds, on this hold-out.
        standard_error: Of the paired hold-out difference between two runs of the same code.
        learnt: How much better the runs are than the best constant answer; 0 or less: not at all.
        rows: Hold-out rows.
        tight: Whether two margins are at most a quarter of what the model has learnt, and are caught.
        rows_for_tight: About how many hold-out rows it takes; None where tight, or where there is nothing to measure it by.
        remark: One sentence a person can read.
    """

    margin: float
    to_pass: float
    to_catch: float
    power: float
    noise: Noise
    standard_error: float
    learnt: float
    rows: int
    tight: bool
    rows_for_tight: int | None
    remark: str


@dataclass(frozen=True)
class _Scope:
    """Where a difference is judged: variance in relation to the hold-out's, degrees of freedom of its bounds, and comparisons judged together."""

    variance: float
    freedom: int
    comparisons: int

    def deviation(self, hold_out: "Floats | float") -> "Floats | float":
        return hold_out * math.sqrt(self.variance)


@dataclass(frozen=True)
class _Wanted:
    """What a margin must do."""

    tail: float
    passing: float
    catching: float

    def bound(self, scope: _Scope) -> float:
        return float(student.isf(self.tail / scope.comparisons, scope.freedom))

    @property
    def caught(self) -> float:
        return float(norm.ppf(self.catching))


def noise(values: Sequence[float]) -> Noise:
    """Return the noise of one metric over runs of the same code with other seeds.

    Raises:
        ValueError: There are fewer than two runs, or a value is not finite.
    """
    found = np.asarray(values, dtype=np.float64)
    if len(found) < LEAST_RUNS or not np.isfinite(found).all():
        message = f"noise takes at least {LEAST_RUNS} finite values, not {list(values)}"
        raise ValueError(message)
    deviation, freedom = float(np.std(found, ddof=1)), len(found) - 1
    low, high = (deviation * math.sqrt(freedom / float(chi2.isf(tail, freedom))) for tail in (0.05, 0.95))
    return Noise(float(found.mean()), deviation, low, high, len(found))


def degrade(metric: str, answers: Answers, strength: float, rng: np.random.Generator) -> Answers:
    """Return worse answers: with normal noise of `strength` spreads; of classes without probabilities, so many become another row's.

    Args:
        metric: Decides whether the answers are numbers or classes.
        answers: Of one model.
        strength: Above 0.
        rng: Of the noise.
    """
    predicted = np.asarray(answers.predicted)
    n = len(predicted)
    if metric in REGRESSION:
        numbers = predicted.astype(np.float64)
        return Answers(numbers + rng.normal(0.0, strength * max(float(numbers.std()), 1e-12 * float(np.abs(numbers).max())), n))
    if answers.probabilities is None or answers.classes is None:
        taken = rng.random(n) < 1.0 - math.exp(-strength / 2.0)
        return replace(answers, predicted=np.where(taken, predicted[rng.permutation(n)], predicted))
    # Trees are often quite sure; a hundredth keeps one such answer from being all of the spread.
    logits = np.log(np.clip(np.asarray(answers.probabilities, dtype=np.float64), 0.01, 1.0))
    logits += rng.normal(0.0, strength * max(float(logits.std()), 0.1), logits.shape)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    classes = np.asarray(answers.classes)
    return Answers(classes[np.argmax(shares, axis=1)], shares, classes)


def _compare(metric: str, actual: ArrayLike, candidate: Answers, baseline: Answers, groups: ArrayLike | None) -> tuple[float, float]:
    """Return the difference (above 0: better) and its standard error."""
    if metric == "accuracy" and groups is None:
        truth = np.asarray(actual)
        found = mcnemar(np.asarray(candidate.predicted) == truth, np.asarray(baseline.predicted) == truth, margin=None)
    else:
        found = paired_bootstrap(metric, actual, candidate, baseline, margin=None, groups=groups, resamples=RESAMPLES)
    return found.difference, found.deviation


def _root_mean_square(values: Sequence[float]) -> float:
    return math.sqrt(float(np.mean(np.square(values))))


def _losses(metric: str, actual: ArrayLike, runs: Sequence[Answers], groups: ArrayLike | None, seed: int) -> tuple[Floats, Floats]:
    """Return simulated losses, rising, and the standard error of each: the curve e(L)."""
    rng = np.random.default_rng(seed)
    losses, errors = [], []
    for strength in STRENGTHS:
        seen = []
        for repetition in range(REPETITIONS):
            baseline, candidate = runs[repetition % len(runs)], runs[(repetition + 1) % len(runs)]
            seen.append(_compare(metric, actual, degrade(metric, candidate, float(strength), rng), baseline, groups))
        losses.append(-float(np.mean([difference for difference, _ in seen])))
        errors.append(_root_mean_square([error for _, error in seen]))
    # Twice the noise can't lose less, but few rows may show it so.
    return np.maximum.accumulate(np.maximum(losses, 0.0)), np.asarray(errors)


def _smallest_caught(losses: Floats, errors: Floats, needed: float) -> float:
    """Return the smallest loss from which on every loss is at least `needed` standard errors; infinite where there is none."""
    excess = losses - needed * errors
    caught = excess >= 0
    if not caught[-1]:
        return math.inf
    first = int(np.flatnonzero(~caught)[-1]) + 1 if not caught.all() else 0
    if first == 0:
        return float(losses[0])
    share = excess[first] / (excess[first] - excess[first - 1])
    return float(losses[first] - share * (losses[first] - losses[first - 1]))


def _power(margin: float, losses: Floats, errors: Floats, scope: _Scope, wanted: _Wanted) -> float:
    if margin <= 0 or losses[-1] <= 0:
        return 0.0
    error = float(scope.deviation(float(np.interp(2.0 * margin, losses, errors))))
    return float(norm.cdf((2.0 * margin - max(margin, wanted.bound(scope) * error)) / error)) if error > 0 else 1.0


def round_up(value: float) -> float:
    """Return a number with two digits that is at least the value (0 stays 0)."""
    if value <= 0 or not math.isfinite(value):
        return max(value, 0.0)
    digits = 1 - math.floor(math.log10(value))
    # What is above by rounding error only is no reason for the next number.
    return round(math.ceil(value * 10.0**digits - 1e-9) / 10.0**digits, max(digits, 0))


def _say(number: float) -> str:
    return f"{number:.2g}" if abs(number) < 100 else f"{number:.0f}"  # noqa: PLR2004 - 1.2e+02 is hard to read


def _remark(proposal: Proposal, wanted: _Wanted) -> str:
    loss = 2.0 * proposal.margin
    power = f"{100 * proposal.power:.0f} %" if proposal.power < 0.995 else "over 99 %"  # noqa: PLR2004 - 100 % would be a promise
    caught = f"a loss of two margins ({_say(loss)}) is caught with {power}"
    if proposal.learnt <= 0:
        return f"the model is no better than a constant answer on these {proposal.rows} rows, so no margin can be measured by what it has learnt; {caught}"
    share = f"{100 * loss / proposal.learnt:.0f} % of what the model has learnt"
    if proposal.tight:
        return f"{caught}, and is {share}"
    more = f"; about {proposal.rows_for_tight} rows would do for a quarter" if proposal.rows_for_tight else ""
    return f"{proposal.rows} hold-out rows are too few for a tight margin: {caught} and is {share}{more} (wanted: {100 * wanted.catching:.0f} %)"


def _rows_for_tight(rows: int, learnt: float, to_pass: float, to_catch: float) -> int | None:
    target = TIGHT * learnt / 2.0
    if target <= 0 or not math.isfinite(to_catch):
        return None
    # What is caught falls with 1/n, what passes with 1/√n.
    needed = rows * max(to_catch / target, (to_pass / target) ** 2)
    return math.ceil(needed / 10.0 ** (digits := max(math.floor(math.log10(needed)) - 1, 0))) * int(10**digits)


def _within_reach(to_catch: float, learnt: float) -> float:
    if learnt > 0:
        return min(to_catch, learnt / 2.0)
    return to_catch if math.isfinite(to_catch) else 0.0


def _learnt(metric: str, actual: ArrayLike, run: Answers, mean: float) -> float:
    nothing = scorer(metric, actual, constant(metric, actual, run.classes)).value()
    return (mean - nothing) * (1.0 if METRICS[metric] else -1.0)


def propose_margin(  # noqa: PLR0913
    metric: str,
    actual: ArrayLike,
    runs: Sequence[Answers],
    *,
    groups: ArrayLike | None = None,
    metrics: int = 1,
    cross_validation: CrossValidation | None = None,
    confidence: float = 0.95,
    passing: float = 0.95,
    catching: float = 0.95,
    seed: int = 0,
) -> Proposal:
    """Propose a margin from runs of the same code with other seeds, all of which answered the same hold-out. The module says how.

    Args:
        metric: A name of METRICS.
        actual: (n,) of the hold-out.
        runs: Answers of each run, at least two.
        groups: (n,) as for the bootstrap.
        metrics: How many metrics have a margin: the gate judges them together (Holm's correction).
        cross_validation: Where the scores of its folds are judged too.
        confidence: [gate] confidence.
        passing: Wanted probability that equal models pass.
        catching: Wanted probability that a loss of two margins fails.
        seed: Of the simulated losses.

    Raises:
        UndefinedError: A run's metric has no value on these rows.
        ValueError: There are fewer than two runs, or fewer than two rows (or groups).
    """
    found = noise([scorer(metric, actual, run).value() for run in runs])
    rows = len(np.asarray(actual))
    units = rows if groups is None else len(np.unique(np.asarray(groups).astype(str)))
    if units < LEAST_RUNS:
        message = f"a margin needs at least {LEAST_RUNS} hold-out rows (or groups) to go by, not {units}"
        raise ValueError(message)
    wanted = _Wanted((1.0 - confidence) / 2.0, passing, catching)
    scopes = [_Scope(1.0, units - 1, metrics)]
    if cross_validation is not None:
        scopes.append(_Scope(rows / cross_validation.worth, cross_validation.freedom, metrics * (1 + cross_validation.slices)))

    pairs = [(first, second) for second in range(len(runs)) for first in range(second)][:MOST_PAIRS]
    standard_error = _root_mean_square([_compare(metric, actual, runs[first], runs[second], groups)[1] for first, second in pairs])
    apart = float(student.ppf(passing, len(runs) - 1)) * math.sqrt(2.0) * found.deviation
    to_pass = wanted.bound(scopes[0]) * standard_error + apart

    losses, errors = _losses(metric, actual, runs, groups, seed)
    errors = errors * (1.0 + 1.0 / math.sqrt(2.0 * units))
    needed = [max(wanted.bound(scope) + wanted.caught, 2.0 * wanted.caught) for scope in scopes]
    to_catch = min(_smallest_caught(losses, np.asarray(scope.deviation(errors)), need) for scope, need in zip(scopes, needed, strict=True)) / 2.0

    learnt = _learnt(metric, actual, runs[0], found.mean)
    margin = round_up(max(to_pass, _within_reach(to_catch, learnt)))
    power = max(_power(margin, losses, errors, scope, wanted) for scope in scopes)
    tight = learnt > 0 and 2.0 * margin <= TIGHT * learnt and power >= catching - 0.01
    more = None if tight else _rows_for_tight(rows, learnt, to_pass, to_catch)
    proposal = Proposal(margin, to_pass, to_catch, power, found, standard_error, learnt, rows, tight, more, "")
    return replace(proposal, remark=_remark(proposal, wanted))
