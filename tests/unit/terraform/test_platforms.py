"""Each platform folder: its own `terraform test`, and the contract that all of them keep."""

import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import hcl2
import pytest
from longrun_controller import tools
from longrun_controller.platforms import PLATFORMS

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = sorted(path.parent for path in (ROOT / "terraform" / "platforms").glob("*/main.tf"))
FILES = ("main.tf", "variables.tf", "outputs.tf", "versions.tf")
# Contract of terraform/README.md: the same on every platform.
OUTPUTS = {"hosts", "public_url"}
HOST = {"address", "port", "user", "groups", "data_path", "private_address"}
# Every server.tfvars may set these, on whatever platform.
COMMON = {
    "platform", "name", "hosts", "debian_release", "server_name", "listen_address", "https_port", "ssh_port", "memory_mb", "cores", "data_size_gb",
    "data_path", "ssh_public_key",
}  # fmt: skip
MINIMUM_RUNS = 30
# These take whatever their type allows.
UNCHECKED = {"host_image"}


def first(entry: dict[str, Any]) -> tuple[str, Any]:
    """Return the label and the body of a block, without the quotation marks and notes that the parser adds."""
    return next((key.strip('"'), value) for key, value in entry.items() if not key.startswith("__"))


def blocks(folder: Path, file: str, kind: str) -> dict[str, dict[str, Any]]:
    """Return the blocks of one kind in a file by name; a resource's is `type.name`."""
    found: dict[str, dict[str, Any]] = {}
    for entry in hcl2.loads((folder / file).read_text(encoding="utf-8")).get(kind, []):
        name, body = first(entry)
        if kind == "resource":
            inner, body = first(body)
            name = f"{name}.{inner}"
        found[name] = body
    return found


def test_there_are_platforms() -> None:
    """The rules below must not hold for want of a folder; the controller and Terraform know the same ones."""
    assert FOLDERS
    assert set(PLATFORMS) == {folder.name for folder in FOLDERS}


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def folder(request: pytest.FixtureRequest) -> Path:
    """One platform after another."""
    path: Path = request.param
    return path


@pytest.fixture
def tested(folder: Path, tmp_path: Path) -> str:
    """What `terraform test` says of a copy of the folder, so that nothing stays behind in the tree."""
    shutil.copytree(ROOT / "terraform", tmp_path / "terraform", ignore=shutil.ignore_patterns(".terraform*"))
    program, copy = tools.terraform(), tmp_path / folder.relative_to(ROOT)
    environment = {**os.environ, **tools.terraform_environment(), "TF_DATA_DIR": str(tmp_path / "data"), "CHECKPOINT_DISABLE": "1", "TF_INPUT": "0"}
    for arguments in (["init", "-backend=false"], ["test"]):
        done = subprocess.run([program, f"-chdir={copy}", *arguments, "-no-color"], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def test_plans_are_as_they_should_be(tested: str) -> None:
    """Plans with a mocked provider: what is made, and what is refused before anything is made."""
    found = re.search(r"(\d+) passed, 0 failed", tested)
    assert found, tested
    assert int(found[1]) >= MINIMUM_RUNS
    assert tested.count("... pass") >= int(found[1])


def test_the_same_files(folder: Path) -> None:
    """Whoever knows one platform finds everything in the next."""
    assert {path.name for path in folder.glob("*.tf")} == set(FILES)


def test_variables_are_typed_and_described(folder: Path) -> None:
    """`server.tfvars` is written from these sentences."""
    variables = blocks(folder, "variables.tf", "variable")
    assert len(variables) >= len(COMMON)
    for name, variable in variables.items():
        assert variable.get("type"), name
        assert re.match(r'"[A-Z].{10,}\."$', variable.get("description", "")), name


def test_the_common_variables_are_there(folder: Path) -> None:
    """The same server.tfvars works on another platform once `platform` is changed."""
    variables = blocks(folder, "variables.tf", "variable")
    assert set(variables) >= COMMON
    # What only one platform knows must not be asked of the others.
    assert not [name for name, variable in variables.items() if name not in COMMON | UNCHECKED and "default" not in variable]


def test_outputs_are_the_contract(folder: Path) -> None:
    """Ansible's inventory reads these and nothing else."""
    outputs = blocks(folder, "outputs.tf", "output")
    assert set(outputs) == OUTPUTS
    for name, output in outputs.items():
        assert re.match(r'"[A-Z].{10,}\."$', output.get("description", "")), name
    text = (folder / "outputs.tf").read_text(encoding="utf-8")
    assert set(re.findall(r"(?m)^      (\w+) +=", text)) == HOST


def test_every_rule_is_tested(folder: Path) -> None:
    """A validation that refuses nothing, or everything, looks like one that works."""
    rules = Counter({name: len(variable.get("validation", [])) for name, variable in blocks(folder, "variables.tf", "variable").items()})
    assert rules.total() >= 14
    assert not [name for name, count in rules.items() if not count and name not in UNCHECKED]
    refused: Counter[str] = Counter()
    for path in folder.glob("tests/*.tftest.hcl"):
        refused.update(re.findall(r"expect_failures = \[var\.(\w+)\]", path.read_text(encoding="utf-8")))
    assert not {name: count for name, count in rules.items() if refused[name] < count}


def test_rules_say_what_to_write(folder: Path) -> None:
    """The message is all that a person sees; it begins with the variable and is a sentence."""
    messages = 0
    for name, variable in blocks(folder, "variables.tf", "variable").items():
        for rule in variable.get("validation", []):
            messages += 1
            message = rule["error_message"].strip('"')
            assert name in message or "hosts" in name, message
            assert message.endswith("."), message
            assert len(message) > 20, message
    assert messages >= 14


def test_the_data_is_guarded(folder: Path) -> None:
    """No plan may ever delete the history: only `make destroy`, in a copy of its own, lifts the guard."""
    resources = blocks(folder, "main.tf", "resource")
    volume = PLATFORMS[folder.name].DATA_VOLUME
    assert volume in resources, sorted(resources)
    assert resources[volume]["lifecycle"][0]["prevent_destroy"] is True


def test_nothing_runs_programs(folder: Path) -> None:
    """Provisioners run on apply only, so a plan never shows what they change."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in folder.glob("*.tf"))
    assert len(text) > 1000
    for word in ("null_resource", "local-exec", "remote-exec", "provisioner", "terraform_data"):
        assert word not in text


def test_lifecycle_rules_have_a_reason(folder: Path) -> None:
    """`ignore_changes` hides differences: why these may be hidden must stand beside it."""
    lines = (folder / "main.tf").read_text(encoding="utf-8").splitlines()
    rules = [number for number, line in enumerate(lines) if re.match(r"\s+(prevent_destroy|ignore_changes|replace_triggered_by)\b", line)]
    assert rules
    for number in rules:
        assert lines[number - 1].strip().startswith("#"), lines[number]
