"""The little of GitHub's REST API that the workflows need, with nothing but Python's standard library."""

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from email.message import Message
from http.client import HTTPResponse
from typing import IO, Any, cast

import runner

TIMEOUT_SECONDS = 30
PAGE = 100
# Reading is tried again; writing is not, for the lost answer may have been a yes.
TRIES, PAUSE_SECONDS = 3, 2.0
PASSING = frozenset({429, 500, 502, 503, 504})
REDIRECTS = frozenset({301, 302, 303, 307, 308})


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the token would go along to whatever host the answer names."""

    def redirect_request(self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str) -> None:
        """Answer that there is no other request to make."""
        del req, fp, code, msg, headers, newurl


class ApiError(Exception):
    """GitHub refused, or did not answer.

    Attributes:
        status: HTTP status; 0 without an answer.
    """

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class Api:
    """One repository, seen with one job's token."""

    def __init__(self, url: str, token: str, repository: str) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self.repository = repository
        self._opener = urllib.request.build_opener(_Stay())

    @classmethod
    def from_environment(cls) -> "Api":
        """Read what every job has: the API's address, the repository and, where the workflow hands it on, the token."""
        return cls(runner.needed("GITHUB_API_URL"), runner.needed("GITHUB_TOKEN"), runner.needed("GITHUB_REPOSITORY"))

    def _request(self, method: str, path: str, body: object = None) -> urllib.request.Request:
        headers = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28", "Authorization": f"Bearer {self._token}"}
        data = None if body is None else json.dumps(body).encode()
        return urllib.request.Request(f"{self._url}/repos/{self.repository}{path}", data=data, headers=headers, method=method)  # noqa: S310 - GitHub's own address

    def _open(self, request: urllib.request.Request, tries: int) -> HTTPResponse:
        """Send a request; a redirect comes back as what it is.

        Raises:
            ApiError: A refusal, or no answer.
        """
        what = f"{request.get_method()} {request.selector.partition('?')[0]}"
        while True:
            tries -= 1
            try:
                return cast("HTTPResponse", self._opener.open(request, timeout=TIMEOUT_SECONDS))
            except urllib.error.HTTPError as error:
                if error.code in REDIRECTS:
                    return cast("HTTPResponse", error)
                if error.code not in PASSING or not tries:
                    detail = error.read(2000).decode(errors="replace")
                    message = f"GitHub answers {error.code} to {what}: {' '.join(detail.split())[:300]}"
                    raise ApiError(message, error.code) from error
            except OSError as error:
                if not tries:
                    message = f"GitHub does not answer {what}: {error}"
                    raise ApiError(message, 0) from error
            time.sleep(PAUSE_SECONDS)

    def get(self, path: str, **query: str | int) -> Any:  # noqa: ANN401 - whatever JSON GitHub has there
        """Read one thing below `/repos/<owner>/<name>`.

        Raises:
            ApiError: A refusal, or no answer.
        """
        suffix = f"?{urllib.parse.urlencode(query)}" if query else ""
        with self._open(self._request("GET", path + suffix), TRIES) as answer:
            return json.load(answer)

    def pages(self, path: str, key: str | None = None, **query: str | int) -> Iterator[dict[str, Any]]:
        """Read a list to its end, page by page.

        Args:
            path: Below `/repos/<owner>/<name>`.
            key: Where in the answer the list is; None where the answer is the list.
            query: What else to ask.

        Raises:
            ApiError: A refusal, or no answer.
        """
        page = 1
        while True:
            answer = self.get(path, per_page=PAGE, page=page, **query)
            found = answer if key is None else answer[key]
            yield from found
            if len(found) < PAGE:
                return
            page += 1

    def send(self, method: str, path: str, body: object = None) -> None:
        """Change something.

        Raises:
            ApiError: A refusal, or no answer.
        """
        self._open(self._request(method, path, body), 1).close()

    def download(self, path: str, limit: int, target: IO[bytes]) -> None:
        """Write a file of GitHub's, which lies behind a redirect to a host that must not see the token.

        Args:
            path: Below `/repos/<owner>/<name>`.
            limit: The largest size that is taken, in bytes.
            target: Where to write.

        Raises:
            ApiError: A refusal, no answer, or more bytes than that.
        """
        answer = self._open(self._request("GET", path), TRIES)
        if answer.status in REDIRECTS:
            location = answer.headers["Location"]
            answer.close()
            if not location.startswith(("https://", f"{self._url}/")):
                message = f"GitHub sends {path} elsewhere, and not over HTTPS"
                raise ApiError(message, answer.status)
            answer = self._open(urllib.request.Request(location), TRIES)  # noqa: S310 - checked above
        taken = 0
        with answer:
            while block := answer.read(1 << 20):
                taken += len(block)
                if taken > limit:
                    message = f"{path} has more than {limit} bytes"
                    raise ApiError(message, 0)
                target.write(block)
