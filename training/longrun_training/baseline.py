"""Which run a candidate is compared with: not the best there ever was, but the one that its change started from."""

import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from mlflow.entities import LifecycleStage, Run
from mlflow.store.entities import PagedList

from longrun_training import lookup
from longrun_training.config import Configuration
from longrun_training.errors import ProblemError
from longrun_training.lookup import Place
from longrun_training.records import KIND, MODEL

GIT_SECONDS = 20
# Runs are asked for this many at a time, and so many commits at once.
PAGE, AT_ONCE = 50, 8
SHORT = 10
SHALLOW = "; the clone is shallow, so fetch the whole history (actions/checkout: fetch-depth: 0)"

BaselineRule = Literal["merge base", "ancestor", "champion", "named"]


@dataclass(frozen=True)
class Lineage:
    """The commits whose runs may be the baseline.

    Attributes:
        commits: The merge base and its ancestors, first parents only, nearest first; without the candidate's own commit.
        offset: How far the first of them is from the merge base: 1 where the candidate is of the branch itself, else 0.
        notes: What git could not tell, one sentence each.
    """

    commits: tuple[str, ...] = ()
    offset: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Baseline:
    """What a candidate is compared with.

    Attributes:
        run: None where there is no baseline.
        rule: How it was found.
        distance: First-parent commits between the merge base and its commit; None where it is no ancestor.
        notes: What was looked for in vain, one sentence each.
    """

    run: Run | None = None
    rule: BaselineRule | None = None
    distance: int | None = None
    notes: tuple[str, ...] = ()


def _git(*arguments: str) -> str | None:
    """Return what git prints about the current folder's repository; None where it fails."""
    git = shutil.which("git")
    if not git:
        return None
    try:
        done = subprocess.run([git, *arguments], capture_output=True, text=True, errors="replace", timeout=GIT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def lineage(commit: str | None, *, branch: str, limit: int, dirty: bool = False) -> Lineage:
    """Ask git which commits of a branch lie behind a commit.

    Args:
        commit: The candidate's; the checked out one is taken where git does not have it.
        branch: Its remote-tracking branch (`origin/main`) is taken where there is one, else the local one.
        limit: How many ancestors of the merge base are returned.
        dirty: Whether the candidate had changes that are not in its commit: then a run of that commit itself is a fair baseline.
    """
    if _git("rev-parse", "--git-dir") is None:
        return Lineage(notes=("git: this folder is in no git repository, so there is no merge base",))
    notes = []
    tip = next((found for ref in (f"refs/remotes/origin/{branch}", f"refs/heads/{branch}") if (found := _git("rev-parse", "--verify", "--quiet", ref))), None)
    own = _git("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}") if commit else None
    head = own or _git("rev-parse", "--verify", "--quiet", "HEAD")
    if commit and not own:
        notes.append(f"git: the candidate's commit {commit[:SHORT]} is not in this clone, so the checked out commit was taken")
    shallow = (
        "; the clone is shallow, so fetch the whole history (actions/checkout: fetch-depth: 0)"
        if _git("rev-parse", "--is-shallow-repository") == "true"
        else ""
    )
    if tip is None:
        return Lineage(notes=(*notes, f"git: there is neither a branch origin/{branch} nor {branch} here{shallow}"))
    base = _git("merge-base", tip, head) if head else None
    if not base:
        return Lineage(notes=(*notes, f"git: the candidate's commit has no merge base with {branch}{shallow}"))
    listed = (_git("rev-list", "--first-parent", f"--max-count={limit + 1}", base) or "").split()
    # A run of the branch itself is compared with what was there before its commit, not with another run of the same commit.
    offset = 1 if base == own and not dirty else 0
    if shallow and len(listed) <= limit:
        notes.append(f"git: only {len(listed)} commits of {branch} are in this clone{shallow}")
    return Lineage(tuple(listed[offset:]), offset, tuple(notes))


def _filter(tags: dict[str, str]) -> str:
    clauses = [f"attributes.status = '{lookup.FINISHED}'", *(f"tags.`{name}` = {lookup.quoted(value)}" for name, value in tags.items())]
    return " and ".join(clauses)


def _passed(place: Place, branch: str) -> str:
    """Return the filter of the finished runs of a branch whose gate ended with 0.

    A head branch of a fork may be called main too, so the pull request's tag must be missing.
    """
    wanted = _filter({MODEL: place.model, lookup.BRANCH: branch, lookup.EXIT_STATUS: "0"})
    return f"{wanted} and {lookup.WITH_MODEL} and tags.`{lookup.PULL_REQUEST}` IS NULL"


def _is_of(run: Run, place: Place, branch: str) -> bool:
    """Say the rest of the same of a run that is known to be finished and to have passed."""
    tags = run.data.tags
    with_model = tags.get(KIND, lookup.WITHOUT_MODEL[0]) not in lookup.WITHOUT_MODEL
    return with_model and (tags.get(MODEL), tags.get(lookup.BRANCH)) == (place.model, branch) and not tags.get(lookup.PULL_REQUEST)


def _search(place: Place, wanted: str, count: int, token: str | None = None) -> PagedList[Run]:
    return place.client.search_runs([place.experiment.experiment_id], wanted, max_results=count, order_by=["attributes.start_time DESC"], page_token=token)


def passed_on_branch(place: Place, branch: str) -> Iterator[Run]:
    """Yield the finished runs of a branch whose gate ended with 0, newest first; never one of a pull request."""
    token: str | None = None
    while True:
        page = _search(place, _passed(place, branch), PAGE, token)
        yield from page
        token = page.token
        if not token:
            return


def _nearest(place: Place, candidate: Run, commits: tuple[str, ...], branch: str) -> tuple[Run, int] | None:
    """Return the run of the first commit that has one, and the commit's place; of several runs of one commit the newest.

    A run comes with all of its metrics and parameters, so reading a thousand of them takes seconds. The newest ones mostly hold the one that is wanted;
    if not, the server is asked for each commit that is nearer than the best of them, several at once.
    """
    places = {commit: position for position, commit in enumerate(commits)}
    newest = _search(place, _passed(place, branch), PAGE)
    best: tuple[Run, int] | None = None
    for run in newest:
        position = places.get(run.data.tags.get(lookup.COMMIT, ""))
        if position is not None and run.info.run_id != candidate.info.run_id and (best is None or position < best[1]):
            best = (run, position)
    if not newest.token:
        return best

    def of_commit(commit: str) -> Run | None:
        # Each tag in a filter is a look through all tags; the few runs of one commit that passed are quicker looked at here.
        runs = _search(place, _filter({lookup.COMMIT: commit, lookup.EXIT_STATUS: "0"}), PAGE)
        return next((run for run in runs if run.info.run_id != candidate.info.run_id and _is_of(run, place, branch)), None)

    nearer = commits[: best[1]] if best else commits
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for start in range(0, len(nearer), AT_ONCE):
            for position, found in enumerate(pool.map(of_commit, nearer[start : start + AT_ONCE]), start):
                if found is not None:
                    return found, position
    return best


def _refusal(run: Run, candidate: Run) -> str | None:
    """Return why a run that is there can't be the baseline; None where it can."""
    if run.info.run_id == candidate.info.run_id:
        return "it is the candidate itself"
    if run.info.lifecycle_stage != LifecycleStage.ACTIVE:
        return "its run is deleted"
    if run.info.status != lookup.FINISHED:
        return f"its run is {run.info.status}"
    if lookup.same_pull_request(run, candidate):
        return "it comes from the same pull request"
    return None


def _champion(place: Place, candidate: Run) -> tuple[Run | None, str]:
    """Return the champion's run, or None and why it is not taken."""
    version = lookup.alias_of(place.client, place.model, "champion")
    if version is None or not version.run_id:
        return None, "champion: no version of the model has this alias yet"
    try:
        run = lookup.run_by_id(place.client, version.run_id, f"champion: version {version.version} is not taken: its run")
    except ProblemError as error:
        return None, str(error)
    refusal = _refusal(run, candidate)
    if refusal is None and run.data.tags.get(lookup.EXIT_STATUS) != "0" and lookup.OVERRIDE not in version.tags:
        refusal = "its gate did not pass"
    return (run, "") if refusal is None else (None, f"champion: version {version.version} is not taken: {refusal}")


def find(place: Place, configuration: Configuration, candidate: Run) -> Baseline:
    """Find the baseline: the run of the merge base, else of its nearest ancestor that has one, else the champion.

    Args:
        place: Where to look.
        configuration: Its [baseline].
        candidate: Never its own baseline.
    """
    settings, tags = configuration.baseline, candidate.data.tags
    known = lineage(tags.get(lookup.COMMIT), branch=settings.branch, limit=settings.ancestors, dirty=tags.get(lookup.DIRTY) == "true")
    notes = list(known.notes)
    if known.commits:
        nearest = _nearest(place, candidate, known.commits, settings.branch)
        if nearest:
            distance = nearest[1] + known.offset
            return Baseline(nearest[0], "ancestor" if distance else "merge base", distance, tuple(notes))
        first = known.commits[0][:SHORT]
        notes.append(f"ancestors: none of the {len(known.commits)} commits of {settings.branch} from {first} backwards has a finished run that passed")
    elif not notes:
        notes.append(f"ancestors: the candidate's commit is the first of {settings.branch}")
    if not settings.champion:
        return Baseline(notes=tuple(notes))
    run, refused = _champion(place, candidate)
    return Baseline(run, "champion", None, tuple(notes)) if run else Baseline(notes=(*notes, refused))


def named(place: Place, name: str, candidate: Run) -> Baseline:
    """Take the baseline that a person names: a run, a version or an alias; whether it passed is theirs to know.

    Raises:
        ProblemError: There is none, or it can't be compared with.
    """
    run = place.named(name, "--baseline")
    refusal = _refusal(run, candidate)
    if refusal:
        message = f"--baseline {name} can't be the baseline: {refusal}"
        raise ProblemError(message)
    notes = () if run.data.tags.get(lookup.EXIT_STATUS) == "0" else (f"--baseline {name}: no gate has passed it",)
    return Baseline(run, "named", None, notes)


def reference(place: Place, configuration: Configuration, candidate: Run) -> tuple[Run | None, str | None]:
    """Return the pinned reference's run, or None and why there is no comparison with it; both None where none is pinned."""
    pinned = configuration.baseline.reference
    if pinned is None:
        return None, None
    try:
        run = place.named(str(pinned), "[baseline] reference")
    except ProblemError as error:
        return None, str(error)
    refusal = _refusal(run, candidate)
    return (run, None) if refusal is None else (None, f"[baseline] reference {pinned} is not compared: {refusal}")
