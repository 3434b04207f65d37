"""The numbers that a team will compare for years: they must be what their names say, and the same again tomorrow."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from longrun_training import figures
from longrun_training.data import Dataset, diabetes, load
from longrun_training.errors import ProblemError
from longrun_training.evaluation import Split, cross_validate, rows_needed, score, split, summarize
from longrun_training.model import Settings, fit, predict, requirements

SETTINGS = Settings(estimators=10, max_depth=12, folds=3, repeats=2, seed=7)


def test_scores_by_hand() -> None:
    """Errors 1, -1, 2, 0 around the mean 2.5: RMSE √(6/4), MAE 4/4, R² 1 - 6/5."""
    assert score([1, 2, 3, 4], [0, 3, 1, 4]) == pytest.approx({"rmse": math.sqrt(1.5), "mae": 1.0, "r2": -0.2})


def test_perfect_predictions() -> None:
    """The best there is."""
    assert score([1, 2, 3], [1, 2, 3]) == {"rmse": 0.0, "mae": 0.0, "r2": 1.0}


def test_summary_by_hand() -> None:
    """The deviation is the sample's, over folds - 1: 1, 2, 3 deviate by 1 and not by √(2/3)."""
    assert summarize([{"rmse": 1.0}, {"rmse": 2.0}, {"rmse": 3.0}]) == pytest.approx({"cv_rmse_mean": 2.0, "cv_rmse_std": 1.0})


def test_hold_out_is_never_fitted(table_csv: Path) -> None:
    """A row on both sides would make the score a lie; a row on none would be wasted."""
    dataset = load(table_csv, "price")
    parts = split(dataset, SETTINGS)
    seen, unseen = set(parts.features.index), set(parts.holdout_features.index)
    assert (len(seen), len(unseen)) == (48, 12)
    assert seen | unseen == set(range(60))
    assert (parts.answers.index == parts.features.index).all()


def test_each_fold_is_scored_once_a_repeat(table_csv: Path) -> None:
    """Three folds, twice: six scores, all finite."""
    scores = list(cross_validate(split(load(table_csv, "price"), SETTINGS), SETTINGS))
    assert len(scores) == 6
    assert all(math.isfinite(value) for fold in scores for value in fold.values())


def test_same_seed_same_numbers() -> None:
    """A number that can't be had again can't be compared: same data and seed give the same bits, another seed does not."""

    def outcome(seed: int) -> tuple[list[dict[str, float]], bytes]:
        settings = Settings(estimators=10, max_depth=12, folds=3, repeats=1, seed=seed)
        parts = split(diabetes(), settings)
        forest = fit(settings, parts.features, parts.answers)
        return list(cross_validate(parts, settings)), predict(forest, parts.holdout_features).tobytes()

    assert outcome(7) == outcome(7)
    assert outcome(7) != outcome(8)


def test_settings_reach_the_model(table_csv: Path) -> None:
    """Each option does what it says."""
    dataset = load(table_csv, "price")
    forest = fit(Settings(estimators=4, max_depth=2, folds=2, repeats=1, seed=0), dataset.features, dataset.answers)
    assert len(forest.estimators_) == 4
    assert max(tree.get_depth() for tree in forest.estimators_) == 2


@pytest.mark.parametrize("folds", [2, 3, 5, 10])
def test_fewest_rows(folds: int) -> None:
    """With the number of rows that the error line asks for, training works; with one less, it is refused."""

    def dataset(rows: int) -> Dataset:
        values = np.arange(rows, dtype=float)
        return Dataset("few", pd.DataFrame({"a": values, "y": values % 7}), "y", "", "made here")

    settings = Settings(estimators=1, max_depth=12, folds=folds, repeats=1, seed=0)
    needed = rows_needed(folds)
    parts = split(dataset(needed), settings)
    scores = [*cross_validate(parts, settings), score(parts.holdout_answers, parts.holdout_answers)]
    assert all(math.isfinite(value) for fold in scores for value in fold.values())
    with pytest.raises(ProblemError, match=f"few has only {needed - 1} rows, and {folds} folds beside a hold-out need {needed}"):
        split(dataset(needed - 1), settings)


def test_requirements_are_pinned() -> None:
    """A model that is served years later needs the versions that it was made with."""
    assert any(line.startswith("scikit-learn==") for line in requirements())
    assert all("==" in line for line in requirements())


def test_importance_finds_the_feature_that_matters() -> None:
    """Shuffling the column that the target is made of hurts, shuffling noise does not."""
    random = np.random.default_rng(20261124)
    features = pd.DataFrame(random.uniform(size=(200, 2)), columns=["signal", "noise"])
    answers = features["signal"] * 10
    parts = Split(features[:150], answers[:150], features[150:], answers[150:])
    found = figures.measure_importance(fit(SETTINGS, parts.features, parts.answers), parts, seed=0)
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
