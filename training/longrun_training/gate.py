"""The verb `gate`: is the candidate at least as good as what its change started from?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from longrun_training import baseline, comparison, gate_file, last_run, lookup, promotion
from longrun_training.comparison import Compared, Side
from longrun_training.config import Configuration
from longrun_training.errors import OutageError, ProblemError
from longrun_training.judgement import EXIT_STATUS, Comparison, Judgement, Override, Rule, RunReference, StandingOverride, Verdict
from longrun_training.lookup import Place
from longrun_training.scores import METRICS
from longrun_training.server import Server, find_run

CANDIDATE = "candidate"
MEGABYTE, DAY_MILLISECONDS = 1e6, 86_400_000
# What [gate] inconclusive makes of the exit status.
INCONCLUSIVE = {"report": EXIT_STATUS[Verdict.INCONCLUSIVE], "pass": EXIT_STATUS[Verdict.PASS], "fail": EXIT_STATUS[Verdict.FAIL]}


@dataclass(frozen=True)
class _Found:
    """What the candidate was compared with, before anything is said about it."""

    baseline: baseline.Baseline
    against_baseline: Compared
    reference: Run | None
    against_reference: Compared


def gate(configuration: Configuration, *, server: Server, spool: Path, output: Path, candidate: str | None = None, named: str | None = None) -> Judgement:
    """Judge a candidate, write the judgement, and mark the run with it.

    A server that is away, or a run that still waits in the spool, is no error: the judgement is `not judged`, and it is written all the same.

    Args:
        configuration: The model's.
        server: Where the runs are.
        spool: Beside which the last run is noted.
        output: The judgement's file.
        candidate: A run's id or uuid, a version or an alias; the last run of this folder, else the alias `candidate`, where None.
        named: The baseline, likewise; by the rule where None.

    Raises:
        ProblemError: The call is wrong: no such run, no permission, no place for the file.
    """
    place: Place | None = None
    try:
        with server.explaining(f"experiment {configuration.experiment!r}"):
            place = _place(configuration, server, spool, candidate)
            judgement = _judge(place, configuration, _candidate(place, configuration, spool, candidate), named)
    except OutageError as outage:
        judgement = _not_judged(configuration, str(outage))
    gate_file.write(judgement, output)
    if place is None or judgement.candidate is None:
        return judgement
    try:
        with server.explaining(f"experiment {configuration.experiment!r}"):
            gate_file.publish(place.client, judgement)
    except OutageError as outage:
        # The verdict stands; only the run does not know it, so it is no baseline before the gate was asked again.
        judgement = judgement.model_copy(update={"missing": (*judgement.missing, f"the verdict did not reach the server: {outage}")})
        gate_file.write(judgement, output)
    return judgement


def _not_judged(configuration: Configuration, reason: str) -> Judgement:
    verdict = Verdict.NOT_JUDGED
    return Judgement(
        model=configuration.model.name,
        verdict=verdict,
        exit_status=EXIT_STATUS[verdict],
        reason=reason,
        judged_at=promotion.now(),
        candidate=None,
        missing=(reason,),
    )


def place_of(configuration: Configuration, server: Server) -> Place | None:
    """Reach the server and find the experiment; None where there is none yet.

    Raises:
        OutageError: The server is away.
        ProblemError: It refuses.
    """
    experiment = server.preflight(configuration.experiment)
    return Place(MlflowClient(), server, experiment, configuration.model.name) if experiment else None


def _place(configuration: Configuration, server: Server, spool: Path, candidate: str | None) -> Place:
    place = place_of(configuration, server)
    if place is not None:
        return place
    last = _last_run(configuration, server, spool)
    if candidate is None and last is not None:
        _check_spooled(last)
    message = f"there is no experiment {configuration.experiment!r} on {server.address}, so there is no candidate: `longrun train` makes one"
    raise ProblemError(message)


def _last_run(configuration: Configuration, server: Server, spool: Path) -> last_run.LastRun | None:
    """Return the run that this folder made last, where it is one of this model and meant for this server."""
    if not last_run.place(spool).is_file():
        return None
    last = last_run.read(spool)
    wanted = (configuration.experiment, configuration.model.name, server.address)
    return last if (last.experiment, last.model, last.server) == wanted else None


def _check_spooled(last: last_run.LastRun) -> None:
    """Stop where the last run of this folder is not on the server but waits.

    Raises:
        OutageError: It waits.
    """
    if last.spooled is not None:
        message = f"the candidate (uuid {last.uuid}) is not on the server yet but waits in {last.spooled}: `longrun sync` sends it, then `longrun gate` judges"
        raise OutageError(message)


def _candidate(place: Place, configuration: Configuration, spool: Path, name: str | None) -> Run:
    """Return the run that is judged.

    Raises:
        OutageError: It waits in the spool.
        ProblemError: There is none, or it has not ended well.
    """
    if name is not None:
        return _checked(place.named(name, "--candidate"))
    last = _last_run(configuration, place.server, spool)
    if last is not None:
        # A run that was only partly sent is on the server already, but not whole.
        run = find_run(place.client, place.experiment.name, last.uuid)
        if run is None or run.info.status != lookup.FINISHED:
            _check_spooled(last)
        if run is not None:
            return _checked(run)
    version = lookup.alias_of(place.client, place.model, CANDIDATE)
    if version is None or not version.run_id:
        message = f"the model {place.model!r} has no candidate: `longrun train` makes one, or name it with --candidate RUN"
        raise ProblemError(message)
    return _checked(lookup.run_by_id(place.client, version.run_id, "the candidate"))


def _checked(run: Run) -> Run:
    if run.info.status != lookup.FINISHED:
        running = run.info.status in {"RUNNING", "SCHEDULED"}
        message = f"run {run.info.run_id} is {run.info.status}, so there is nothing to judge: {'wait for its end' if running else 'train again'}"
        raise ProblemError(message)
    return run


def _judge(place: Place, configuration: Configuration, candidate: Run, named: str | None) -> Judgement:
    rules = tuple(_rules(configuration, candidate))
    found = _compare(place, configuration, candidate, named)
    verdict, reason = combine(rules, found.against_baseline, found.against_reference, has_baseline=found.baseline.run is not None)
    mine = place.reference(candidate)
    theirs = place.reference(found.baseline.run) if found.baseline.run else None
    standing = promotion.standing_overrides(place)
    accepted = _override(place, mine, standing)
    status = INCONCLUSIVE[configuration.gate.inconclusive] if verdict is Verdict.INCONCLUSIVE else EXIT_STATUS[verdict]
    return Judgement(
        model=place.model,
        verdict=verdict,
        exit_status=0 if accepted else status,
        reason=reason,
        judged_at=promotion.now(),
        candidate=mine,
        baseline=theirs,
        baseline_rule=found.baseline.rule,
        baseline_distance=found.baseline.distance,
        reference=place.reference(found.reference) if found.reference else None,
        comparisons=found.against_baseline.comparisons,
        reference_comparisons=found.against_reference.comparisons,
        rules=rules,
        missing=(*found.baseline.notes, *found.against_baseline.missing, *found.against_reference.missing),
        stale=_stale(theirs, configuration.baseline.stale_days),
        override=accepted if status else None,
        standing_overrides=tuple(StandingOverride(version=number, override=override) for number, (_, override) in standing.items()),
    )


def _compare(place: Place, configuration: Configuration, candidate: Run, named: str | None) -> _Found:
    chosen = baseline.named(place, named, candidate) if named else baseline.find(place, configuration, candidate)
    reference, refused = baseline.reference(place, configuration, candidate)
    if chosen.run and reference and reference.info.run_id == chosen.run.info.run_id:
        # One run is both: it would be compared twice, and with other margins say two things.
        reference, refused = None, "[baseline] reference is the baseline itself, so there is one comparison"
    others = [run for run in (chosen.run, reference) if run]
    mine = comparison.fetch(place.client, candidate) if others else Side(candidate)
    against_baseline, against_reference = Compared(), Compared(missing=(refused,) if refused else ())
    if chosen.run:
        against_baseline = comparison.compare(place.client, mine, _side(place, candidate, chosen.run), configuration)
    if reference:
        factor = configuration.baseline.reference_margin_factor
        against_reference = comparison.compare(place.client, mine, _side(place, candidate, reference), configuration, factor=factor, whose="the reference")
        against_reference = replace(against_reference, missing=tuple(f"reference: {sentence}" for sentence in against_reference.missing))
    return _Found(chosen, against_baseline, reference, against_reference)


def _side(place: Place, candidate: Run, other: Run) -> Side:
    """Get the other run's predictions, unless nothing can be compared anyway."""
    return Side(other) if comparison.incomparable(candidate, other) else comparison.fetch(place.client, other)


def _rules(configuration: Configuration, run: Run) -> list[Rule]:
    """Hold the candidate against the limits that need no baseline; a value that is missing or not finite breaks its rule."""
    metrics, found = run.data.metrics, []
    for name, metric in configuration.metrics.items():
        if metric.floor is not None:
            key, kind = f"holdout_{name}", METRICS[name]
            unit = (configuration.data.unit or "") if kind.in_unit else ""
            rule = Rule(name="floor", metric=name, value=None, limit=metric.floor, direction=kind.direction, unit=unit, kept=False, reason=key)
            found.append(_held(rule, metrics.get(key), key in metrics))
    limits = (
        ("model size", "model_size_bytes", configuration.gate.model_size_mb, "MB", MEGABYTE),
        ("latency", "latency_ms", configuration.gate.latency_ms, "ms", 1.0),
    )
    for name, key, limit, unit, divisor in limits:
        if limit is not None:
            rule = Rule.model_validate({"name": name, "value": None, "limit": limit, "direction": "lower", "unit": unit, "kept": False, "reason": key})
            logged = metrics.get(key)
            found.append(_held(rule, None if logged is None else logged / divisor, key in metrics))
    return found


def _held(rule: Rule, value: float | None, logged: bool) -> Rule:  # noqa: FBT001 - it says why there is no value
    measured = comparison.finite(value)
    if measured is None:
        return rule.model_copy(update={"reason": f"{rule.reason} is not a finite number" if logged else f"{rule.reason} is missing"})
    kept = measured >= rule.limit if rule.direction == "higher" else measured <= rule.limit
    wanted = "at least" if rule.direction == "higher" else "at most"
    said = f"{number(measured)}{_unit(rule.unit)}; accepted is {wanted} {number(rule.limit)}{_unit(rule.unit)}"
    return rule.model_copy(update={"value": measured, "kept": kept, "reason": said})


def _unit(unit: str) -> str:
    return f" {unit}" if unit else ""


def number(value: float) -> str:
    """Return a number as sentences have it: four digits that mean something."""
    return f"{value:.4g}"


def combine(rules: Sequence[Rule], against_baseline: Compared, against_reference: Compared, *, has_baseline: bool) -> tuple[Verdict, str]:
    """Return the verdict over everything, and the sentence that says what decided.

    A broken rule or a comparison that fails, on any rows and with either run, fails. That nothing got worse has to be shown on the hold-out as a whole;
    slices and cross-validation can fail a candidate, but are not asked to prove anything: with their few rows they mostly could not.
    """
    broken = [rule for rule in rules if not rule.kept]
    compared = [("the baseline", found) for found in against_baseline.comparisons] + [("the reference", found) for found in against_reference.comparisons]
    failed = [(whose, found) for whose, found in compared if found.verdict is Verdict.FAIL]
    decisive = [(whose, found) for whose, found in compared if found.kind == "hold-out" and found.verdict is not Verdict.NOT_JUDGED]
    open_ones = [(whose, found) for whose, found in decisive if found.verdict is Verdict.INCONCLUSIVE]
    if broken or failed:
        reasons = [f"{rule.name}{f' of {rule.metric}' if rule.metric else ''}: {rule.reason}" for rule in broken]
        reasons += [_sentence(whose, found) for whose, found in failed]
        return Verdict.FAIL, _listed(reasons)
    floors = "; every rule is kept" if rules else ""
    if not has_baseline and not open_ones:
        return Verdict.NO_BASELINE, f"there is no run to compare with yet{floors}"
    if open_ones:
        return Verdict.INCONCLUSIVE, _listed([_sentence(whose, found) for whose, found in open_ones])
    # Only the baseline's comparisons can pass a candidate that has a baseline: the reference is a second opinion.
    proven = [found for whose, found in decisive if whose == "the baseline"]
    if not proven:
        return Verdict.NOT_JUDGED, _why_not(against_baseline)
    names = ", ".join(found.metric for found in proven)
    return Verdict.PASS, f"{names}: no worse than the baseline by more than the margin{floors}"


def _why_not(against: Compared) -> str:
    if any(found.kind == "hold-out" and found.margin is None and found.difference is not None for found in against.comparisons):
        return "no metric that could be compared has a margin: `longrun gate --calibrate` proposes them"
    reasons = list(against.missing) or [f"{found.metric}: {found.reason}" for found in against.comparisons]
    return _listed(reasons) if reasons else "the two have no metric in common"


def _sentence(whose: str, found: Comparison) -> str:
    where = {"hold-out": "on the hold-out", "cross-validation": "in the cross-validation", "slice": f"on the slice {found.scope}"}[found.kind]
    if found.difference is None:
        return f"{found.metric} {where}: {found.reason}"
    bounds = f" ({number(found.low)} to {number(found.high)})" if found.low is not None and found.high is not None else ""
    return f"{found.metric} {where} against {whose}: {found.reason}: difference {number(found.difference)}{bounds}, margin {number(found.margin or 0.0)}"


def _listed(sentences: Sequence[str]) -> str:
    """Return the first sentence and how many more there are: one line stays one line."""
    more = len(sentences) - 1
    return sentences[0] + (f"; and {more} more" if more else "")


def _override(place: Place, candidate: RunReference, standing: dict[str, tuple[ModelVersion, Override]]) -> Override | None:
    """Return the override that counts for a candidate: of its own version, or of another run of the same commit.

    A job that is run again trains a new version; what was accepted is the change.
    """
    if candidate.version in standing:
        return standing[candidate.version][1]
    if candidate.commit is None:
        return None
    for version, override in standing.values():
        if version.run_id:
            tags = place.client.get_run(version.run_id).data.tags
            if tags.get(lookup.COMMIT) == candidate.commit and tags.get(lookup.DIRTY) != "true":
                return override
    return None


def _stale(theirs: RunReference | None, days: float) -> str | None:
    if theirs is None or theirs.finished is None:
        return None
    age = (datetime.now(UTC).timestamp() * 1000 - theirs.finished) / DAY_MILLISECONDS
    return f"the baseline is {int(age)} days old; [baseline] stale_days is {days:g}" if age > days else None
