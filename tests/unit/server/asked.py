"""What is asked of an application, and the answers without what is another one each time."""

import asyncio
import json
import re
from typing import Any

from tests.unit.server.asgi import Application, Login, send

PASSWORD = "a long password 1"  # noqa: S105 - of nobody
API, AJAX = "/api/2.0/mlflow/", "/ajax-api/2.0/mlflow/"
# For the tests' databases, in the place of random names.
RUN, DELETED, MODEL_RUN, SHUT_RUN, UNKNOWN = ("0" * 31 + digit for digit in "12345")
MODEL = "m-" + "0" * 31 + "1"
# Headers that are others each time.
CHANGING = (b"date", b"last-modified")

Call = tuple[str, str, object]


def plain(text: str) -> str:
    """Return an answer without what is another one each time: identifiers and times."""
    names: dict[str, str] = {}
    text = re.sub(r"\b[0-9a-f]{32}\b", lambda found: names.setdefault(found[0], f"{len(names):032}") if not found[0].startswith("0" * 31) else found[0], text)
    # A file's, which Flask makes of its time, size and name.
    text = re.sub(r'"\d+\.\d+-(\d+)-\d+"', r'"etag-\1"', text)
    return re.sub(r"\b1[6-9]\d{11}\b", "1700000000000", text)


class Asked:
    """The answers to all that was asked, in their order."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._runner = asyncio.Runner()
        self.answers: list[dict[str, Any]] = []

    def ask(self, user: str | None, call: Call, password: str = PASSWORD, headers: dict[str, str] | None = None) -> Any:  # noqa: ANN401 - JSON
        """Send a call, keep the answer, and return what it says."""
        method, path, body = call
        login: Login | None = None if user is None else (user, password)
        answer = self._runner.run(send(self._application, method, path, body, login, headers))
        told = sorted([name.decode(), plain(value.decode())] for name, value in answer.headers if name not in CHANGING)
        # Flask writes a set.
        told = [[name, ", ".join(sorted(value.split(", "))) if name == "allow" else value] for name, value in told]
        said = plain(answer.body.decode())
        self.answers.append({"who": user, "what": f"{method} {path} {body!r}", "status": answer.status, "headers": told, "body": said})
        return json.loads(answer.body) if said.startswith("{") else None
