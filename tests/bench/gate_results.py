"""What the gate's benchmark says: the table on the screen, the page, the numbers and the picture."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from longrun_training.figures import PALETTE, styled
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

LOSSES = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
MOST_FALSE_ALARMS, LEAST_POWER = 0.05, 0.95
# An upper bound below 0, whatever the margin: the part of a fail that doesn't depend on it.
WORSE = "called worse"
RATES = ("pass", "fail", "inconclusive", WORSE)


@dataclass(frozen=True)
class Rate:
    """So many of so many, with Wilson's 95 % interval."""

    hits: int
    of: int

    @property
    def value(self) -> float:
        return self.hits / self.of

    @property
    def text(self) -> str:
        low, high = self.interval
        return f"{100 * self.value:.1f} % ({100 * low:.1f}–{100 * high:.1f})"

    @cached_property
    def interval(self) -> tuple[float, float]:
        found = binomtest(self.hits, self.of).proportion_ci(method="wilson")
        return max(float(found.low), 0.0), min(float(found.high), 1.0)


@dataclass(frozen=True)
class Outcome:
    """One row of the results.

    Attributes:
        name: Of the scenario.
        margins: Metric -> proposed margin, the median over the calibrations.
        relative: Metric -> two margins over what the model has learnt (its distance from a constant answer), the median.
        tight: Share of the calibrations that called every margin tight.
        rates: Loss in margins -> verdict -> rate.
    """

    name: str
    margins: Mapping[str, float]
    relative: Mapping[str, float]
    tight: float
    rates: Mapping[float, Mapping[str, Rate]]

    @property
    def false_alarms(self) -> Rate:
        return self.rates[0.0]["fail"]

    @property
    def power(self) -> Rate:
        return self.rates[2.0]["fail"]


def _mark(*, kept: bool) -> str:
    return "✓" if kept else "✗"


def _cells(outcome: Outcome) -> list[str]:
    equal, worse = outcome.rates[0.0], outcome.rates[2.0]
    return [
        f"{equal['fail'].text} {_mark(kept=outcome.false_alarms.value <= MOST_FALSE_ALARMS)}",
        equal[WORSE].text,
        equal["pass"].text,
        equal["inconclusive"].text,
        f"{worse['fail'].text} {_mark(kept=outcome.power.value >= LEAST_POWER)}",
        worse["inconclusive"].text,
        worse["pass"].text,
    ]


HEADINGS = ("scenario", "equal: fail", "called worse", "pass", "inconclusive", "2 margins: fail", "inconclusive", "pass")


def _short(rate: Rate, mark: str = "") -> str:
    low, high = rate.interval
    return f"{100 * rate.value:.1f}{mark}\n[dim]{100 * low:.0f}–{100 * high:.0f}[/]"


def show(outcomes: Sequence[Outcome]) -> None:
    """Print the table, in % and with each interval below its rate, so that it fits 80 columns."""
    alarms, power = f"≤ {100 * MOST_FALSE_ALARMS:.0f}", f"≥ {100 * LEAST_POWER:.0f}"
    table = Table(title="Equal models, and a true loss of 2 margins: % of the pairs", box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("scenario", no_wrap=True)
    for heading in (f"equal:\nfail\n[dim]{alarms}[/]", "equal:\ncalled\nworse", "equal:\npass", f"worse:\nfail\n[dim]{power}[/]", "worse:\npass"):
        table.add_column(heading, justify="right", no_wrap=True)
    for outcome in outcomes:
        equal, worse = outcome.rates[0.0], outcome.rates[2.0]
        table.add_row(
            outcome.name,
            _short(equal["fail"], f" {_mark(kept=outcome.false_alarms.value <= MOST_FALSE_ALARMS)}"),
            _short(equal[WORSE]),
            _short(equal["pass"]),
            _short(worse["fail"], f" {_mark(kept=outcome.power.value >= LEAST_POWER)}"),
            _short(worse["pass"]),
        )
    Console().print(table)


def _to_json(outcomes: Sequence[Outcome], pairs: int) -> dict[str, object]:
    return {
        "pairs": pairs,
        "aims": {"false_alarms_at_most": MOST_FALSE_ALARMS, "power_at_least": LEAST_POWER},
        "scenarios": [
            {
                "name": outcome.name,
                "margins": dict(outcome.margins),
                "two_margins_over_learnt": {name: round(value, 4) for name, value in outcome.relative.items()},
                "tight_share": outcome.tight,
                "false_alarm_rate": outcome.false_alarms.value,
                "power_at_two_margins": outcome.power.value,
                "by_loss_in_margins": {
                    f"{loss:g}": {
                        verdict: {"rate": rate.value, "low": round(rate.interval[0], 5), "high": round(rate.interval[1], 5), "hits": rate.hits, "of": rate.of}
                        for verdict, rate in found.items()
                    }
                    for loss, found in outcome.rates.items()
                },
            }
            for outcome in outcomes
        ],
    }


def _aim(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    for row, outcome in enumerate(outcomes):
        # One below the other, as power and passes are often the same.
        shown = ((outcome.false_alarms, PALETTE[1], 0.0), (outcome.power, PALETTE[0], -0.13), (outcome.rates[0.0]["pass"], PALETTE[2], 0.13))
        for rate, colour, shift in shown:
            low, high = rate.interval
            errors = [[100 * max(rate.value - low, 0)], [100 * max(high - rate.value, 0)]]
            axes.errorbar(100 * rate.value, row + shift, xerr=errors, fmt="o", markersize=4, color=colour, capsize=2)
    axes.axvline(100 * MOST_FALSE_ALARMS, color=PALETTE[1], linestyle="--", linewidth=1)
    axes.axvline(100 * LEAST_POWER, color=PALETTE[0], linestyle="--", linewidth=1)
    handles = [
        axes.plot([], [], "o", color=PALETTE[1], label="equal models that fail (dashed: aim, at most 5 %)")[0],
        axes.plot([], [], "o", color=PALETTE[0], label="losses of 2 margins that fail (dashed: aim, at least 95 %)")[0],
        axes.plot([], [], "o", color=PALETTE[2], label="equal models that pass")[0],
    ]
    axes.set_yticks(range(len(outcomes)), [outcome.name for outcome in outcomes])
    axes.invert_yaxis()
    axes.set(xlim=(-2, 102), xlabel="share of the pairs in %, with Wilson's 95 % interval", title="Against the aims")
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.14), frameon=False, fontsize=9)


def _curve(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    for place, outcome in enumerate(outcomes):
        rates = [outcome.rates[loss]["fail"] for loss in LOSSES]
        line = ("-", "--", ":")[place // len(PALETTE)]
        axes.plot(LOSSES, [100 * rate.value for rate in rates], line, marker="o", markersize=4, color=PALETTE[place % len(PALETTE)], label=outcome.name)
        axes.fill_between(
            LOSSES, [100 * rate.interval[0] for rate in rates], [100 * rate.interval[1] for rate in rates], color=PALETTE[place % len(PALETTE)], alpha=0.08
        )
    axes.axhline(100 * MOST_FALSE_ALARMS, color="black", linestyle="--", linewidth=0.8)
    axes.axhline(100 * LEAST_POWER, color="black", linestyle="--", linewidth=0.8)
    axes.axvline(2, color="black", linestyle=":", linewidth=0.8)
    axes.set(xlabel="true loss in margins", ylabel="fail verdicts in %", ylim=(-2, 102), title="Power")
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.08), frameon=True, framealpha=0.9, edgecolor="none", fontsize=9)


def draw(outcomes: Sequence[Outcome]) -> Figure:
    """Draw the rates against the aims, and the share of fail verdicts over the true loss."""
    with styled():
        figure = Figure(figsize=(14, 6), layout="constrained")
        left, right = figure.subplots(1, 2)
        _aim(left, outcomes)
        _curve(right, outcomes)
    return figure


def _margins_table(outcomes: Sequence[Outcome]) -> str:
    rows = ["| scenario | proposed margins | two margins, of what was learnt | calibrations that called them tight |", "|---|---|---|--:|"]
    for outcome in outcomes:
        margins = ", ".join(f"{name} {margin:.2g}" for name, margin in outcome.margins.items())
        relative = ", ".join(f"{name} {100 * share:.0f} %" for name, share in outcome.relative.items())
        rows.append(f"| {outcome.name} | {margins} | {relative} | {100 * outcome.tight:.0f} % |")
    return "\n".join(rows)


def _missed(outcomes: Sequence[Outcome]) -> str:
    names = [outcome.name for outcome in outcomes if outcome.power.value < LEAST_POWER]
    if not names:
        return ""
    return f"""
✗ {"; ".join(names)}: there the rows are too few for a loss smaller than all that the model has learnt. A proposed margin is held at half of that at most,
so the power is what so few rows give. The calibration says so, and how many rows would do.
"""


def page(outcomes: Sequence[Outcome], *, pairs: int, seconds: float) -> str:
    """Return the page as Markdown."""
    table = ["| " + " | ".join(HEADINGS) + " |", "|---|" + "--:|" * (len(HEADINGS) - 1)]
    table += [f"| {outcome.name} | " + " | ".join(_cells(outcome)) + " |" for outcome in outcomes]
    lines = "\n".join(table)
    return f"""# How far the gate can be trusted

Made by `make bench-gate`: {pairs} pairs of models for each scenario at no loss and at a loss of two margins ({seconds / 60:.1f} minutes).
Aims: equal models fail in at most {100 * MOST_FALSE_ALARMS:.0f} % of the pairs, a true loss of two margins in at least {100 * LEAST_POWER:.0f} %.
In brackets: Wilson's 95 % interval.

![Rates against the aims, and power over the true loss](gate.png)

{lines}
{_missed(outcomes)}
"Called worse": an upper bound lies below 0, whatever the margin. By Holm's correction that is wrong in at most 2.5 % of the equal pairs, or in 5 % where
cross-validation is judged as well (it is a family of its own). A fail asks for a measured loss of a margin besides, so it is rarer still.

## The margins

They are what `longrun gate --calibrate` proposes (`margins.py` says how), from five trainings in each of ten worlds; the table has the medians.
"What was learnt" is the distance between the model and the best constant answer. Where two margins are a large part of it, the hold-out is too small for a
tight margin, and the calibration says so; the power is then bought by a wide margin.

{_margins_table(outcomes)}

## What was simulated

- Ridge and logistic regressions, fitted to random parts (80 %) of one training set, as trainings with other seeds are. A fitted model's true loss depends only
  on how far its coefficients are from the true ones; the candidate's are moved so that it is exactly as good as the baseline, or worse by so many margins.
  With several metrics, the loss is that of the metric that loses most in margins; the others lose less.
- Hold-out rows are new in each pair, the margins are not: they come from a calibration on other rows of the same kind.
- Every pair goes through the gate's own comparison (bootstrap with 2,000 draws, McNemar and Tango, corrected t, Holm) and its verdict; only the server is
  left out.
- "The folds alone" is what the verdict would be without the hold-out, with the same margins.
- Equal models here are equal, but not the same: their predictions differ as much as those of two trainings do, or more. A change that leaves the
  predictions as they were passes always.

What this does not show: data that isn't like the simulated (heavy tails, a hold-out unlike what comes later), or a loss in a few rows only (that is what
slices are for).
"""


def write(outcomes: Sequence[Outcome], folder: Path, *, pairs: int, seconds: float) -> None:
    """Write gate.md, gate.json and gate.png."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gate.md").write_text(page(outcomes, pairs=pairs, seconds=seconds), encoding="utf-8")
    (folder / "gate.json").write_text(json.dumps(_to_json(outcomes, pairs), indent=2) + "\n", encoding="utf-8")
    draw(outcomes).savefig(folder / "gate.png")
