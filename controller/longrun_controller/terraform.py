"""Terraform or OpenTofu, run on one platform folder with the state in the environment's folder."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from longrun_controller import tools
from longrun_controller.environment import ROOT, Environment
from longrun_controller.errors import ProblemError
from longrun_controller.plan import Plan
from longrun_controller.platforms import platform_of
from longrun_controller.progress import Step

SOURCE = ROOT / "terraform"
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


def lost_data(plan: dict[str, Any], protected: Sequence[str]) -> list[str]:
    """Return the addresses of resources that hold history and that a plan would delete, replace or forget.

    Args:
        plan: What `terraform show -json` says of a plan.
        protected: `type.name` of each resource that holds history.
    """
    return [
        change["address"]
        for change in plan.get("resource_changes", [])
        if f"{change['type']}.{change['name']}" in protected and {"delete", "forget"} & set(change["change"]["actions"])
    ]


def _refusal(names: Sequence[str]) -> str:
    return (
        f"this would delete or replace {', '.join(names)}, with the history of every run on it, so nothing was changed: "
        "undo what asks for it (server.tfvars, terraform/); to delete data on purpose there is `make destroy`"
    )


class Terraform:
    """One environment's infrastructure.

    Args:
        environment: Whose.
        scratch: Folder to work in for somebody who only looks: the one in the environment's folder is read by every other
            command, and a run may be at work in it. No state is locked or moved from here.
    """

    def __init__(self, environment: Environment, scratch: Path | None = None) -> None:
        self._environment = environment
        self._platform = platform_of(environment.platform)
        self._program = tools.terraform()
        self._scratch = scratch
        self._data = scratch or environment.directory / ".terraform"
        # A copy in the environment's folder: two environments never share a lock file, and each may name its own backend.
        self._tree = self._data / "tree"
        self._folder = self._tree / "platforms" / environment.platform

    def _settings(self) -> dict[str, str]:
        """Return the process environment of every call, without what only making something needs: no key, no engine."""
        return {
            **os.environ,
            **tools.terraform_environment(),
            "TF_DATA_DIR": str(self._data),
            "TF_IN_AUTOMATION": "1",
            "TF_INPUT": "0",
            "CHECKPOINT_DISABLE": "1",
        }

    def _variables(self) -> dict[str, str]:
        """Return the process environment of a call that makes or destroys something, or that finds out what it would."""
        environment = self._environment
        if not environment.ssh_public_key.exists():
            message = f"{environment.ssh_public_key} is missing: `ssh-keygen -y -f ssh_key > ssh_key.pub` in that folder makes it from the private key"
            raise ProblemError(message)
        given = {"ssh_public_key": environment.ssh_public_key.read_text().strip()}
        given |= self._platform.terraform_variables(environment.directory, environment.values)
        return {
            **self._settings(),
            **self._platform.process_environment(),
            **{f"TF_VAR_{key}": value for key, value in given.items()},
        }

    def _explain(self, lines: Sequence[str]) -> str | None:
        """Return what a failed run says as one line, with what to do where that is known."""
        text = " ".join(line.strip("│╷╵ ") for line in lines)
        # Terraform's words, and OpenTofu's.
        if guarded := re.findall(r"Resource (?:instance )?(\S+) has (?:lifecycle\.)?prevent_destroy set, but", text):
            return _refusal(guarded)
        reason = diagnose(lines)
        return (self._platform.explain(reason) or reason) if reason else None

    def _run(self, step: Step, *arguments: str, accept: frozenset[int] = frozenset({0})) -> int:
        return step.run(
            [self._program, f"-chdir={self._folder}", *arguments],
            environment=self._variables(),
            describe=describe,
            diagnose=self._explain,
            accept=accept,
        )

    def _inputs(self) -> list[str]:
        return [f"-var-file={self._environment.directory / 'server.tfvars'}"]

    def init(self, step: Step) -> None:
        """Copy the platform into the environment's folder and install its providers.

        The lock file is made anew: what it would hold depends on where the providers came from.
        """
        shutil.rmtree(self._tree, ignore_errors=True)
        shutil.copytree(SOURCE, self._tree, ignore=shutil.ignore_patterns(".terraform*", "tests"))
        elsewhere = self._environment.backend.exists()
        moves = elsewhere and self._environment.state.exists()
        if moves and self._scratch:
            step.note(f"`make provision` will first move the state to where environments/{self._environment.name}/backend.tf says")
            elsewhere = moves = False
        backend = [f"-backend-config=path={self._environment.state}"]
        if elsewhere:
            shutil.copy(self._environment.backend, self._folder / "backend_override.tf")
            backend = []
        self._run(step, "init", "-no-color", "-reconfigure", *backend)
        if moves:
            # The server is older than its backend.tf. Terraform refuses to put its state in the place of another server's, or of a newer one.
            self._run(step, "state", "push", "-no-color", str(self._environment.state))
            self._environment.state.rename(self._environment.state.with_name("terraform.tfstate.moved"))
            step.note(f"the state was moved to where environments/{self._environment.name}/backend.tf says")

    def _ask(self, *arguments: str) -> str:
        """Return what Terraform answers to a question."""
        done = subprocess.run([self._program, f"-chdir={self._folder}", *arguments], env=self._settings(), capture_output=True, text=True, check=False)
        if done.returncode:
            message = f"terraform {arguments[0]}: {diagnose(done.stderr.splitlines()) or ' '.join(done.stderr.split())}"
            raise ProblemError(message)
        return done.stdout

    def _show(self, plan: Path) -> dict[str, Any]:
        """Return a plan as Terraform gives it to programs."""
        shown: dict[str, Any] = json.loads(self._ask("show", "-json", "-no-color", str(plan)))
        return shown

    def _known(self) -> set[str]:
        """Return the addresses of the resources that the state holds.

        Raises:
            ProblemError: The state can't be read, which must not pass for one that holds nothing: what it does not hold is removed.
        """
        done = subprocess.run(
            [self._program, f"-chdir={self._folder}", "state", "list", "-no-color"], env=self._settings(), capture_output=True, text=True, check=False
        )
        if done.returncode and "No state file was found" not in done.stderr:
            message = f"terraform state list: {diagnose(done.stderr.splitlines()) or ' '.join(done.stderr.split())}"
            raise ProblemError(message)
        return set(done.stdout.split())

    def plan(self, step: Step, beforehand: Sequence[str]) -> Plan:
        """Find out what `apply` would do, and do none of it; only a state that has to move does so now, where this is no scratch folder.

        Args:
            step: Shows what is being done.
            beforehand: What the platform foresees beside Terraform.

        Raises:
            ProblemError: The plan would delete data, the state can't be read, or Terraform failed.
        """
        self.init(step)
        os.umask(0o077)
        strays = self._platform.strays(self._environment.values, self._known())
        # Where the platform still has to do its part, Terraform would do it in its own way.
        ignored = "".join(
            f'resource "{kind}" "{name}" {{\n  lifecycle {{\n    ignore_changes = [{attribute}]\n  }}\n}}\n'
            for (kind, name), attribute in ((address.split("."), attribute) for address, attribute in self._platform.PREPARED.items())
        )
        (self._folder / "plan_override.tf").write_text(ignored, encoding="utf-8")
        return self._plan(step, *beforehand, *(f"remove {thing}, which an interrupted run had made and not written down" for thing in strays))

    def _plan(self, step: Step, *beforehand: str) -> Plan:
        file = self._data / "make.tfplan"
        lock = ["-lock=false"] if self._scratch else []
        status = self._run(step, "plan", "-no-color", "-detailed-exitcode", *lock, f"-out={file}", *self._inputs(), accept=frozenset({0, CHANGES}))
        shown = self._show(file) if status == CHANGES else {}
        # `prevent_destroy` says the same, but one may take that line out, or the whole resource with it.
        if names := lost_data(shown, self._platform.PROTECTED):
            raise ProblemError(_refusal(names))
        return Plan(self._environment.name, file, shown, beforehand)

    def readable(self, plan: Plan, *, colour: bool) -> str:
        """Return a plan as Terraform shows it to people, who never see a secret value."""
        return self._ask("show", *([] if colour else ["-no-color"]), str(plan.file))

    def apply(self, step: Step, plan: Plan | None = None) -> bool:
        """Make the infrastructure what the platform and `server.tfvars` say.

        Args:
            step: Shows what is being done.
            plan: What `plan` of this same object found out; left out, that is found out now.

        Returns:
            Whether anything had to change.

        Raises:
            ProblemError: The plan would delete data, or Terraform failed; nothing was changed in the first case.
        """
        if not plan:
            self.init(step)
            os.umask(0o077)
        for thing in self._platform.discard(self._environment.values, self._known()):
            step.note(f"removed {thing}, which an interrupted run had made and not written down")
        plan = plan or self._plan(step)
        if plan.changes:
            if any(change["type"] == self._platform.HOST and "delete" in change["change"]["actions"] for change in plan.shown.get("resource_changes", [])):
                step.say("stopping the host that is replaced, so that its services end in order")
                self._platform.stop(self._environment.values)
            self._run(step, "apply", "-no-color", str(plan.file))
            # Hosts that were stopped for another one's sake, and that Terraform leaves as it finds them.
            self._platform.start(self._environment.values)
        return plan.changes

    def destroy(self, step: Step) -> None:
        """Destroy everything, the data volumes included, whose guard only an override in the copy of the folder lifts."""
        self.init(step)
        guards = "".join(
            f'resource "{kind}" "{name}" {{\n  lifecycle {{\n    prevent_destroy = false\n  }}\n}}\n'
            for kind, name in (address.split(".") for address in self._platform.PROTECTED)
        )
        (self._folder / "destroy_override.tf").write_text(guards, encoding="utf-8")
        self._run(step, "destroy", "-no-color", "-auto-approve", *self._inputs())
        shutil.rmtree(self._tree)
        for leftover in ("terraform.tfstate", "terraform.tfstate.backup"):
            (self._environment.directory / leftover).unlink(missing_ok=True)

    def outputs(self) -> dict[str, Any]:
        """Return the outputs by name.

        Raises:
            ProblemError: The environment was not provisioned.
        """
        if not self._folder.is_dir() or not (self._environment.state.exists() or self._environment.backend.exists()):
            message = f"environment {self._environment.name!r} has no server yet: `make up ENV={self._environment.name}` makes it"
            raise ProblemError(message)
        answer = self._ask("output", "-json", "-no-color")
        outputs = {key: output["value"] for key, output in json.loads(answer).items()}
        if not outputs.get("public_url"):
            message = f"environment {self._environment.name!r} is only half made: `make up ENV={self._environment.name}` finishes it"
            raise ProblemError(message)
        return outputs
