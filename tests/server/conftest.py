"""Read-only checks of a running server: `LONGRUN_ENV=name tests/.venv/bin/pytest tests/server`.

They change nothing, so they may run against production too. Each host is reached through the inventory, as Ansible
reaches it.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import testinfra
from testinfra.host import Host

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Deployment:
    """The inventory of one environment."""

    name: str
    inventory: dict[str, Any]

    @property
    def public_url(self) -> str:
        return str(self.inventory["all"]["vars"]["public_url"])

    @property
    def ca_certificate(self) -> Path:
        return ROOT / "environments" / self.name / "ca.crt"

    def hosts(self, group: str) -> Iterator[Host]:
        """Yield the hosts of a group, as root."""
        for name in self.inventory[group]["hosts"]:
            variables = self.inventory["_meta"]["hostvars"][name]
            yield testinfra.get_host(
                f"ssh://{variables['ansible_user']}@{variables['ansible_host']}:{variables['ansible_port']}",
                ssh_identity_file=variables["ansible_ssh_private_key_file"],
                ssh_extra_args=variables["ansible_ssh_common_args"],
                sudo=True,
            )


@pytest.fixture(scope="session")
def deployment() -> Deployment:
    """Read the inventory of the environment in LONGRUN_ENV."""
    name = os.environ.get("LONGRUN_ENV", "local")
    done = subprocess.run(
        [sys.executable, ROOT / "ansible/inventory.py", "--list"], capture_output=True, text=True, check=False, env={**os.environ, "LONGRUN_ENV": name}
    )
    assert done.returncode == 0, done.stderr
    return Deployment(name, json.loads(done.stdout))
