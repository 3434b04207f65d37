"""The pictures of a run, drawn without a display."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from sklearn.calibration import calibration_curve
from sklearn.inspection import permutation_importance
from sklearn.metrics import confusion_matrix, roc_curve

from longrun_training.data import Dataset
from longrun_training.evaluation import Split
from longrun_training.model import Estimator
from longrun_training.scores import Probabilities, score

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DOTS_PER_INCH = 150
BLUE, RED, GREY, DARK = "#2b6cb0", "#c53030", "#718096", "#1a202c"
# Colours that people who see fewer of them can tell apart: Okabe and Ito (2008).
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#f0e442")
# Shuffling a column costs one prediction of all rows: so many times each, fewer where there are many columns, and of so many rows at most.
SHUFFLES, FEWEST_SHUFFLES, ALL_SHUFFLES, SHUFFLED_ROWS = 10, 2, 200, 1000
SHOWN_FEATURES, SHOWN_CHARACTERS, SHOWN_CLASSES = 20, 32, 20
# As many curves as colours and strokes can tell apart.
STROKES: tuple[Any, ...] = ("-", (0, (4, 1.5)))
SHOWN_CURVES = len(PALETTE) * len(STROKES)
# Above this share a cell is too dark for dark digits; with more letters than this below it, the names of classes are turned.
DARK_SHARE, LETTERS_IN_A_ROW = 0.5, 40
# A curve of fewer rows is noise.
ROWS_A_BIN, MOST_BINS = 15, 10
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
        means: How much worse the predictions become when the feature is shuffled, one a feature.
        deviations: Standard deviation over the shuffles, one a feature.
        measure: What `means` is the growth or the fall of, as the axis names it.
        shuffles: How many times each feature was shuffled.
    """

    names: list[str]
    means: list[float]
    deviations: list[float]
    measure: str = "growth of the hold-out RMSE"
    shuffles: int = SHUFFLES


@contextmanager
def styled() -> Iterator[None]:
    """Draw and save with our style; matplotlib reads part of it only when a figure is saved."""
    with mpl.rc_context(STYLE):
        yield


def measure_importance(estimator: Estimator, parts: Split, seed: int) -> Importance:
    """Shuffle each feature of the held-out rows and see how much worse the predictions become.

    Source: Breiman (2001), Random Forests; scikit-learn's permutation_importance.
    """
    if parts.dataset.task == "regression":
        scoring, measure = "neg_root_mean_squared_error", "growth of the hold-out RMSE"
    else:
        scoring, measure = "balanced_accuracy", "fall of the hold-out's balanced accuracy"
    names = list(parts.features.columns)
    shuffles = max(FEWEST_SHUFFLES, min(SHUFFLES, ALL_SHUFFLES // len(names)))
    found = permutation_importance(
        estimator,
        parts.holdout_features,
        parts.holdout_answers,
        scoring=scoring,
        n_repeats=shuffles,
        max_samples=min(SHUFFLED_ROWS, len(parts.holdout_features)),
        random_state=seed,
    )
    return Importance(names, list(found.importances_mean), list(found.importances_std), measure, shuffles)


def _shorten(text: str, characters: int = SHOWN_CHARACTERS) -> str:
    line = " ".join(text.split())
    return line if len(line) <= characters else line[: characters - 1] + "…"


def residuals(actual: ArrayLike, predicted: ArrayLike, dataset: Dataset) -> Figure:
    """Draw actual minus predicted over predicted, one point a held-out row, and beside it how the residuals are spread."""
    truth, guess = np.asarray(actual, dtype=float), np.asarray(predicted, dtype=float)
    finite = np.isfinite(truth) & np.isfinite(guess)
    truth, guess = truth[finite], guess[finite]
    errors = truth - guess
    rmse = score("rmse", truth, guess)
    target = _shorten(dataset.target)
    figure = Figure(figsize=(9, 5), layout="constrained")
    points, spread = figure.subplots(1, 2, sharey=True, width_ratios=[4, 1])
    points.axhspan(-rmse, rmse, color=BLUE, alpha=0.08, linewidth=0, label=f"± RMSE ({rmse:.4g})")
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
    unit = f" ({dataset.unit})" if dataset.unit else ""
    axes.set_xlabel(f"{found.measure} when the feature is shuffled{unit}\nmean and standard deviation of {found.shuffles} shuffles")
    return figure


def confusion(actual: ArrayLike, predicted: ArrayLike, dataset: Dataset) -> Figure:
    """Draw how many held-out rows of each class were predicted as which; the shade is the share of the actual class."""
    counts, names = _counted(actual, predicted, dataset.classes)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = 2.6 + 0.62 * len(names)
    figure = Figure(figsize=(max(5.5, size + 1), max(4.2, size)), layout="constrained")
    axes: Axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(counts.shape):
        if counts[row, column]:
            axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", fontsize=9, color="white" if shares[row, column] > DARK_SHARE else DARK)
    labels = [_shorten(name, 16) for name in names]
    axes.set_xticks(range(len(names)), labels, rotation=45 if max(map(len, labels)) * len(labels) > LETTERS_IN_A_ROW else 0, ha="center")
    axes.set_yticks(range(len(names)), labels)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(f"predicted {_shorten(dataset.target)}")
    axes.set_ylabel(f"actual {_shorten(dataset.target)}")
    axes.set_title(f"Confusion on the hold-out: {_shorten(dataset.name)}\n{int(counts.sum())} rows", fontsize=11)
    figure.colorbar(image, ax=axes, label="share of the actual class", shrink=0.8)
    return figure


def _counted(actual: ArrayLike, predicted: ArrayLike, classes: Sequence[str]) -> tuple[np.ndarray[Any, Any], list[str]]:
    """Return the confusion matrix, and the classes of its rows and columns: the most frequent ones, and all others as one."""
    truth, guess = np.asarray(actual, dtype=object), np.asarray(predicted, dtype=object)
    names = list(classes)
    if len(names) > SHOWN_CLASSES:
        often = sorted(names, key=lambda name: -int((truth == name).sum()))[: SHOWN_CLASSES - 1]
        names, others = [*sorted(often), "(others)"], set(names).difference(often)
        truth, guess = (np.array(["(others)" if value in others else value for value in values], dtype=object) for values in (truth, guess))
    return confusion_matrix(truth, guess, labels=names), names


def probabilities(actual: ArrayLike, given: Probabilities, dataset: Dataset) -> Figure:
    """Draw what the probabilities are worth, for each class against the rest: on the left how well they sort the rows, on the right whether they are true."""
    truth = np.asarray(actual, dtype=object)
    figure = Figure(figsize=(11.5, 5.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_roc(left, truth, given)
    _draw_calibration(right, truth, given)
    count = len(given.classes)
    hidden = f" (the first {SHOWN_CURVES} of {count} classes)" if count > SHOWN_CURVES else ""
    left.set_title(f"ROC on the hold-out: {_shorten(dataset.name)}{hidden}", fontsize=11)
    for axes in (left, right):
        axes.set_aspect("equal")
        axes.legend(loc="lower right", fontsize=8 if count <= len(PALETTE) else 6, framealpha=0.9, edgecolor="none")
    return figure


def _draw_roc(axes: "Axes", truth: "np.ndarray[Any, Any]", given: Probabilities) -> None:
    """Draw the true over the false positive rate at every threshold."""
    for name, values, stroke in _curves(given):
        positive = truth == name
        if not positive.any() or positive.all():
            continue
        false, true, _ = roc_curve(positive, values)
        area = float(np.trapezoid(true, false))
        axes.plot(false, true, **stroke, linewidth=1.8, label=f"{_shorten(name, 20)} (AUC {area:.3f}, {int(positive.sum())} rows)")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":", label="guessing")
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")


def _draw_calibration(axes: "Axes", truth: "np.ndarray[Any, Any]", given: Probabilities) -> None:
    """Draw how often a class is right over the probability that the model gives it: on the diagonal, the model means what it says."""
    rows = len(given.values)
    bins = int(np.clip(rows // ROWS_A_BIN, 2, MOST_BINS))
    for name, values, stroke in _curves(given):
        frequency, mean = calibration_curve(truth == name, np.clip(values, 0, 1), n_bins=bins, strategy="quantile")
        axes.plot(mean, frequency, **stroke, linewidth=1.5, marker="o", markersize=5, label=_shorten(name, 20))
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":", label="as it says")
    axes.set_xlabel("probability that the model gives")
    axes.set_ylabel("share of rows that are of the class")
    axes.set_title(f"Calibration: {rows} rows in at most {bins} equal parts", fontsize=11)


def _curves(given: Probabilities) -> Iterator[tuple[str, np.ndarray[Any, Any], dict[str, Any]]]:
    """Yield the classes that are drawn, with their probabilities and how their line looks: of two classes the second, and no more than can be told apart."""
    names = given.classes
    columns = [1] if len(names) == 2 else list(range(len(names)))[:SHOWN_CURVES]  # noqa: PLR2004 - of two classes, one is the other's mirror
    for position, column in enumerate(columns):
        stroke = {"color": PALETTE[position % len(PALETTE)], "linestyle": STROKES[position // len(PALETTE)]}
        yield names[column], given.values[:, column], stroke
