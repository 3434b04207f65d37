"""Ends a training job as its gate did: with the gate's exit status, unless the caller accepts that verdict.

GATE_STATUS is the exit status of `longrun gate`, ACCEPT the verdicts that may pass besides `pass` and `no baseline`,
GATE_FILE the judgement, MODE `server` or `local`.
"""

import json
import os
from pathlib import Path

import runner

UNDECIDED = {2: "inconclusive", 3: "not judged"}
WRONG = 4


def accepted(text: str) -> set[str]:
    """Read ACCEPT: verdicts with commas between them."""
    verdicts = {part.strip() for part in text.split(",") if part.strip()}
    if unknown := verdicts - set(UNDECIDED.values()):
        runner.fail(f"accept: {', '.join(sorted(unknown))} can't be accepted; write `inconclusive`, `not judged`, both with a comma, or nothing", WRONG)
    return verdicts


def reason(path: Path) -> tuple[str, str]:
    """Return verdict and reason of the judgement; empty where the gate left none."""
    try:
        judgement = json.loads(path.read_text(encoding="utf-8"))
        return str(judgement["verdict"]), str(judgement["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", ""


def main() -> None:
    """Give the step the output `verdict`, and end it with the status that the check shall have."""
    accept = accepted(os.environ.get("ACCEPT", ""))
    text = os.environ.get("GATE_STATUS", "")
    if not text.isdigit():
        runner.fail("the gate did not run, so nothing is known of this model: see the steps before")
    status = int(text)
    verdict, why = reason(Path(os.environ.get("GATE_FILE", "")))
    runner.output("verdict", verdict)
    said = f"{verdict or 'the gate ended without a verdict'}{f': {why}' if why else ''} (exit status {status})"
    if status == 0:
        print(said)
    elif status in UNDECIDED and (UNDECIDED[status] in accept or os.environ.get("MODE") == "local"):
        runner.warning(f"{said}; accepted")
    else:
        runner.fail(said, status)


if __name__ == "__main__":
    main()
