"""Artifacts, sent and fetched as MLflow's client does it: one request to the server, whatever the size."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from longrun_controller.errors import ProblemError
from longrun_training import terminal

from tests.bench.columns import NGINX, NGINX_LOG, Bench, Column
from tests.bench.loads import Call, Connection, Target, block
from tests.bench.memory import spilled, watched
from tests.bench.operations import Seeds
from tests.bench.results import GET, MIDDLE, NAMES, OURS, PRESIGNED, PUT, SMALL, STORE, TUNED, Artifacts, Growth, Timings, Transfers

PLACE = "/api/2.0/mlflow-artifacts/artifacts"
PIECE = os.urandom(1_000_000)
SIZES = {SMALL: 1_000, MIDDLE: 1_000_000}
BLOCK_SECONDS = 1.5
# Of a file that breaks off: what is cut, and where.
BROKEN_MB, CUT_MB = 32, 8
VISIBLE_AFTER_SECONDS = 3.0
MINIO = "http://127.0.0.1:9000"
BUCKET = "mlflow"


def folder(seeds: Seeds) -> str:
    """Return where the artifacts of one run lie."""
    return f"{PLACE}/{seeds.written}/{seeds.take()}/artifacts"


def _pieces(megabytes: int) -> Iterator[bytes]:
    for _ in range(megabytes):
        yield PIECE


def put(target: Target, path: str, megabytes: int, *, login: bool = True) -> float:
    """Send a file of random bytes and return the seconds from the first byte to the answer.

    Raises:
        ProblemError: It was not taken.
    """
    connection = Connection(target)
    headers = (connection.headers if login else {"Host": target.host}) | {"Content-Length": str(megabytes * len(PIECE))}
    started = time.perf_counter()
    try:
        connection.http.request("PUT", path, body=_pieces(megabytes), headers=headers)
        answer = connection.http.getresponse()
        said = answer.read()
        seconds = time.perf_counter() - started
    finally:
        connection.close()
    if answer.status not in {200, 204}:
        message = f"{target.name} answered an upload of {megabytes} MB with {answer.status}: {said[:200].decode(errors='replace')}"
        raise ProblemError(message)
    return seconds


def get(target: Target, path: str, megabytes: int, *, login: bool = True) -> float:
    """Fetch a file, throw it away and return the seconds from the question to the last byte.

    Raises:
        ProblemError: It did not come, or not all of it.
    """
    connection = Connection(target)
    buffer, received = bytearray(len(PIECE)), 0
    started = time.perf_counter()
    try:
        connection.http.request("GET", path, headers=connection.headers if login else {"Host": target.host})
        answer = connection.http.getresponse()
        while length := answer.readinto(buffer):
            received += length
        seconds = time.perf_counter() - started
    finally:
        connection.close()
    if answer.status != 200 or received != megabytes * len(PIECE):
        message = f"{target.name} answered a download of {megabytes} MB with {answer.status} and {received} bytes"
        raise ProblemError(message)
    return seconds


def _small(bench: Bench, folders: Mapping[str, str], rounds: int) -> dict[str, dict[str, Timings]]:
    found: dict[str, dict[str, Timings]] = {}
    with terminal.step("small artifacts", rounds * len(SIZES) * 2 * len(NAMES)) as advance:
        for number in range(rounds):
            for (size, length), direction in ((item, direction) for item in SIZES.items() for direction in (PUT, GET)):
                body = PIECE[:length] if direction == PUT else None
                for name in NAMES[:: -1 if number % 2 else 1]:
                    # The same name again and again: the bucket keeps versions, and MLflow's client overwrites as well.
                    calls = partial(_again, Call(direction, f"{folders[name]}/{length}.bin", body))
                    again = block(bench.columns[name].target, calls, clients=1, seconds=BLOCK_SECONDS, least=4)
                    row = found.setdefault(f"{direction} {size}", {})
                    row[name] = row.get(name, Timings((), 0.0)) + again
                    advance()
    return found


def _again(call: Call, _client: int) -> Iterator[Call]:
    while True:
        yield call


def _large(bench: Bench, folders: Mapping[str, str], megabytes: int, repeats: int) -> Transfers:
    client = boto3.client(
        "s3",
        endpoint_url=MINIO,
        region_name="us-east-1",
        aws_access_key_id=bench.keys[0],
        aws_secret_access_key=bench.keys[1],
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )

    def presigned(operation: str) -> str:
        url = urlsplit(client.generate_presigned_url(operation, {"Bucket": BUCKET, "Key": "presigned/large.bin"}, 3600))
        return f"{url.path}?{url.query}"

    # nginx before tuned stock passes it on.
    floor = bench.columns[TUNED].target
    ways: dict[str, dict[str, Callable[[], float]]] = {
        PUT: {
            STORE: lambda: bench.host.straight(MINIO + presigned("put_object"), megabytes, upload=True),
            PRESIGNED: lambda: put(floor, presigned("put_object"), megabytes, login=False),
        },
        GET: {
            STORE: lambda: bench.host.straight(MINIO + presigned("get_object"), megabytes, upload=False),
            PRESIGNED: lambda: get(floor, presigned("get_object"), megabytes, login=False),
        },
    }
    for name in NAMES:
        path, target = f"{folders[name]}/large.bin", bench.columns[name].target
        ways[PUT][name], ways[GET][name] = partial(put, target, path, megabytes), partial(get, target, path, megabytes)
    seconds: dict[str, dict[str, list[float]]] = {direction: {name: [] for name in each} for direction, each in ways.items()}
    with terminal.step(f"artifacts of {megabytes} MB", repeats * sum(map(len, ways.values()))) as advance:
        for number in range(repeats):
            for direction, each in ways.items():
                for name in list(each)[:: -1 if number % 2 else 1]:
                    # The last turn is of those that are a few tenths apart only.
                    if number < repeats - 1 or name in {PRESIGNED, OURS}:
                        seconds[direction][name].append(each[name]())
                    advance()
    return Transfers(megabytes, seconds)


def _growth(bench: Bench, column: Column, path: str, megabytes: int) -> dict[str, Growth]:
    """Look at a column's memory while one large file goes up and comes down."""
    found = {}
    log = NGINX_LOG.get(column.name)
    for direction, transfer in ((PUT, put), (GET, get)):
        before = spilled(bench, log)
        with watched(bench, (*column.units, *NGINX[column.name])) as seen:
            transfer(column.target, path, megabytes)
        most = max(each["bytes"] for each in seen)
        found[direction] = Growth(megabytes, seen[0]["bytes"], most, max(each["temporary"] for each in seen), spilled(bench, log) - before)
    return found


def _resumes(target: Target, path: str) -> bool:
    """Break a download off, ask for the rest, and return whether both parts are the file."""
    put(target, path, BROKEN_MB)
    whole = hashlib.sha256(PIECE * BROKEN_MB).digest()
    broken = Connection(target)
    broken.http.request("GET", path, headers=broken.headers)
    first = broken.http.getresponse().read(CUT_MB * len(PIECE))
    broken.close()
    rest = Connection(target)
    try:
        rest.http.request("GET", path, headers=rest.headers | {"Range": f"bytes={len(first)}-"})
        answer = rest.http.getresponse()
        second = answer.read()
    finally:
        rest.close()
    return answer.status == 206 and hashlib.sha256(first + second).digest() == whole


def _leaves_nothing(target: Target, path: str) -> bool:
    """Break an upload off and return whether nobody can see anything of it, a moment later."""
    connection = Connection(target)
    connection.http.putrequest("PUT", path, skip_host=True, skip_accept_encoding=True)
    for name, value in (connection.headers | {"Content-Length": str(BROKEN_MB * len(PIECE))}).items():
        connection.http.putheader(name, value)
    connection.http.endheaders()
    for piece in _pieces(CUT_MB):
        connection.http.send(piece)
    connection.close()
    # The server may still be at it, and what is to be seen is to be seen by then.
    time.sleep(VISIBLE_AFTER_SECONDS)
    again = Connection(target)
    try:
        answer, _ = again.send(Call("GET", path))
    finally:
        again.close()
    return answer.status not in {200, 206}


def measure(bench: Bench, seeds: Mapping[str, Seeds], *, megabytes: int, largest: int, rounds: int) -> Artifacts:
    """Measure everything about artifacts.

    Args:
        bench: The servers.
        seeds: Runs that artifacts may belong to, by column.
        megabytes: Size of the large file that is timed.
        largest: Size of the one that is sent to ours only, while its memory is looked at.
        rounds: How often each is timed; the large one, of which a block is one only, once more where ours and a presigned address are compared.
    """
    folders = {name: folder(seeds[name]) for name in NAMES}
    small, large = _small(bench, folders, rounds), _large(bench, folders, megabytes, rounds + 1)
    growth: dict[str, dict[str, Growth]] = {PUT: {}, GET: {}}
    resumes, nothing = {}, {}
    with terminal.step("memory, and transfers that break off", 2 * len(NAMES)) as advance:
        for name in NAMES:
            column = bench.columns[name]
            for direction, seen in _growth(bench, column, f"{folders[name]}/largest.bin", largest if name == OURS else megabytes).items():
                growth[direction][name] = seen
            advance()
            resumes[name] = _resumes(column.target, f"{folders[name]}/resumed.bin")
            nothing[name] = _leaves_nothing(column.target, f"{folders[name]}/broken.bin")
            advance()
    return Artifacts(small, large, growth, resumes, nothing)
