"""Everything that a report says, before it is Markdown or HTML."""

from dataclasses import dataclass

from longrun_training.judgement import Judgement
from longrun_training.trend import Trend


@dataclass(frozen=True)
class Contents:
    """One report.

    Attributes:
        judgement: What the gate found.
        workflow: Who asked for it: the name of the CI workflow, `local` outside of one.
        unit: The target's; None where nobody knows it.
        repository: Address of the repository's pages, for links to commits; None outside of CI.
        trend: The runs of the main branch; None where they are not known.
        no_trend: Why there is no trend, one sentence; None where there is one.
        stored: Address of the whole report on the server; None where it is not there.
    """

    judgement: Judgement
    workflow: str = "local"
    unit: str | None = None
    repository: str | None = None
    trend: Trend | None = None
    no_trend: str | None = None
    stored: str | None = None
