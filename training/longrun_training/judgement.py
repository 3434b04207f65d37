"""What the gate found, as one object that the gate writes (`gate.json`) and the report, the promotion and the workflows read."""

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict

from longrun_training.config import Direction


class Verdict(StrEnum):
    """How a candidate did. The exit status of `longrun gate` is EXIT_STATUS[verdict]."""

    PASS = "pass"  # noqa: S105 - a verdict
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    NOT_JUDGED = "not judged"
    NO_BASELINE = "no baseline"


EXIT_STATUS = {Verdict.PASS: 0, Verdict.FAIL: 1, Verdict.INCONCLUSIVE: 2, Verdict.NOT_JUDGED: 3, Verdict.NO_BASELINE: 0}


class _Record(BaseModel):
    """Read strictly, never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RunReference(_Record):
    """A run that was compared, with what a reader needs to find it again.

    Attributes:
        finished: Milliseconds since 1970, UTC.
    """

    run_id: str
    url: str
    experiment: str
    model: str
    version: str | None = None
    commit: str | None = None
    branch: str | None = None
    pull_request: str | None = None
    finished: int | None = None


class Comparison(_Record):
    """One metric on one set of rows, candidate against baseline.

    Attributes:
        scope: `hold-out`, `cross-validation`, or the name of a slice.
        kind: Which of the three it is.
        baseline: The baseline's value of the metric, as measured (not oriented); None where undefined (see reason).
        candidate: The candidate's.
        difference: Candidate minus baseline, oriented: above 0 is better. In the metric's unit.
        low: Lower bound of the difference's interval, after Holm's correction.
        high: Upper bound.
        margin: How far below 0 is accepted; None: shown, not judged.
        rows: Hold-out rows (or folds) compared.
        groups: Groups resampled, where a group column is named.
        method: `paired bootstrap`, `McNemar`, `McNemar, exact`, `corrected t`.
        p_value: Of "no worse than the margin", Holm-corrected; None where not judged.
        verdict: pass, fail, inconclusive or not judged.
        reason: One clause a person can read.
    """

    metric: str
    scope: str
    kind: Literal["hold-out", "cross-validation", "slice"]
    direction: Direction
    baseline: float | None
    candidate: float | None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    margin: float | None = None
    rows: int
    groups: int | None = None
    method: str | None = None
    p_value: float | None = None
    verdict: Verdict
    reason: str


class Rule(_Record):
    """A limit of its own, without a baseline: a metric's floor, the model's size, the latency of a prediction.

    Attributes:
        name: `floor`, `model size` or `latency`.
        metric: Of a floor; None else.
        value: What was measured; None where it is missing or not finite, which breaks the rule.
        limit: What is accepted.
        direction: `lower`: value must be at most the limit; `higher`: at least.
        unit: Of both; empty where it has none.
    """

    name: Literal["floor", "model size", "latency"]
    metric: str | None = None
    value: float | None
    limit: float
    direction: Direction
    unit: str = ""
    kept: bool
    reason: str


class Override(_Record):
    """Somebody accepted a failing gate on purpose, for a while. Times are ISO 8601, UTC."""

    reason: str
    who: str
    since: str
    expires: str


class StandingOverride(_Record):
    """An override that lasts, of whichever version of the model: every report shows it."""

    version: str
    override: Override


class Judgement(_Record):
    """The whole result of one gate.

    Attributes:
        format: Of this object; another number is not read.
        verdict: Of the gate by itself; an override does not change it.
        exit_status: What `longrun gate` ended with: verdict, [gate] inconclusive, and a valid override (0) taken together.
        reason: One sentence: what decided.
        judged_at: ISO 8601, UTC.
        candidate: None only where the run is spooled.
        baseline_rule: How the baseline was found: `merge base`, `ancestor`, `champion`, or None.
        baseline_distance: First-parent commits between the merge base and the baseline's commit; None where not an ancestor.
        comparisons: Against the baseline.
        reference_comparisons: Against the pinned reference.
        missing: What could not be compared, one sentence each.
        stale: Why the baseline is stale; None where it is not.
        override: The one that makes this candidate's exit status 0; None where there is none.
        standing_overrides: All that last, of any version of the model.
    """

    format: Literal[1] = 1
    model: str
    verdict: Verdict
    exit_status: int
    reason: str
    judged_at: str
    candidate: RunReference | None
    baseline: RunReference | None = None
    baseline_rule: Literal["merge base", "ancestor", "champion", "named"] | None = None
    baseline_distance: int | None = None
    reference: RunReference | None = None
    comparisons: tuple[Comparison, ...] = ()
    reference_comparisons: tuple[Comparison, ...] = ()
    rules: tuple[Rule, ...] = ()
    missing: tuple[str, ...] = ()
    stale: str | None = None
    override: Override | None = None
    standing_overrides: tuple[StandingOverride, ...] = ()
