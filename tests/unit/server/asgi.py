"""A client for an ASGI application in this process: one request, one answer, no server."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

Application = Callable[[Any, Any, Any], Awaitable[None]]
Login = tuple[str, str]


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        status: Of HTTP.
        headers: As they were sent, in their order.
        body: All of it.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def json(self) -> Any:  # noqa: ANN401 - whatever there is
        """Return what the body says."""
        return json.loads(self.body)


async def send(
    application: Application, method: str, path: str, body: object = None, login: Login | None = None, headers: Mapping[str, str] | None = None
) -> Answer:
    """Send a request and return the answer.

    Args:
        application: As ASGI has it.
        method: Of HTTP.
        path: With the query, if any.
        body: Bytes as they are, anything else as JSON, None for no body.
        login: Name and password.
        headers: Besides host and what body and login need; one with the same name takes its place.
    """
    told = {"host": "localhost"}
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    if body is not None:
        told |= {"content-type": "application/json", "content-length": str(len(data))}
    if login is not None:
        told["authorization"] = "Basic " + base64.b64encode(":".join(login).encode()).decode()
    told |= headers or {}
    route, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": route,
        "raw_path": route.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in told.items()],
        "client": ("127.0.0.1", 1),
        "server": ("localhost", 80),
        "state": {},
    }
    messages: list[dict[str, Any]] = []
    waiting = [{"type": "http.request", "body": data, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if waiting:
            return waiting.pop()
        # Nobody hangs up before the answer.
        await asyncio.Event().wait()
        raise AssertionError

    async def told_back(message: Any) -> None:  # noqa: ANN401 - as ASGI has it
        messages.append(message)

    await application(scope, receive, told_back)
    assert messages[0]["type"] == "http.response.start", messages
    return Answer(messages[0]["status"], list(messages[0]["headers"]), b"".join(message.get("body", b"") for message in messages[1:]))
