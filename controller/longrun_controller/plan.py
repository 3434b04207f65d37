"""What a plan of Terraform's would do, and the digest by which the same plan is known again."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longrun_controller.errors import ProblemError

DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Plan:
    """What would be done to one environment."""

    environment: str
    # Where Terraform keeps it, for `apply`.
    file: Path
    # What `terraform show -json` says of it; empty where Terraform has nothing to do.
    shown: dict[str, Any]
    # What would be done before Terraform does anything, a sentence each.
    beforehand: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether Terraform has anything to do."""
        return bool(self.shown)

    @property
    def digest(self) -> str:
        """SHA-256 over all that would be done, as 64 hexadecimal digits: values in full, secret ones too, and what is not known yet as such.

        Another one where anything else would be done; the state, the time and what stays as it is are not in it.
        """
        done = {
            "environment": self.environment,
            "beforehand": self.beforehand,
            "resources": sorted((change for change in self.shown.get("resource_changes", []) if _does_something(change)), key=_place),
            # Ansible reads the outputs: another public_url is another certificate.
            "outputs": {name: change for name, change in self.shown.get("output_changes", {}).items() if change["actions"] != ["no-op"]},
            # What newer Terraforms do besides; no platform of ours asks for any.
            "actions": self.shown.get("action_invocations", []),
        }
        return hashlib.sha256(json.dumps(done, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _does_something(change: dict[str, Any]) -> bool:
    """Return whether a resource, or what the state says of it, would be another one."""
    return change["change"]["actions"] != ["no-op"] or "previous_address" in change or "importing" in change["change"]


def _place(change: dict[str, Any]) -> tuple[str, str]:
    """Return what no two changes of a plan have in common."""
    return change["address"], change.get("deposed", "")


def check_digest(given: str, name: str) -> None:
    """Refuse what `make plan` can't have printed, before anything is done: an empty one must not pass for none.

    Raises:
        ProblemError: It is not 64 hexadecimal digits.
    """
    if not DIGEST.fullmatch(given):
        what = f"{given!r} is not a plan's digest" if given else "is empty"
        message = f"PLAN {what}: give the 64 digits that `make plan ENV={name}` ends with, or leave PLAN out to provision without a check"
        raise ProblemError(message)
