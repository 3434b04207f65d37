"""Answers come packed to whoever takes them so, and unpacked they are MLflow's to the byte."""

import asyncio
import gzip
from collections.abc import Iterable
from typing import Any

import pytest
from longrun_server.dispatch import Hop
from longrun_server.packing import LEAST_BYTES, pack

from tests.unit.server.asgi import Answer, send

LONG = b'{"key": "loss", "value": 0.5}' * 4000
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(LONG))]


@pytest.mark.parametrize("accepted", ["gzip", "gzip, deflate", "gzip;q=0.5, br", "deflate, gzip, zstd", "*"])
def test_packed_for_who_takes_it(accepted: str) -> None:
    """It is a tenth, its length is told, and caches hear that it depends on the client."""
    headers, body = pack(accepted, HEADERS, LONG)
    assert gzip.decompress(body) == LONG
    assert len(body) < len(LONG) / 10
    assert headers == [
        (b"content-type", b"application/json"),
        (b"content-encoding", b"gzip"),
        (b"content-length", b"%d" % len(body)),
        (b"vary", b"Accept-Encoding"),
    ]


@pytest.mark.parametrize("accepted", ["", "identity", "br", "gzip;q=0", "gzip;q=0, *", "x-gzipped"])
def test_unpacked_for_who_does_not(accepted: str) -> None:
    """Body and headers are what they were."""
    assert pack(accepted, HEADERS, LONG) == (HEADERS, LONG)


def test_what_stays_as_it_is() -> None:
    """A short answer, and one that is packed already."""
    assert pack("gzip", HEADERS, LONG[: LEAST_BYTES - 1]) == (HEADERS, LONG[: LEAST_BYTES - 1])
    packed = [(b"content-encoding", b"br")]
    assert pack("gzip", packed, LONG) == (packed, LONG)


def test_through_the_short_way() -> None:
    """The request's own header decides."""

    def flask(_environ: dict[str, Any], start: Any) -> Iterable[bytes]:  # noqa: ANN401 - as WSGI has it
        start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(LONG)))])
        return [LONG]

    def get(**headers: str) -> Answer:
        return asyncio.run(send(Hop(flask), "GET", "/", headers=headers))

    packed = get(**{"accept-encoding": "gzip, deflate"})
    assert dict(packed.headers)[b"content-encoding"] == b"gzip"
    assert gzip.decompress(packed.body) == LONG == get().body
    assert get().headers == HEADERS
