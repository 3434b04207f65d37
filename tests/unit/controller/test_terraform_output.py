"""What a person reads while Terraform works, and when it fails. The samples are what Terraform 1.10 prints with -no-color."""

import shutil
from pathlib import Path

import pytest
from longrun_controller.environment import Environment
from longrun_controller.errors import ProblemError
from longrun_controller.terraform import Terraform, describe, diagnose

VALIDATION = """
Planning failed. Terraform encountered an error while generating this plan.


Error: Invalid value for variable

  on variables.tf line 13:
  13: variable "name" {
    ├────────────────
    │ var.name is "Bad_Name"

name must be small letters, digits and hyphens, a letter first, 30 at most.

This was checked by the validation rule at variables.tf:17,3-13.

Error: Invalid value for variable

  on variables.tf line 101:
 101: variable "memory_mb" {
    ├────────────────
    │ var.memory_mb is 12

memory_mb must be 2048 or more: PostgreSQL, MinIO and two MLflow processes
need that much.

This was checked by the validation rule at variables.tf:106,3-13.
"""
BOXED = """
╷
│ Error: Invalid value for input variable
│
│   on variables.tf line 23:
│   23: variable "hosts" {
│
│ Unsuitable value for var.hosts set using -var="hosts=...": map of object
│ required.
╵
"""
PROVIDER = """
docker_network.this: Creating...

Error: Unable to create network: Error response from daemon: subnet 10.197.191.0/24 is already used on the host or by another config

  with docker_network.this,
  on main.tf line 38, in resource "docker_network" "this":
  38: resource "docker_network" "this" {
"""


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (VALIDATION, 'Invalid value for variable: var.name is "Bad_Name"; name must be small letters, digits and hyphens, a letter first, 30 at most.'),
        (BOXED, 'Invalid value for input variable: Unsuitable value for var.hosts set using -var="hosts=...": map of object required.'),
        (
            PROVIDER,
            "Unable to create network: Error response from daemon: subnet 10.197.191.0/24 is already used on the host or by another config",
        ),
        ("Success! The configuration is valid.", None),
        ("", None),
    ],
    ids=["validation", "boxed", "provider", "success", "nothing"],
)
def test_an_error_is_one_line(output: str, expected: str | None) -> None:
    """The sentence of our own validation rules, without Terraform's frame around it; the first of several is enough."""
    assert diagnose(output.splitlines()) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('docker_volume.data["server"]: Creating...', 'creating docker_volume.data["server"]'),
        ('docker_container.host["server"]: Still creating... [10s elapsed]', 'still creating docker_container.host["server"]'),
        ("docker_network.this: Creation complete after 2s [id=abc]", "creation complete docker_network.this"),
        ('docker_container.host["server"]: Destroying... [id=abc]', 'destroying docker_container.host["server"]'),
        ("docker_network.this: Refreshing state... [id=abc]", "refreshing state docker_network.this"),
        ("Initializing provider plugins...", "Initializing provider plugins..."),
        ("Plan: 3 to add, 0 to change, 0 to destroy.", "Plan: 3 to add, 0 to change, 0 to destroy."),
        ("  + create", None),
        ("", None),
    ],
)
def test_resources_are_progress(line: str, expected: str | None) -> None:
    """Making a host takes a while; each resource that begins or ends is shown."""
    assert describe(line) == expected


@pytest.fixture
def program(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in Terraform's place, which prints the file `outputs` or fails with the file `error`."""
    path = tmp_path / "program"
    path.write_text(f"#!/bin/sh\n[ ! -e {tmp_path}/error ] || {{ cat {tmp_path}/error >&2; exit 1; }}\ncat {tmp_path}/outputs\n")
    path.chmod(0o755)
    (project / "environments/local/.terraform/tree/platforms/container").mkdir(parents=True)
    monkeypatch.setenv("TF", str(path))
    monkeypatch.setenv("DOCKER_HOST", "")
    monkeypatch.setattr("longrun_controller.platforms.container.engine", lambda: pytest.fail("an engine was asked for"))
    return path


def test_outputs_need_neither_key_nor_engine(local: Environment, program: Path) -> None:
    """`make -s env` in a clone with no more than the state must print, not start a container engine."""
    local.state.write_text("{}")
    (program.parent / "outputs").write_text('{"public_url": {"value": "https://localhost:8443"}, "hosts": {"value": {}}}')
    assert not local.ssh_key.exists()
    assert Terraform(local).outputs() == {"public_url": "https://localhost:8443", "hosts": {}}


def test_no_server_yet_is_said(local: Environment, program: Path) -> None:
    """Without a state, or without the folder that reads it, Terraform would speak of its own affairs."""
    (program.parent / "outputs").write_text('{"public_url": {"value": "https://localhost:8443"}}')
    with pytest.raises(ProblemError, match="'local' has no server yet: `make up ENV=local` makes it"):
        Terraform(local).outputs()
    local.backend.write_text("")
    assert Terraform(local).outputs() == {"public_url": "https://localhost:8443"}
    shutil.rmtree(local.directory / ".terraform")
    with pytest.raises(ProblemError, match="'local' has no server yet: `make up ENV=local` makes it"):
        Terraform(local).outputs()


def test_half_made_is_said(local: Environment, program: Path) -> None:
    """After an interrupted apply there is a state, but no address yet."""
    local.state.write_text("{}")
    (program.parent / "outputs").write_text("{}")
    with pytest.raises(ProblemError, match="is only half made: `make up ENV=local` finishes it"):
        Terraform(local).outputs()


def test_an_unreadable_state_is_one_line(local: Environment, program: Path) -> None:
    """Terraform's frame and colours are no part of a sentence."""
    local.state.write_text("{")
    (program.parent / "error").write_text("\nError: Failed to load state\n\nunexpected end of JSON input\n")
    with pytest.raises(ProblemError) as caught:
        Terraform(local).outputs()
    assert str(caught.value) == "terraform output: Failed to load state: unexpected end of JSON input"
