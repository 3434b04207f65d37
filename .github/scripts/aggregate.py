"""Decides for all jobs together; this is the one check that branch protection has to require.

A job that `changes` left out is fine; one that was skipped for any other reason, failed or was cancelled is not. NEEDS
holds the `needs` context as JSON: the job `changes`, and every job that it decides about.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

import runner

DECIDER = "changes"


def judge(needs: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[bool, str]]:
    """Return for each job whether it lets the check pass, and why."""
    decided = needs.get(DECIDER, {}).get("outputs") or {}
    judged = {}
    for name, job in needs.items():
        result = str(job.get("result"))
        if result == "success":
            judged[name] = (True, "passed")
        elif result == "skipped" and name != DECIDER and decided.get(name) == "false":
            judged[name] = (True, "left out: nothing it tests was changed")
        else:
            judged[name] = (False, "skipped, though it had to run" if result == "skipped" else result)
    return judged


def main() -> None:
    """Show every job, and fail where one of them does not pass."""
    needs = json.loads(os.environ.get("NEEDS") or "{}")
    if set(needs) <= {DECIDER}:
        runner.fail("NEEDS names no job but the one that decides: give it `toJSON(needs)`")
    judged = judge(needs)
    lines = [f"| {name} | {'✓' if passed else '✗'} {why} |" for name, (passed, why) in judged.items()]
    runner.summary("\n".join(["| job | |", "| --- | --- |", *lines]))
    for name, (passed, why) in judged.items():
        print(f"{'✓' if passed else '✗'} {name}: {why}")
    failed = [name for name, (passed, _) in judged.items() if not passed]
    if failed:
        runner.fail(f"not every job passed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
