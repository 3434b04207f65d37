"""Terraform or OpenTofu, run on one platform folder with the state in the environment's folder."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from longrun_controller import tools
from longrun_controller.environment import ROOT, Environment
from longrun_controller.errors import ProblemError
from longrun_controller.platforms import platform_of
from longrun_controller.progress import Step

PLATFORMS = ROOT / "terraform" / "platforms"
RESOURCE = re.compile(r"^([\w.\[\]\"-]+): (Creating|Destroying|Modifying|Still \w+|Creation complete|Refreshing state)")
# Exit status of `plan -detailed-exitcode` for "there is something to do".
CHANGES = 2


def describe(line: str) -> str | None:
    """Return what a line of Terraform's output says for people, if anything."""
    if found := RESOURCE.match(line):
        return f"{found[2].lower()} {found[1]}"
    return line if line.startswith(("Initializing", "Plan:")) else None


def diagnose(lines: Sequence[str]) -> str | None:
    """Return the first error of a Terraform run as one line."""
    text = "\n".join(line.lstrip("│╷╵ ") for line in lines)
    if not (found := re.search(r"^Error: (.+?)(?:\n\n|\Z)(.*?)(?:\n\nError: |\Z)", text, re.DOTALL | re.MULTILINE)):
        return None
    body = [line for line in found[2].splitlines() if line.strip() and not re.match(r"(on|with) |\d+:|├|│|This was checked by", line)]
    title = found[1].replace("\n", " ")
    text = " ".join(f"{line};" if line.startswith("var.") else line for line in body[:4])
    return f"{title}: {text}" if text else title


class Terraform:
    """One environment's infrastructure."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._program = tools.terraform()
        self._folder = PLATFORMS / environment.platform
        if not self._folder.is_dir():
            known = ", ".join(sorted(p.name for p in PLATFORMS.iterdir()))
            message = f"environments/{environment.name}/server.tfvars: no platform {environment.platform!r} (there are: {known})"
            raise ProblemError(message)

    def _settings(self) -> dict[str, str]:
        """Return the process environment of every call, without what only making something needs: no key, no engine."""
        return {
            **os.environ,
            **tools.terraform_environment(),
            "TF_DATA_DIR": str(self._environment.directory / ".terraform"),
            "TF_IN_AUTOMATION": "1",
            "TF_INPUT": "0",
            "CHECKPOINT_DISABLE": "1",
        }

    def _variables(self) -> dict[str, str]:
        """Return the process environment of a call that makes or destroys something."""
        environment = self._environment
        given = {"ssh_public_key": environment.ssh_key.with_name("ssh_key.pub").read_text().strip()}
        given |= platform_of(environment.platform).terraform_variables(environment.directory, environment.values)
        return {
            **self._settings(),
            **platform_of(environment.platform).process_environment(),
            **{f"TF_VAR_{key}": value for key, value in given.items()},
        }

    def _run(self, step: Step, *arguments: str, accept: frozenset[int] = frozenset({0}), folder: Path | None = None) -> int:
        return step.run(
            [self._program, f"-chdir={folder or self._folder}", *arguments],
            environment=self._variables(),
            describe=describe,
            diagnose=diagnose,
            accept=accept,
        )

    def _inputs(self) -> list[str]:
        return [f"-var-file={self._environment.directory / 'server.tfvars'}"]

    def init(self, step: Step, folder: Path | None = None) -> None:
        """Install the providers. The lock file is made anew: what it would hold depends on where they came from."""
        (self._folder / ".terraform.lock.hcl").unlink(missing_ok=True)
        self._run(step, "init", "-no-color", "-reconfigure", f"-backend-config=path={self._environment.state}", folder=folder)

    def apply(self, step: Step) -> bool:
        """Make the infrastructure what the platform and `server.tfvars` say.

        Returns:
            Whether anything had to change.
        """
        self.init(step)
        os.umask(0o077)
        plan = f"-out={self._environment.directory / '.terraform' / 'make.tfplan'}"
        status = self._run(step, "plan", "-no-color", "-detailed-exitcode", plan, *self._inputs(), accept=frozenset({0, CHANGES}))
        if status == CHANGES:
            self._run(step, "apply", "-no-color", plan.removeprefix("-out="))
        return status == CHANGES

    def destroy(self, step: Step) -> None:
        """Destroy everything, the data volumes included, whose guard only an override in a copy of the folder lifts."""
        with tempfile.TemporaryDirectory(prefix="longrun-destroy-") as temporary:
            copy = Path(temporary) / "platform"
            shutil.copytree(self._folder, copy, ignore=shutil.ignore_patterns(".terraform*", "tests"))
            kind, name = platform_of(self._environment.platform).DATA_VOLUME.split(".")
            (copy / "destroy_override.tf").write_text(f'resource "{kind}" "{name}" {{\n  lifecycle {{\n    prevent_destroy = false\n  }}\n}}\n')
            self.init(step, copy)
            self._run(step, "destroy", "-no-color", "-auto-approve", *self._inputs(), folder=copy)
        for leftover in ("terraform.tfstate", "terraform.tfstate.backup"):
            (self._environment.directory / leftover).unlink(missing_ok=True)

    def outputs(self) -> dict[str, Any]:
        """Return the outputs by name.

        Raises:
            ProblemError: The environment was not provisioned.
        """
        if not self._environment.state.exists():
            message = f"environment {self._environment.name!r} has no server yet: `make up ENV={self._environment.name}` makes it"
            raise ProblemError(message)
        done = subprocess.run(
            [self._program, f"-chdir={self._folder}", "output", "-json", "-no-color"],
            env=self._settings(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            message = f"terraform output: {diagnose(done.stderr.splitlines()) or ' '.join(done.stderr.split())}"
            raise ProblemError(message)
        outputs = {key: output["value"] for key, output in json.loads(done.stdout).items()}
        if not outputs.get("public_url"):
            message = f"environment {self._environment.name!r} is only half made: `make up ENV={self._environment.name}` finishes it"
            raise ProblemError(message)
        return outputs
