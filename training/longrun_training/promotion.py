"""Which version is the champion, who made it so and why, the way back, and what somebody accepted although its gate did not pass."""

import getpass
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from mlflow import MlflowClient
from mlflow.entities import Run, RunTag
from mlflow.entities.model_registry import ModelVersion
from pydantic import ValidationError

from longrun_training import baseline, lookup
from longrun_training.errors import ProblemError
from longrun_training.judgement import EXIT_STATUS, Override, Verdict
from longrun_training.lookup import Place

CHAMPION = "champion"
HISTORY = re.compile(r"longrun\.promotion\.([0-9]{1,9})")
LONGEST_REASON, LONGEST_DAYS = 1000, 365


@dataclass(frozen=True)
class Move:
    """One move of the alias `champion`.

    Attributes:
        at: ISO 8601, UTC.
        who: Who did it.
        why: In their words.
        action: What they did.
        before: The version that was champion; None where there was none.
        after: The version that is now.
    """

    at: str
    who: str
    why: str
    action: Literal["promote", "rollback"]
    before: str | None
    after: str

    def to_json(self) -> str:
        """Return the value of the history's tag."""
        names = {"before": "from", "after": "to"}
        return json.dumps({names.get(name, name): value for name, value in asdict(self).items()}, ensure_ascii=False)


def now() -> str:
    """Return the time as it is stored: ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def default_who() -> str:
    """Return who is asking: the person behind the pipeline, else the login of the server, else the user of this machine."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = "unknown"
    return os.environ.get("GITHUB_ACTOR") or os.environ.get("MLFLOW_TRACKING_USERNAME") or user


def history(tags: Mapping[str, str]) -> list[Move]:
    """Return the moves that a registered model's tags tell of, oldest first; a tag that is no move is passed over."""
    moves = []
    for name, value in tags.items():
        found = HISTORY.fullmatch(name)
        if found is None:
            continue
        try:
            told = json.loads(value)
            move = Move(told["at"], told["who"], told["why"], told["action"], told["from"], told["to"])
        except (ValueError, TypeError, KeyError):
            continue
        moves.append((int(found[1]), move))
    return [move for _, move in sorted(moves, key=lambda numbered: numbered[0])]


def champions(moves: list[Move]) -> list[str]:
    """Return the champions that a rollback can go back to, the present one last: a rollback takes away what it went back over."""
    stack: list[str] = []
    for move in moves:
        if move.action == "rollback" and move.after in stack:
            while stack[-1] != move.after:
                stack.pop()
            continue
        # A champion that was set by hand has no move of its own, but the next move tells of it.
        if move.before and stack[-1:] != [move.before]:
            stack.append(move.before)
        if stack[-1:] != [move.after]:
            stack.append(move.after)
    return stack


def _record(client: MlflowClient, model: str, move: Move) -> None:
    """Move the alias, then add to the history: interrupted between the two, the alias is where it was wanted, as if set by hand."""
    client.set_registered_model_alias(model, CHAMPION, move.after)
    told = move.to_json()
    while True:
        tags = lookup.registered_model(client, model).tags
        number = max((int(found[1]) for name in tags if (found := HISTORY.fullmatch(name))), default=0) + 1
        client.set_registered_model_tag(model, f"longrun.promotion.{number}", told)
        # Two promotions at once may take the same number; the one that lost it takes the next.
        if lookup.registered_model(client, model).tags.get(f"longrun.promotion.{number}") == told:
            return


def _version(place: Place, version: str | None, run: str | None) -> ModelVersion:
    """Return the version that a person named by its number, an alias or its run.

    Raises:
        ProblemError: None is named, or both, or there is none.
    """
    if (version is None) == (run is None):
        message = "name either --version N or --run RUN"
        raise ProblemError(message)
    lookup.registered_model(place.client, place.model)
    if version is not None:
        return lookup.named_version(place.client, place.model, version, "--version")
    made = place.named(str(run), "--run")
    found = lookup.version_of(place.client, place.model, made.info.run_id)
    if found is None:
        message = f"--run {run} made no version of {place.model!r}: a calibration and a sweep's trial are not registered"
        raise ProblemError(message)
    return found


def _newest_that_passed(place: Place, branch: str) -> ModelVersion:
    for run in baseline.passed_on_branch(place, branch):
        found = lookup.version_of(place.client, place.model, run.info.run_id)
        if found is not None:
            return found
    message = f"no version of {place.model!r} has passed its gate on {branch}, so there is none to promote: `longrun gate` judges, `longrun override` accepts"
    raise ProblemError(message)


def _unfit(run: Run, branch: str) -> str | None:
    """Return why a version's run is not one that may become champion; None where it may."""
    tags = run.data.tags
    if run.info.status != lookup.FINISHED:
        return f"its run is {run.info.status}"
    if tags.get(lookup.PULL_REQUEST):
        return f"it comes from pull request {tags[lookup.PULL_REQUEST]}, not from {branch}"
    if tags.get(lookup.BRANCH) != branch:
        return f"it was trained on {tags.get(lookup.BRANCH) or 'no branch'}, not on {branch}"
    return _unproven(tags)


def _unproven(tags: Mapping[str, str]) -> str | None:
    """Return why the gate did not let a run through, or does so no longer."""
    verdict = tags.get(lookup.VERDICT)
    if verdict is None:
        return "no gate has judged it"
    if tags.get(lookup.EXIT_STATUS) != "0":
        return f"its gate said {verdict}"
    accepted = tags.get(lookup.ACCEPTED)
    return f"its gate said {verdict}, and the override of it has expired" if accepted and parse_override(accepted) is None else None


def promote(place: Place, *, branch: str, version: str | None, run: str | None, why: str, who: str) -> Move | ModelVersion:
    """Make a version the champion.

    Args:
        place: Where it is.
        branch: Only a version whose gate passed on this branch may be champion, or one with a valid override.
        version: Its number or an alias.
        run: The run that made it; where both are None, the newest version that passed.
        why: For the history.
        who: For the history.

    Returns:
        What was done; the version itself where it is the champion already, so that nothing was.

    Raises:
        ProblemError: There is no such version, or it may not be champion.
    """
    registered = lookup.registered_model(place.client, place.model)
    chosen = _version(place, version, run) if version or run else _newest_that_passed(place, branch)
    number = str(chosen.version)
    before = registered.aliases.get(CHAMPION)
    if before is not None and str(before) == number:
        return chosen
    if chosen.status != "READY":
        message = f"version {number} of {place.model!r} is {chosen.status}, so it can't be champion: train it again"
        raise ProblemError(message)
    accepted = valid_override(chosen.tags)
    if accepted is None:
        if not chosen.run_id:
            message = f"version {number} of {place.model!r} was not made by a run, so no gate has passed it: `longrun override` accepts it"
            raise ProblemError(message)
        unfit = _unfit(lookup.run_by_id(place.client, chosen.run_id, f"version {number} can't be champion: its run"), branch)
        if unfit:
            message = f"version {number} of {place.model!r} can't be champion: {unfit}: `longrun override --version {number} --reason …` accepts it"
            raise ProblemError(message)
    why = _checked_reason(why or ("" if accepted is None else f"override: {accepted.reason}") or f"its gate passed on {branch}", "--reason")
    move = Move(now(), who, why, "promote", None if before is None else str(before), number)
    _record(place.client, place.model, move)
    return move


def rollback(place: Place, *, why: str, who: str) -> Move:
    """Make the champion before the present one champion again; one that was deleted since is passed over.

    Raises:
        ProblemError: There is none to go back to.
    """
    registered = lookup.registered_model(place.client, place.model)
    present = registered.aliases.get(CHAMPION)
    if present is None:
        message = f"{place.model!r} has no champion, so there is nothing to roll back: `longrun promote` makes the first"
        raise ProblemError(message)
    earlier = champions(history(registered.tags))
    # An alias that was moved by hand is not in the history: then the last that is, is the one before.
    if str(present) in earlier:
        while earlier.pop() != str(present):
            pass
    for number in reversed(earlier):
        if number != str(present) and lookup.version_by_number(place.client, place.model, number) is not None:
            move = Move(now(), who, _checked_reason(why or "rollback", "--reason"), "rollback", str(present), number)
            _record(place.client, place.model, move)
            return move
    message = f"version {present} of {place.model!r} is the first champion that the history knows: `longrun promote --version N` takes another"
    raise ProblemError(message)


def _checked_reason(reason: str, option: str) -> str:
    bare = " ".join(reason.split())
    if not bare or len(bare) > LONGEST_REASON:
        message = f"{option} is {'empty' if not bare else f'{len(bare)} characters long'}: say why in 1 to {LONGEST_REASON} characters"
        raise ProblemError(message)
    return bare


def valid_override(tags: Mapping[str, str]) -> Override | None:
    """Return the override that a version's tags carry, while it lasts; what is no override counts as none."""
    return parse_override(tags.get(lookup.OVERRIDE, ""))


def parse_override(value: str) -> Override | None:
    """Return the override that a tag's value holds, while it lasts."""
    if not value:
        return None
    try:
        found = Override.model_validate_json(value)
        expires = datetime.fromisoformat(found.expires)
    except (ValidationError, ValueError):
        return None
    # A time without a zone is nobody's; UTC is what we write.
    expires = expires if expires.tzinfo else expires.replace(tzinfo=UTC)
    return found if expires > datetime.now(UTC) else None


def standing_overrides(place: Place) -> dict[str, tuple[ModelVersion, Override]]:
    """Return the overrides that last, by the number of their version."""
    marked = place.client.search_model_versions(f"name = {lookup.quoted(place.model)} and tags.`{lookup.OVERRIDE}` LIKE '%'")
    return {str(version.version): (version, found) for version in marked if (found := valid_override(version.tags))}


def override(place: Place, *, version: str | None, run: str | None, reason: str, who: str, days: float) -> tuple[ModelVersion, Override]:
    """Accept a version although its gate did not pass, for some days.

    The verdict stays what it is; only the exit status becomes 0, for this version and for another run of the same commit.

    Args:
        place: Where it is.
        version: Its number or an alias.
        run: The run that made it.
        reason: Why; every report shows it while it lasts.
        who: Who accepts.
        days: How long.

    Raises:
        ProblemError: There is no such version, it needs no override, or no reason is given.
    """
    reason = _checked_reason(reason, "--reason")
    if not 0 < days <= LONGEST_DAYS:
        message = f"--days {days:g}: an override lasts more than 0 and at most {LONGEST_DAYS} days"
        raise ProblemError(message)
    chosen = _version(place, version, run)
    made = lookup.run_by_id(place.client, chosen.run_id, f"version {chosen.version}: its run") if chosen.run_id else None
    if made and made.data.tags.get(lookup.EXIT_STATUS) == "0" and valid_override(chosen.tags) is None:
        message = f"version {chosen.version} of {place.model!r} needs no override: its gate said {made.data.tags.get(lookup.VERDICT)}, with exit status 0"
        raise ProblemError(message)
    since = datetime.now(UTC)
    accepted = Override(reason=reason, who=who, since=since.isoformat(timespec="seconds"), expires=(since + timedelta(days=days)).isoformat(timespec="seconds"))
    place.client.set_model_version_tag(place.model, str(chosen.version), lookup.OVERRIDE, accepted.model_dump_json())
    # A run that was judged already counts as passed from now on: as a baseline, and for `promote`. The verdict stays.
    if made and lookup.VERDICT in made.data.tags:
        marks = {lookup.EXIT_STATUS: "0", lookup.ACCEPTED: accepted.model_dump_json()}
        place.client.log_batch(made.info.run_id, tags=[RunTag(name, value) for name, value in marks.items()])
    return chosen, accepted


def withdraw(place: Place, *, version: str | None, run: str | None) -> ModelVersion:
    """Take an override back: the gate's own verdict counts again.

    Raises:
        ProblemError: There is no such version, or it has no override.
    """
    chosen = _version(place, version, run)
    if lookup.OVERRIDE not in chosen.tags:
        message = f"version {chosen.version} of {place.model!r} has no override to withdraw"
        raise ProblemError(message)
    place.client.delete_model_version_tag(place.model, str(chosen.version), lookup.OVERRIDE)
    made = lookup.run_by_id(place.client, chosen.run_id, f"version {chosen.version}: its run") if chosen.run_id else None
    verdict = made.data.tags.get(lookup.VERDICT) if made else None
    if made and verdict in set(Verdict):
        marks = {lookup.EXIT_STATUS: str(EXIT_STATUS[Verdict(verdict)]), lookup.ACCEPTED: ""}
        place.client.log_batch(made.info.run_id, tags=[RunTag(name, value) for name, value in marks.items()])
    return chosen
