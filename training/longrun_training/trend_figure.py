"""The trend as a picture: one panel a metric, one point a run, the candidate with its interval, and the zone that the gate does not accept."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from types import MappingProxyType
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from longrun_training.judgement import Verdict
from longrun_training.trend import Point, Series, Trend, finite, span
from longrun_training.wording import plain

DOTS_PER_INCH = 150
WIDTH_INCHES, PANEL_INCHES, REST_INCHES = 9.0, 2.6, 1.1
MOST_LABELS, LONGEST_TITLE = 11, 80


@dataclass(frozen=True)
class Palette:
    """Colours for one background."""

    paper: str
    ink: str
    faint: str
    line: str
    passed: str
    failed: str
    unsure: str
    candidate: str
    champion: str


LIGHT = Palette("#ffffff", "#1f2937", "#d1d5db", "#93b4dc", "#2b6cb0", "#c53030", "#b7791f", "#dd6b20", "#d69e2e")
DARK = Palette("#161b22", "#e6edf3", "#3d444d", "#3f6ba3", "#63a4ff", "#ff7b72", "#e3b341", "#f0883e", "#f2cc60")
# Shape as well as colour: nobody needs to tell red from blue.
SHAPES: Mapping[str, tuple[str, str]] = MappingProxyType({"passed": ("o", "passed"), "failed": ("X", "failed"), "unsure": ("^", "inconclusive")})


def style(palette: Palette) -> dict[Any, Any]:
    """Return matplotlib's settings for a palette."""
    return {
        "font.size": 10,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "axes.edgecolor": palette.faint,
        "axes.facecolor": palette.paper,
        "axes.labelcolor": palette.ink,
        "axes.titlecolor": palette.ink,
        "figure.facecolor": palette.paper,
        "grid.color": palette.faint,
        "grid.linewidth": 0.6,
        "legend.labelcolor": palette.ink,
        "text.color": palette.ink,
        "xtick.color": palette.ink,
        "ytick.color": palette.ink,
        # A branch may be called `$x$`, which is no formula.
        "text.parse_math": False,
        "axes.formatter.useoffset": False,
    }


def png(trend: Trend, palette: Palette = LIGHT) -> bytes:
    """Return the picture's file."""
    with mpl.rc_context(style(palette)):
        figure = draw(trend, palette)
        file = BytesIO()
        # Without the date of drawing the same trend is the same file.
        figure.savefig(file, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return file.getvalue()


def _class(point: Point) -> str:
    if point.verdict is Verdict.FAIL and not point.accepted:
        return "failed"
    return "unsure" if point.verdict in {Verdict.INCONCLUSIVE, Verdict.NOT_JUDGED} else "passed"


def draw(trend: Trend, palette: Palette) -> Figure:
    """Draw the trend, a panel a metric."""
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08)
    figure = Figure(figsize=(WIDTH_INCHES, REST_INCHES + PANEL_INCHES * len(trend.series)), layout=layout)
    panels: list[Axes] = list(figure.subplots(len(trend.series), 1, sharex=True, squeeze=False)[:, 0])
    for axes, series in zip(panels, trend.series, strict=True):
        _panel(axes, trend, series, palette)
    _name_runs(panels[-1], trend)
    count = len(trend.points)
    figure.suptitle(
        plain(f"The last {count} judged runs on {trend.branch}" if count > 1 else f"The only judged run on {trend.branch}", LONGEST_TITLE),
        x=0.012, ha="left", fontsize=13, fontweight="bold",
    )  # fmt: skip
    figure.legend(handles=_legend(trend, palette), loc="outside lower left", ncols=6, frameon=False, fontsize=9, handletextpad=0.4, columnspacing=1.4)
    return figure


def _range(trend: Trend, series: Series) -> tuple[float, float]:
    """Return the axis: what was accepted, the candidate and the limit are on it; a failed run far away is not allowed to flatten the rest."""
    key = series.key
    marked = (trend.candidate, trend.baseline, trend.champion, trend.reference)
    points = [*(point for point in trend.points if point.accepted), *(point for point in marked if point is not None)]
    values = [point.values[key] for point in points if key in point.values]
    values = values or [point.values[key] for point in trend.points if key in point.values]
    ends = finite({str(position): end for position, end in enumerate((series.limit, series.low, series.high)) if end is not None})
    low, high = span([*values, *ends.values()])
    others = [point.values[key] for point in trend.points if key in point.values]
    reach = high - low
    near = [value for value in others if low - reach / 2 <= value <= high + reach / 2]
    return span([*values, *ends.values(), *near])


def _panel(axes: Axes, trend: Trend, series: Series, palette: Palette) -> None:
    low, high = _range(trend, series)
    axes.set_ylim(low, high)
    axes.set_title(plain(series.title, LONGEST_TITLE), loc="left")
    axes.set_title(f"{'↑' if series.direction == 'higher' else '↓'} {series.direction} is better", loc="right", fontsize=9, fontweight="normal")
    _draw_limit(axes, series, palette)
    _draw_levels(axes, trend, series, palette)
    _draw_line(axes, trend, series, palette)
    _draw_points(axes, trend, series, palette)
    _draw_marks(axes, trend, series, palette)
    _draw_candidate(axes, trend, series, palette)
    axes.margins(x=0.02)


def _draw_limit(axes: Axes, series: Series, palette: Palette) -> None:
    if series.limit is None:
        return
    low, high = axes.get_ylim()
    away = (series.limit, high) if series.direction == "lower" else (low, series.limit)
    axes.axhspan(*away, color=palette.failed, alpha=0.10, linewidth=0)
    axes.axhline(series.limit, color=palette.failed, linewidth=1, linestyle=(0, (4, 3)))


def _draw_levels(axes: Axes, trend: Trend, series: Series, palette: Palette) -> None:
    """Draw a level line for the baseline, and for a champion or a reference that is older than the runs that are shown."""
    baseline = trend.baseline
    if baseline is not None and series.key in baseline.values:
        axes.axhline(baseline.values[series.key], color=palette.passed, linewidth=1, alpha=0.7)
    for point, name, colour in ((trend.champion, "champion", palette.champion), (trend.reference, "reference", palette.ink)):
        if point is None or point in trend.points or series.key not in point.values or point == trend.candidate:
            continue
        value = point.values[series.key]
        axes.axhline(value, color=colour, linewidth=1, linestyle=":")
        axes.annotate(
            f"{name} {plain(point.label, 12)}, before these", (0, value), xycoords=("axes fraction", "data"), xytext=(4, 3), textcoords="offset points",
            fontsize=8, color=colour,
        )  # fmt: skip


def _draw_line(axes: Axes, trend: Trend, series: Series, palette: Palette) -> None:
    """Join the runs; where the hold-out became another one, the values before can't be compared, so the line is cut there and says so."""
    xs: list[float] = []
    ys: list[float] = []
    before: Point | None = None
    for position, point in enumerate(trend.points):
        if before is not None and point.holdout != before.holdout:
            xs.append(math.nan)
            ys.append(math.nan)
            axes.axvline(position - 0.5, color=palette.ink, linewidth=0.8, linestyle=":", alpha=0.6)
            axes.annotate("other hold-out", (position - 0.5, 1), xycoords=("data", "axes fraction"), xytext=(3, -9), textcoords="offset points", fontsize=8)
        xs.append(position)
        ys.append(point.values.get(series.key, math.nan))
        before = point
    axes.plot(xs, ys, color=palette.line, linewidth=1.5, zorder=2)


def _draw_points(axes: Axes, trend: Trend, series: Series, palette: Palette) -> None:
    """Draw the runs; one that is off the axis sits at its edge, as an arrow with its value."""
    low, high = axes.get_ylim()
    known = [(position, point.values[series.key], _class(point)) for position, point in enumerate(trend.points) if series.key in point.values]
    for kind, (shape, _) in SHAPES.items():
        inside = [(position, value) for position, value, own in known if own == kind and low <= value <= high]
        xs, ys = [position for position, _ in inside], [value for _, value in inside]
        looks: dict[str, Any] = {"markersize": 6.5, "markeredgecolor": palette.paper, "markeredgewidth": 0.8}
        axes.plot(xs, ys, linestyle="none", marker=shape, color=getattr(palette, kind), zorder=4, **looks)
    for position, value, kind in known:
        if not low <= value <= high:
            colour, above = getattr(palette, kind), value > high
            edge = high if above else low
            axes.plot(position, edge, marker="^" if above else "v", color=colour, markersize=8, clip_on=False, zorder=4)
            axes.annotate(f"{value:.4g}", (position, edge), xytext=(7, -9 if above else 3), textcoords="offset points", fontsize=8, color=colour)


def _draw_marks(axes: Axes, trend: Trend, series: Series, palette: Palette) -> None:
    """Mark baseline, reference and champion among the runs."""
    hollow = {"markersize": 13, "markerfacecolor": "none", "zorder": 3}
    marks: list[tuple[Point | None, dict[str, Any]]] = [
        (trend.baseline, {**hollow, "marker": "o", "markeredgecolor": palette.passed, "markeredgewidth": 1.6}),
        (trend.reference, {**hollow, "marker": "D", "markeredgecolor": palette.ink, "markeredgewidth": 1.4}),
        (trend.champion, {"marker": "*", "color": palette.champion, "markersize": 15, "markeredgecolor": palette.ink, "markeredgewidth": 0.8, "zorder": 5}),
    ]
    low, high = axes.get_ylim()
    for point, looks in marks:
        if point is not None and point in trend.points and low <= point.values.get(series.key, math.nan) <= high:
            axes.plot(trend.points.index(point), point.values[series.key], **looks)


def _draw_candidate(axes: Axes, trend: Trend, series: Series, palette: Palette) -> None:
    point, position = trend.candidate, len(trend.points)
    axes.axvline(position - 0.5, color=palette.faint, linewidth=0.8)
    if point is None or series.key not in point.values:
        axes.annotate("no value", (position, 0.5), xycoords=("data", "axes fraction"), ha="center", fontsize=8, color=palette.candidate)
        return
    value = point.values[series.key]
    if series.low is not None and series.high is not None:
        axes.vlines(position, series.low, series.high, color=palette.candidate, linewidth=2.2, zorder=4)
    axes.plot(position, value, marker="D", color=palette.candidate, markersize=9, markeredgecolor=palette.paper, markeredgewidth=1, zorder=6)


def _name_runs(axes: Axes, trend: Trend) -> None:
    """Write version and day below some of the runs, always below the candidate."""
    count = len(trend.points)
    every = max(math.ceil(count / MOST_LABELS), 1)
    # Counted from the newest: the labels keep their distance to the candidate's.
    places = [position for position in range(count) if (count - position) % every == 0 and (every == 1 or count - position > 1)]
    labels = [_label(trend.points[position]) for position in places]
    axes.set_xlim(-0.6, count + 0.9)
    axes.set_xticks([*places, count], [*labels, "this run"])
    axes.get_xticklabels()[-1].set_fontweight("bold")
    axes.tick_params(axis="x", length=3, labelsize=9)


def _label(point: Point) -> str:
    name = f"v{point.label}" if point.label.isdigit() else plain(point.label, 8)
    return name if point.finished is None else f"{name}\n{datetime.fromtimestamp(point.finished / 1000, UTC):%d %b}"


def _legend(trend: Trend, palette: Palette) -> Sequence[Line2D | Patch]:
    """Explain what is in the picture and nothing else."""

    def sign(name: str, marker: str, colour: str, **more: Any) -> Line2D:  # noqa: ANN401 - whatever Line2D takes
        return Line2D([], [], marker=marker, color=colour, linestyle="none", markersize=8, label=name, **more)

    kinds = {_class(point) for point in trend.points}
    entries: list[Line2D | Patch] = [sign(title, shape, getattr(palette, kind)) for kind, (shape, title) in SHAPES.items() if kind in kinds]
    if trend.candidate is not None:
        spread = any(series.low is not None for series in trend.series)
        entries.append(sign("this run, with its interval" if spread else "this run", "D", palette.candidate))
    if trend.baseline is not None:
        ring = 10 if trend.baseline in trend.points else 0
        entries.append(Line2D([], [], marker="o", color=palette.passed, linewidth=1, label="baseline", markersize=ring, markerfacecolor="none"))
    if trend.champion in trend.points:
        entries.append(sign("champion", "*", palette.champion, markeredgecolor=palette.ink))
    if trend.reference in trend.points:
        entries.append(sign("reference", "D", palette.ink, markerfacecolor="none"))
    if any(series.limit is not None for series in trend.series):
        entries.append(Patch(color=palette.failed, alpha=0.25, label="not accepted of this run", linewidth=0))
    return entries
