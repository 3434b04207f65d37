"""Artifacts without Python: nginx asks for a ticket, and sends or fetches the bytes itself.

MLflow checks login and permission for the path and the method of the original request, as for any request; what comes through is answered here with an
address that the store takes for a minute. nginx alone may ask: it removes the header from what clients send.
"""

import posixpath
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from mlflow.exceptions import MlflowException
from mlflow.server.handlers import _content_disposition_attachment
from mlflow.utils.mime_type_utils import _guess_mime_type
from mlflow.utils.uri import validate_path_is_safe
from starlette.types import ASGIApp, Receive, Scope, Send

PREFIXES = ("/api/2.0/mlflow-artifacts/artifacts/", "/ajax-api/2.0/mlflow-artifacts/artifacts/")
ASKED = b"x-longrun-ticket"
TICKET = b"x-longrun-artifact"
# Where nginx goes on by itself with the address of the ticket.
REDIRECT, FETCH = b"x-accel-redirect", b"/_artifact"
VALID_SECONDS = 60
OK, NO_CONTENT = 200, 204
OPERATIONS = {"GET": "get_object", "PUT": "put_object"}


@dataclass(frozen=True)
class Bucket:
    """Where the artifacts lie.

    Attributes:
        client: boto3's, whose keys sign.
        name: The bucket's.
        prefix: What each key begins with, without slashes around it.
    """

    client: Any
    name: str
    prefix: str

    def sign(self, method: str, path: str) -> str:
        """Return path and query of an address that the store takes for a minute.

        Args:
            method: GET or PUT; what is fetched comes with the type and the name that MLflow's own answer has.
            path: Of the artifact, below `prefix`.
        """
        parameters = {"Bucket": self.name, "Key": posixpath.join(self.prefix, path)}
        if method == "GET":
            name = posixpath.basename(path)
            parameters |= {"ResponseContentType": _guess_mime_type(name), "ResponseContentDisposition": _content_disposition_attachment(name)}
        url = urlsplit(self.client.generate_presigned_url(OPERATIONS[method], parameters, VALID_SECONDS))
        return f"{url.path}?{url.query}"


class Tickets:
    """ASGI middleware that answers what nginx asks for, and leaves everything else to MLflow."""

    def __init__(self, app: ASGIApp, bucket: Bucket) -> None:
        self._app = app
        self._bucket = bucket

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for a ticket, or pass the request on."""
        if not _is_asked(scope):
            await self._app(scope, receive, send)
            return
        path = _safe(scope["path"])
        if scope["method"] == "PUT":
            # Without an address nginx sends the body to MLflow, which says what is wrong with the path. Never is a ticket's request itself
            # passed on: it has no body, and would store an empty file.
            await _answer(send, NO_CONTENT, {} if path is None else {TICKET: self._bucket.sign("PUT", path).encode()})
        elif path is None:
            await self._app(scope, receive, send)
        else:
            await _answer(send, OK, {REDIRECT: FETCH, TICKET: self._bucket.sign("GET", path).encode()})


def _is_asked(scope: Scope) -> bool:
    return (
        scope["type"] == "http"
        and scope["method"] in OPERATIONS
        and scope["path"].startswith(PREFIXES)
        and any(name == ASKED and value == b"1" for name, value in scope["headers"])
    )


def _safe(path: str) -> str | None:
    """Return the artifact's path as MLflow's own handlers read it; None where they would refuse it, or where it names no file."""
    prefix = next(each for each in PREFIXES if path.startswith(each))
    try:
        safe = str(validate_path_is_safe(path.removeprefix(prefix)))
    except MlflowException:
        return None
    # The store would take these for other keys than MLflow's client does.
    return safe if safe == posixpath.normpath(safe) and safe != "." else None


async def _answer(send: Send, status: int, headers: dict[bytes, bytes]) -> None:
    length = [] if status == NO_CONTENT else [(b"content-length", b"0")]
    await send({"type": "http.response.start", "status": status, "headers": [*headers.items(), *length]})
    await send({"type": "http.response.body", "body": b""})
