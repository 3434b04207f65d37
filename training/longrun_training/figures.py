"""The pictures of a run, drawn without a display."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance

from longrun_training.data import Dataset
from longrun_training.evaluation import Split, score

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DOTS_PER_INCH = 150
BLUE, RED, GREY, DARK = "#2b6cb0", "#c53030", "#718096", "#1a202c"
# Shuffling a column costs one prediction of all rows: so many times each, and of so many rows at most.
SHUFFLES, SHUFFLED_ROWS = 10, 1000
SHOWN_FEATURES, SHOWN_CHARACTERS = 20, 32
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "grid.color": "#e2e8f0",
    # A column may be called `price_$`, which is no formula.
    "text.parse_math": False,
    "savefig.dpi": DOTS_PER_INCH,
}


@dataclass(frozen=True)
class Importance:
    """How much each feature matters on the hold-out.

    Attributes:
        names: The features.
        means: How much the RMSE grows when the feature is shuffled, in the target's unit, one a feature.
        deviations: Standard deviation over the shuffles, one a feature.
    """

    names: list[str]
    means: list[float]
    deviations: list[float]


@contextmanager
def styled() -> Iterator[None]:
    """Draw and save with our style; matplotlib reads part of it only when a figure is saved."""
    with mpl.rc_context(STYLE):
        yield


def measure_importance(forest: RandomForestRegressor, parts: Split, seed: int) -> Importance:
    """Shuffle each feature of the held-out rows and see how much worse the predictions become.

    Source: Breiman (2001), Random Forests; scikit-learn's permutation_importance.
    """
    found = permutation_importance(
        forest,
        parts.holdout_features,
        parts.holdout_answers,
        scoring="neg_root_mean_squared_error",
        n_repeats=SHUFFLES,
        max_samples=min(SHUFFLED_ROWS, len(parts.holdout_features)),
        random_state=seed,
    )
    return Importance(list(parts.features.columns), list(found.importances_mean), list(found.importances_std))


def _shorten(text: str, characters: int = SHOWN_CHARACTERS) -> str:
    line = " ".join(text.split())
    return line if len(line) <= characters else line[: characters - 1] + "…"


def residuals(actual: ArrayLike, predicted: ArrayLike, dataset: Dataset) -> Figure:
    """Draw actual minus predicted over predicted, one point a held-out row, and beside it how the residuals are spread."""
    truth, guess = np.asarray(actual, dtype=float), np.asarray(predicted, dtype=float)
    errors = truth - guess
    scores = score(truth, guess)
    target = _shorten(dataset.target)
    figure = Figure(figsize=(9, 5), layout="constrained")
    points, spread = figure.subplots(1, 2, sharey=True, width_ratios=[4, 1])
    points.axhspan(-scores["rmse"], scores["rmse"], color=BLUE, alpha=0.08, linewidth=0, label=f"± RMSE ({scores['rmse']:.4g})")
    points.axhline(0, color=RED, linewidth=1.2, label="perfect prediction")
    points.scatter(guess, errors, s=26, color=BLUE, alpha=0.65, edgecolor="white", linewidth=0.5)
    points.set_title(f"Residuals on the hold-out: {_shorten(dataset.name)}")
    points.set_xlabel(f"predicted {target} ({dataset.unit})")
    points.set_ylabel(f"actual − predicted {target} ({dataset.unit})")
    points.legend(loc="best", frameon=True, framealpha=0.9, edgecolor="none", fontsize=9)
    spread.hist(errors, bins="auto" if len(errors) > 1 else 1, orientation="horizontal", color=BLUE, alpha=0.65, edgecolor="white")
    spread.axhline(0, color=RED, linewidth=1.2)
    spread.set_xlabel("rows")
    spread.set_title(f"{len(errors)} rows", fontweight="normal", fontsize=10)
    return figure


def importance(found: Importance, dataset: Dataset) -> Figure:
    """Draw a bar for each of the features that matter most, with its deviation over the shuffles."""
    order = np.argsort(found.means)[::-1][:SHOWN_FEATURES][::-1]
    means = np.array(found.means)[order]
    figure = Figure(figsize=(9, 1.6 + 0.36 * len(order)), layout="constrained")
    axes: Axes = figure.subplots()
    axes.barh(
        [f"{position}" for position in range(len(order))],
        means,
        xerr=np.array(found.deviations)[order],
        color=[BLUE if mean > 0 else GREY for mean in means],
        alpha=0.8,
        error_kw={"ecolor": DARK, "capsize": 3, "elinewidth": 1},
    )
    axes.set_yticks(range(len(order)), [_shorten(found.names[index]) for index in order])
    axes.axvline(0, color=GREY, linewidth=1)
    axes.grid(visible=False, axis="y")
    hidden = len(found.names) - len(order)
    axes.set_title(f"What the model relies on: {_shorten(dataset.name)}" + (f" (the first {len(order)} of {len(found.names)} features)" if hidden else ""))
    axes.set_xlabel(f"growth of the hold-out RMSE when the feature is shuffled ({dataset.unit})\nmean and standard deviation of {SHUFFLES} shuffles")
    return figure
