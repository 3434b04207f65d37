"""Each platform folder: its own `terraform test`, and the contract that all of them keep."""

import inspect
import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import hcl2
import pytest
from longrun_controller import tools
from longrun_controller.environment import _check_values, _plain
from longrun_controller.errors import ProblemError
from longrun_controller.platforms import PLATFORMS, container, platform_of
from longrun_controller.progress import Step

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = sorted(path.parent for path in (ROOT / "terraform" / "platforms").glob("*/main.tf"))
# The one that the others are compared with.
REFERENCE = ROOT / "terraform" / "platforms" / "container"
FILES = ("main.tf", "variables.tf", "outputs.tf", "versions.tf")
# Contract of terraform/README.md: the same on every platform.
OUTPUTS = {"hosts", "public_url"}
HOST = {"address", "port", "user", "groups", "data_path", "private_address"}
# Every server.tfvars may set these, on whatever platform; any other variable bears the platform's name.
COMMON = {
    "platform", "name", "hosts", "debian_release", "server_name", "listen_address", "https_port", "ssh_port", "memory_mb", "cores", "data_size_gb",
    "ssh_public_key", "host_image", "subnet",
}  # fmt: skip
# What nobody can guess: of the common ones, and of a platform's own.
REQUIRED = {"platform", "name", "ssh_public_key"}
MAY_REQUIRE = {"aws"}
MINIMUM_RUNS = 30
# These take whatever their type allows.
UNCHECKED = {"host_image"}
# What a platform's module has for the controller, beside Terraform.
CONSTANTS = {"PROTECTED", "HOST", "PROVIDER", "PACKAGES", "PREPARED"}
FUNCTIONS = {
    "preflight", "prepare", "terraform_variables", "process_environment", "discard", "start", "stop", "is_running", "leftovers", "explain", "foresee",
    "strays",
}  # fmt: skip


def bare(value: object) -> object:
    """Return what the parser gives without the quotation marks, positions and comments that it adds."""
    if isinstance(value, dict):
        return {str(bare(key)): bare(inner) for key, inner in value.items() if not str(key).startswith("__")}
    if isinstance(value, list):
        return [bare(inner) for inner in value]
    return _plain(value)


def first(entry: dict[str, Any]) -> tuple[str, Any]:
    """Return the label and the body of a block."""
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
    assert len(FOLDERS) >= 3
    assert REFERENCE in FOLDERS
    assert set(PLATFORMS) == {folder.name for folder in FOLDERS}


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def folder(request: pytest.FixtureRequest) -> Path:
    """One platform after another."""
    path: Path = request.param
    return path


@pytest.fixture
def platform(folder: Path) -> ModuleType:
    """What the controller knows of the platform."""
    assert folder.name in PLATFORMS
    return platform_of(folder.name)


@pytest.fixture
def provider(platform: ModuleType) -> str:
    """The platform's provider, which Terraform will find; without one that nobody can build, there is nothing to test."""
    name: str = platform.PROVIDER
    try:
        tools.ensure_provider(Step("tools", None), name)
    except ProblemError as error:
        if "module" in tools.PINS[name]:
            raise
        pytest.skip(str(error))
    return name


@pytest.fixture
def tested(folder: Path, provider: str, tmp_path: Path) -> str:
    """What `terraform test` says of a copy of the folder, so that nothing stays behind in the tree."""
    assert provider in tools.PINS
    shutil.copytree(ROOT / "terraform", tmp_path / "terraform", ignore=shutil.ignore_patterns(".terraform*"))
    program, copy = tools.terraform(), tmp_path / folder.relative_to(ROOT)
    if Path(program).name == "tofu":
        # OpenTofu uses a mock's values in a plan too, and does not know the word with which Terraform has to be told so.
        for path in copy.glob("tests/*.tftest.hcl"):
            path.write_text(re.sub(r"(?m)^ +override_during += plan\n", "", path.read_text(encoding="utf-8")), encoding="utf-8")
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


def test_the_plans_assert_something(folder: Path) -> None:
    """A run without an assertion passes whatever is planned."""
    runs = hcl2.loads((folder / "tests" / "plan.tftest.hcl").read_text(encoding="utf-8"))["run"]
    asserting = [name for name, run in map(first, runs) if run.get("assert") or run.get("expect_failures")]
    assert len(asserting) == len(runs) >= 8


def test_the_same_files(folder: Path) -> None:
    """Whoever knows one platform finds everything in the next."""
    assert {path.name for path in folder.glob("*.tf")} == set(FILES)
    assert {path.name for path in folder.glob("tests/*.tftest.hcl")} == {"plan.tftest.hcl", "refusals.tftest.hcl"}


def test_variables_are_typed_and_described(folder: Path) -> None:
    """`server.tfvars` is written from these sentences; one may begin with a value, which is written small."""
    variables = blocks(folder, "variables.tf", "variable")
    assert len(variables) >= len(COMMON)
    for name, variable in variables.items():
        assert variable.get("type"), name
        assert re.match(r'"(?:[A-Z]|[a-z]+[,:] ).{10,}\."$', variable.get("description", "")), name


def test_the_common_variables_are_the_same(folder: Path) -> None:
    """The same server.tfvars works, or is refused, on another platform once `platform` is changed."""
    variables, reference = (blocks(where, "variables.tf", "variable") for where in (folder, REFERENCE))
    assert set(variables) >= COMMON
    assert set(reference) >= COMMON
    for name in sorted(COMMON):
        # What an image is differs by platform, and so may the rule for its name.
        skipped = {"validation"} if name == "host_image" else set()
        rules, expected = (str(bare({key: value for key, value in where[name].items() if key not in skipped})) for where in (variables, reference))
        assert rules.replace(folder.name, REFERENCE.name) == expected if name == "platform" else rules == expected, name


def test_other_variables_bear_the_platforms_name(folder: Path) -> None:
    """In a server.tfvars it shows at once what would have to go on another platform."""
    own = set(blocks(folder, "variables.tf", "variable")) - COMMON
    assert not [name for name in own if not name.startswith(f"{folder.name}_")]


def test_only_what_nobody_can_guess_is_asked_for(folder: Path) -> None:
    """A server.tfvars of two lines makes a server; only a cloud has to be told where and for whom."""
    required = {name for name, variable in blocks(folder, "variables.tf", "variable").items() if "default" not in variable}
    assert required >= REQUIRED
    assert required == REQUIRED or folder.name in MAY_REQUIRE
    assert not [name for name in required - REQUIRED if not name.startswith(f"{folder.name}_")]


def test_outputs_are_the_contract(folder: Path) -> None:
    """Ansible's inventory reads these and nothing else."""
    outputs, reference = (blocks(where, "outputs.tf", "output") for where in (folder, REFERENCE))
    assert set(outputs) == OUTPUTS
    for name, output in outputs.items():
        assert re.match(r'"[A-Z].{10,}\."$', output.get("description", "")), name
        assert output["description"] == reference[name]["description"], name
        # Nobody can log in to a host that is not there.
        assert output.get("depends_on"), name
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


def test_the_data_is_guarded(folder: Path, platform: ModuleType) -> None:
    """No plan may ever delete the history. `make destroy` lifts the guards, in a copy of its own, of the resources that the controller names: all of them."""
    resources = blocks(folder, "main.tf", "resource")
    guarded = {name for name, resource in resources.items() for rule in resource.get("lifecycle", []) if rule.get("prevent_destroy") is True}
    assert guarded
    assert guarded == set(platform.PROTECTED)
    assert len(platform.PROTECTED) == len(guarded)


def test_the_controller_knows_each_platform_alike(folder: Path, platform: ModuleType) -> None:
    """The controller calls every platform in the same way, and knows what kind of resource its hosts are."""
    assert set(vars(platform)) >= CONSTANTS
    for name in FUNCTIONS:
        ours, reference = (inspect.signature(getattr(module, name)) for module in (platform, container))
        assert len(ours.parameters) == len(reference.parameters), name
        assert inspect.signature(getattr(platform, name)).return_annotation == reference.return_annotation, name
    assert f"{platform.HOST}.host" in blocks(folder, "main.tf", "resource")
    assert all(isinstance(package, str) for package in platform.PACKAGES.values())


def test_the_provider_is_pinned_once(folder: Path, platform: ModuleType) -> None:
    """Built or mirrored in another version than versions.tf names, a provider would not be found."""
    pin = tools.PINS[platform.PROVIDER]
    named = re.findall(r'source += "([^"]+)"(?:\n +#[^\n]*)*\n +version += "([^"]+)"', (folder / "versions.tf").read_text(encoding="utf-8"))
    assert named == [(pin["provider"], pin["provider_version"])]


def test_the_model_for_new_servers(folder: Path) -> None:
    """`make new` copies it: it must be for this platform, and Terraform only warns of a name that it does not know."""
    values = bare(hcl2.loads((folder / "server.tfvars").read_text(encoding="utf-8")))
    assert isinstance(values, dict)
    variables = blocks(folder, "variables.tf", "variable")
    assert set(values) <= set(variables)
    assert values["platform"] == folder.name
    assert values["name"] == "local"
    # Given by `make provision`, as the key is.
    assert "ssh_public_key" not in values
    _check_values(Path("server.tfvars"), values)
    types = {"string": str, "number": int, "bool": bool}
    for name, value in values.items():
        kind = str(_plain(variables[name]["type"])).strip("${}")
        assert kind not in types or isinstance(value, types[kind]), name


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
