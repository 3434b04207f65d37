"""The model: a random forest, its settings, and how MLflow stores it."""

from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestRegressor

# skops loads no type that it was not told of; these are the ones of a forest that we made ourselves.
TRUSTED_TYPES = ["sklearn.tree._tree.Tree"]
# What a server of this model has to install.
SERVING_PACKAGES = ("mlflow", "numpy", "pandas", "scikit-learn", "skops")


@dataclass(frozen=True)
class Settings:
    """What decides, together with the data, how the model turns out.

    Attributes:
        estimators: Number of trees.
        max_depth: Levels of each tree at most; without a bound, the model of a large table would be gigabytes.
        folds: Parts that the training rows are cut into for cross-validation.
        repeats: How often the cutting is done anew.
        seed: Of every random choice.
    """

    estimators: int
    max_depth: int
    folds: int
    repeats: int
    seed: int


def fit(settings: Settings, features: pd.DataFrame, answers: "pd.Series[float]") -> RandomForestRegressor:
    """Return a forest fitted on rows x features and one answer a row; the same arguments give the same forest."""
    forest = RandomForestRegressor(n_estimators=settings.estimators, max_depth=settings.max_depth, random_state=settings.seed, n_jobs=-1)
    forest.fit(features, answers)
    # Trees fit in any order are the same trees, but predictions summed in any order differ in the last digit.
    forest.n_jobs = None
    return forest


def predict(forest: RandomForestRegressor, features: pd.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return one prediction a row, in the target's unit."""
    predictions: np.ndarray[tuple[int], np.dtype[np.float64]] = forest.predict(features)
    return predictions


def requirements() -> list[str]:
    """Return the pinned packages that serve the model, as pip reads them."""
    return [f"{package}=={version(package)}" for package in SERVING_PACKAGES]
