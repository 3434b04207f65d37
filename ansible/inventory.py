#!/usr/bin/env python3
"""Dynamic inventory: the hosts that Terraform made for the environment in LONGRUN_ENV (default: local)."""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
GROUPS = ("postgresql", "minio", "mlflow", "nginx")


class InventoryError(Exception):
    """Why there is no inventory, as one line."""


def read_outputs(environment: str) -> dict[str, Any]:
    """Return Terraform's outputs by name.

    Raises:
        InventoryError: No such environment, no state, no program, or the state can't be read.
    """
    directory = ROOT / "environments" / environment
    values = directory / "server.tfvars"
    if not values.is_file():
        message = f"there is no environment {environment!r}: `make new ENV={environment}` makes it"
        raise InventoryError(message)
    found = re.search(r'(?m)^platform\s*=\s*"([^"]+)"', values.read_text(encoding="utf-8"))
    if not found:
        message = f'environments/{environment}/server.tfvars: `platform = "..."` is missing'
        raise InventoryError(message)
    # Terraform runs in a copy of the platform's folder, which `make provision` makes; the state may lie elsewhere (backend.tf).
    folder = directory / ".terraform" / "tree" / "platforms" / found[1]
    if not folder.is_dir() or not ((directory / "terraform.tfstate").is_file() or (directory / "backend.tf").is_file()):
        message = f"environment {environment!r} has no host yet: `make provision ENV={environment}` makes it"
        raise InventoryError(message)
    cache = os.environ.get("LONGRUN_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "longrun"
    candidates = [os.environ["TF"]] if os.environ.get("TF") else ["terraform", "tofu"]
    # The one that we built comes last, as in `make provision`.
    path = f"{os.environ.get('PATH', '')}{os.pathsep}{cache}/bin"
    program = next((there for name in candidates if (there := shutil.which(name, path=path))), None)
    if not program:
        message = f"{' and '.join(candidates)} not found: `make tools` installs it, or set TF to its path"
        raise InventoryError(message)
    done = subprocess.run(
        [program, f"-chdir={folder}", "output", "-json", "-no-color"],
        env={**os.environ, "TF_DATA_DIR": str(directory / ".terraform")},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line.lstrip("│╷╵ ") for line in done.stderr.splitlines()]
        reason = next((line for line in lines if line.startswith("Error")), " ".join(done.stderr.split())[:200])
        message = f"environments/{environment}/terraform.tfstate can't be read: {reason}"
        raise InventoryError(message)
    return {name: output["value"] for name, output in json.loads(done.stdout).items()}


def build(environment: str, outputs: dict[str, Any]) -> dict[str, Any]:
    """Return the inventory in the form that Ansible reads from a script.

    Args:
        environment: The folder below environments/.
        outputs: `hosts` and `public_url`, as terraform/README.md describes them.

    Raises:
        InventoryError: There is no host, or one has a group that no playbook knows.
    """
    hosts = outputs.get("hosts") or {}
    if not hosts:
        message = f"Terraform's state of {environment!r} holds no host: `make provision ENV={environment}` finishes it"
        raise InventoryError(message)
    directory = ROOT / "environments" / environment
    inventory: dict[str, Any] = {group: {"hosts": []} for group in GROUPS}
    hostvars = {}
    for name, host in sorted(hosts.items()):
        for group in host["groups"]:
            if group not in GROUPS:
                message = f"host {name!r} has the unknown group {group!r} (there are: {', '.join(GROUPS)})"
                raise InventoryError(message)
            inventory[group]["hosts"].append(name)
        hostvars[name] = {
            "ansible_host": host["address"],
            "ansible_port": host["port"],
            "ansible_user": host["user"],
            "ansible_ssh_private_key_file": str(directory / "ssh_key"),
            "ansible_ssh_common_args": (f"-o UserKnownHostsFile={directory / 'known_hosts'} -o StrictHostKeyChecking=accept-new -o IdentitiesOnly=yes"),
            "data_path": host["data_path"],
            "private_address": host["private_address"],
        }
    inventory["all"] = {"vars": {"longrun_environment": environment, "public_url": outputs["public_url"]}}
    inventory["_meta"] = {"hostvars": hostvars}
    return inventory


def main() -> int:
    """Print the inventory, or one line that says why there is none."""
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--list", action="store_true", help="print the whole inventory as JSON")
    what.add_argument("--host", metavar="NAME", help="print the variables of one host as JSON")
    arguments = parser.parse_args()
    environment = os.environ.get("LONGRUN_ENV") or "local"
    try:
        inventory = build(environment, read_outputs(environment))
    except InventoryError as error:
        print(f"longrun inventory: {error}", file=sys.stderr)
        return 1
    print(json.dumps(inventory["_meta"]["hostvars"].get(arguments.host, {}) if arguments.host else inventory, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
