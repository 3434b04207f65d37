"""The picture of a sweep: every trial's metric, from the best to the worst, and over each of the swept parameters."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from longrun_training.config import Parameter
from longrun_training.data import Dataset
from longrun_training.figures import BLUE, GREY, RED
from longrun_training.scores import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN_PARAMETERS, SHOWN_CHARACTERS, SHOWN_TICKS = 3, 16, 12
# With more trials than this, their spreads would be one grey area.
SPREADS = 60
# Longer labels are turned.
WIDE = 4


@dataclass(frozen=True)
class Point:
    """One trial.

    Attributes:
        number: Its number.
        parameters: The swept ones.
        value: The metric's mean over the folds.
        spread: Its standard deviation over the folds.
        best: Whether it was chosen.
    """

    number: int
    parameters: Mapping[str, Parameter]
    value: float
    spread: float
    best: bool


def draw(points: Sequence[Point], metric: str, dataset: Dataset) -> Figure:
    """Draw the trials: on the left all of them sorted, on the right the metric over each parameter that has several values.

    Args:
        points: At least one, of which one is the best.
        metric: A key of METRICS.
        dataset: For its name and unit.
    """
    kind = METRICS[metric]
    shown = sorted((point for point in points if math.isfinite(point.value)), key=lambda point: point.value, reverse=kind.direction == "higher")
    names = [name for name in points[0].parameters if len({repr(point.parameters[name]) for point in points}) > 1][:SHOWN_PARAMETERS]
    figure = Figure(figsize=(5.5 + 2.8 * len(names), 4.6), layout="constrained")
    panels = figure.subplots(1, 1 + len(names), sharey=True, squeeze=False, width_ratios=[2.0, *([1.0] * len(names))])[0]
    _draw_sorted(panels[0], shown, "lower right" if kind.direction == "lower" else "lower left")
    unit = f"{dataset.unit}, " if kind.in_unit and dataset.unit else ""
    panels[0].set_ylabel(f"cross-validation {kind.title}\n({unit}{kind.direction} is better)")
    panels[0].set_title(f"Sweep: {dataset.name}, {len(shown)} trials")
    for axes, name in zip(panels[1:], names, strict=True):
        _draw_parameter(axes, shown, name)
    return figure


def _draw_sorted(axes: "Axes", shown: Sequence[Point], corner: Literal["lower left", "lower right"]) -> None:
    ranks = list(range(1, len(shown) + 1))
    if len(shown) <= SPREADS:
        axes.errorbar(ranks, [p.value for p in shown], yerr=[p.spread for p in shown], fmt="none", ecolor=GREY, alpha=0.5, label="± 1 deviation of the folds")
    axes.scatter(ranks, [p.value for p in shown], s=22, color=BLUE, edgecolor="white", linewidth=0.5, zorder=3)
    rank, best = next((rank, p) for rank, p in zip(ranks, shown, strict=True) if p.best)
    axes.scatter([rank], [best.value], s=90, marker="*", color=RED, zorder=4, label=f"best: trial {best.number}, {best.value:.4g}")
    axes.set_xlabel("rank")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc=corner, fontsize=9, framealpha=0.9, edgecolor="none")


def _draw_parameter(axes: "Axes", shown: Sequence[Point], name: str) -> None:
    values = sorted({repr(p.parameters[name]): p.parameters[name] for p in shown}.items(), key=lambda item: _order(item[1]))
    places = {text: place for place, (text, _) in enumerate(values)}
    axes.scatter([places[repr(p.parameters[name])] for p in shown], [p.value for p in shown], s=18, color=BLUE, alpha=0.5, linewidth=0)
    axes.scatter([places[repr(p.parameters[name])] for p in shown if p.best], [p.value for p in shown if p.best], s=90, marker="*", color=RED, zorder=4)
    every = max(1, math.ceil(len(values) / SHOWN_TICKS))
    labels = [_shorten(str(value)) for _, value in values][::every]
    turned = max(map(len, labels)) > WIDE
    axes.set_xticks(range(0, len(values), every), labels, rotation=45 if turned else 0, ha="right" if turned else "center")
    axes.set_xlim(-0.5, len(values) - 0.5)
    axes.set_xlabel(_shorten(name, 2 * SHOWN_CHARACTERS))


def _order(value: Parameter) -> tuple[bool, float, str]:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return not number, float(value) if number else 0.0, str(value)  # type: ignore[arg-type]


def _shorten(text: str, characters: int = SHOWN_CHARACTERS) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "…"
