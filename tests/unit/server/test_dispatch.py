"""Which request goes the short way, through what, and that Flask sees there what it would see anyway."""

import asyncio
import threading
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any

import pytest
from longrun_server.dispatch import Hop, ShortWay, kept
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware

from tests.unit.server.asgi import send

ROUTE = "/api/2.0/mlflow/runs/get"
_WORKSPACE: ContextVar[str] = ContextVar("workspace", default="")


def flask(environ: dict[str, Any], start: Any) -> Iterable[bytes]:  # noqa: ANN401 - as WSGI has it
    """Answer with what was asked."""
    was, _ = _WORKSPACE.get(), _WORKSPACE.set("set")
    body = environ["wsgi.input"].read()
    start("418 I'm a teapot", [("X-Path", environ["PATH_INFO"]), ("X-Query", environ["QUERY_STRING"]), ("X-Was", was), ("X-Type", environ["CONTENT_TYPE"])])
    return [body, b"!"]


async def long_way(_scope: object, _receive: object, send: Any) -> None:  # noqa: ANN401 - as ASGI has it
    """Answer for the way of MLflow's own."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"long"})


class Layer:
    """A layer that leaves its mark."""

    def __init__(self, app: Any, mark: str) -> None:  # noqa: ANN401 - as ASGI has it
        self._app = app
        self._mark = mark

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - as ASGI has it
        async def marked(message: Any) -> None:  # noqa: ANN401 - as ASGI has it
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-layer", self._mark.encode()))
            await send(message)

        await self._app(scope, receive, marked)


def test_flask_sees_the_request() -> None:
    """Path, query, type and body; and what it sets for one request is not there for the next, though the thread is the same."""
    hop = Hop(flask)
    for _ in range(3):
        answer = asyncio.run(send(hop, "POST", f"{ROUTE}?a=b%20c", {"x": 1}))
        assert answer.status == 418
        assert answer.body == b'{"x": 1}!'
        assert dict(answer.headers) == {b"x-path": ROUTE.encode(), b"x-query": b"a=b%20c", b"x-was": b"", b"x-type": b"application/json"}


def test_a_request_that_breaks_off_is_not_carried_out() -> None:
    """Half a batch is no batch."""
    messages = [{"type": "http.request", "body": b'{"x"', "more_body": True}, {"type": "http.disconnect"}]
    sent: list[object] = []

    def never(_environ: object, _start: object) -> Iterable[bytes]:
        raise AssertionError

    async def receive() -> Any:  # noqa: ANN401 - as ASGI has it
        return messages.pop(0)

    async def told(message: object) -> None:
        sent.append(message)

    asyncio.run(Hop(never)({"type": "http", "headers": []}, receive, told))
    assert (messages, sent) == ([], [])


def test_what_flask_raises_comes_out() -> None:
    """MLflow's outermost layer makes an answer of it."""

    def broken(_environ: object, _start: object) -> Iterable[bytes]:
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - it has no text
        asyncio.run(send(Hop(broken), "GET", ROUTE, {}))


def test_many_at_once() -> None:
    """Eight requests are in Flask at the same time, and each gets its own answer."""
    together = threading.Barrier(8, timeout=30)

    def slow(environ: dict[str, Any], start: Any) -> Iterable[bytes]:  # noqa: ANN401 - as WSGI has it
        together.wait()
        return flask(environ, start)

    async def all_of_them() -> list[bytes]:
        hop = Hop(slow)
        return [answer.body for answer in await asyncio.gather(*(send(hop, "POST", ROUTE, number) for number in range(8)))]

    assert asyncio.run(all_of_them()) == [f"{number}!".encode() for number in range(8)]


@pytest.mark.parametrize(
    ("method", "path", "headers", "is_short"),
    [
        ("GET", ROUTE, {}, True),
        ("GET", f"{ROUTE}?run_id=1", {}, True),
        ("POST", ROUTE, {}, False),
        ("HEAD", ROUTE, {}, False),
        ("OPTIONS", ROUTE, {}, False),
        ("GET", f"{ROUTE}/", {}, False),
        ("GET", f"/x{ROUTE}", {}, False),
        ("GET", ROUTE, {"x-mlflow-workspace": ""}, False),
        ("GET", ROUTE, {"x-mlflow-workspace": "other"}, False),
    ],
)
def test_the_way_of_a_request(method: str, path: str, headers: dict[str, str], is_short: bool) -> None:  # noqa: FBT001 - a case's
    """Only what is known to be Flask's is short; the layers are the same, the outermost first."""
    layers = [Middleware(Layer, mark="outer"), Middleware(Layer, mark="inner")]
    way = ShortWay(long_way, layers, flask, frozenset({("GET", ROUTE)}))
    answer = asyncio.run(send(way, method, path, {}, headers=headers))
    assert answer.status == (418 if is_short else 200)
    assert [value for name, value in answer.headers if name == b"x-layer"] == ([b"inner", b"outer"] if is_short else [])


def test_only_known_layers_are_passed_by() -> None:
    """A layer that nobody has looked at stays where it is."""

    async def gateway_timing_middleware(request: Any, call_next: Any) -> Any:  # noqa: ANN401 - as Starlette has it
        return await call_next(request)

    async def other(request: Any, call_next: Any) -> Any:  # noqa: ANN401 - as Starlette has it
        return await call_next(request)

    passed = Middleware(BaseHTTPMiddleware, dispatch=gateway_timing_middleware)
    stays = [Middleware(BaseHTTPMiddleware, dispatch=other), Middleware(Layer, mark="a")]
    assert kept([stays[0], passed, stays[1]]) == stays
