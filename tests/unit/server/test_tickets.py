"""Tickets without a server: what is answered, and what is left to MLflow."""

import asyncio
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from botocore.config import Config
from longrun_server.tickets import PREFIXES, Bucket, Tickets

ASKED = [(b"x-longrun-ticket", b"1")]
# What MLflow answers in these tests, for whatever reaches it.
THEIRS = 418


@pytest.fixture(scope="module")
def bucket() -> Bucket:
    """A bucket that nobody asks: addresses are signed without the store."""
    config = Config(signature_version="s3v4", s3={"addressing_style": "path"})
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
    return Bucket(boto3.client("s3", endpoint_url="http://store:9000", region_name="us-east-1", config=config, **keys), "mlflow", "")


def ask(bucket: Bucket, path: str, method: str = "GET", headers: list[tuple[bytes, bytes]] | None = None) -> tuple[int, dict[bytes, bytes]]:
    """Send a request through the middleware and return status and headers of the answer."""
    sent: list[dict[str, Any]] = []

    async def mlflow(_scope: object, _receive: object, send: Any) -> None:  # noqa: ANN401 - as ASGI has it
        await send({"type": "http.response.start", "status": THEIRS, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:  # noqa: ANN401 - as ASGI has it
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": ASKED if headers is None else headers}
    asyncio.run(Tickets(mlflow, bucket)(scope, receive, send))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    return sent[0]["status"], dict(sent[0]["headers"])


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_fetch_goes_on_in_nginx(bucket: Bucket, prefix: str) -> None:
    """With an address for a minute, and the type and the name that MLflow would answer with."""
    status, headers = ask(bucket, f"{prefix}1/run/artifacts/figures/gr\u00f6\u00dfe +&.png")
    assert (status, headers[b"x-accel-redirect"]) == (200, b"/_artifact")
    url = urlsplit(headers[b"x-longrun-artifact"].decode())
    assert url.path == "/mlflow/1/run/artifacts/figures/gr%C3%B6%C3%9Fe%20%2B%26.png"
    query = parse_qs(url.query)
    assert query["X-Amz-Expires"] == ["60"]
    assert query["response-content-type"] == ["image/png"]
    assert query["response-content-disposition"][0].startswith("attachment; filename=")
    assert query["X-Amz-SignedHeaders"] == ["host"]


def test_a_store_is_told_where(bucket: Bucket) -> None:
    """The answer has no body, and sends nobody on: nginx has the body."""
    status, headers = ask(bucket, f"{PREFIXES[0]}1/run/artifacts/model.pkl", "PUT")
    assert (status, list(headers)) == (204, [b"x-longrun-artifact"])
    assert headers[b"x-longrun-artifact"].startswith(b"/mlflow/1/run/artifacts/model.pkl?")


@pytest.mark.parametrize("path", ["../up", "a/../b", "a#b", "/etc/x", "folder/", "a//b", "./a", "", "%2E%2E/up"])
def test_strange_paths_are_mlflows(bucket: Bucket, path: str) -> None:
    """It says what is wrong with them; and an upload's ticket never reaches it, for that has no body."""
    assert ask(bucket, f"{PREFIXES[0]}{path}") == (THEIRS, {})
    assert ask(bucket, f"{PREFIXES[0]}{path}", "PUT") == (204, {})


@pytest.mark.parametrize(
    ("path", "method", "headers"),
    [
        (f"{PREFIXES[0]}1/a", "GET", []),
        (f"{PREFIXES[0]}1/a", "PUT", []),
        (f"{PREFIXES[0]}1/a", "GET", [(b"x-longrun-ticket", b"")]),
        (f"{PREFIXES[0]}1/a", "DELETE", ASKED),
        ("/api/2.0/mlflow-artifacts/mpu/create/1/a", "PUT", ASKED),
        ("/api/2.0/mlflow/runs/get", "GET", ASKED),
    ],
)
def test_everything_else_is_mlflows(bucket: Bucket, path: str, method: str, headers: list[tuple[bytes, bytes]]) -> None:
    """What nginx did not ask for, and what is no artifact."""
    assert ask(bucket, path, method, headers) == (THEIRS, {})


def test_a_prefix_is_part_of_the_key(bucket: Bucket) -> None:
    """A bucket may hold more than our artifacts."""
    assert Bucket(bucket.client, "b", "our/artifacts").sign("PUT", "1/a").startswith("/b/our/artifacts/1/a?")
