"""What two runs' predictions say: orientation, verdicts, and everything that is not an ordinary number."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from longrun_training import comparison
from longrun_training.comparison import compare_rows
from longrun_training.config import Configuration
from longrun_training.judgement import Comparison, Verdict

from tests.unit.training.gate_helpers import Bench, classification, configuration, regression

PASS, FAIL, INCONCLUSIVE, NOT_JUDGED = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.NOT_JUDGED


def only(mine: pd.DataFrame, theirs: pd.DataFrame, metric: str = "rmse", margin: float | None = 0.5, **tables: Any) -> Comparison:  # noqa: ANN401
    """Compare one metric on the hold-out."""
    (found,) = compare_rows(mine, theirs, settings(metric, margin, **tables))
    return found


def settings(metric: str, margin: float | None, **tables: Any) -> Configuration:  # noqa: ANN401 - tables of longrun.toml
    """Return a configuration with one metric."""
    return configuration("houses", metrics={metric: {"margin": margin}}, **tables)


def with_predictions(frame: pd.DataFrame, predicted: Any) -> pd.DataFrame:  # noqa: ANN401 - whatever pandas takes as a column
    """Return the same rows with other predictions."""
    return frame.assign(predicted=predicted)


def test_the_three_verdicts() -> None:
    """Pass where the bound is above -margin, fail where all of it is below 0 and the loss is the margin at least, else inconclusive."""
    base = regression(10.0)
    worse = only(regression(14.0, seed=2), base, margin=2.0)
    assert worse.verdict is FAIL
    assert worse.difference is not None
    assert worse.high is not None
    assert worse.difference <= -2.0
    assert worse.high < 0
    assert worse.reason == "worse, and by the margin or more"
    # Significantly worse, but not by what the margin allows.
    near = with_predictions(base, base["actual"] + 1.02 * (base["predicted"] - base["actual"]))
    fine = only(near, base, margin=2.0)
    assert (fine.verdict, fine.reason) == (PASS, "worse by less than the margin")
    assert only(near, base, margin=0.1).verdict is FAIL
    unsure = only(regression(10.5, seed=3), base, margin=0.01)
    assert unsure.verdict is INCONCLUSIVE
    better = only(regression(6.0, seed=2), base, margin=0.0)
    assert (better.verdict, better.reason) == (PASS, "better")
    assert better.low is not None
    assert better.low > 0
    shown = only(regression(14.0, seed=2), base, margin=None)
    assert (shown.verdict, shown.reason, shown.p_value) == (NOT_JUDGED, "no margin is set, so it is only shown", None)
    assert shown.difference == worse.difference


def test_equal_predictions_pass_every_margin() -> None:
    """The same model is no worse than itself, even with no margin at all; the same rows give the same bounds each time."""
    base = regression(10.0)
    for metric in ("rmse", "mae", "r2", "median_ae"):
        found = only(base, base.copy(), metric, 0.0)
        assert (found.verdict, found.difference, found.low, found.high) == (PASS, 0, 0, 0)
        assert found.reason == "the two are equal"
    for metric in ("accuracy", "balanced_accuracy", "f1", "log_loss", "roc_auc"):
        assert only(classification([1, 2]), classification([1, 2]), metric, 0.0).verdict is PASS
    assert only(regression(11.0, seed=2), base) == only(regression(11.0, seed=2), base)


@pytest.mark.parametrize("metric", ["rmse", "mae", "median_ae", "r2"])
def test_differences_are_oriented_in_regression(metric: str) -> None:
    """Above 0 is better, whichever way the metric goes."""
    good, bad = regression(5.0), regression(15.0, seed=2)
    for mine, theirs, sign in ((good, bad, 1), (bad, good, -1)):
        found = only(mine, theirs, metric, 0.01)
        assert found.difference is not None
        assert math.copysign(1, found.difference) == sign
        assert found.verdict is (PASS if sign > 0 else FAIL)
        assert found.method == "paired bootstrap"


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "f1", "log_loss", "roc_auc"])
def test_differences_are_oriented_in_classification(metric: str) -> None:
    """The same for classes; accuracy by McNemar's test, exact while few rows differ."""
    good, bad = classification([1]), classification(range(60))
    assert only(bad, good, metric, 0.02).verdict is FAIL
    better = only(good, bad, metric, 0.02)
    assert better.verdict is PASS
    assert better.method == ("McNemar" if metric == "accuracy" else "paired bootstrap")
    if metric == "accuracy":
        assert only(classification([1, 2]), good, metric, 0.02).method == "McNemar, exact"


def test_a_negative_baseline_is_no_trap() -> None:
    """R² below 0 on both sides: worse stays worse. A relative tolerance would turn around here."""
    base, worse = regression(40.0), regression(60.0, seed=2)
    found = only(worse, base, "r2", 0.1)
    assert found.baseline is not None
    assert found.baseline < 0
    assert (found.verdict, found.direction) == (FAIL, "higher")
    assert only(base, worse, "r2", 0.1).verdict is PASS


def test_a_candidate_without_a_value_fails() -> None:
    """NaN and infinities are nobody's pass: the candidate fails by its own, and the baseline's make nothing of it."""
    good = regression(10.0)
    for bad in (math.nan, math.inf, -math.inf):
        broken = good.copy()
        broken.loc[3, "predicted"] = bad
        found = only(broken, good)
        assert (found.verdict, found.difference, found.low) == (FAIL, None, None)
        assert "candidate" in found.reason
        assert only(good, broken).verdict is NOT_JUDGED
        # A fault that was let through once is no licence.
        assert only(broken, broken).verdict is FAIL
        assert only(broken, good, margin=None).verdict is NOT_JUDGED


def test_one_row_and_a_constant_prediction() -> None:
    """Too few rows are shown and not judged; a constant prediction is a poor model, and nothing worse."""
    base = regression(10.0)
    constant = with_predictions(base, 100.0)
    found = only(constant, base)
    assert found.verdict is FAIL
    assert found.candidate == pytest.approx(float(np.sqrt(np.mean((base["actual"] - 100.0) ** 2))))
    assert only(constant, constant).verdict is PASS
    assert only(with_predictions(base, 101.0), constant, "r2", 0.5).verdict is PASS
    one = only(base.head(1), regression(12.0, seed=2).head(1))
    assert (one.verdict, one.rows, one.reason) == (NOT_JUDGED, 1, "1 row, and [gate] minimum_rows is 10")
    assert one.difference is not None
    undefined = only(base.head(1), regression(12.0, seed=2).head(1), "r2")
    assert (undefined.verdict, undefined.difference) == (NOT_JUDGED, None)
    yes = classification().iloc[[1] * 20].assign(row_id=[f"{number:04x}" for number in range(20)])
    assert only(yes, yes, "roc_auc").verdict is NOT_JUDGED


def test_slices_can_fail_alone() -> None:
    """A loss that the whole hold-out hides shows on its slice; a slice of few rows is shown only."""
    base = regression(10.0)
    old = np.arange(len(base)) % 10 == 0
    worse = with_predictions(base, np.where(old, base["predicted"] + 30, base["predicted"]))
    tables = {"slices": {"old": {"column": "age", "at_least": 60}, "few": {"column": "age", "at_least": 99}, "gone": {"column": "age", "at_least": 999}}}
    marked = worse.assign(slice_old=old, slice_few=np.arange(len(base)) < 3, slice_gone=False)
    # The baseline was trained before there were slices.
    whole, part, few = compare_rows(marked, base, settings("rmse", 8.0, **tables))
    assert (whole.kind, whole.verdict) == ("hold-out", PASS)
    assert (part.kind, part.scope, part.rows, part.verdict) == ("slice", "old", 20, FAIL)
    assert (few.scope, few.rows, few.verdict) == ("few", 3, NOT_JUDGED)
    off = configuration("houses", metrics={"rmse": {"margin": 8.0, "slices": False}}, **tables)
    assert [found.kind for found in compare_rows(marked, base, off)] == ["hold-out"]


def test_groups_are_drawn_together() -> None:
    """Rows of one patient are no independent witnesses: the interval is wider, and the groups are counted."""
    base, other = regression(10.0), regression(10.0, seed=2)
    groups = [str(number // 20) for number in range(len(base))]
    shift = np.repeat(np.random.default_rng(5).normal(0, 8, len(base) // 20), 20)
    other = with_predictions(other, other["predicted"] + shift).assign(group=groups)
    rows, grouped = only(other, base), only(other, base, data={"group": "patient"})
    assert (rows.groups, grouped.groups) == (None, 10)
    assert rows.low is not None
    assert rows.high is not None
    assert grouped.low is not None
    assert grouped.high is not None
    assert grouped.high - grouped.low > rows.high - rows.low
    assert only(classification([1]).assign(group=groups), classification([2]), "accuracy", data={"group": "patient"}).method == "paired bootstrap"


def test_several_metrics_are_corrected() -> None:
    """Holm: the more is looked at, the surer each has to be. What has no margin counts for nobody's correction."""
    base, mine = regression(10.0), regression(10.5, seed=2)
    alone = only(mine, base, "rmse")
    several = configuration("houses", metrics={name: {"margin": 0.5} for name in ("rmse", "mae", "median_ae")})
    shown = configuration("houses", metrics={"rmse": {"margin": 0.5}, "mae": {}, "median_ae": {}})
    first = compare_rows(mine, base, several)[0]
    assert alone.low is not None
    assert alone.p_value is not None
    assert first.low is not None
    assert first.p_value is not None
    assert first.low <= alone.low
    assert first.p_value >= alone.p_value
    assert compare_rows(mine, base, shown)[0] == alone


def test_metrics_of_another_kind_are_not_judged() -> None:
    """Accuracy of numbers and RMSE of classes are nothing, and log loss needs probabilities."""
    assert only(regression(), regression(), "accuracy").verdict is NOT_JUDGED
    assert only(classification(), classification(), "rmse").verdict is NOT_JUDGED
    bare = classification(probabilities=False)
    assert only(bare, classification(), "log_loss").verdict is FAIL
    assert only(classification(), bare, "log_loss").reason == "the baseline gives no probabilities"
    assert only(classification(), bare, "log_loss").verdict is NOT_JUDGED
    # A class that one of the models never saw costs it, and breaks nothing.
    unseen = classification().drop(columns="probability_no").assign(probability_yes=1.0)
    assert only(unseen, classification(), "log_loss").verdict is FAIL
    # Without [metrics], everything that can be computed is shown.
    names = [found.metric for found in compare_rows(bare, bare, configuration("houses", metrics={}))]
    assert names == ["accuracy", "balanced_accuracy", "f1"]


def test_why_nothing_can_be_compared(server: str) -> None:
    """Other rows, another way of scoring, no predictions or broken ones: a sentence each, and never a guess."""
    bench = Bench.open(server, "incomparable")
    frame, settled = regression(10.0), configuration("incomparable")
    candidate = bench.run(frame, register=False)

    def reason(other: Any) -> str:  # noqa: ANN401 - MLflow's run
        found = comparison.compare(bench.client, comparison.fetch(bench.client, candidate), comparison.fetch(bench.client, other), settled)
        assert found.comparisons == ()
        (sentence,) = found.missing
        return sentence

    assert "was scored on other data" in reason(bench.run(regression(10.0, rows=150), register=False))
    assert "metric version 2, not 1" in reason(bench.run(frame, tags={"longrun.metric_version": "2"}, register=False))
    assert "metric version unknown" in reason(bench.run(frame, tags={"longrun.metric_version": None}, register=False))
    holdout = candidate.data.tags["longrun.holdout_sha256"]
    assert "has no predictions.parquet" in reason(bench.run(None, tags={"longrun.holdout_sha256": holdout}, register=False))
    lying = bench.run(frame.assign(row_id=[f"{number:x}-1" for number in range(1000, 1200)]), tags={"longrun.holdout_sha256": holdout}, register=False)
    assert "are of other rows than its fingerprint says" in reason(lying)
    broken = bench.run(None, tags={"longrun.holdout_sha256": holdout}, register=False)
    bench.client.log_text(broken.info.run_id, "no Parquet", "predictions.parquet")
    assert "can't be used" in reason(broken)
    unknown = bench.run(None, register=False)
    found = comparison.compare(bench.client, comparison.fetch(bench.client, unknown), comparison.fetch(bench.client, candidate), settled)
    assert "does not say how it was scored" in found.missing[0]


def test_cross_validation_is_compared_fold_by_fold(server: str) -> None:
    """The corrected t of the same folds; other folds, no folds and another number of them are told and not compared."""
    bench = Bench.open(server, "folds")
    frame, settled = regression(10.0), configuration("folds", metrics={"rmse": {"margin": 1.0}, "mae": {}})
    scores = [10 + 0.1 * (number % 4) for number in range(15)]
    candidate = bench.run(frame, folds={"rmse": [score + 2 for score in scores]}, register=False)
    side = comparison.fetch(bench.client, candidate)

    def compared(other: Any) -> comparison.Compared:  # noqa: ANN401 - MLflow's run
        return comparison.compare(bench.client, side, comparison.fetch(bench.client, other), settled)

    found = compared(bench.run(frame, folds={"rmse": scores}, register=False))
    (folds,) = [entry for entry in found.comparisons if entry.kind == "cross-validation"]
    assert (folds.metric, folds.rows, folds.method, folds.verdict) == ("rmse", 15, "corrected t", FAIL)
    assert folds.difference == pytest.approx(-2)
    assert found.missing == ("mae in the cross-validation: neither run logged folds of it",)
    found = compared(bench.run(frame, folds={"rmse": scores[:10]}, register=False))
    assert found.missing[0] == "rmse in the cross-validation: the candidate logged 15 folds of it, the baseline 10"
    undefined = compared(bench.run(frame, folds={"rmse": [math.nan, *scores[1:]]}, register=False))
    assert [entry.verdict for entry in undefined.comparisons if entry.kind == "cross-validation"] == [NOT_JUDGED]
    found = compared(bench.run(frame, folds={"rmse": scores}, tags={"longrun.data_sha256": "e" * 64}, register=False))
    assert found.missing == ("cross-validation: the baseline has other folds (other data)",)


def test_what_a_store_keeps_of_an_infinity() -> None:
    """MLflow's tracking store writes the largest number there is for an infinity; it is none that a limit could be held against."""
    assert comparison.finite(1.7976931348623157e308) is None
    assert comparison.finite(-1.7976931348623157e308) is None
    assert comparison.finite(math.nan) is None
    assert comparison.finite(None) is None
    assert comparison.finite(-0.5) == -0.5
