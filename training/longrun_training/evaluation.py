"""How good a model is: scores, repeated K-fold cross-validation, and rows that no fit ever sees."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from sklearn.model_selection import RepeatedKFold, train_test_split

from longrun_training.data import Dataset
from longrun_training.errors import ProblemError
from longrun_training.model import Settings, fit, predict

# The share of rows that is held out before anything is fitted.
HOLDOUT_FRACTION = 0.2
# R² of a single row is undefined.
ROWS_TO_SCORE = 2

Scores = Mapping[str, float]


@dataclass(frozen=True)
class Split:
    """A data set in two parts that share no row.

    Attributes:
        features: Training rows x features.
        answers: One target value a training row.
        holdout_features: Held-out rows x features.
        holdout_answers: One target value a held-out row.
    """

    features: pd.DataFrame
    answers: "pd.Series[float]"
    holdout_features: pd.DataFrame
    holdout_answers: "pd.Series[float]"


def score(actual: ArrayLike, predicted: ArrayLike) -> dict[str, float]:
    """Return `rmse` and `mae` in the target's unit, and `r2` (1 is perfect, 0 is as good as the mean)."""
    return {
        "rmse": float(root_mean_squared_error(actual, predicted)),
        "mae": float(mean_absolute_error(actual, predicted)),
        "r2": float(r2_score(actual, predicted)),
    }


def rows_needed(folds: int) -> int:
    """Return how many rows a data set needs at least, so that each fold and the hold-out can be scored."""
    rows = folds * ROWS_TO_SCORE
    while True:
        held_out = math.ceil(rows * HOLDOUT_FRACTION)
        if held_out >= ROWS_TO_SCORE and rows - held_out >= folds * ROWS_TO_SCORE:
            return rows
        rows += 1


def split(dataset: Dataset, settings: Settings) -> Split:
    """Hold a fifth of the rows out, chosen by the seed.

    Raises:
        ProblemError: There are too few rows for the folds.
    """
    rows, needed = len(dataset.table), rows_needed(settings.folds)
    if rows < needed:
        message = f"{dataset.label} has only {rows} rows, and {settings.folds} folds beside a hold-out need {needed}: get more rows or take fewer --folds"
        raise ProblemError(message)
    features, holdout_features, answers, holdout_answers = train_test_split(
        dataset.features, dataset.answers, test_size=HOLDOUT_FRACTION, random_state=settings.seed
    )
    return Split(features, answers, holdout_features, holdout_answers)


def cross_validate(parts: Split, settings: Settings) -> Iterator[dict[str, float]]:
    """Yield the scores of each fold, folds x repeats of them, each fold predicted by a model that has not seen it."""
    cut = RepeatedKFold(n_splits=settings.folds, n_repeats=settings.repeats, random_state=settings.seed)
    for seen, unseen in cut.split(parts.features):
        forest = fit(settings, parts.features.iloc[seen], parts.answers.iloc[seen])
        yield score(parts.answers.iloc[unseen], predict(forest, parts.features.iloc[unseen]))


def summarize(folds: Sequence[Scores]) -> dict[str, float]:
    """Return mean and sample standard deviation of each score over the folds: `cv_rmse_mean`, `cv_rmse_std` and so on."""
    summary = {}
    for name in folds[0]:
        values = [scores[name] for scores in folds]
        summary[f"cv_{name}_mean"] = float(np.mean(values))
        summary[f"cv_{name}_std"] = float(np.std(values, ddof=1))
    return summary
