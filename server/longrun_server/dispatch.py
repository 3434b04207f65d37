"""A short way to Flask for the requests that are Flask's.

MLflow's application is FastAPI around Flask. Three of its layers are for routes of FastAPI (permissions of native routes, the gateway's clock, the workspace),
and each costs a task group; then the router tries route after route before it comes to Flask. Requests for the routes that pipelines use all day pass these
by. Host, origin and headers are checked by the same layers as ever, login and permission by MLflow's hook in Flask.
"""

# Most of MLflow's functions have no types.
# mypy: disable-error-code="no-untyped-call, no-any-return"

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

from fastapi import FastAPI
from flask import Flask
from mlflow.environment_variables import MLFLOW_ENABLE_WORKSPACES
from mlflow.server.auth import _find_fastapi_validator, _native_fastapi_routes
from mlflow.server.workspace_helpers import WORKSPACE_HEADER_NAME
from starlette.middleware import Middleware
from starlette.middleware.wsgi import build_environ
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from longrun_server.packing import pack

# Layers of MLflow's that do nothing for a request of Flask's without a workspace.
PASSED_BY = frozenset({"fastapi_permission_middleware", "gateway_timing_middleware", "workspace_context_middleware"})
# What is answered in one piece of JSON.
FAMILIES = ("runs", "metrics", "experiments", "registered-models", "model-versions")
PREFIXES = tuple(f"/{kind}/2.0/mlflow/{family}/" for kind in ("api", "ajax-api") for family in FAMILIES)
METHODS = frozenset({"GET", "POST", "PATCH", "DELETE"})
# As many as MLflow's own hop has.
THREADS = 40
_WORKSPACE = WORKSPACE_HEADER_NAME.lower().encode()

# As WSGI has it.
Application = Callable[..., Iterable[bytes]]
Route = tuple[str, str]
Answer = tuple[int, list[tuple[bytes, bytes]], bytes]


def shorten(made: FastAPI, flask: Flask) -> None:
    """Give MLflow's application the short way; not where there are workspaces, which its layers look up."""
    if MLFLOW_ENABLE_WORKSPACES.get():
        return
    # The first of the list is the outermost.
    made.user_middleware.insert(0, Middleware(ShortWay, layers=kept(made.user_middleware), flask=flask, routes=routes(made, flask)))


def kept(layers: Iterable[Middleware]) -> list[Middleware]:
    """Return the layers that a request of Flask's goes through, the outermost first: all but those that are known to do nothing for it."""
    return [layer for layer in layers if getattr(layer.kwargs.get("dispatch"), "__name__", None) not in PASSED_BY]


def routes(made: FastAPI, flask: Flask) -> frozenset[Route]:
    """Return method and path of what goes the short way: routes of Flask's without a variable, of no concern to any of FastAPI's."""
    native = _native_fastapi_routes(made)

    def is_native(method: str, path: str) -> bool:
        scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": []}
        return _find_fastapi_validator(path, method) is not None or any(route.matches(scope)[0] != Match.NONE for route in native)

    own = {(method, rule.rule) for rule in flask.url_map.iter_rules() if not rule.arguments for method in (rule.methods or set()) & METHODS}
    return frozenset(route for route in own if route[1].startswith(PREFIXES) and not is_native(*route))


class ShortWay:
    """ASGI middleware, the outermost, that sends each request on its way."""

    def __init__(self, app: ASGIApp, layers: Iterable[Middleware], flask: Application, routes: frozenset[Route]) -> None:
        self._long = app
        self._routes = routes
        short: ASGIApp = Hop(flask)
        for layer in reversed(list(layers)):
            short = layer.cls(short, *layer.args, **layer.kwargs)
        self._short = short

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        await (self._short if self._is_short(scope) else self._long)(scope, receive, send)

    def _is_short(self, scope: Scope) -> bool:
        return (
            scope["type"] == "http"
            and (scope["method"], scope["path"]) in self._routes
            and not scope.get("root_path")
            # It is refused, in words of its own.
            and not any(name == _WORKSPACE for name, _ in scope["headers"])
        )


class Hop:
    """From ASGI to Flask, for answers that are short enough to be held whole: one thread, and one message back."""

    def __init__(self, flask: Application) -> None:
        self._flask = flask
        self._threads = ThreadPoolExecutor(THREADS, "flask")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request; a request that breaks off is not carried out."""
        parts: list[bytes] = []
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        environ = build_environ(scope, b"".join(parts))
        # What a request sets for itself, the workspace for one, ends with it: threads are used again.
        status, headers, body = await asyncio.get_running_loop().run_in_executor(self._threads, copy_context().run, self._answer, environ)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _answer(self, environ: dict[str, Any]) -> Answer:
        started: list[tuple[int, list[tuple[bytes, bytes]]]] = []

        def start(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> None:  # noqa: ARG001 - as WSGI has it
            started.append((int(status.split(" ", 1)[0]), [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]))

        parts = self._flask(environ, start)
        try:
            body = b"".join(parts)
        finally:
            close = getattr(parts, "close", None)
            if close is not None:
                close()
        status, headers = started[-1]
        return status, *pack(environ.get("HTTP_ACCEPT_ENCODING", ""), headers, body)
