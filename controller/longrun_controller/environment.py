"""An environment: one folder below `environments/`, which describes one server."""

import contextlib
import os
import re
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hcl2
import yaml

from longrun_controller.errors import ProblemError

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = ROOT / "environments"
# Also a host name, a container name and a DNS label.
NAME = re.compile(r"[a-z][a-z0-9-]{0,29}")
SERVER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")


def cache_directory() -> Path:
    """Return the folder for what is built or downloaded once and serves every clone."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "longrun"
    return Path(os.environ.get("LONGRUN_CACHE") or default)


def check_name(name: str) -> None:
    """Refuse a name that a host or a container could not bear.

    Raises:
        ProblemError: The name has a space, a capital, a leading digit or more than 30 characters.
    """
    if not NAME.fullmatch(name):
        message = f"ENV={name!r} can't name a server: use small letters, digits and hyphens, a letter first, 30 at most"
        raise ProblemError(message)


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping.

    Raises:
        ProblemError: The file is missing, is not YAML, or is not a mapping; names the line where there is one.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        message = f"{path.relative_to(ROOT)} is missing: copy it from environments/local"
        raise ProblemError(message) from None
    except (OSError, UnicodeDecodeError) as error:
        message = f"{path.relative_to(ROOT)} can't be read as a text in UTF-8: {error}"
        raise ProblemError(message) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        message = f"{path.relative_to(ROOT)}{where}: {problem}; put the line right and run this again"
        raise ProblemError(message) from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        message = f"{path.relative_to(ROOT)} must hold `name: value` lines"
        raise ProblemError(message)
    return content


@dataclass(frozen=True)
class Environment:
    """One server's folder and the values in it."""

    name: str
    directory: Path
    values: dict[str, Any]

    @classmethod
    def load(cls, name: str) -> "Environment":
        """Read `environments/<name>`.

        Raises:
            ProblemError: No such environment, or its `server.tfvars` can't be read.
        """
        check_name(name)
        directory = ENVIRONMENTS / name
        path = directory / "server.tfvars"
        if not path.is_file():
            known = ", ".join(sorted(p.parent.name for p in ENVIRONMENTS.glob("*/server.tfvars"))) or "none"
            message = f"there is no environment {name!r} (there are: {known}): `make new ENV={name}` makes it"
            raise ProblemError(message)
        return cls(name, directory, _read_tfvars(path, name))

    @classmethod
    def all(cls) -> list["Environment"]:
        """Read every environment but those that can't be read: a mistake in one must not stop another."""
        found = []
        for path in sorted(ENVIRONMENTS.glob("[a-z]*/server.tfvars")):
            with contextlib.suppress(ProblemError):
                found.append(cls.load(path.parent.name))
        return found

    def ports(self) -> set[int]:
        """Return the ports of this machine that a container host of this environment takes."""
        if self.platform != "container":
            return set()
        first = int(self.values.get("ssh_port", 8422))
        return {int(self.values.get("https_port", 8443)), *range(first, first + (len(self.values.get("hosts", {})) or 1))}

    @property
    def platform(self) -> str:
        """Return the name of the folder below `terraform/platforms`."""
        return str(self.values["platform"])

    @property
    def state(self) -> Path:
        """Terraform's state."""
        return self.directory / "terraform.tfstate"

    @property
    def backend(self) -> Path:
        """Where the state lies instead, if this file is there: a `terraform { backend … }` block of the environment's own."""
        return self.directory / "backend.tf"

    @property
    def ssh_key(self) -> Path:
        """Private key that opens the hosts; the public one lies beside it."""
        return self.directory / "ssh_key"

    @property
    def ssh_public_key(self) -> Path:
        """What the hosts know of it."""
        return self.directory / "ssh_key.pub"

    @property
    def known_hosts(self) -> Path:
        """What ssh knows of the hosts' own keys."""
        return self.directory / "known_hosts"

    @property
    def ca_certificate(self) -> Path:
        """Certificate of the authority that clients trust."""
        return self.directory / "ca.crt"

    @property
    def vault(self) -> Path:
        """Encrypted secrets."""
        return self.directory / "vault.yml"

    @property
    def vault_key(self) -> Path:
        """What opens the vault."""
        return self.directory / ".vault-password"

    @property
    def logs(self) -> Path:
        """Folder of the last run's whole output."""
        return self.directory / "logs"

    def users(self) -> list[str]:
        """Return the names in `users.yml`, without the admin.

        Raises:
            ProblemError: The list is not one of `name:` entries, or a name stands in it twice.
        """
        path = self.directory / "users.yml"
        entries = load_yaml(path).get("users", [])
        if not isinstance(entries, list) or not all(isinstance(e, dict) and isinstance(e.get("name"), str) for e in entries):
            message = f"{path.relative_to(ROOT)}: `users` must be a list of `- name: somebody`"
            raise ProblemError(message)
        names = [entry["name"] for entry in entries]
        for name in names:
            if names.count(name) > 1 or name == "admin":
                message = f"{path.relative_to(ROOT)}: the user {name!r} stands there twice (admin is implied): take one out"
                raise ProblemError(message)
        return names

    def check(self) -> None:
        """Read every file of the folder that a person writes, before anything is changed.

        Raises:
            ProblemError: One of them can't be used.
        """
        load_yaml(self.directory / "vars.yml")
        self.users()


def _read_tfvars(path: Path, name: str) -> dict[str, Any]:
    where = path.relative_to(ROOT)
    try:
        raw = hcl2.loads(path.read_text(encoding="utf-8"))
    except Exception as error:  # noqa: BLE001 - see below
        # lark raises several unrelated classes; each text begins with what and where.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        message = f"{where} is not in Terraform's syntax: {reason}"
        raise ProblemError(message) from None
    values = {key: _plain(value) for key, value in raw.items() if not key.startswith("__")}
    for key in ("platform", "name"):
        if not isinstance(values.get(key), str):
            message = f'{where}: `{key} = "..."` is missing'
            raise ProblemError(message)
    if values["name"] != name:
        message = f"{where}: name is {values['name']!r}, but the folder is {name!r}: they must be the same"
        raise ProblemError(message)
    _check_values(where, values)
    return values


def _check_values(where: Path, values: dict[str, Any]) -> None:
    """Refuse what would be used before Terraform, which checks everything else, has seen it."""
    ports, releases = range(1, 65536), (12, 13)
    for key, allowed, said in (
        ("https_port", ports, "a port number from 1 to 65535"),
        ("ssh_port", ports, "a port number from 1 to 65535"),
        ("debian_release", releases, "12 or 13"),
    ):
        if key in values and values[key] not in allowed:
            message = f"{where}: {key} is {values[key]!r}, but must be {said}"
            raise ProblemError(message)
    if not isinstance(values.get("hosts", {}), dict):
        message = f"{where}: hosts must be a map of names, as in {{ server = {{ groups = [...] }} }}"
        raise ProblemError(message)
    if not SERVER_NAME.fullmatch(str(values.get("server_name", "localhost"))):
        message = f"{where}: server_name is {values['server_name']!r}, but must be a host name or an IPv4 address, without https:// and without a port"
        raise ProblemError(message)


def _plain(value: object) -> object:
    """Return the value without the quotation marks that hcl2 keeps around strings, and without its notes."""
    if isinstance(value, dict):
        return {_plain(key): _plain(inner) for key, inner in value.items() if not str(key).startswith("__")}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, str):
        return value.removeprefix('"').removesuffix('"')
    return value


def _free_port(first: int, used: set[int]) -> int:
    """Return the first port from `first` on that no environment names and nothing listens on."""
    for port in range(first, 65536):
        if port in used:
            continue
        with socket.socket() as probe:
            # As a server would bind it: a connection that is only closing down is not in the way.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        used.add(port)
        return port
    message = f"no free port from {first} on: stop something"
    raise ProblemError(message)


def create(name: str, platform: str) -> Environment:
    """Make `environments/<name>` after the platform's model, with ports of its own.

    Raises:
        ProblemError: The folder is there already.
    """
    directory = ENVIRONMENTS / name
    if directory.exists():
        message = f"environments/{name} is there already: `make up ENV={name}` makes its server"
        raise ProblemError(message)
    # Whether or not their servers run.
    used = {port for environment in Environment.all() for port in environment.ports()}
    text = (ROOT / "terraform" / "platforms" / platform / "server.tfvars").read_text(encoding="utf-8")
    text = re.sub(r'(?m)^(name\s*=\s*)".*"$', rf'\g<1>"{name}"', text)
    for key, first in (("https_port", 8443), ("ssh_port", 8422)):
        if re.search(rf"(?m)^{key}\s*=", text):
            text = re.sub(rf"(?m)^({key}\s*=\s*).*$", rf"\g<1>{_free_port(first, used)}", text)
    part = ENVIRONMENTS / f".{name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    (part / "server.tfvars").write_text(text, encoding="utf-8")
    for file in ("vars.yml", "users.yml"):
        shutil.copy(ENVIRONMENTS / "local" / file, part / file)
    part.rename(directory)
    return Environment.load(name)
