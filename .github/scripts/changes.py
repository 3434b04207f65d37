"""Says for each job whether a pull request touches what it tests; on every other event, every job has to run.

A workflow with `paths:` would not start at all, and a required check that never starts keeps a pull request waiting for
ever. So the workflow always starts, this decides, and `aggregate.py` knows a job that was left out from one that failed.

CHANGES_FILTERS holds a line for each job: its name, `=`, and git pathspecs.
"""

import os
import subprocess

import runner


def read(text: str) -> dict[str, list[str]]:
    """Return the pathspecs by job."""
    filters: dict[str, list[str]] = {}
    for line in text.splitlines():
        if not line.strip():
            continue
        name, separator, specs = line.partition("=")
        if not separator or not specs.split() or name.strip() in filters:
            runner.fail(f"CHANGES_FILTERS has the line {line.strip()!r}: write `job = path path`, each job once")
        filters[name.strip()] = specs.split()
    if not filters:
        runner.fail("CHANGES_FILTERS is empty: write a line `job = path path` for each job")
    return filters


def _git(*arguments: str) -> str | None:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None


def touched(specs: list[str]) -> bool | None:
    """Say whether the pull request changes a file that a pathspec matches; None where git can't tell.

    What is checked out is the merge that GitHub made; its first parent is the branch to merge into.
    """
    if _git("rev-parse", "--verify", "--quiet", "HEAD^2") is None:
        return None
    changed = _git("diff", "--name-only", "HEAD^1", "HEAD", "--", *specs)
    return None if changed is None else bool(changed.strip())


def main() -> None:
    """Write one output a job, `true` or `false`."""
    filters = read(os.environ.get("CHANGES_FILTERS", ""))
    pull_request = os.environ.get("GITHUB_EVENT_NAME") == "pull_request"
    for name, specs in filters.items():
        found = touched(specs) if pull_request else True
        if found is None:
            runner.warning("git can't tell what this pull request changes, so every job runs (actions/checkout: fetch-depth: 2)")
            found = True
        runner.output(name, str(found).lower())
        print(f"{name}: {'runs' if found else 'left out, for nothing it tests was changed'}")


if __name__ == "__main__":
    main()
