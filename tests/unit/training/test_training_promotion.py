"""Promote, rollback and override, as commands against a real MLflow server."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from longrun_training import promotion
from longrun_training.judgement import Override
from longrun_training.promotion import Move, champions

from tests.unit.training.gate_helpers import Bench

Longrun = Callable[..., Any]


@pytest.fixture
def bench(server: str, request: pytest.FixtureRequest) -> Bench:
    """A model of the test's own, which the longrun.toml of the current folder names."""
    name = request.node.name.removeprefix("test_")
    Path("longrun.toml").write_text(f'[model]\nname = "{name}"\n', encoding="utf-8")
    return Bench.open(server, name)


def moves(bench: Bench) -> list[Move]:
    """Return the history."""
    return promotion.history(bench.client.get_registered_model(bench.place.model).tags)


def test_promote_and_roll_back(bench: Bench, longrun: Longrun, monkeypatch: pytest.MonkeyPatch) -> None:
    """The alias moves, who and why stay, and one command each leads back, step by step."""
    monkeypatch.setenv("GITHUB_ACTOR", "ada")
    one, two, three = (bench.run(None, exit_status=0) for _ in range(3))
    first = longrun("promote", "--version", bench.version(one), "--reason", "the first")
    assert (first.status, first.stdout) == (0, "")
    assert "champion of promote_and_roll_back: none → version 1" in first.stderr
    assert "by ada: the first" in first.stderr
    assert longrun("promote", "--run", two.data.tags["longrun.uuid"], "--who", "bob").status == 0
    # Without a name it is the newest that passed.
    done = json.loads(longrun("promote", "--json").stdout)
    assert done["champion"] == bench.version(three) == bench.champion()
    assert done["moved"]["before"] == bench.version(two)
    again = longrun("promote", "--json")
    assert (again.status, json.loads(again.stdout)["moved"]) == (0, None)
    told = bench.client.get_registered_model(bench.place.model).tags
    assert json.loads(told["longrun.promotion.2"]) | {"at": ""} == {
        "at": "", "who": "bob", "why": "its gate passed on main", "action": "promote", "from": "1", "to": "2",
    }  # fmt: skip

    assert longrun("rollback", "--reason", "wrong in the north").status == 0
    assert bench.champion() == "2"
    assert longrun("rollback").status == 0
    assert bench.champion() == "1"
    end = longrun("rollback")
    assert end.status == 4
    assert "version 1 of 'promote_and_roll_back' is the first champion that the history knows" in end.error
    assert [(move.action, move.before, move.after) for move in moves(bench)] == [
        ("promote", None, "1"), ("promote", "1", "2"), ("promote", "2", "3"), ("rollback", "3", "2"), ("rollback", "2", "1"),
    ]  # fmt: skip
    assert moves(bench)[3].why == "wrong in the north"
    # After a way back, the next way forward begins a new history.
    assert longrun("promote", "--version", "3").status == 0
    assert longrun("rollback").status == 0
    assert bench.champion() == "1"


def test_rollback_over_what_is_gone(bench: Bench, longrun: Longrun) -> None:
    """A version that was deleted is passed over, and one that was set by hand leads back to the history's last."""
    for run in [bench.run(None, exit_status=0) for _ in range(4)][:3]:
        assert longrun("promote", "--run", run.info.run_id).status == 0
    bench.client.delete_model_version(bench.place.model, "2")
    bench.client.set_registered_model_alias(bench.place.model, "champion", "4")
    assert longrun("rollback").status == 0
    assert bench.champion() == "3"
    assert longrun("rollback").status == 0
    assert bench.champion() == "1"


def test_the_history_that_a_rollback_walks() -> None:
    """Pure history: what was rolled back over is no way back, and a champion set by hand between two moves is one."""

    def move(action: Any, before: str | None, after: str) -> Move:  # noqa: ANN401 - one of two words
        return Move("", "", "", action, before, after)

    assert champions([]) == []
    assert champions([move("promote", None, "1"), move("promote", "1", "2"), move("rollback", "2", "1")]) == ["1"]
    assert champions([move("promote", None, "1"), move("promote", "7", "2")]) == ["1", "7", "2"]
    assert champions([move("rollback", "9", "4"), move("promote", "4", "5")]) == ["9", "4", "5"]


def test_only_what_passed_on_main_is_promoted(bench: Bench, longrun: Longrun) -> None:
    """A pull request's version, one that failed, one that nobody judged: each is refused, and the alias stays."""
    nothing = longrun("promote")
    assert nothing.status == 4
    assert "has passed its gate on main, so there is none to promote" in nothing.error
    refused = {
        "it comes from pull request 7, not from main": {"pull_request": "7", "exit_status": 0},
        "it was trained on feature, not on main": {"branch": "feature", "exit_status": 0},
        "no gate has judged it": {},
        "its gate said fail": {"exit_status": 1, "verdict": "fail"},
        "its gate said inconclusive": {"exit_status": 2, "verdict": "inconclusive"},
        "its gate said not judged": {"exit_status": 3, "verdict": "not judged"},
        "its run is KILLED": {"exit_status": 0, "status": "KILLED"},
    }
    for reason, arguments in refused.items():
        done = longrun("promote", "--version", bench.version(bench.run(None, **arguments)))  # type: ignore[arg-type]
        assert (done.status, done.stdout) == (4, "")
        assert f"can't be champion: {reason}" in done.error
    assert bench.champion() is None
    assert moves(bench) == []


def test_an_override_accepts(bench: Bench, longrun: Longrun) -> None:
    """It changes the exit status and not the verdict, lets the version through while it lasts, and can be taken back."""
    run = bench.run(None, exit_status=1, verdict="fail")
    version = bench.version(run)
    done = longrun("override", "--version", version, "--reason", "known,\nfixed  next week", "--days", "7", "--who", "ada")
    assert (done.status, done.stdout) == (0, "")
    tags = bench.client.get_model_version(bench.place.model, version).tags
    accepted = Override.model_validate_json(tags["longrun.override"])
    assert (accepted.reason, accepted.who) == ("known, fixed next week", "ada")
    lasting = datetime.fromisoformat(accepted.expires) - datetime.fromisoformat(accepted.since)
    assert (lasting, datetime.fromisoformat(accepted.since).utcoffset()) == (timedelta(days=7), timedelta(0))
    assert bench.tags(run)["longrun.gate.exit_status"] == "0"
    assert bench.tags(run)["longrun.gate.verdict"] == "fail"
    assert longrun("promote", "--version", version).status == 0
    assert moves(bench)[0].why == "override: known, fixed next week"

    back = longrun("override", "--version", version, "--withdraw", "--json")
    assert json.loads(back.stdout) == {"model": bench.place.model, "version": version, "override": None}
    assert "longrun.override" not in bench.client.get_model_version(bench.place.model, version).tags
    assert bench.tags(run)["longrun.gate.exit_status"] == "1"
    assert "no override to withdraw" in longrun("override", "--version", version, "--withdraw").error


def test_an_override_ends(bench: Bench, longrun: Longrun) -> None:
    """An expired one, and a tag that is none, let nobody through; nor does the run that another version's override let through."""
    past = (datetime.now(UTC) - timedelta(seconds=5)).isoformat()
    expired = Override(reason="was fine", who="ada", since=past, expires=past).model_dump_json()
    for value in (expired, "yes", "{}", expired.replace(past, "tomorrow")):
        run = bench.run(None, exit_status=0, verdict="fail", tags={"longrun.gate.override": value})
        version = bench.version(run)
        bench.client.set_model_version_tag(bench.place.model, version, "longrun.override", value)
        done = longrun("promote", "--version", version)
        assert done.status == 4
        assert "its gate said fail, and the override of it has expired" in done.error
    assert promotion.standing_overrides(bench.place) == {}
    assert bench.champion() is None


def test_wrong_calls(bench: Bench, longrun: Longrun) -> None:
    """One line each, status 4, and nothing changes."""
    version = bench.version(bench.run(None, exit_status=0))
    wrong = {
        ("promote", "--version", "99"): "has no version 99",
        ("promote", "--version", "gold"): "has no alias 'gold'",
        ("promote", "--version", "1", "--run", "f" * 32): "name either --version N or --run RUN",
        ("promote", "--run", "f" * 32): "is not on the server",
        ("promote", "--version", version, "--reason", "x" * 1001): "--reason is 1001 characters long",
        ("rollback",): "has no champion, so there is nothing to roll back",
        ("override", "--version", version): "an override needs a reason",
        ("override", "--version", version, "--reason", "  "): "--reason is empty",
        ("override", "--version", version, "--reason", "why", "--days", "0"): "--days 0",
        ("override", "--version", version, "--reason", "why", "--days", "366"): "at most 365 days",
        ("override", "--version", version, "--reason", "why", "--days", "nan"): "--days nan",
        ("override", "--version", version, "--reason", "why"): "needs no override: its gate said pass",
        ("override", "--reason", "why"): "name either --version N or --run RUN",
        ("override", "--version", version, "--withdraw", "--reason", "why"): "--withdraw takes no --reason",
    }
    for arguments, fault in wrong.items():
        done = longrun(*arguments)
        assert (done.status, done.stdout) == (4, ""), arguments
        assert fault in done.error, arguments
    unregistered = bench.run(None, register=False, tags={"longrun.kind": "calibration"})
    assert "made no version" in longrun("promote", "--run", unregistered.info.run_id).error
    assert (bench.champion(), moves(bench)) == (None, [])
    assert "longrun.override" not in bench.client.get_model_version(bench.place.model, version).tags


def test_where_the_server_is_away(longrun: Longrun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Status 3 and one line, for each of the three."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    for arguments in (("promote",), ("rollback",), ("override", "--version", "1", "--reason", "why")):
        done = longrun(*arguments)
        assert (done.status, done.stdout) == (3, "")
        assert "can't be reached (connection refused)" in done.error


def test_a_model_that_is_not_there(server: str, longrun: Longrun) -> None:
    """A wrong name in longrun.toml is a person's mistake."""
    Path("longrun.toml").write_text('[model]\nname = "no-such-model"\n', encoding="utf-8")
    for arguments in (("promote",), ("rollback",), ("override", "--version", "1", "--reason", "why")):
        done = longrun(*arguments)
        assert done.status == 4
        assert f"there is no experiment 'no-such-model' on {server}" in done.error
