"""Which run becomes the baseline: against real git repositories and a real MLflow server."""

from pathlib import Path

import pytest
from longrun_training import baseline
from longrun_training.baseline import lineage
from longrun_training.errors import ProblemError

from tests.unit.training.gate_helpers import Bench, Repository, configuration


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A repository that is the current folder."""
    made = Repository(tmp_path / "repository")
    monkeypatch.chdir(made.folder)
    return made


def test_lineage_of_a_pull_request(repository: Repository) -> None:
    """The merge base is where the branch left main, not where main is now."""
    first, second = repository.commit(), repository.commit()
    repository.branch("feature")
    own = repository.commit()
    repository.go("main")
    repository.commit()
    assert lineage(own, branch="main", limit=10) == baseline.Lineage((second, first))
    assert lineage(own, branch="main", limit=0).commits == (second,)


def test_lineage_of_the_branch_itself(repository: Repository) -> None:
    """A commit of main is compared with what was before it; with uncommitted changes, the commit itself is what was before."""
    first, second = repository.commit(), repository.commit()
    assert lineage(second, branch="main", limit=10) == baseline.Lineage((first,), 1)
    assert lineage(second, branch="main", limit=10, dirty=True) == baseline.Lineage((second, first))
    assert lineage(first, branch="main", limit=10) == baseline.Lineage((), 1)


def test_lineage_follows_first_parents(repository: Repository) -> None:
    """A commit of a pull request that was merged is no state that main was in."""
    first = repository.commit()
    repository.branch("merged")
    inner = repository.commit()
    repository.go("main")
    repository.git("merge", "--quiet", "--no-ff", "--no-edit", "merged")
    merge = repository.git("rev-parse", "HEAD")
    repository.branch("feature")
    found = lineage(repository.commit(), branch="main", limit=10)
    assert found.commits == (merge, first)
    assert inner not in found.commits


def test_lineage_prefers_the_remote_branch(repository: Repository) -> None:
    """CI has a fresh origin/main, and a laptop a main of last month."""
    first, second = repository.commit(), repository.commit()
    repository.git("update-ref", "refs/remotes/origin/main", second)
    repository.branch("feature")
    own = repository.commit()
    repository.git("branch", "--force", "main", first)
    assert lineage(own, branch="main", limit=10).commits == (second, first)


def test_lineage_says_what_git_lacks(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without history there is no guess but a note that says what to do."""
    repository.commit()
    last = repository.commit()
    # As actions/checkout leaves it by default: one commit, and no other branch.
    repository.git("clone", "--quiet", "--depth", "1", f"file://{repository.folder}", str(tmp_path / "shallow"))
    monkeypatch.chdir(tmp_path / "shallow")
    found = lineage(last, branch="main", limit=10)
    assert found.commits == ()
    assert found.notes == (
        "git: only 1 commits of main are in this clone; the clone is shallow, so fetch the whole history (actions/checkout: fetch-depth: 0)",
    )
    assert "neither a branch origin/release nor release here; the clone is shallow" in lineage(last, branch="release", limit=10).notes[0]
    monkeypatch.chdir(repository.folder)
    unknown = lineage("a" * 40, branch="main", limit=10)
    assert unknown.notes == ("git: the candidate's commit aaaaaaaaaa is not in this clone, so the checked out commit was taken",)
    # The checked out commit is not the candidate's, so its own run is as good a baseline as any.
    assert unknown.commits[0] == last
    repository.git("checkout", "--quiet", "--orphan", "other")
    assert "has no merge base with main" in lineage(repository.commit(), branch="main", limit=10).notes[0]
    monkeypatch.chdir(tmp_path)
    assert lineage(last, branch="main", limit=10).notes == ("git: this folder is in no git repository, so there is no merge base",)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert lineage(last, branch="main", limit=10).commits == ()


@pytest.fixture
def bench(server: str, request: pytest.FixtureRequest) -> Bench:
    """A model of the test's own."""
    return Bench.open(server, f"baseline-{request.node.name}")


@pytest.fixture
def history(repository: Repository) -> list[str]:
    """Four commits of main, and as the fifth one of the branch that left main at the third."""
    commits = [repository.commit() for _ in range(4)]
    repository.branch("feature", commits[2])
    return [*commits, repository.commit()]


def test_the_merge_base_wins(bench: Bench, history: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the best run, nor the newest: the one that the change started from. Of several runs of its commit the newest."""
    settings = configuration(bench.place.model)
    one, two, three, four, own = history
    candidate = bench.run(None, commit=own, branch="feature", pull_request="7")
    nothing = baseline.find(bench.place, settings, candidate)
    assert (nothing.run, nothing.rule, nothing.distance) == (None, None, None)
    assert nothing.notes == (
        f"ancestors: none of the 3 commits of main from {three[:10]} backwards has a finished run that passed",
        "champion: no version of the model has this alias yet",
    )
    oldest = bench.run(None, commit=one, exit_status=0, verdict="no baseline", metrics={"holdout_rmse": 0.1}, register=False)
    bench.run(None, commit=four, exit_status=0, register=False)
    found = baseline.find(bench.place, settings, candidate)
    assert found.run is not None
    assert (found.run.info.run_id, found.rule, found.distance, found.notes) == (oldest.info.run_id, "ancestor", 2, ())
    # The best of a sweep is a model like any other.
    nearer = bench.run(None, commit=two, exit_status=0, tags={"longrun.kind": "sweep"}, register=False)
    found = baseline.find(bench.place, settings, candidate)
    assert found.run is not None
    assert (found.run.info.run_id, found.distance) == (nearer.info.run_id, 1)
    # With more runs than one answer holds, of which the newest are of no ancestor, it is found all the same.
    monkeypatch.setattr(baseline, "PAGE", 2)
    for _ in range(2):
        bench.run(None, commit="e" * 40, exit_status=0, register=False)
    found = baseline.find(bench.place, settings, candidate)
    assert found.run is not None
    assert (found.run.info.run_id, found.rule, found.distance) == (nearer.info.run_id, "ancestor", 1)
    bench.run(None, commit=three, exit_status=0, pull_request="8", register=False)
    bench.run(None, commit=three, exit_status=0, register=False)
    again = bench.run(None, commit=three, exit_status=0, register=False)
    for page in (2, 50):
        monkeypatch.setattr(baseline, "PAGE", page)
        found = baseline.find(bench.place, settings, candidate)
        assert found.run is not None
        assert (found.run.info.run_id, found.rule, found.distance) == (again.info.run_id, "merge base", 0)
    assert len(list(baseline.passed_on_branch(bench.place, "main"))) == 7


def test_runs_that_are_no_baseline(bench: Bench, history: list[str]) -> None:
    """Failed, killed, running, never judged, judged otherwise, of a pull request, of another branch or model, a calibration, a trial, deleted: none of them."""
    commit = history[2]
    for status in ("FAILED", "KILLED", "RUNNING"):
        bench.run(None, commit=commit, exit_status=0, status=status, register=False)
    for exit_status in (None, 1, 2, 3):
        bench.run(None, commit=commit, exit_status=exit_status, verdict="fail", register=False)
    # A fork's branch may be called main as well.
    bench.run(None, commit=commit, exit_status=0, pull_request="8", register=False)
    bench.run(None, commit=commit, exit_status=0, branch="feature", register=False)
    for kind in ("calibration", "trial"):
        bench.run(None, commit=commit, exit_status=0, tags={"longrun.kind": kind}, register=False)
    bench.run(None, commit=commit, exit_status=0, tags={"longrun.model": "another"}, register=False)
    bench.run(None, commit=None, exit_status=0, register=False)
    deleted = bench.run(None, commit=commit, exit_status=0, register=False)
    bench.client.delete_run(deleted.info.run_id)
    # The candidate itself passed before, of changes that were not committed: it is judged once more.
    candidate = bench.run(None, commit=commit, exit_status=0, tags={"longrun.git_dirty": "true"})
    assert baseline.find(bench.place, configuration(bench.place.model), candidate).run is None


def test_the_champion_is_next(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an ancestor's run the champion is the baseline, unless it may not be one."""
    monkeypatch.chdir(tmp_path)
    settings = configuration(bench.place.model)
    candidate = bench.run(None, commit="c" * 40, branch="feature", pull_request="7", exit_status=0)
    refused = {
        bench.version(candidate): "it is the candidate itself",
        bench.version(bench.run(None, exit_status=0, branch="feature", pull_request="7")): "it comes from the same pull request",
        bench.version(bench.run(None, exit_status=1)): "its gate did not pass",
        bench.version(bench.run(None, exit_status=0, status="KILLED")): "its run is KILLED",
    }
    for version, reason in refused.items():
        bench.client.set_registered_model_alias(bench.place.model, "champion", version)
        found = baseline.find(bench.place, settings, candidate)
        assert found.run is None
        assert found.notes[-1] == f"champion: version {version} is not taken: {reason}"
    # Pull request 7 of another repository is another one.
    good = bench.run(None, exit_status=0, branch="feature", pull_request="7", tags={"longrun.repository": "acme/others"})
    bench.client.set_registered_model_alias(bench.place.model, "champion", bench.version(good))
    found = baseline.find(bench.place, settings, candidate)
    assert found.run is not None
    assert (found.run.info.run_id, found.rule, found.distance) == (good.info.run_id, "champion", None)
    assert found.notes == ("git: this folder is in no git repository, so there is no merge base",)
    without = configuration(bench.place.model, baseline={"champion": False})
    assert baseline.find(bench.place, without, candidate).run is None
    bench.client.delete_run(good.info.run_id)
    assert "is deleted" in baseline.find(bench.place, settings, candidate).notes[-1]


def test_a_named_baseline_and_a_reference(bench: Bench) -> None:
    """A run is found by id, uuid, version and alias; one that can't be compared with is a problem where it was named, and a note where it is pinned."""
    candidate, other = bench.run(None, exit_status=0), bench.run(None)
    bench.client.set_registered_model_alias(bench.place.model, "champion", bench.version(other))
    for name in (other.info.run_id, other.data.tags["longrun.uuid"], bench.version(other), "champion"):
        found = baseline.named(bench.place, name, candidate)
        assert found.run is not None
        assert (found.run.info.run_id, found.rule) == (other.info.run_id, "named")
        assert found.notes == (f"--baseline {name}: no gate has passed it",)
    pinned = configuration(bench.place.model, baseline={"reference": int(bench.version(other))})
    run, note = baseline.reference(bench.place, pinned, candidate)
    assert run is not None
    assert (run.info.run_id, note) == (other.info.run_id, None)
    assert baseline.reference(bench.place, configuration(bench.place.model), candidate) == (None, None)
    for name, fault in {
        "99": "has no version 99",
        "gold": "has no alias 'gold'",
        "f" * 32: "is not on the server",
        "00000000-0000-4000-8000-000000000000": "longrun sync",
        candidate.info.run_id: "it is the candidate itself",
    }.items():
        with pytest.raises(ProblemError, match=fault):
            baseline.named(bench.place, name, candidate)
        run, note = baseline.reference(bench.place, configuration(bench.place.model, baseline={"reference": name}), candidate)
        assert run is None
        assert fault in str(note)
