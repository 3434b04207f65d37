"""The proposed margins do what they are proposed for."""

import math

import numpy as np
import pytest
from longrun_training.judgement import Verdict
from longrun_training.margins import CrossValidation, degrade, noise, propose_margin, round_up
from longrun_training.statistics import decide, paired_bootstrap
from longrun_training.weighted_metrics import Answers, scorer
from numpy.typing import NDArray
from scipy.stats import t

SEED = 20261124
Floats = NDArray[np.float64]


def world(rows: int, seed: int = SEED, apart: float = 4.0, runs: int = 5) -> tuple[Floats, list[Answers]]:
    """Return a target like that of the diabetes data, and models that differ a little."""
    rng = np.random.default_rng(seed)
    signal = rng.normal(0, 54, rows)
    return signal + rng.normal(0, 55, rows), [Answers(signal + rng.normal(0, apart, rows)) for _ in range(runs)]


def test_noise_by_hand() -> None:
    """1, 2, 3: mean 2, deviation 1; its 90 % interval is √(2 / 5.991) to √(2 / 0.1026)."""
    found = noise([1.0, 2.0, 3.0])
    assert (found.mean, found.deviation, found.runs) == (2.0, 1.0, 3)
    assert (found.low, found.high) == pytest.approx((0.5778, 4.4154), abs=1e-3)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan]])
def test_noise_needs_two_values(values: list[float]) -> None:
    """One run shows no spread, and NaN none either."""
    with pytest.raises(ValueError, match="at least 2 finite"):
        noise(values)


@pytest.mark.parametrize(
    ("value", "expected"), [(0.0, 0.0), (1.23, 1.3), (1.3, 1.3), (0.0301, 0.031), (0.0031, 0.0031), (12.0, 12.0), (12.1, 13.0), (987.0, 990.0), (-1.0, 0.0)]
)
def test_margins_are_rounded_up(value: float, expected: float) -> None:
    """Two digits, never less than asked for."""
    assert round_up(value) == pytest.approx(expected)


@pytest.mark.parametrize(("folds", "repeats", "expected"), [(5, 3, 70.6 / (1 / 15 + 1 / 4)), (10, 1, 35.3 / (1 / 10 + 1 / 9))])
def test_what_folds_are_worth(folds: int, repeats: int, expected: float) -> None:
    """Rows of a fold over Nadeau and Bengio's factor."""
    assert CrossValidation(353, folds, repeats).worth == pytest.approx(expected)


def test_the_formula_of_what_passes() -> None:
    """As the module's text has it."""
    actual, runs = world(200)
    proposal = propose_margin("rmse", actual, runs, metrics=3)
    values = [scorer("rmse", actual, run).value() for run in runs]
    apart = t.ppf(0.95, 4) * math.sqrt(2) * np.std(values, ddof=1)
    assert proposal.to_pass == pytest.approx(t.isf(0.025 / 3, 199) * proposal.standard_error + apart)
    assert proposal.margin >= proposal.to_pass


def test_the_smallest_loss_that_is_caught_is_the_known_one() -> None:
    """4z²S/n of the mean squared error, which the module derives: 1000 rows, one metric, z = 1.96 + 1.645."""
    actual, runs = world(1000, apart=0.5)
    proposal = propose_margin("rmse", actual, runs)
    squared = proposal.noise.mean**2
    loss = math.sqrt(squared * (1 + 4 * 3.605**2 / 1000)) - proposal.noise.mean
    assert 2 * proposal.to_catch == pytest.approx(loss, rel=0.15)


def test_equal_models_pass_and_losses_of_two_margins_fail() -> None:
    """200 pairs of each on hold-outs of their own, with the margin of one calibration; the benchmark does it at length."""
    rows = 300
    margin = propose_margin("rmse", *world(rows)).margin
    rng = np.random.default_rng(SEED)
    baseline = math.sqrt(55**2 + 4**2)
    extra = math.sqrt((baseline + 2 * margin) ** 2 - 55**2)
    verdicts: dict[str, list[Verdict]] = {"equal": [], "worse": []}
    for seed in range(200):
        signal = rng.normal(0, 54, rows)
        actual, old = signal + rng.normal(0, 55, rows), Answers(signal + rng.normal(0, 4, rows))
        for name, apart in (("equal", 4.0), ("worse", extra)):
            candidate = Answers(signal + rng.normal(0, apart, rows))
            verdicts[name] += [decide([paired_bootstrap("rmse", actual, candidate, old, margin=margin, resamples=500, seed=seed % 2)])[0].verdict]
    assert verdicts["equal"].count(Verdict.FAIL) <= 2
    assert verdicts["equal"].count(Verdict.PASS) >= 190
    assert verdicts["worse"].count(Verdict.FAIL) >= 180


def test_small_hold_outs_are_called_small() -> None:
    """As the diabetes data: 89 rows can't catch a small loss, and the proposal says so instead of an absurd margin."""
    actual, runs = world(89)
    proposal = propose_margin("rmse", actual, runs, metrics=3)
    assert not proposal.tight
    assert proposal.margin <= 1.02 * max(proposal.learnt / 2, proposal.to_pass) + 0.1
    assert proposal.rows_for_tight is not None
    assert 200 < proposal.rows_for_tight < 2000
    assert "89 hold-out rows are too few for a tight margin" in proposal.remark
    folded = propose_margin("rmse", actual, runs, metrics=3, cross_validation=CrossValidation(353, 5, 3))
    assert folded.to_catch < 0.75 * proposal.to_catch
    enough = propose_margin("rmse", *world(1000), metrics=3)
    assert enough.tight
    assert enough.power >= 0.94
    assert enough.rows_for_tight is None
    assert "is caught with" in enough.remark


def test_more_metrics_and_more_slices_ask_for_more() -> None:
    """Holm's correction is paid for by the margin."""
    actual, runs = world(200)
    one, three = (propose_margin("rmse", actual, runs, metrics=count) for count in (1, 3))
    assert one.to_pass < three.to_pass
    assert one.to_catch < three.to_catch
    none, ten = (propose_margin("rmse", actual, runs, cross_validation=CrossValidation(800, 5, 3, slices)) for slices in (0, 10))
    assert none.to_catch < ten.to_catch


def test_groups_make_it_less_sure() -> None:
    """Five copies of a row are one row."""
    actual, runs = world(60)
    copied = [Answers(np.repeat(np.asarray(run.predicted), 5)) for run in runs]
    grouped = propose_margin("mae", np.repeat(actual, 5), copied, groups=np.repeat(np.arange(60), 5))
    apart = propose_margin("mae", np.repeat(actual, 5), copied)
    assert grouped.standard_error > 2 * apart.standard_error
    with pytest.raises(ValueError, match="at least 2 hold-out rows"):
        propose_margin("mae", actual, runs, groups=["one"] * 60)


def test_a_model_that_has_learnt_nothing() -> None:
    """Nothing to measure the margin by, and it says so."""
    rng = np.random.default_rng(SEED)
    actual = rng.normal(0, 10, 100)
    proposal = propose_margin("rmse", actual, [Answers(rng.normal(0, 5, 100)) for _ in range(3)])
    assert proposal.learnt < 0
    assert not proposal.tight
    assert "no better than a constant answer" in proposal.remark
    assert math.isfinite(proposal.margin)


def test_runs_that_are_all_alike() -> None:
    """A deterministic estimator has no noise between seeds: what is caught decides alone."""
    actual, runs = world(300)
    proposal = propose_margin("mae", actual, [runs[0]] * 3)
    assert (proposal.noise.deviation, proposal.standard_error, proposal.to_pass) == (0.0, 0.0, 0.0)
    assert proposal.margin > 0


@pytest.mark.parametrize("metric", ["accuracy", "f1", "log_loss", "roc_auc"])
def test_classes(metric: str) -> None:
    """Small margins for 300 rows of a good classifier, and a loss of two is caught."""
    rng = np.random.default_rng(SEED)
    odds = rng.normal(0, 3, 300)
    actual = np.where(rng.random(300) < 1 / (1 + np.exp(-odds)), "yes", "no")
    runs = []
    for _ in range(3):
        share = 1 / (1 + np.exp(-odds - rng.normal(0, 0.2, 300)))
        runs.append(Answers(np.where(share > 0.5, "yes", "no"), np.column_stack([1 - share, share]), np.array(["no", "yes"])))
    proposal = propose_margin(metric, actual, runs, metrics=3)
    assert 0 < proposal.margin < 0.2
    assert proposal.power > 0.9


def test_degraded_answers_are_worse() -> None:
    """By noise, or by another row's class where there are no probabilities."""
    rng = np.random.default_rng(SEED)
    actual, runs = world(500)
    assert scorer("rmse", actual, degrade("rmse", runs[0], 1.0, rng)).value() > scorer("rmse", actual, runs[0]).value() + 5
    labels = np.repeat(["a", "b"], 250)
    swapped = degrade("accuracy", Answers(labels), 2.0, rng)
    assert 0.55 < scorer("accuracy", labels, swapped).value() < 0.8
