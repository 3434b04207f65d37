"""How a model is judged: which rows it never sees, which folds it is fitted on, and that tomorrow gives the same numbers as today."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from longrun_training import figures, model
from longrun_training.config import Configuration, load
from longrun_training.data import Dataset
from longrun_training.data import load as load_table
from longrun_training.errors import ProblemError
from longrun_training.evaluation import Positions, Split, cross_validate, rows_needed, score_all, split, summarize
from longrun_training.scores import Probabilities

SMALL = {"estimator.parameters.n_estimators": 10, "evaluation.folds": 3, "evaluation.repeats": 2, "evaluation.seed": 7}


def configured(**changes: object) -> Configuration:
    """Return a small forest, with changes: `evaluation__folds=5`."""
    return load(None, SMALL | {name.replace("__", "."): value for name, value in changes.items()})


def houses(path: Path) -> Dataset:
    """Return the table of 60 houses."""
    return load_table(load(None, {"data": {"source": str(path), "target": "price"}}), "regression")


def numbers(rows: int, **columns: object) -> Dataset:
    """Return a table of numbers, and of the other columns as they are."""
    values = np.arange(rows, dtype=float)
    return Dataset("few", pd.DataFrame({"a": values, "y": values % 7, **columns}), "y", "", "made here")


def test_summary_by_hand() -> None:
    """The deviation is the sample's, over folds - 1: 1, 2, 3 deviate by 1 and not by √(2/3)."""
    assert summarize([{"rmse": 1.0}, {"rmse": 2.0}, {"rmse": 3.0}]) == pytest.approx({"cv_rmse_mean": 2.0, "cv_rmse_std": 1.0})


def test_hold_out_is_never_fitted(table_csv: Path) -> None:
    """A row on both sides would make the score a lie; a row on none would be wasted."""
    parts = split(houses(table_csv), configured())
    seen, unseen = set(parts.features.index), set(parts.holdout_features.index)
    assert not seen & unseen
    assert seen | unseen == set(range(60))
    assert 5 <= len(unseen) <= 20
    assert (parts.answers.index == parts.features.index).all()


def test_the_hold_out_is_fixed() -> None:
    """Another seed holds the same rows out, or runs could not be compared; a larger share holds more out, and those as well."""
    dataset = load_table(load(None), "regression")
    known = set(split(dataset, configured()).holdout)
    assert set(split(dataset, configured(evaluation__seed=8)).holdout) == known
    assert 60 < len(known) < 120
    assert known < set(split(dataset, configured(evaluation__holdout=0.4)).holdout)


def test_a_group_is_on_one_side() -> None:
    """A patient whose rows were on both sides would be recognised; a fold does not part a group either, in no repeat."""
    random = np.random.default_rng(20261126)
    patients = random.integers(0, 30, 200)
    table = pd.DataFrame({"a": random.normal(size=200), "patient": [f"p{n}" for n in patients], "y": random.normal(size=200)})
    for task, target in (("regression", table["y"]), ("classification", pd.Series(["ill" if value > 0 else "well" for value in table["a"]], dtype=object))):
        dataset = Dataset("t", table.assign(y=target), "y", "", "made here", task, group="patient")  # type: ignore[arg-type]
        parts = split(dataset, configured())
        assert dataset.groups is not None
        assert parts.groups is not None
        assert not set(parts.groups) & set(dataset.groups.iloc[parts.holdout])
        cuts = list(folds_of(parts, configured()))
        assert len(cuts) == 6
        for seen, unseen in cuts:
            assert not set(parts.groups.iloc[seen]) & set(parts.groups.iloc[unseen])
        # The two repeats cut differently.
        assert {tuple(unseen) for _, unseen in cuts[:3]} != {tuple(unseen) for _, unseen in cuts[3:]}


def folds_of(parts: Split, configuration: Configuration) -> Iterator[tuple[Positions, Positions]]:
    """Return the positions of each fold."""
    from longrun_training import evaluation  # noqa: PLC0415 - its inside

    return evaluation._folds(parts, configuration)


def test_each_fold_has_each_class() -> None:
    """A fold without a rare class could not be scored."""
    dataset = load_table(load(None, {"data.source": "sklearn:wine"}), "classification")
    parts = split(dataset, configured())
    for _, unseen in folds_of(parts, configured()):
        shares = parts.answers.iloc[unseen].value_counts(normalize=True)
        assert ((shares - parts.answers.value_counts(normalize=True)).abs() < 0.05).all()


def test_each_fold_is_scored_once_a_repeat(table_csv: Path) -> None:
    """Three folds, twice: six scores, all finite."""
    scores = list(cross_validate(split(houses(table_csv), configured()), configured()))
    assert len(scores) == 6
    assert all(set(fold) == {"rmse", "mae", "r2", "median_ae"} for fold in scores)
    assert all(math.isfinite(value) for fold in scores for value in fold.values())


@pytest.mark.parametrize(("source", "estimator"), [("sklearn:diabetes", "RandomForestRegressor"), ("sklearn:iris", "RandomForestClassifier")])
def test_same_seed_same_numbers(source: str, estimator: str) -> None:
    """A number that can't be had again can't be compared: same data and seed give the same bits, another seed does not."""

    def outcome(seed: int) -> tuple[list[dict[str, float]], bytes]:
        changes = {"data.source": source, "estimator.name": estimator, "evaluation.repeats": 1, "evaluation.seed": seed}
        configuration = load(None, SMALL | changes)
        parts = split(load_table(configuration, model.task(configuration)), configuration)
        fitted = model.fit(configuration, parts.features, parts.answers)
        given = fitted.predict_proba(parts.holdout_features) if parts.dataset.classes else model.predict(fitted, parts.holdout_features)
        return list(cross_validate(parts, configuration)), given.tobytes()

    assert outcome(7) == outcome(7)
    assert outcome(7) != outcome(8)


@pytest.mark.parametrize("folds", [2, 3, 5, 10])
def test_fewest_rows(folds: int) -> None:
    """What is accepted can be scored; with too few rows for any split, the line says how many are needed, and with an unlucky one, what it came to."""
    configuration = configured(evaluation__folds=folds, evaluation__repeats=1, estimator__parameters__n_estimators=1)
    needed = rows_needed(folds)
    with pytest.raises(ProblemError, match=f"few has only {needed - 1} rows, and {folds} folds beside a hold-out need {needed}"):
        split(numbers(needed - 1), configuration)
    accepted, refused = 0, list[str]()
    for rows in range(needed, 4 * needed):
        try:
            parts = split(numbers(rows), configuration)
        except ProblemError as error:
            refused.append(str(error))
            continue
        fitted = model.fit(configuration, parts.features, parts.answers)
        scores = [*cross_validate(parts, configuration), score_all(fitted, parts.holdout_features, parts.holdout_answers, ())]
        assert all(math.isfinite(value) for fold in scores for value in fold.values())
        accepted += 1
        if accepted == 2:
            break
    assert accepted == 2
    assert all("get more rows, take fewer --folds, or another evaluation.holdout" in text for text in refused)


def test_too_few_groups_and_rows_of_a_class() -> None:
    """What would end as a fold without a class, or with nothing in it, is a line before the training."""
    groups = Dataset("few", numbers(60).table.assign(g=["a", "b", "c"] * 20), "y", "", "made here", group="g")
    with pytest.raises(ProblemError, match=r"groups in column 'g', too few for 3 folds|a hold-out of 20% got"):
        split(groups, configured())
    rare = Dataset("few", numbers(60).table.assign(y=["x"] * 58 + ["z"] * 2), "y", "", "made here", "classification")
    with pytest.raises(ProblemError, match="rows of class 'z', too few for 3 folds: get more rows, join classes"):
        split(rare, configured())
    measured = Dataset("few", numbers(60).table.assign(y=[f"{n}.5" for n in range(60)]), "y", "", "made here", "classification")
    with pytest.raises(ProblemError, match="there are 60 classes: if they are measurements, take a regressor"):
        split(measured, configured())


def test_importance_finds_the_feature_that_matters() -> None:
    """Shuffling the column that the target is made of hurts, shuffling noise does not."""
    random = np.random.default_rng(20261124)
    features = pd.DataFrame(random.uniform(size=(200, 2)), columns=["signal", "noise"])
    dataset = Dataset("made", features.assign(y=features["signal"] * 10), "y", "", "made here")
    parts = Split(dataset, np.arange(150), np.arange(150, 200))
    found = figures.measure_importance(model.fit(configured(), parts.features, parts.answers), parts, seed=0)
    assert found.names == ["signal", "noise"]
    assert found.means[0] > 1 > abs(found.means[1])


def test_figures_name_what_they_show() -> None:
    """A picture without units is no evidence, and a column called `$x_1$` is no formula."""
    dataset = Dataset("houses", pd.DataFrame({"a": [1.0], "$x": [2.0]}), "$x", "EUR", "made here")
    names = [f"feature {n} ${'long ' * 20}$" for n in range(30)]
    with figures.styled():
        drawn = [
            figures.residuals([1.0, 2.0, 3.0], [1.5, 2.0, 2.0], dataset),
            figures.importance(figures.Importance(names, [float(n) for n in range(30)], [0.1] * 30), dataset),
        ]
        for figure in drawn:
            figure.canvas.draw()
    residuals, importance = drawn
    assert residuals.axes[0].get_xlabel() == "predicted $x (EUR)"
    assert residuals.axes[0].get_ylabel() == "actual − predicted $x (EUR)"
    assert "RMSE" in importance.axes[0].get_xlabel()
    assert "the first 20 of 30 features" in importance.axes[0].get_title(loc="left")
    assert importance.axes[0].get_yticklabels()[-1].get_text().startswith("feature 29")


def test_figures_of_classes_name_what_they_show() -> None:
    """Classes have names, also many and long ones; what is too much for a picture is summed up, not left out."""
    random = np.random.default_rng(20261126)
    names = tuple(f"class {n} ${'long ' * 20}$" for n in range(30))
    values = random.dirichlet(np.ones(30), size=200)
    actual = np.array([random.choice(names, p=row) for row in values], dtype=object)
    dataset = Dataset("letters", pd.DataFrame({"a": [1.0] * 200, "y": actual}), "y", "", "made here", "classification")
    predicted, given = np.array(names, dtype=object)[values.argmax(axis=1)], Probabilities(names, values)
    with figures.styled():
        drawn = [figures.confusion(actual, predicted, dataset), figures.probabilities(actual, given, dataset)]
        for figure in drawn:
            figure.canvas.draw()
    confusion, probabilities = drawn
    roc, calibration = probabilities.axes
    assert confusion.axes[0].get_yticklabels()[-1].get_text() == "(others)"
    assert sum(int(text.get_text()) for text in confusion.axes[0].texts) == 200
    assert "the first 16 of 30 classes" in roc.get_title(loc="left")
    assert "AUC" in roc.get_legend_handles_labels()[1][0]
    assert "200 rows" in calibration.get_title(loc="left")
