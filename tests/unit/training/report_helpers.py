"""Judgements and trends made by hand: what the reports of the tests are about."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from longrun_training import gate_file
from longrun_training.contents import Contents
from longrun_training.judgement import Comparison, Judgement, Override, Rule, RunReference, Verdict
from longrun_training.trend import Point, Series, Trend
from markdown_it import MarkdownIt

DAY = 24 * 3600 * 1000
# 2026-11-26 06:00 UTC.
JUDGED = 1795672800000
JUDGED_AT = "2026-11-26T06:00:00+00:00"
REPOSITORY = "https://github.com/acme/models"
UNIT = "mg/dL"
# Everything that a branch may be called to hurt somebody.
NASTY = (
    "x|y` [click](https://evil.example/a) ![p](https://evil.example/p.png) @someone #12 acme/models#3 "
    "<img src=x onerror=alert(1)> www.evil.example <!-- longrun: a b -->"
)


def run(number: int, *, version: str | None, **changes: Any) -> RunReference:  # noqa: ANN401 - the fields of what is made
    """A run of the model `diabetes`; its commit and id are made of the number."""
    given = {
        "run_id": f"{number:032x}",
        "url": f"https://mlflow.example/#/experiments/7/runs/{number:032x}",
        "experiment": "diabetes",
        "model": "diabetes",
        "version": version,
        "commit": f"{number:02x}" * 20,
        "branch": "main",
        "finished": JUDGED - 3 * DAY,
    }
    return RunReference(**{**given, **changes})


def comparison(metric: str = "rmse", verdict: Verdict = Verdict.PASS, **changes: Any) -> Comparison:  # noqa: ANN401 - the fields of what is made
    """A comparison on the hold-out, by default one of the RMSE that passes."""
    given: dict[str, Any] = {
        "metric": metric,
        "scope": "hold-out",
        "kind": "hold-out",
        "direction": "lower",
        "baseline": 54.21374,
        "candidate": 54.02113,
        "difference": 0.19261,
        "low": -0.85531,
        "high": 1.21873,
        "margin": 1.0,
        "rows": 89,
        "method": "paired bootstrap",
        "p_value": 0.011,
        "verdict": verdict,
        "reason": "no worse by more than the margin",
    }
    return Comparison(**{**given, **changes})


def judgement(**changes: Any) -> Judgement:  # noqa: ANN401 - the fields of what is made
    """A gate that passed, with everything that a gate can say."""
    given: dict[str, Any] = {
        "model": "diabetes",
        "verdict": Verdict.PASS,
        "exit_status": 0,
        "reason": "RMSE, MAE and R² on the hold-out are no worse than the baseline's, and every rule is kept",
        "judged_at": JUDGED_AT,
        "candidate": run(0xC0, version="43", branch="deeper-trees", pull_request="128", finished=JUDGED - 60_000),
        "baseline": run(0xBA, version="41"),
        "baseline_rule": "ancestor",
        "baseline_distance": 2,
        "reference": run(0x0F, version="12", finished=JUDGED - 200 * DAY),
        "comparisons": (
            comparison(),
            comparison("mae", baseline=43.3912, candidate=43.0421, difference=0.3491, low=-0.4811, high=1.1912, margin=0.8),
            comparison("r2", direction="higher", baseline=0.45121, candidate=0.45533, difference=0.00412, low=-0.01721, high=0.02611, margin=0.02),
            comparison(
                "rmse", scope="cross-validation", kind="cross-validation", rows=15, method="corrected t", baseline=57.1, candidate=56.8, difference=0.3,
                low=-0.6, high=1.2,
            ),
            comparison(scope="women", kind="slice", rows=41, baseline=52.1, candidate=52.6, difference=-0.5, low=-1.9, high=0.9, verdict=Verdict.INCONCLUSIVE,
                       reason="could be worse by more than the margin"),
            comparison(scope="age 60 and above", kind="slice", rows=22, baseline=55.1, candidate=53.9, difference=1.2, low=-0.1, high=2.4),
            comparison(scope="smokers", kind="slice", rows=4, difference=None, low=None, high=None, margin=None, method=None, p_value=None,
                       verdict=Verdict.NOT_JUDGED, reason="4 rows are fewer than the 10 of minimum_rows"),
        ),
        "reference_comparisons": (comparison(baseline=55.0, candidate=54.02113, difference=0.97887, low=-0.3, high=2.3),),
        "rules": (
            Rule(name="floor", metric="rmse", value=54.02113, limit=60.0, direction="lower", unit="", kept=True, reason="54.02 is at most 60"),
            Rule(name="model size", value=1.834, limit=5.0, direction="lower", unit="MB", kept=True, reason="1.834 MB is at most 5 MB"),
            Rule(name="latency", value=3.912, limit=20.0, direction="lower", unit="ms", kept=True, reason="3.912 ms is at most 20 ms"),
        ),
        "missing": ("the baseline has no log_loss",),
    }  # fmt: skip
    return Judgement(**{**given, **changes})


def override() -> Override:
    """Somebody's, for another six days."""
    return Override(reason="the old data were wrong, see the incident", who="ana", since="2026-11-25T09:00:00+00:00", expires="2026-12-02T09:00:00+00:00")


def trend(count: int = 30) -> Trend:
    """So many runs on main, one of which failed, the champion and the reference among them, and the candidate."""
    # Ever better, with some noise, up to the baseline's 54.21.
    values = [54.21374 + 0.11 * (count - 1 - number) + 0.22 * ((7 * number + 3 * (number // 5)) % 5 - 2) * (number < count - 1) for number in range(count)]
    points = [
        Point(f"{number:032x}", str(11 + number), JUDGED - (count - number) * DAY, _metrics(value), Verdict.PASS, accepted=True, holdout="a")
        for number, value in enumerate(values)
    ]
    for number, verdict in ((count // 2, Verdict.FAIL), (count // 3, Verdict.INCONCLUSIVE)):
        worse = _metrics(values[number] + (2.4 if verdict is Verdict.FAIL else 0.9))
        points[number] = replace(points[number], values=worse, verdict=verdict, accepted=False)
    candidate = Point(f"{0xC0:032x}", "43", JUDGED, _metrics(54.02113), Verdict.PASS, accepted=True, holdout="a")
    series = (
        Series("rmse", "holdout_rmse", f"RMSE ({UNIT})", "lower", limit=55.21, low=52.99, high=55.07),
        Series("r2", "holdout_r2", "R²", "higher", limit=0.43, low=0.433, high=0.476),
    )
    return Trend("main", tuple(points), candidate, points[-min(3, count)], points[-1], points[0], series)


def _metrics(rmse: float) -> dict[str, float]:
    return {"holdout_rmse": rmse, "holdout_r2": 1 - (rmse / 73.1) ** 2}


def contents(**changes: Any) -> Contents:  # noqa: ANN401 - the fields of what is made
    """A whole report."""
    given: dict[str, Any] = {"judgement": judgement(), "workflow": "train", "unit": UNIT, "repository": REPOSITORY, "trend": trend()}
    return Contents(**{**given, "stored": "https://mlflow.example/#/report", **changes})


def nasty() -> Judgement:
    """A judgement in which every text that somebody else may choose is meant to hurt."""
    found = judgement()
    return found.model_copy(
        update={
            "reason": NASTY,
            "missing": (f"x {NASTY}", f"- {NASTY}", "# heading", "1. list", "```\nfence"),
            "stale": NASTY,
            "candidate": run(1, version=NASTY, branch=NASTY, pull_request=NASTY, commit=NASTY, url="javascript:alert(1)"),
            "override": Override(reason=NASTY, who=NASTY, since=NASTY, expires=NASTY),
            "comparisons": tuple(comparison(NASTY, scope=NASTY, kind=kind, reason=NASTY, verdict=Verdict.FAIL) for kind in ("hold-out", "slice")),
            "rules": (Rule(name="floor", metric=NASTY, value=1.0, limit=0.0, direction="lower", unit=NASTY, kept=False, reason=NASTY),),
        }
    )


def as_html(text: str) -> str:
    """What a reader of CommonMark with tables makes of it; raw HTML is passed on, as GitHub does."""
    return str(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text))


def text_outside_code(html: str) -> str:
    """The text of a page that GitHub would look for mentions and references in: outside of code, links and tags."""
    bare = re.sub(r"(?s)<(code|a)\b.*?</\1>", "", html)
    return re.sub(r"<[^>]*>", "", bare)


def write(folder: Path, found: Judgement) -> Path:
    """Write a gate.json as the gate does."""
    gate_file.write(found, folder / "gate.json")
    return folder / "gate.json"
