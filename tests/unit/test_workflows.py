"""What holds for every workflow and action below .github/, whatever it does: read from the files, before anything runs."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
ACTIONS = sorted((GITHUB / "actions").glob("*/action.yml"))
# Few, and GitHub's own: each is somebody else's code with our token.
THIRD_PARTIES = {"actions/checkout", "actions/cache", "actions/upload-artifact"}
# Who may write what, and nobody else may.
WRITERS = {("comment.yml", "comment"): {"pull-requests"}, ("sync.yml", "sync"): {"actions"}, ("nightly.yml", "sync"): {"actions"}}
# What reports to the server that a pull request's code could reach, too.
CLIENT_CONTRACT = {"MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_SERVER_CERT"}


def read(path: Path) -> dict[Any, Any]:
    """Return a workflow; YAML 1.1 reads its key `on` as True."""
    content: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def triggers(workflow: dict[Any, Any]) -> set[str]:
    """Return the events that start it."""
    found = workflow[True]
    return {found} if isinstance(found, str) else set(found)


def jobs() -> Iterator[tuple[Path, str, dict[str, Any]]]:
    """Yield every job with its workflow and its name."""
    for path in WORKFLOWS:
        for name, job in read(path)["jobs"].items():
            yield path, name, job


def steps() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield every step of every job and action."""
    for path, _, job in jobs():
        yield from ((path, step) for step in job.get("steps", []))
    for path in ACTIONS:
        yield from ((path, step) for step in read(path)["runs"]["steps"])


JOBS = [pytest.param(path, name, job, id=f"{path.stem}-{name}") for path, name, job in jobs()]
STEPS = [pytest.param(path, step, id=f"{path.stem if path in WORKFLOWS else path.parent.name}-{step.get('name', step.get('uses'))}") for path, step in steps()]


def test_there_is_something_to_read() -> None:
    """Every test below passes where it reads nothing."""
    assert {path.name for path in WORKFLOWS} == {"ci.yml", "comment.yml", "deploy.yml", "model.yml", "nightly.yml", "sync.yml", "train.yml"}
    assert {path.parent.name for path in ACTIONS} == {"set-up", "open-environment"}
    assert len(JOBS) >= 15
    assert len(STEPS) >= 50


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflow(path: Path) -> None:
    """Nothing is allowed but what a job names, runs that got pointless end, and no trigger hands secrets to a fork's code."""
    workflow = read(path)
    assert workflow["permissions"] == {}
    assert "pull_request_target" not in triggers(workflow)
    concurrency = workflow["concurrency"]
    if concurrency["cancel-in-progress"]:
        # Only a pull request's run is ever cancelled, and on main each run has a group of its own, for a group keeps only one waiting.
        assert concurrency["cancel-in-progress"] == "${{ github.event_name == 'pull_request' }}"
        assert concurrency["group"].endswith("${{ github.event_name == 'pull_request' && github.ref || github.run_id }}")
    if path.name in {"ci.yml", "model.yml", "train.yml"}:
        assert concurrency["cancel-in-progress"]


@pytest.mark.parametrize(("path", "name", "job"), JOBS)
def test_job(path: Path, name: str, job: dict[str, Any]) -> None:
    """Each job ends by itself, says what it may, with the reason beside it, and gets no secret that it does not name."""
    assert job["permissions"] is not None
    allowed = {key for key, value in job["permissions"].items() if value == "write"}
    assert allowed == WRITERS.get((path.name, name), set())
    lines = path.read_text(encoding="utf-8").splitlines()
    for key, value in job["permissions"].items():
        assert any(re.match(rf"\s+{key}: {value} # \w", line) for line in lines), f"{key}: {value} without its reason"
    assert job.get("secrets") != "inherit"
    if "uses" in job:
        assert job["uses"].startswith("./.github/workflows/")
    else:
        assert job["timeout-minutes"]
        assert job["runs-on"] in {"ubuntu-24.04", "${{ inputs.runs-on }}"}


@pytest.mark.parametrize(("path", "step"), STEPS)
def test_step(path: Path, step: dict[str, Any]) -> None:
    """No expression within a script, where GitHub would paste it as code; no secret there either; the token is not left on the disk."""
    assert step["name"]
    script = step.get("run", "")
    assert "${{" not in script, "hand it on in `env:`"
    if path in ACTIONS and script:
        assert step["shell"] == "bash"
    uses = step.get("uses", "")
    if uses.startswith("actions/checkout@"):
        assert step["with"]["persist-credentials"] is False
    if uses and not uses.startswith("./"):
        action, _, commit = uses.partition("@")
        assert action in THIRD_PARTIES
        assert re.fullmatch(r"[0-9a-f]{40}", commit)
    if uses.startswith("actions/upload-artifact@"):
        # What lies below .longrun/ is hidden, and without this the artifact would be empty.
        assert step["with"]["include-hidden-files"] is True


def test_pins_carry_their_version() -> None:
    """A commit says nothing to a reader, or to Renovate; one action has one pin everywhere."""
    pins: dict[str, set[str]] = {}
    for path in (*WORKFLOWS, *ACTIONS):
        for line in path.read_text(encoding="utf-8").splitlines():
            if found := re.match(r"\s+(?:- )?uses: (?!\./)(\S+)@(\S+)(.*)", line):
                assert re.fullmatch(r" # v\d+\.\d+\.\d+", found[3]), line
                pins.setdefault(found[1], set()).add(found[2] + found[3])
    assert set(pins) == THIRD_PARTIES
    assert all(len(versions) == 1 for versions in pins.values()), pins


def secrets_of(value: object) -> set[str]:
    """Return the secrets that are named anywhere within."""
    return set(re.findall(r"secrets\.(\w+)", yaml.safe_dump(value)))


def test_pull_requests_see_the_client_contract_only() -> None:
    """What opens a server's hosts belongs to environments, which ask a person; no job of a pull request names it."""
    for path, name, job in jobs():
        named = secrets_of(job)
        assert named <= CLIENT_CONTRACT or "environment" in job, (path.name, name)
        if "pull_request" in triggers(read(path)) or path.name == "train.yml":
            assert named <= CLIENT_CONTRACT
    assert secrets_of(read(GITHUB / "workflows" / "train.yml")) == CLIENT_CONTRACT
    assert not secrets_of(read(GITHUB / "workflows" / "comment.yml"))


def test_the_commenting_workflow_runs_none_of_the_pull_request() -> None:
    """It may write, and anybody can open a pull request: what it checks out is the default branch, or the longrun that its caller pinned."""
    workflow = read(GITHUB / "workflows" / "comment.yml")
    assert triggers(workflow) == {"workflow_run", "workflow_call"}
    checkouts = [step["with"] for step in workflow["jobs"]["comment"]["steps"] if step.get("uses", "").startswith("actions/checkout@")]
    assert [checkout["ref"] for checkout in checkouts] == ["${{ inputs.longrun-ref || github.event.repository.default_branch }}"]
    assert [checkout["repository"] for checkout in checkouts] == ["${{ inputs.longrun-repository || github.repository }}"]
    watched = workflow[True]["workflow_run"]["workflows"]
    assert watched == [read(GITHUB / "workflows" / "model.yml")["name"]]


@pytest.mark.parametrize("path", [GITHUB / "workflows" / name for name in ("ci.yml", "model.yml")], ids=lambda path: path.name)
def test_the_required_check_always_runs(path: Path) -> None:
    """Where paths decide what is tested, one job waits for all others and decides; a workflow with `paths:` would leave the check pending for ever."""
    workflow = read(path)
    for event in workflow[True].values():
        assert not {"paths", "paths-ignore"} & set(event or {})
    names = set(workflow["jobs"])
    aggregator = workflow["jobs"][path.stem]
    assert set(aggregator["needs"]) == names - {path.stem}
    assert aggregator["if"] == "${{ always() }}"
    assert aggregator["name"] == path.stem
    # Each job that may be left out asks the output of its own name, by which aggregate.py knows that it may.
    decided = set(workflow["jobs"]["changes"]["outputs"])
    left_out = {name for name, job in workflow["jobs"].items() if "if" in job} - {path.stem}
    assert decided == left_out
    for name in left_out:
        assert workflow["jobs"][name]["if"] == f"${{{{ needs.changes.outputs.{name} == 'true' }}}}"
    [filters] = [step["env"]["CHANGES_FILTERS"] for step in workflow["jobs"]["changes"]["steps"] if "env" in step]
    assert {line.partition("=")[0].strip() for line in filters.splitlines() if line.strip()} == decided


def test_a_deployment_is_approved_with_its_plan() -> None:
    """The job that changes a server is of the environment that asks a person, and does the plan that this person saw."""
    workflow = read(GITHUB / "workflows" / "deploy.yml")
    assert triggers(workflow) == {"push", "workflow_dispatch"}
    assert set(workflow[True]["push"]) == {"tags"}
    plan, apply = workflow["jobs"]["plan"], workflow["jobs"]["apply"]
    assert plan["environment"].endswith("-plan")
    assert apply["environment"] == plan["environment"].removesuffix("-plan")
    assert apply["needs"] == "plan"
    scripts = [step["run"] for step in apply["steps"] if "run" in step]
    assert scripts == [
        f'make {verb} ENV="$ENVIRONMENT"{plan}' for verb, plan in (("provision", ' PLAN="$PLAN"'), ("deploy", ""), ("users", ""), ("verify", ""))
    ]
    assert not any("provision" in step.get("run", "") for step in plan["steps"])
    assert secrets_of(plan) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    assert not workflow["concurrency"]["cancel-in-progress"]


def test_a_cancelled_training_hears_of_it() -> None:
    """GitHub signals the step's own process: with a shell in between, the run would stay open on the server."""
    [train] = [step for step in read(GITHUB / "workflows" / "train.yml")["jobs"]["train"]["steps"] if step.get("id") == "train"]
    assert train["run"].startswith("exec longrun train ")


def test_scripts_need_nothing_installed() -> None:
    """They run before anything is installed, in the workflow that may write, too."""
    ours = {path.stem for path in (GITHUB / "scripts").glob("*.py")}
    assert len(ours) >= 10
    for path in (GITHUB / "scripts").glob("*.py"):
        for module in re.findall(r"(?m)^(?:import|from) (\w+)", path.read_text(encoding="utf-8")):
            assert module in ours or module in __import__("sys").stdlib_module_names, (path.name, module)
