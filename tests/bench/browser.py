"""MLflow's pages in a real Chromium: what comes over the wire, and how long until there is something to see, the first time and the second."""

import hashlib
import ssl
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from longrun_controller.errors import ProblemError
from longrun_training import terminal
from playwright.sync_api import Browser, BrowserContext, CDPSession, Error, ViewportSize, sync_playwright

from tests.bench.columns import Bench
from tests.bench.loads import Target
from tests.bench.operations import Seeds
from tests.bench.results import NAMES, Load, Loads

CHROMIUM = Path("/usr/bin/chromium")
START, RUNS = "start page", "runs page"
SIZE: ViewportSize = {"width": 1800, "height": 900}
TIMEOUT_SECONDS = 120.0
# So long nothing has come: the page has what it wants.
QUIET_SECONDS = 1.0
# What has said nothing for so long is not waited for.
STALLED_SECONDS = 20.0
WORKER = ".worker.js"


class Wire:
    """Counts what comes over the wire, as the browser itself does."""

    def __init__(self, session: CDPSession) -> None:
        self.bytes = 0
        self.requests = 0
        self.open: set[str] = set()
        self.workers: set[str] = set()
        self.last = time.monotonic()
        events = {
            "requestWillBeSent": self._begun,
            "responseReceivedExtraInfo": self._answered,
            "loadingFinished": self._finished,
            "loadingFailed": self._failed,
        }
        for event, handler in events.items():
            session.on(f"Network.{event}", handler)
        session.send("Network.enable")

    def _begun(self, event: dict[str, Any]) -> None:
        self.last = time.monotonic()
        # The page begins to fetch a worker's script, and the worker ends it: the page hears no more than the answer's headers.
        (self.workers if event["request"]["url"].endswith(WORKER) else self.open).add(event["requestId"])

    def _answered(self, event: dict[str, Any]) -> None:
        if event["requestId"] in self.workers:
            self.last = time.monotonic()
            lengths = [int(value) for name, value in event["headers"].items() if name.lower() == "content-length"]
            self.requests += 1
            self.bytes += len(event.get("headersText", "")) + sum(lengths)

    def _finished(self, event: dict[str, Any]) -> None:
        self.last = time.monotonic()
        if event["requestId"] in self.open:
            self.open.remove(event["requestId"])
            self.requests += 1
            self.bytes += int(event["encodedDataLength"])

    def _failed(self, event: dict[str, Any]) -> None:
        self.last = time.monotonic()
        self.open.discard(event["requestId"])

    @property
    def quiet(self) -> bool:
        """Whether nothing is on its way, for a while now."""
        return time.monotonic() - self.last > (STALLED_SECONDS if self.open else QUIET_SECONDS)


def _fingerprint(target: Target) -> str:
    """Return what Chromium calls a server's key by."""
    certificate = x509.load_pem_x509_certificate(ssl.get_server_certificate((target.address, target.port)).encode())
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return b64encode(hashlib.sha256(key).digest()).decode()


@contextmanager
def _browser(bench: Bench) -> Iterator[Browser]:
    """Start a browser that finds the servers where they are, and trusts their key.

    From a server whose certificate it was told to overlook it would keep nothing; this way it does, as one that knows the authority.
    """
    if not CHROMIUM.exists():
        message = f"there is no {CHROMIUM}: `make test-tools` installs it"
        raise ProblemError(message)
    targets = [column.target for column in bench.columns.values()]
    rules = ",".join(f"MAP {target.host} {target.address}:{target.port}" for target in targets)
    keys = ",".join({_fingerprint(target) for target in targets if target.authority})
    arguments = ["--no-sandbox", "--disable-gpu", f"--host-resolver-rules={rules}", f"--ignore-certificate-errors-spki-list={keys}"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


def _load(context: BrowserContext, url: str, sign: str) -> Load:
    """Open a page and wait until it shows something, and wants nothing more."""
    page = context.new_page()
    try:
        wire = Wire(context.new_cdp_session(page))
        started = time.perf_counter()
        page.goto(url)
        page.locator(sign).first.wait_for()
        seconds = time.perf_counter() - started
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not wire.quiet and time.monotonic() < deadline:
            page.wait_for_timeout(50)
    finally:
        page.close()
    return Load(wire.bytes, wire.requests, seconds)


def _visit(browser: Browser, target: Target, url: str, sign: str) -> tuple[Load, Load]:
    """Open a page as one who has never been there, and once more.

    The login goes along with every request: Playwright's own way to log in would switch the browser's cache off.
    """
    context = browser.new_context(viewport=SIZE, extra_http_headers={"Authorization": target.authorization})
    try:
        context.set_default_timeout(1000 * TIMEOUT_SECONDS)
        # The assistant, which our server does not offer, would open itself on the first visit.
        context.add_init_script("localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')")
        return _load(context, url, sign), _load(context, url, sign)
    finally:
        context.close()


def measure(bench: Bench, seeds: Mapping[str, Seeds], repeats: int) -> dict[str, dict[str, Loads]]:
    """Load the start page and the page of an experiment of 5,000 runs from every server, by turns.

    Raises:
        ProblemError: A page does not show what it should.
    """
    found: dict[str, dict[str, Loads]] = {page: {name: Loads([], []) for name in NAMES} for page in (START, RUNS)}
    with terminal.step("pages", 2 * repeats * len(NAMES)) as advance, _browser(bench) as browser:
        for number in range(repeats):
            for page, name in ((page, name) for page in found for name in NAMES[:: -1 if number % 2 else 1]):
                target, searched = bench.columns[name].target, seeds[name].searched
                url, sign = {
                    START: (f"{target.url}/", "a[href*='/experiments/']"),
                    RUNS: (f"{target.url}/#/experiments/{searched}/runs", f"a[href*='/experiments/{searched}/runs/']"),
                }[page]
                try:
                    first, second = _visit(browser, target, url, sign)
                except Error as error:
                    message = f"the {page} of {name} does not show {sign}: {error.message.splitlines()[0]}"
                    raise ProblemError(message) from None
                found[page][name] = Loads([*found[page][name].first, first], [*found[page][name].second, second])
                advance()
    return found
