"""Shows what `make plan` printed in the job's summary, and gives its digest to the job that applies it: `plan.py FILE`."""

import re
import sys
from pathlib import Path

import runner

DIGEST = re.compile(r"plan: ([0-9a-f]{64})")
# The rest of GitHub's 1 MiB is for the lines around it.
SHOWN = 900_000


def digest(printed: str) -> str:
    """Return the digest, which stands on the last line."""
    lines = printed.rstrip().splitlines()
    found = DIGEST.fullmatch(lines[-1].strip()) if lines else None
    if found is None:
        runner.fail("`make plan` did not end with the line `plan: <digest>`, so there is nothing that could be approved")
    return found[1]


def fenced(printed: str) -> str:
    """Return text as a Markdown block that nothing in it can end."""
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall(r"`+", printed)), 3)
    return f"{fence}text\n{printed}\n{fence}"


def main() -> None:
    """Write the output `digest` and the summary."""
    printed = Path(sys.argv[1]).read_text(encoding="utf-8", errors="replace")
    found = digest(printed)
    runner.output("digest", found)
    cut = printed if len(printed) <= SHOWN else f"{printed[:SHOWN]}\n… cut here; the whole plan is in the log"
    approval = "Approving the job `apply` does this and nothing else: it makes its own plan, and ends where that is another."
    runner.summary(f"## What will be done\n\n{fenced(cut)}\n\n{approval}\n")


if __name__ == "__main__":
    main()
