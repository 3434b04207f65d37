"""Intervals, tests and verdicts against published numbers, scipy, hand calculation, and simulations with a fixed seed."""

import math

import numpy as np
import pytest
from longrun_training.judgement import Verdict
from longrun_training.statistics import Answers, Estimate, UndefinedError, corrected_t, decide, holm, mcnemar, paired_bootstrap
from longrun_training.weighted_metrics import METRICS, constant, scorer
from numpy.typing import NDArray
from scipy.stats import binomtest, norm, t
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    log_loss,
    mean_absolute_error,
    median_absolute_error,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)

SEED = 20261123
TAILS = (0.001, 0.008, 0.025, 0.2, 0.6)


def correct(both: int, gained: int, lost: int, neither: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which rows the candidate and the baseline got right."""
    counts = (both, gained, lost, neither)
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


def regression(rows: int, noise: float, seed: int = SEED) -> tuple[NDArray[np.float64], Answers, Answers]:
    """Return true values, a candidate that is worse by noise, and a baseline."""
    rng = np.random.default_rng(seed)
    signal = rng.normal(0, 2, rows)
    return signal + rng.normal(0, 1, rows), Answers(signal + rng.normal(0, noise, rows)), Answers(signal + rng.normal(0, 0.1, rows))


def classes(rows: int, seed: int = SEED) -> tuple[NDArray[np.str_], Answers, Answers]:
    """Return three classes and two models that say probabilities."""
    rng = np.random.default_rng(seed)
    names = np.array(["a", "b", "c"])
    actual = rng.integers(0, 3, rows)

    def model(sharpness: float) -> Answers:
        shares = rng.dirichlet((1, 1, 1), rows)
        shares[np.arange(rows), actual] += sharpness
        shares /= shares.sum(axis=1, keepdims=True)
        return Answers(names[shares.argmax(axis=1)], shares, names)

    return names[actual], model(0.4), model(0.6)


def check_agreement(estimate: Estimate) -> None:
    """A bound and a p-value must never say different things."""
    assert estimate.margin is not None
    assert estimate.p_worse is not None
    for tail in np.linspace(0.0005, 0.9, 200):
        assert (estimate.low(tail) > -estimate.margin) == (estimate.p_worse <= tail)
        assert (estimate.high(tail) < 0) == (estimate.p_better <= tail)
    lows, highs = [estimate.low(tail) for tail in TAILS], [estimate.high(tail) for tail in TAILS]
    assert lows == sorted(lows)
    assert highs == sorted(highs, reverse=True)


class TestMetrics:
    """The metrics over weights are those of scikit-learn, with rows repeated."""

    @pytest.mark.parametrize("metric", sorted(METRICS))
    def test_weights_are_repeated_rows(self, metric: str) -> None:
        rng = np.random.default_rng(SEED)
        weights = rng.multinomial(60, np.full(60, 1 / 60), 5)
        actual, answers, _ = regression(60, 1.0) if metric in {"rmse", "mae", "median_ae", "r2"} else classes(60)
        reference = {
            "rmse": root_mean_squared_error,
            "mae": mean_absolute_error,
            "median_ae": median_absolute_error,
            "r2": r2_score,
            "accuracy": accuracy_score,
            "balanced_accuracy": balanced_accuracy_score,
            "f1": lambda true, said: f1_score(true, said, average="macro"),
        }
        prepared = scorer(metric, actual, answers)
        values = prepared.by_rows(weights.astype(float)) if prepared.by_rows else prepared.finish(weights @ prepared.columns)
        for value, weight in zip(values, weights, strict=True):
            rows = np.repeat(np.arange(60), weight)
            if metric in reference:
                expected = reference[metric](actual[rows], np.asarray(answers.predicted)[rows])
            elif metric == "log_loss":
                expected = log_loss(actual[rows], np.asarray(answers.probabilities)[rows], labels=["a", "b", "c"])
            else:
                expected = roc_auc_score(actual[rows], np.asarray(answers.probabilities)[rows], multi_class="ovr", labels=["a", "b", "c"])
            assert value == pytest.approx(expected, rel=1e-9)

    def test_two_classes_have_one_curve(self) -> None:
        rng = np.random.default_rng(SEED)
        actual = rng.integers(0, 2, 50)
        second = np.round(np.clip(actual * 0.3 + rng.random(50) * 0.7, 0, 1), 1)  # rounded: equal scores count half
        answers = Answers(actual, np.column_stack([1 - second, second]), [0, 1])
        assert scorer("roc_auc", actual, answers).value() == pytest.approx(roc_auc_score(actual, second))

    def test_classes_that_are_nowhere_do_not_count(self) -> None:
        assert scorer("f1", ["a", "a"], Answers(["a", "a"])).value() == 1.0

    def test_a_class_nobody_knew_is_a_finite_loss(self) -> None:
        answers = Answers(["a"], [[0.5, 0.5]], ["a", "b"])
        assert scorer("log_loss", ["z"], answers).value() == pytest.approx(-math.log(np.finfo(float).eps))

    def test_scores_agree_with_those_that_are_logged(self) -> None:
        """The gate shows the value that the run logged, computed elsewhere."""
        scores = pytest.importorskip("longrun_training.scores")
        for metric in METRICS:
            actual, answers, _ = regression(40, 1.0) if metric in {"rmse", "mae", "median_ae", "r2"} else classes(40)
            given = None if answers.probabilities is None else scores.Probabilities(("a", "b", "c"), np.asarray(answers.probabilities))
            assert scorer(metric, actual, answers).value() == pytest.approx(scores.score(metric, actual, answers.predicted, given))
        assert {name: kind.direction == "higher" for name, kind in scores.METRICS.items()} == METRICS

    @pytest.mark.parametrize("metric", ["accuracy", "log_loss", "rmse", "mae", "r2"])
    def test_a_constant_answer_is_the_best_of_its_kind(self, metric: str) -> None:
        if metric in {"accuracy", "log_loss"}:
            actual = np.array(["a", "a", "b"])
            expected = {"accuracy": 2 / 3, "log_loss": -(2 * math.log(2 / 3) + math.log(1 / 3)) / 3}[metric]
        else:
            actual = np.array([0.0, 1.0, 5.0])
            expected = {"rmse": math.sqrt(14 / 3), "mae": 5 / 3, "r2": 0.0}[metric]
        assert scorer(metric, actual, constant(metric, actual)).value() == pytest.approx(expected)

    def test_unknown_metric(self) -> None:
        with pytest.raises(ValueError, match="'mape' is no metric"):
            scorer("mape", [1.0], Answers([1.0]))


class TestPairedBootstrap:
    """Resampling: pairs, groups, seeds, and how often the interval holds what is true."""

    def test_the_difference_is_better_above_zero(self) -> None:
        actual, worse, better = regression(200, 1.5)
        for metric in ("rmse", "r2", "mae", "median_ae"):
            assert paired_bootstrap(metric, actual, worse, better, margin=None).difference < 0
            assert paired_bootstrap(metric, actual, better, worse, margin=None).difference > 0

    def test_the_standard_error_of_a_mean_is_the_known_one(self) -> None:
        actual, candidate, baseline = regression(150, 1.0)
        differences = np.abs(actual - np.asarray(baseline.predicted)) - np.abs(actual - np.asarray(candidate.predicted))
        estimate = paired_bootstrap("mae", actual, candidate, baseline, margin=0.1, resamples=4000)
        assert estimate.difference == pytest.approx(differences.mean())
        assert estimate.deviation == pytest.approx(differences.std() / math.sqrt(150), rel=0.04)
        # As wide as Student's interval, as the expanded percentiles are meant to be.
        interval = estimate.interval(0.95)
        half = t.ppf(0.975, 149) * differences.std(ddof=1) / math.sqrt(150)
        assert (interval.low, interval.high) == pytest.approx((differences.mean() - half, differences.mean() + half), abs=0.1 * half)

    def test_both_models_are_scored_on_the_same_draws(self) -> None:
        """Hard rows are hard for both: that is what pairing is for."""
        rng = np.random.default_rng(SEED)
        actual = rng.normal(0, 10, 300)
        estimate = paired_bootstrap("mae", actual, Answers(np.full(300, 0.01)), Answers(np.zeros(300)), margin=1.0)
        assert estimate.deviation < 0.01 < np.abs(actual).std() / math.sqrt(300)

    @pytest.mark.parametrize("metric", ["rmse", "f1", "roc_auc", "accuracy", "median_ae"])
    def test_bounds_and_p_values_agree(self, metric: str) -> None:
        actual, candidate, baseline = regression(40, 0.8) if metric in {"rmse", "median_ae"} else classes(40)
        check_agreement(paired_bootstrap(metric, actual, candidate, baseline, margin=0.05))

    def test_a_strict_correction_asks_beyond_the_draws(self) -> None:
        estimate = paired_bootstrap("rmse", *regression(80, 0.5), margin=5.0)
        assert estimate.p_worse is not None
        assert 0 < estimate.p_worse < 1e-6
        assert estimate.low(1e-6) < estimate.low(1e-4) < estimate.low(0.0025)

    def test_groups_are_drawn_whole(self) -> None:
        """Ten copies of each row, one group: no surer than the row alone. As rows of their own they would look √10 times as sure."""
        actual, candidate, baseline = regression(40, 1.0)
        copied = [Answers(np.repeat(np.asarray(answers.predicted), 10)) for answers in (candidate, baseline)]
        alone = paired_bootstrap("rmse", actual, candidate, baseline, margin=0.1)
        grouped = paired_bootstrap("rmse", np.repeat(actual, 10), *copied, margin=0.1, groups=np.repeat([f"{group:02}" for group in range(40)], 10))
        apart = paired_bootstrap("rmse", np.repeat(actual, 10), *copied, margin=0.1)
        assert grouped.deviation == pytest.approx(alone.deviation, rel=1e-6)
        assert (grouped.groups, grouped.n, alone.groups) == (40, 400, None)
        assert apart.deviation == pytest.approx(alone.deviation / math.sqrt(10), rel=0.1)

    def test_a_function_is_a_metric_too(self) -> None:
        actual, candidate, baseline = regression(30, 1.0)
        own = paired_bootstrap(lambda true, said, _: mean_absolute_error(true, said), actual, candidate, baseline, margin=0.1, higher=False, resamples=200)
        known = paired_bootstrap("mae", actual, candidate, baseline, margin=0.1, resamples=200)
        assert own.interval() == known.interval()
        with pytest.raises(ValueError, match="whether higher is better"):
            paired_bootstrap(lambda _true, _said, _shares: 1.0, actual, candidate, baseline, margin=0.1, resamples=200)

    def test_many_rows_are_drawn_in_blocks(self) -> None:
        actual, candidate, baseline = regression(30_000, 1.0)
        estimate = paired_bootstrap("mae", actual, candidate, baseline, margin=0.1, resamples=300)
        differences = np.abs(actual - np.asarray(baseline.predicted)) - np.abs(actual - np.asarray(candidate.predicted))
        assert estimate.deviation == pytest.approx(differences.std() / math.sqrt(30_000), rel=0.15)
        assert estimate.n == 30_000

    def test_the_same_seed_gives_the_same_bounds(self) -> None:
        data = regression(50, 1.0)
        first, again, other = (paired_bootstrap("rmse", *data, margin=0.1, seed=seed).interval() for seed in (1, 1, 2))
        assert first == again
        assert first != other

    @pytest.mark.parametrize(("rows", "metric"), [(40, "rmse"), (40, "r2"), (150, "mae")])
    def test_coverage(self, rows: int, metric: str) -> None:
        """In 400 simulated hold-outs, the 95 % interval holds the true difference about as often as it says."""
        signal, noise, extra = 2.0, 1.0, 0.6
        squared = noise**2, noise**2 + extra**2
        true = {
            "rmse": squared[0] ** 0.5 - squared[1] ** 0.5,
            "mae": (2 / math.pi) ** 0.5 * (squared[0] ** 0.5 - squared[1] ** 0.5),
            "r2": (squared[0] - squared[1]) / (signal**2 + noise**2),
        }[metric]
        rng = np.random.default_rng(SEED)
        held = 0
        for _ in range(400):
            base = rng.normal(0, signal, rows)
            actual = base + rng.normal(0, noise, rows)
            interval = paired_bootstrap(metric, actual, Answers(base + rng.normal(0, extra, rows)), Answers(base), margin=None, resamples=800).interval()
            held += interval.low <= true <= interval.high
        assert 0.91 <= held / 400 <= 0.985


class TestEdges:
    """What must be defined: NaN, one row, constant and equal answers, one group, one class."""

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_predictions_that_are_no_numbers(self, bad: float) -> None:
        good, broken = Answers([1.0, 2.0]), Answers([1.0, bad])
        for candidate, baseline, side in ((broken, good, "candidate"), (good, broken, "baseline"), (broken, broken, "candidate")):
            with pytest.raises(UndefinedError, match="NaN or infinity") as caught:
                paired_bootstrap("rmse", [1.0, 2.5], candidate, baseline, margin=0.1)
            assert caught.value.side == side

    def test_a_probability_that_is_no_number(self) -> None:
        actual, candidate, baseline = classes(10)
        shares = np.array(candidate.probabilities)
        shares[3, 1] = math.nan
        with pytest.raises(UndefinedError, match="NaN") as caught:
            paired_bootstrap("log_loss", actual, Answers(candidate.predicted, shares, candidate.classes), baseline, margin=0.1)
        assert caught.value.side == "candidate"

    def test_one_row_says_nothing(self) -> None:
        estimate = paired_bootstrap("rmse", [1.0], Answers([3.0]), Answers([1.5]), margin=0.1)
        assert estimate.difference == -1.5
        assert estimate.interval().low == -math.inf
        assert decide([estimate])[0].verdict is Verdict.INCONCLUSIVE

    def test_one_group_says_nothing(self) -> None:
        actual, candidate, baseline = regression(20, 3.0)
        estimate = paired_bootstrap("rmse", actual, candidate, baseline, margin=0.1, groups=["p1"] * 20)
        assert decide([estimate])[0].verdict is Verdict.INCONCLUSIVE

    def test_no_row(self) -> None:
        with pytest.raises(UndefinedError, match="no row") as caught:
            paired_bootstrap("rmse", [], Answers([]), Answers([]), margin=0.1)
        assert caught.value.side == "rows"
        with pytest.raises(UndefinedError):
            mcnemar([], [], margin=0.1)

    @pytest.mark.parametrize(("metric", "actual"), [("r2", [2.0]), ("r2", [2.0, 2.0, 2.0]), ("r2", [0.1, 0.1, 0.1])])
    def test_r2_without_spread(self, metric: str, actual: list[float]) -> None:
        with pytest.raises(UndefinedError) as caught:
            paired_bootstrap(metric, actual, Answers(np.arange(len(actual))), Answers(np.zeros(len(actual))), margin=0.1)
        assert caught.value.side == "rows"

    def test_roc_auc_of_one_class(self) -> None:
        answers = Answers([0, 1], [[0.6, 0.4], [0.3, 0.7]], [0, 1])
        with pytest.raises(UndefinedError) as caught:
            paired_bootstrap("roc_auc", [1, 1], answers, answers, margin=0.1)
        assert caught.value.side == "rows"

    @pytest.mark.parametrize("margin", [0.0, 0.1])
    @pytest.mark.parametrize("metric", ["rmse", "mae", "r2", "median_ae"])
    def test_equal_predictions_pass(self, metric: str, margin: float) -> None:
        actual, candidate, _ = regression(30, 1.0)
        estimate = paired_bootstrap(metric, actual, candidate, candidate, margin=margin)
        interval = estimate.interval()
        assert (interval.difference, interval.low, interval.high, interval.deviation) == (0.0, 0.0, 0.0, 0.0)
        assert decide([estimate])[0].verdict is Verdict.PASS

    def test_equal_predictions_pass_even_in_one_row(self) -> None:
        assert decide([paired_bootstrap("rmse", [1.0], Answers([3.0]), Answers([3.0]), margin=0.0)])[0].verdict is Verdict.PASS

    def test_constant_predictions(self) -> None:
        actual, _, baseline = regression(60, 1.0)
        flat = Answers(np.full(60, float(actual.mean())))
        for metric in ("rmse", "mae", "r2", "median_ae"):
            estimate = paired_bootstrap(metric, actual, flat, baseline, margin=0.05)
            assert decide([estimate])[0].verdict is Verdict.FAIL
            assert decide([paired_bootstrap(metric, actual, flat, flat, margin=0.05)])[0].verdict is Verdict.PASS

    def test_a_negative_baseline_is_turned_the_right_way(self) -> None:
        """R² below 0: a candidate nearer to 0 is better, and one further below is worse, whatever a ratio would say."""
        actual, candidate, _ = regression(80, 0.2)
        bad = Answers(-np.asarray(candidate.predicted))
        worse = Answers(-2 * np.asarray(candidate.predicted))
        better = paired_bootstrap("r2", actual, candidate, bad, margin=0.1)
        assert better.baseline < 0 < better.difference
        assert decide([better])[0].verdict is Verdict.PASS
        assert decide([paired_bootstrap("r2", actual, worse, bad, margin=0.1)])[0].verdict is Verdict.FAIL

    def test_the_same_difference_in_each_row_is_certain(self) -> None:
        estimate = paired_bootstrap("mae", [0.0, 0.0, 0.0], Answers([1.3, -1.3, 1.3]), Answers([0.1, 0.1, -0.1]), margin=1.0)
        assert estimate.difference == pytest.approx(-1.2)
        assert estimate.deviation == 0.0
        assert decide([estimate])[0].verdict is Verdict.FAIL

    def test_lengths_that_differ(self) -> None:
        with pytest.raises(ValueError, match="differ in number"):
            paired_bootstrap("rmse", [1.0, 2.0], Answers([1.0]), Answers([1.0, 2.0]), margin=0.1)
        with pytest.raises(ValueError, match="can't be paired"):
            mcnemar([True], [True, False], margin=0.1)
        with pytest.raises(ValueError, match="can't be paired"):
            corrected_t([1.0], [1.0, 2.0], test_ratio=0.25, higher=True, margin=0.1)


class TestMcNemar:
    """Accuracies, against scipy's binomial test and published tables."""

    @pytest.mark.parametrize(("gained", "lost"), [(0, 1), (1, 7), (7, 1), (5, 5), (0, 24), (12, 12)])
    def test_few_pairs_are_exact(self, gained: int, lost: int) -> None:
        estimate = mcnemar(*correct(20, gained, lost, 10), margin=0.0)
        assert estimate.method == "McNemar, exact"
        assert estimate.p_better == pytest.approx(binomtest(gained, gained + lost, 0.5, alternative="less").pvalue)
        assert estimate.p_worse == pytest.approx(binomtest(gained, gained + lost, 0.5, alternative="greater").pvalue)

    def test_many_pairs_are_mcnemars_score(self) -> None:
        """Agresti (Categorical Data Analysis): 86 and 150 of 1600 voters changed their mind; z² = 17.36 without correction."""
        estimate = mcnemar(*correct(794, 86, 150, 570), margin=0.02)
        assert estimate.method == "McNemar"
        assert estimate.p_better == pytest.approx(norm.cdf((86 - 150) / math.sqrt(236)))
        assert norm.ppf(estimate.p_better) ** 2 == pytest.approx(17.36, abs=0.005)
        assert estimate.difference == pytest.approx(-0.04)
        assert estimate.deviation == pytest.approx(0.0095, abs=5e-5)

    def test_the_switch_is_at_25_pairs(self) -> None:
        assert mcnemar(*correct(0, 12, 12, 9), margin=0.1).method == "McNemar, exact"
        assert mcnemar(*correct(0, 13, 12, 9), margin=0.1).method == "McNemar"

    def test_tangos_interval(self) -> None:
        """Airway hyper-responsiveness (Bentur et al. 2009) as in Fagerland, Lydersen and Laake (2014): Tango's interval is -0.517 to -0.026."""
        interval = mcnemar(*correct(1, 1, 7, 12), margin=None).interval(0.95)
        assert interval.difference == pytest.approx(-6 / 21)
        assert interval.low == pytest.approx(-0.517, abs=6e-4)
        # The exact test has a one-sided p of 0.035 and keeps 0 in; Tango's own upper bound is -0.026.
        assert interval.high == 0.0

    @pytest.mark.parametrize("counts", [(1, 1, 7, 12), (70, 3, 9, 18), (300, 40, 30, 30), (0, 0, 30, 0), (0, 30, 0, 0), (50, 0, 3, 0), (90, 1, 0, 9)])
    @pytest.mark.parametrize("margin", [0.0, 0.03, 0.2])
    def test_bounds_and_p_values_agree(self, counts: tuple[int, int, int, int], margin: float) -> None:
        check_agreement(mcnemar(*correct(*counts), margin=margin))

    def test_a_bound_is_where_the_score_is_the_quantile(self) -> None:
        """Tango's score at the bound, with the constrained share computed the long way, by maximizing the likelihood."""
        gained, lost, n = 40, 20, 160
        low = mcnemar(*correct(60, gained, lost, 40), margin=None).low(0.025)
        shares = np.linspace(max(0.0, -low) + 1e-9, (1 - low) / 2 - 1e-9, 400_000)
        likelihood = gained * np.log(shares + low) + lost * np.log(shares) + (n - gained - lost) * np.log(1 - 2 * shares - low)
        best = shares[likelihood.argmax()]
        assert (gained - lost - n * low) / math.sqrt(n * (2 * best + low - low**2)) == pytest.approx(norm.ppf(0.975), abs=1e-3)

    def test_no_discordant_pair(self) -> None:
        estimate = mcnemar([True, True, False], [True, True, False], margin=0.01)
        assert (estimate.difference, estimate.deviation, estimate.p_better, estimate.p_worse) == (0.0, 0.0, 1.0, 0.0)
        assert (estimate.interval().low, estimate.interval().high) == (0.0, 0.0)
        assert decide([estimate])[0].verdict is Verdict.PASS

    def test_one_row(self) -> None:
        estimate = mcnemar([False], [True], margin=0.1)
        assert estimate.difference == -1.0
        assert decide([estimate])[0].verdict is Verdict.INCONCLUSIVE

    def test_coverage(self) -> None:
        """1000 hold-outs of 60 rows, 10 % against 18 % discordant."""
        rng = np.random.default_rng(SEED)
        held = 0
        for gained, lost, same in rng.multinomial(60, (0.1, 0.18, 0.72), 1000):
            interval = mcnemar(*correct(same, gained, lost, 0), margin=None).interval()
            held += interval.low <= -0.08 <= interval.high
        assert 0.935 <= held / 1000 <= 0.985


class TestCorrectedT:
    """Nadeau and Bengio's formula, calculated by hand."""

    CANDIDATE, BASELINE = (0.81, 0.79, 0.85, 0.80, 0.78), (0.84, 0.80, 0.86, 0.85, 0.79)

    def test_by_hand(self) -> None:
        """Differences -3, -1, -1, -5, -1 (hundredths): mean -2.2, variance 3.2, so (1/5 + 1/4) · 3.2 = 1.44 and a standard error of 1.2."""
        estimate = corrected_t(self.CANDIDATE, self.BASELINE, test_ratio=0.25, higher=True, margin=0.01)
        assert estimate.difference == pytest.approx(-0.022)
        assert estimate.deviation == pytest.approx(0.012)
        assert estimate.p_better == pytest.approx(t.cdf(-2.2 / 1.2, 4))
        assert estimate.p_worse == pytest.approx(t.sf((-2.2 + 1) / 1.2, 4))
        interval = estimate.interval(0.95)
        assert (interval.low, interval.high) == pytest.approx((-0.022 - 2.7764 * 0.012, -0.022 + 2.7764 * 0.012), abs=1e-5)
        check_agreement(estimate)

    def test_lower_is_better(self) -> None:
        assert corrected_t(self.CANDIDATE, self.BASELINE, test_ratio=0.25, higher=False, margin=0.01).difference == pytest.approx(0.022)

    def test_the_naive_t_is_narrower(self) -> None:
        corrected = corrected_t(self.CANDIDATE, self.BASELINE, test_ratio=0.25, higher=True, margin=0.01)
        naive = corrected_t(self.CANDIDATE, self.BASELINE, test_ratio=0.0, higher=True, margin=0.01)
        assert corrected.deviation / naive.deviation == pytest.approx(1.5)

    def test_no_variance(self) -> None:
        shifted = corrected_t([0.7, 0.8, 0.9], [0.8, 0.9, 1.0], test_ratio=0.5, higher=True, margin=0.05)
        assert shifted.difference == pytest.approx(-0.1)
        assert shifted.deviation == 0.0
        assert decide([shifted])[0].verdict is Verdict.FAIL
        equal = corrected_t([0.7, 0.8], [0.7, 0.8], test_ratio=1.0, higher=True, margin=0.0)
        assert decide([equal])[0].verdict is Verdict.PASS

    def test_one_fold_says_nothing(self) -> None:
        assert decide([corrected_t([0.1], [0.9], test_ratio=1.0, higher=True, margin=0.1)])[0].verdict is Verdict.INCONCLUSIVE

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_a_fold_without_score(self, bad: float) -> None:
        for candidate, baseline, side in (([1.0, bad], [1.0, 2.0], "candidate"), ([1.0, 2.0], [1.0, bad], "baseline"), ([], [], "rows")):
            with pytest.raises(UndefinedError) as caught:
                corrected_t(candidate, baseline, test_ratio=0.25, higher=True, margin=0.1)
            assert caught.value.side == side


class TestHolm:
    """Holm's correction, calculated by hand."""

    def test_by_hand(self) -> None:
        """0.005 · 4 = 0.02; 0.01 · 3 = 0.03; 0.03 · 2 = 0.06; 0.04 · 1 = 0.04, but no less than the one before: 0.06."""
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])

    def test_bounds(self) -> None:
        assert holm([]) == []
        assert holm([0.3]) == [0.3]
        assert holm([0.9, 0.8]) == [1.0, 1.0]


def judged(difference: float, deviation: float, margin: float | None = 1.0) -> Estimate:
    """Return an estimate from two folds' worth of numbers that has about this difference and standard error, with many degrees of freedom."""
    folds = 401
    spread = np.linspace(-1, 1, folds)
    spread *= deviation * math.sqrt(folds) / spread.std(ddof=1)
    return corrected_t(100 + difference + spread, np.full(folds, 100.0), test_ratio=0.0, higher=True, margin=margin)


class TestDecide:
    """The three verdicts, and what several metrics do to each other."""

    @pytest.mark.parametrize(
        ("difference", "deviation", "verdict"),
        [
            (0.0, 0.1, Verdict.PASS),
            (3.0, 0.1, Verdict.PASS),
            (-0.5, 0.1, Verdict.PASS),  # surely worse, but by less than the margin
            (-2.0, 0.5, Verdict.FAIL),
            (-1.0, 0.1, Verdict.FAIL),  # at the margin
            (-0.99, 0.1, Verdict.INCONCLUSIVE),  # surely worse; the margin is within reach of both
            (-2.0, 1.5, Verdict.INCONCLUSIVE),  # beyond the margin, but 0 is not excluded
            (0.0, 1.0, Verdict.INCONCLUSIVE),
        ],
    )
    def test_the_three_verdicts(self, difference: float, deviation: float, verdict: Verdict) -> None:
        assert decide([judged(difference, deviation)])[0].verdict is verdict

    def test_holm_is_stricter_with_company(self) -> None:
        alone = judged(-2.0, 0.95)
        assert decide([alone])[0].verdict is Verdict.FAIL
        company = [alone, judged(0.0, 0.01), judged(0.0, 0.01)]
        together = decide(company)
        assert [decision.verdict for decision in together] == [Verdict.INCONCLUSIVE, Verdict.PASS, Verdict.PASS]
        assert together[0].high > 0 > alone.high(0.025)

    def test_bounds_are_at_the_levels_of_holm(self) -> None:
        """Three comparisons: the smallest p is tested at a third of 0.025, the next at half, the last at all of it."""
        estimates = [judged(-0.5, 0.10), judged(-0.5, 0.02), judged(-0.5, 0.15)]
        decisions = decide(estimates)
        assert [decision.low for decision in decisions] == pytest.approx([estimates[0].low(0.025 / 2), estimates[1].low(0.025 / 3), estimates[2].low(0.025)])

    def test_the_order_is_kept_and_the_p_value_agrees(self) -> None:
        rng = np.random.default_rng(SEED)
        for _ in range(200):
            decisions = decide([judged(rng.normal(-0.5, 0.8), rng.uniform(0.05, 0.6)) for _ in range(4)])
            for decision in decisions:
                assert decision.p_value is not None
                assert (decision.p_value <= 0.05) == (decision.low > -1.0) == (decision.verdict is Verdict.PASS)

    def test_without_a_margin_it_is_only_shown(self) -> None:
        shown, other = judged(-9.0, 0.1, margin=None), judged(-2.0, 0.95)
        decisions = decide([shown, other])
        assert decisions[0].verdict is Verdict.NOT_JUDGED
        assert (decisions[0].low, decisions[0].high, decisions[0].p_value) == (shown.low(0.025), shown.high(0.025), None)
        assert decisions[1] == decide([other])[0]

    def test_nothing_to_judge(self) -> None:
        assert decide([]) == []

    def test_false_alarms_of_a_family(self) -> None:
        """1000 times three equal metrics without any margin to help: at most 2.5 % are called worse by any of them."""
        rng = np.random.default_rng(SEED)
        alarms = 0
        for _ in range(1000):
            family = [corrected_t(rng.normal(0, 1, 30), np.zeros(30), test_ratio=0.0, higher=True, margin=0.0) for _ in range(3)]
            alarms += any(decision.verdict is Verdict.FAIL for decision in decide(family))
        assert alarms / 1000 <= 0.04
