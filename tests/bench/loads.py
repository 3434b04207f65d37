"""Clients that ask a server as fast as it answers: threads, each with one connection of `http.client` that is kept alive.

It is the standard library's, and light: what a client costs is taken from the server on the same machine. Answers are read to their end and not
unpacked; what is in them is looked at before anything is timed.
"""

import gzip
import http.client
import json
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from longrun_controller.errors import ProblemError

from tests.bench.results import Timings

TIMEOUT_SECONDS = 180.0
# Broken connections one after another, after which a client gives up.
MOST_BREAKS = 5


@dataclass(frozen=True)
class Target:
    """Where a server is, and as whom it is asked.

    Attributes:
        name: Of the column.
        address: Where to connect to.
        port: On that address.
        url: How clients name it: scheme and Host header come from there.
        login: User and password.
        authority: Certificate that signed the server's; None where it speaks plain HTTP.
    """

    name: str
    address: str
    port: int
    url: str
    login: tuple[str, str]
    authority: Path | None = None

    @property
    def host(self) -> str:
        """What the Host header says."""
        return urlsplit(self.url).netloc

    def as_user(self, name: str, password: str) -> "Target":
        """Return the same server, asked as somebody else."""
        return replace(self, login=(name, password))

    @property
    def authorization(self) -> str:
        """What the header of that name says."""
        return f"Basic {b64encode(':'.join(self.login).encode()).decode()}"


@dataclass(frozen=True)
class Call:
    """One request."""

    method: str
    path: str
    body: bytes | None = None


# From a client's number to what it asks, one after another, without an end.
Calls = Callable[[int], Iterator[Call]]


def post(path: str, content: object) -> Call:
    """Return a call of MLflow's REST API with a body."""
    return Call("POST", f"/api/2.0/mlflow/{path}", json.dumps(content).encode())


@lru_cache
def _context(authority: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority))


class Connection:
    """One connection to a server, open from the start.

    Raises:
        ProblemError: There is no server.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        try:
            self.open()
        except OSError as error:
            message = f"{target.name} at {target.address}:{target.port} can't be reached: {error.strerror or error}"
            raise ProblemError(message) from None

    def open(self) -> None:
        """Connect, or connect anew."""
        target = self.target
        stream = socket.create_connection((target.address, target.port), timeout=TIMEOUT_SECONDS)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.http = http.client.HTTPConnection(target.address, target.port)
        # A broken connection is to be seen, not mended.
        self.http.auto_open = 0
        # The certificate is made for the name in the address that clients use.
        self.http.sock = _context(target.authority).wrap_socket(stream, server_hostname=urlsplit(target.url).hostname) if target.authority else stream

    def close(self) -> None:
        """Close it."""
        self.http.close()

    @property
    def headers(self) -> dict[str, str]:
        """What MLflow's client sends with every request, as far as a server cares."""
        return {"Host": self.target.host, "Authorization": self.target.authorization, "Accept-Encoding": "gzip, deflate", "Accept": "*/*"}

    def send(self, call: Call) -> tuple[http.client.HTTPResponse, bytes]:
        """Send a call and read its answer as it came."""
        headers = self.headers | ({"Content-Type": "application/json"} if call.method == "POST" else {})
        self.http.request(call.method, call.path, body=call.body, headers=headers)
        answer = self.http.getresponse()
        return answer, answer.read()

    def ask(self, call: Call, *, statuses: tuple[int, ...] = (200,)) -> tuple[int, bytes]:
        """Send a call and return its answer unpacked.

        Raises:
            ProblemError: Another status than those.
        """
        answer, body = self.send(call)
        if answer.getheader("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if answer.status not in statuses:
            message = f"{self.target.name} answered {call.method} {call.path.split('?')[0]} with {answer.status}: {body[:300].decode(errors='replace')}"
            raise ProblemError(message)
        return answer.status, body


def ask(target: Target, call: Call, *, statuses: tuple[int, ...] = (200,)) -> Any:  # noqa: ANN401 - JSON
    """Send one call on a connection of its own and return its JSON; None where the status is not 200.

    Raises:
        ProblemError: Another status than those.
    """
    connection = Connection(target)
    try:
        status, body = connection.ask(call, statuses=statuses)
    finally:
        connection.close()
    return json.loads(body) if status == http.HTTPStatus.OK else None


class _Client:
    """One client of a block, and what it did."""

    def __init__(self, target: Target, calls: Iterator[Call], least: int) -> None:
        self.connection = Connection(target)
        self.calls = calls
        self.least = least
        self.until = 0.0
        self.latencies: list[float] = []
        self.failed = 0
        self.error: str | None = None
        self.problem: ProblemError | None = None
        self.ended = 0.0

    def run(self) -> None:
        """Ask until the time is over, and so often at least."""
        breaks = 0
        while breaks < MOST_BREAKS and (time.perf_counter() < self.until or len(self.latencies) + self.failed < self.least):
            try:
                # nginx closes a connection after a thousand requests, and a client opens another.
                if self.connection.http.sock is None:
                    self.connection.open()
                call = next(self.calls)
                started = time.perf_counter()
                answer, body = self.connection.send(call)
            except ProblemError as error:
                self.problem = error
                break
            except (OSError, http.client.HTTPException) as error:
                self.failed, breaks = self.failed + 1, breaks + 1
                self.error = f"{type(error).__name__}: {error}"
                self.connection.close()
                continue
            breaks = 0
            if http.HTTPStatus.OK <= answer.status < http.HTTPStatus.MULTIPLE_CHOICES:
                self.latencies.append(time.perf_counter() - started)
            else:
                self.failed += 1
                self.error = f"{answer.status}: {body[:200].decode(errors='replace')}"
        self.ended = time.perf_counter()
        self.connection.close()

    def stop(self) -> None:
        """Ask nothing more."""
        self.least, self.until = 0, 0.0


def block(target: Target, calls: Calls, *, clients: int, seconds: float, least: int = 1) -> Timings:
    """Let so many clients ask for so long, each the next thing when it has its answer.

    Args:
        target: The server.
        calls: What they ask.
        clients: How many, side by side; all are connected before the first one asks.
        seconds: After this, nobody asks any more; who waits, waits on.
        least: Requests of each client, however long they take.

    Raises:
        ProblemError: Nothing was answered, or there is nothing left to ask.
    """
    crowd = [_Client(target, calls(number), least) for number in range(clients)]
    start = threading.Barrier(clients + 1)

    def work(client: _Client) -> None:
        start.wait()
        client.run()

    threads = [threading.Thread(target=work, args=(client,), daemon=True) for client in crowd]
    for thread in threads:
        thread.start()
    begun = time.perf_counter()
    for client in crowd:
        client.until = begun + seconds
    start.wait()
    try:
        for thread in threads:
            thread.join()
    except BaseException:
        for client in crowd:
            client.stop()
        raise
    for client in crowd:
        if client.problem:
            raise client.problem
    latencies = tuple(latency for client in crowd for latency in client.latencies)
    if not latencies:
        message = f"{target.name} answered nothing: {next((client.error for client in crowd if client.error), 'no reason')}"
        raise ProblemError(message)
    return Timings(latencies, max(client.ended for client in crowd) - begun, sum(client.failed for client in crowd))
