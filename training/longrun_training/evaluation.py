"""How good a model is: rows that no fit ever sees, and repeated cross-validation on the others."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import GroupKFold, RepeatedKFold, RepeatedStratifiedKFold, StratifiedGroupKFold

from longrun_training import model
from longrun_training.config import Configuration
from longrun_training.data import Dataset
from longrun_training.errors import ProblemError
from longrun_training.scores import Probabilities, metrics_of, score

# Of the algorithm that picks the hold-out: runs with different ones can't be compared. Change it with any change of a row's side.
SPLIT_VERSION = "1"
# R² of a single row is undefined.
ROWS_TO_SCORE = 2
# The first bytes of a row's fingerprint are its lot.
LOT_BYTES = 8

Scores = Mapping[str, float]
Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """A data set in two parts that share no row, no equal rows, and no group.

    Attributes:
        dataset: The whole.
        training: Positions of the rows that models may see, in the table's order.
        holdout: Positions of the rows that no fit sees.
    """

    dataset: Dataset
    training: Positions
    holdout: Positions

    @cached_property
    def features(self) -> pd.DataFrame:
        """Training rows x features."""
        return self.dataset.features.iloc[self.training]

    @cached_property
    def answers(self) -> "pd.Series[Any]":
        """One target value a training row."""
        return self.dataset.answers.iloc[self.training]

    @cached_property
    def groups(self) -> "pd.Series[Any] | None":
        """The group of each training row."""
        return None if self.dataset.groups is None else self.dataset.groups.iloc[self.training]

    @cached_property
    def holdout_features(self) -> pd.DataFrame:
        """Held-out rows x features."""
        return self.dataset.features.iloc[self.holdout]

    @cached_property
    def holdout_answers(self) -> "pd.Series[Any]":
        """One target value a held-out row."""
        return self.dataset.answers.iloc[self.holdout]


def split(dataset: Dataset, configuration: Configuration) -> Split:
    """Hold rows out by what they hold, so that each row stays on its side whatever the seed, the order, and the rows that are added later.

    A row's lot is the beginning of its fingerprint, or of its group's: it is held out where that is in the lowest `evaluation.holdout` of all.

    Raises:
        ProblemError: There are too few rows, groups or rows of a class for the folds.
    """
    if dataset.groups is None:
        lots = dataset.row_digests
    else:
        of_group = {group: hashlib.sha256(json.dumps(group).encode()).digest() for group in dataset.groups.unique()}
        lots = [of_group[group] for group in dataset.groups]
    below = int(configuration.evaluation.holdout * 2 ** (8 * LOT_BYTES))
    held_out = np.array([int.from_bytes(lot[:LOT_BYTES], "big") < below for lot in lots], dtype=bool)
    parts = Split(dataset, np.flatnonzero(~held_out), np.flatnonzero(held_out))
    _check_size(parts, configuration)
    return parts


def rows_needed(folds: int) -> int:
    """Return how many rows a data set needs at least, so that each fold and the hold-out can be scored."""
    return (folds + 1) * ROWS_TO_SCORE


def _check_size(parts: Split, configuration: Configuration) -> None:
    dataset, folds, share = parts.dataset, configuration.evaluation.folds, configuration.evaluation.holdout
    rows, needed = len(dataset.table), rows_needed(folds)
    if rows < needed:
        message = f"{dataset.label} has only {rows} rows, and {folds} folds beside a hold-out need {needed}: get more rows or take fewer --folds"
        raise ProblemError(message)
    seen, unseen = len(parts.training), len(parts.holdout)
    if unseen < ROWS_TO_SCORE or seen < folds * ROWS_TO_SCORE:
        message = (
            f"{dataset.label} has only {rows} rows: a hold-out of {share:.0%} got {unseen} of them and leaves {seen}, "
            f"where {ROWS_TO_SCORE} and {folds * ROWS_TO_SCORE} are needed: get more rows, take fewer --folds, or another evaluation.holdout"
        )
        raise ProblemError(message)
    if parts.groups is not None and parts.groups.nunique() < folds:
        message = (
            f"{dataset.label}: beside the hold-out there are {parts.groups.nunique()} groups in column {dataset.group!r}, too few for {folds} folds: "
            "get more groups or take fewer --folds"
        )
        raise ProblemError(message)
    for name in dataset.classes:
        found = int((parts.answers == name).sum())
        if found < folds:
            many = f" (there are {len(dataset.classes)} classes: if they are measurements, take a regressor)" if len(dataset.classes) > folds else ""
            message = (
                f"{dataset.label}: beside the hold-out there are {found} rows of class {name!r}, too few for {folds} folds{many}: "
                "get more rows, join classes, or take fewer --folds"
            )
            raise ProblemError(message)


def score_all(estimator: model.Estimator, features: pd.DataFrame, answers: "pd.Series[Any]", classes: tuple[str, ...]) -> dict[str, float]:
    """Return every metric of a fitted model on some rows, by name."""
    return scores_of(answers, model.predict(estimator, features), model.probabilities(estimator, features, classes), classes)


def scores_of(actual: npt.ArrayLike, predicted: npt.ArrayLike, probabilities: Probabilities | None, classes: tuple[str, ...]) -> dict[str, float]:
    """Return every metric that can be computed of some predictions, by name."""
    names = metrics_of("classification" if classes else "regression", with_probabilities=probabilities is not None)
    return {name: score(name, actual, predicted, probabilities) for name in names}


def cross_validate(parts: Split, configuration: Configuration, *, jobs: int = -1) -> Iterator[dict[str, float]]:
    """Yield the scores of each fold, folds x repeats of them, each fold predicted by a model that has not seen it.

    With classes, each fold has about the same share of each; with groups, no group is in two folds.
    """
    for seen, unseen in _folds(parts, configuration):
        estimator = model.fit(configuration, parts.features.iloc[seen], parts.answers.iloc[seen], jobs=jobs)
        yield score_all(estimator, parts.features.iloc[unseen], parts.answers.iloc[unseen], parts.dataset.classes)


def _folds(parts: Split, configuration: Configuration) -> Iterator[tuple[Positions, Positions]]:
    settings, classes = configuration.evaluation, bool(parts.dataset.classes)
    if parts.groups is None:
        kind = RepeatedStratifiedKFold if classes else RepeatedKFold
        yield from kind(n_splits=settings.folds, n_repeats=settings.repeats, random_state=settings.seed).split(parts.features, parts.answers)
        return
    # scikit-learn repeats no cutting by groups.
    for seed in np.random.SeedSequence(settings.seed).generate_state(settings.repeats):
        cut = (StratifiedGroupKFold if classes else GroupKFold)(n_splits=settings.folds, shuffle=True, random_state=int(seed))
        yield from cut.split(parts.features, parts.answers, parts.groups)


def summarize(folds: Sequence[Scores]) -> dict[str, float]:
    """Return mean and sample standard deviation of each score over the folds: `cv_rmse_mean`, `cv_rmse_std` and so on."""
    summary = {}
    for name in folds[0]:
        values = [scores[name] for scores in folds]
        summary[f"cv_{name}_mean"] = float(np.mean(values))
        summary[f"cv_{name}_std"] = float(np.std(values, ddof=1))
    return summary
