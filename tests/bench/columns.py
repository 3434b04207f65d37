"""The host of the benchmark, and the three servers on it: stock, tuned stock and ours, all reached at the host's own address.

Ours is what the project's own commands make; `columns.yml` puts the others beside it. Nothing of them is part of the product.
"""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import typer
from longrun_controller import playbooks
from longrun_controller.environment import Environment
from longrun_controller.errors import ProblemError
from longrun_controller.progress import Progress
from longrun_training import terminal

from tests.bench.loads import Call, Target, ask, post
from tests.bench.results import OURS, STOCK, TUNED
from tests.servers import ENVIRONMENTS, ROOT, Server, hurried, remove

DEFAULT = "bench"
STOCK_PORT, TUNED_PORT = 5000, 8444
LOGIN = "ci"
LOG = ROOT / "tests" / "bench" / "logs" / "server.log"
# Three servers, of which stock alone takes half.
MEMORY_MB = 8192
# What a whole run leaves on the data volume, its large artifacts and the million runs.
DISK_GB = 20
PATIENCE_SECONDS = 60.0
# On the host: what is sent to MinIO from there.
SENT = "/srv/longrun/bench.bin"
# What sudo says in every container.
NOT_A_REASON = "sudo: unable to send audit message"
VALUES = f"""
# Of the benchmark: what stands beside ours on this host.
base_open_ports: [{{port: 22}}, {{port: 443}}, {{port: {STOCK_PORT}}}, {{port: {TUNED_PORT}}}]
postgresql_databases: [mlflow, mlflow_auth, stock, stock_auth, tuned, tuned_auth]
postgresql_max_connections: 600
"""
NGINX = {STOCK: (), TUNED: ("bench-nginx.service",), OURS: ("nginx.service",)}
NGINX_LOG = {TUNED: "/var/log/nginx/bench-error.log", OURS: "/var/log/nginx/error.log"}


@dataclass(frozen=True)
class Host:
    """The host, reached as Ansible reaches it."""

    directory: Path
    address: str
    port: int
    user: str

    def _ssh(self, *options: str) -> list[str]:
        given = (f"UserKnownHostsFile={self.directory / 'known_hosts'}", "IdentitiesOnly=yes", "ControlPath=~/.ansible/cp/bench-%C", "LogLevel=ERROR")
        where = ["-i", str(self.directory / "ssh_key"), "-p", str(self.port), *(part for each in given for part in ("-o", each))]
        return ["ssh", *where, *options, f"{self.user}@{self.address}"]

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Hold one connection for all that is asked meanwhile: a handshake costs more than most of it."""
        # By itself, ssh would keep the pipes of whoever asks first.
        nowhere: Any = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(self._ssh("-M", "-N", "-f"), check=False, start_new_session=True, **nowhere)
        try:
            yield
        finally:
            subprocess.run(self._ssh("-O", "exit"), check=False, **nowhere)

    def script(self, text: str) -> str:
        """Run a bash script as root and return what it printed.

        Raises:
            ProblemError: It failed.
        """
        return self._end(self._start("sudo bash -es"), text, text.strip().splitlines()[0])

    def psql(self, database: str, sessions: Sequence[str], variables: Mapping[str, str | int] | None = None) -> None:
        """Run SQL as PostgreSQL's administrator.

        Args:
            database: Where.
            sessions: What each of several sessions does, side by side.
            variables: psql's.

        Raises:
            ProblemError: One of them failed.
        """
        given = " ".join(f"-v {name}={value}" for name, value in (variables or {}).items())
        command = f"sudo -u postgres psql --quiet --no-psqlrc --dbname={database} -v ON_ERROR_STOP=1 {given} --file=-"
        started = [self._start(command) for _ in sessions]
        for process, sql in zip(started, sessions, strict=True):
            self._feed(process, sql)
        for process in started:
            self._end(process, None, f"SQL in {database}")

    def watch(self, units: Sequence[str]) -> subprocess.Popen[str]:
        """Start to look at the memory of services; closing its standard input ends it."""
        return self._start(f"sudo python3 /opt/longrun/bench-memory.py watch {' '.join(units)}")

    def memory(self, units: Sequence[str]) -> dict[str, int]:
        """Return what `on_host/memory.py` sees of services now."""
        found: dict[str, int] = json.loads(self.script(f"python3 /opt/longrun/bench-memory.py once {' '.join(units)}"))
        return found

    def floor(self, run: str, count: int) -> list[float]:
        """Return how many seconds the durable floor took, each time."""
        command = f"/opt/longrun/mlflow/current/bin/python /opt/longrun/bench-floor.py mlflow {run} {count}"
        found: list[float] = json.loads(self.script(f"cd / && PGPASSFILE=/etc/mlflow/pgpass setpriv --reuid mlflow --regid mlflow --clear-groups {command}"))
        return found

    def straight(self, url: str, megabytes: int, *, upload: bool) -> float:
        """Return how many seconds curl takes on the host to send a file of random bytes to an address, or to fetch what is there."""
        made, sent = (f"head -c {megabytes}000000 /dev/urandom > {SENT}", f'upload-file = "{SENT}"') if upload else ("", "")
        # The address is as good as a login for an hour: not on a command line.
        return float(
            self.script(f"""# MinIO alone
{made}
curl --silent --show-error --fail --output /dev/null --header Expect: --write-out '%{{time_total}}' --config - <<'END'
url = "{url}"
{sent}
END
rm -f {SENT}
""")
        )

    def _start(self, command: str) -> subprocess.Popen[str]:
        # Ctrl-C is ours: the connection must live on for what has to be put right.
        return subprocess.Popen(
            [*self._ssh(), command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def _feed(self, process: subprocess.Popen[str], text: str) -> None:
        assert process.stdin
        process.stdin.write(text)
        process.stdin.close()
        process.stdin = None

    def _end(self, process: subprocess.Popen[str], text: str | None, what: str) -> str:
        try:
            output, errors = process.communicate(text)
        except BaseException:
            process.kill()
            raise
        if process.returncode:
            said = [line for line in errors.splitlines() if line.strip() and not line.startswith(NOT_A_REASON)]
            reason = (said or ["it gives no reason"])[-1]
            message = f"on the host: {what}: {reason}"
            raise ProblemError(message)
        return output


@dataclass(frozen=True)
class Column:
    """One of the three servers.

    Attributes:
        target: How it is reached, as the user of the pipelines.
        units: Its application tier: systemd's services.
        sockets: What each of its instances answers at, for curl.
        database: Of its runs.
    """

    target: Target
    units: tuple[str, ...]
    sockets: tuple[str, ...]
    database: str

    @property
    def name(self) -> str:
        """Name of the column."""
        return self.target.name


@dataclass(frozen=True)
class Bench:
    """Everything that is there to be measured."""

    host: Host
    columns: Mapping[str, Column]
    # S3 key and secret, for presigned addresses.
    keys: tuple[str, str]
    # The administrator's.
    password: str

    @property
    def ours(self) -> Column:
        """What it is all about."""
        return self.columns[OURS]

    @property
    def administrator(self) -> Target:
        """Ours, as its administrator reaches it."""
        return self.ours.target.as_user("admin", self.password)


def check_name(name: str) -> None:
    """Refuse any environment that may be a person's.

    Raises:
        ProblemError: It is not called `bench` or `bench-something`.
    """
    if not re.fullmatch(rf"{DEFAULT}(-[a-z0-9-]+)?", name):
        message = f"--env {name}: the benchmark empties the database that it measures, so its environment is called {DEFAULT} or {DEFAULT}-something"
        raise ProblemError(message)


@contextmanager
def environment(name: str, *, keep: bool, there: bool) -> Iterator[Bench]:
    """Make the host with the project's own commands, and remove it whatever happens.

    The servers beside ours are there, and were not started.

    Args:
        name: Of the environment.
        keep: Leave it as it is at the end.
        there: Take the one that was kept.

    Raises:
        ProblemError: It can't be made, or is not there.
    """
    check_name(name)
    LOG.parent.mkdir(exist_ok=True)
    LOG.unlink(missing_ok=True)
    if there and not (ENVIRONMENTS / name / "server.tfvars").exists():
        message = f"there is no environment {name!r}: leave --env out, and keep the host with --keep"
        raise ProblemError(message)
    if not there and shutil.disk_usage("/").free < DISK_GB * 10**9:
        message = f"less than {DISK_GB} GB are free: a host with three servers, large artifacts and a million runs takes that much"
        raise ProblemError(message)
    server = Server(name, LOG)
    # How the servers come to stand there is not what is measured.
    os.environ |= hurried()
    try:
        if not there:
            with terminal.step(f"removing what an earlier run left of {name}"):
                remove(name)
            _make(server)
        bench = _set_up(server)
        with bench.host.connected():
            yield bench
    finally:
        if not keep and not there:
            # Once more Ctrl-C must not leave half of it behind.
            before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
            with terminal.step(f"removing {name}"):
                remove(name)
            for number, handler in before.items():
                signal.signal(number, handler)


def _make(server: Server) -> None:
    _run(server, "new")
    for file, text in (("server.tfvars", f"memory_mb = {MEMORY_MB}\n"), ("vars.yml", VALUES)):
        with (server.directory / file).open("a") as opened:
            opened.write(text)
    for verb in ("tools", "provision", "deploy", "users"):
        with terminal.step(f"make {verb} ENV={server.name}"):
            _run(server, verb)


def _run(server: Server, verb: str) -> None:
    """Run `make`, and let it put its own house in order when it is interrupted."""
    with server.log.open("a") as log:
        process = subprocess.Popen(
            ["make", "-s", verb, f"ENV={server.name}"],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.PIPE,
            text=True,
            # Ctrl-C reaches us alone, and is passed on to all of it at once.
            start_new_session=True,
        )
        try:
            _, errors = process.communicate()
        except BaseException:
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, signal.SIGINT)
                process.wait(timeout=PATIENCE_SECONDS)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
        log.write(errors)
    if process.returncode:
        lines = [line for line in errors.splitlines() if line.startswith("longrun:")] or errors.strip().splitlines()[-1:] or ["it said nothing"]
        message = f"make {verb} ENV={server.name}: {lines[-1].removeprefix('longrun:').strip()}"
        raise ProblemError(message)


def _set_up(server: Server) -> Bench:
    with Progress(server.directory / "logs").step("columns beside ours") as step:
        variables = (f"stock_port={STOCK_PORT}", f"tuned_port={TUNED_PORT}")
        playbooks.run(step, Environment.load(server.name), "../tests/bench/columns", variables=variables)
    outputs, secrets = server.outputs(), server.secrets()
    given: dict[str, Any] = outputs["hosts"]["server"]
    host = Host(server.directory, given["address"], given["port"], given["user"])
    address, public, authority = given["private_address"], outputs["public_url"], server.directory / "ca.crt"
    login = (LOGIN, secrets[f"password of {LOGIN}"])
    instances = host.script("systemctl list-units --plain --no-legend --state=running 'mlflow@*' | sed 's/.*mlflow@//; s/.service.*//'").split()
    tuned_url = f"https://{urlsplit(public).hostname}:{TUNED_PORT}"

    def sockets(folder: str) -> tuple[str, ...]:
        return tuple(f"--unix-socket /run/{folder}/{each}/mlflow.sock http://localhost" for each in instances)

    def units(service: str) -> tuple[str, ...]:
        return tuple(f"{service}@{each}.service" for each in instances)

    columns = (
        Column(
            Target(STOCK, address, STOCK_PORT, f"http://localhost:{STOCK_PORT}", login),
            ("bench-stock.service",),
            (f"http://localhost:{STOCK_PORT}",),
            "stock",
        ),
        Column(Target(TUNED, address, TUNED_PORT, tuned_url, login, authority), units("bench-tuned"), sockets("bench-tuned"), "tuned"),
        Column(Target(OURS, address, 443, public, login, authority), units("mlflow"), sockets("mlflow"), "mlflow"),
    )
    return Bench(
        host, {column.name: column for column in columns}, ("mlflow", secrets["vault_minio_mlflow_secret_key"]), secrets["vault_mlflow_admin_password"]
    )


def ensure_users(bench: Bench) -> None:
    """Make the user of the pipelines on every server, who is no administrator: every permission is looked up for each call."""
    for column in bench.columns.values():
        admin = column.target.as_user("admin", bench.password)
        user, secret = column.target.login
        if ask(admin, Call("GET", f"/api/2.0/mlflow/users/get?username={user}"), statuses=(200, 404)) is None:
            ask(admin, post("users/create", {"username": user, "password": secret}))


def interruptible() -> None:
    """Make SIGTERM end this as Ctrl-C does, and undo that a shell has its children in the background ignore Ctrl-C."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


def fail(error: BaseException) -> typer.Exit:
    """Say in one line what went wrong."""
    terminal.fail(" ".join(str(error).split()))
    return typer.Exit(1)
