"""What a person sees in the browser: logs in through nginx, and finds the runs, their comparison, their charts, figures and models.

Debian's Chromium, driven by Playwright. The pictures that it takes lie in tests/e2e/logs; LONGRUN_PICTURES=docs/pictures renews those of the docs.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, BrowserContext, Error, HttpCredentials, Page, Playwright, ViewportSize, expect, sync_playwright

from tests.servers import ROOT, Server, api, run, runs_of

CHROMIUM = Path("/usr/bin/chromium")
IN_NETWORK = ROOT / "tests" / "e2e" / "chromium-in-network"
TIMEOUT_MS = 60_000
SHOWN = ("holdout_rmse", "holdout_mae")
SIZE: ViewportSize = {"width": 1800, "height": 900}


@pytest.fixture(scope="session")
def pictures(logs: Path) -> Path:
    """Return where the pictures go: the tests' logs, or the folder of the docs."""
    return ROOT / os.environ["LONGRUN_PICTURES"] if os.environ.get("LONGRUN_PICTURES") else logs


@pytest.fixture(scope="session")
def runs(server: Server) -> list[str]:
    """Return the ids of the newest runs of the experiment, three pipelines at least, newest first; those that are missing are trained."""
    client = server.client()
    while len(runs_of(client, "diabetes")) < 3:
        server.make("train", f"ARGS=--seed {len(runs_of(client, 'diabetes'))} --repeats 1")
    return runs_of(client, "diabetes")


@pytest.fixture(scope="session")
def base(server: Server) -> str:
    """Return the server's address."""
    return server.client("admin")["MLFLOW_TRACKING_URI"]


@pytest.fixture(scope="session")
def experiment(server: Server) -> str:
    """Return the id of the experiment."""
    found: str = api(server.client("admin"), "experiments/get-by-name", experiment_name="diabetes")["experiment"]["experiment_id"]
    return found


@pytest.fixture(scope="session")
def context(server: Server, base: str) -> Iterator[BrowserContext]:
    """Start a browser that knows the administrator's password; the password goes through the browser's own channel.

    The throw-away browser does not know the private authority, whose certificate the other tests check, so it is told to accept it.
    """
    client = server.client("admin")
    login: HttpCredentials = {"username": client["MLFLOW_TRACKING_USERNAME"], "password": client["MLFLOW_TRACKING_PASSWORD"], "origin": base}
    with sync_playwright() as playwright:
        browser = launch(playwright, server)
        context = browser.new_context(http_credentials=login, ignore_https_errors=True, viewport=SIZE)
        context.set_default_timeout(TIMEOUT_MS)
        expect.set_options(timeout=TIMEOUT_MS)
        # The assistant, which this server does not offer, would open itself on the first visit.
        context.add_init_script("localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')")
        yield context
        browser.close()


@pytest.fixture
def page(context: BrowserContext, runs: list[str]) -> Iterator[Page]:
    """Open a page of its own for each test, as who follows a link does: what is broken on one is not on the next."""
    assert len(runs) >= 3
    page = context.new_page()
    tell(page)
    yield page
    page.close()


def launch(playwright: Playwright, server: Server) -> Browser:
    """Start Chromium in the network of the server's host, where it finds nginx at port 443.

    In this machine's it would give up what it is loading (ERR_NETWORK_CHANGED) when the tests beside it make or remove a container's network, and a page
    of MLflow that misses one of its scripts shows an error until it is loaded anew: so did 3 pages of 16 beside a network that came and went, and in the
    host's own none.
    """
    assert CHROMIUM.exists(), "there is no /usr/bin/chromium: make tools --test installs it"
    host = run(["podman", "inspect", "--format", "{{.State.Pid}}", f"longrun-{server.name}-server"]).stdout.strip()
    address = server.client()["MLFLOW_TRACKING_URI"].removeprefix("https://")
    return playwright.chromium.launch(
        executable_path=IN_NETWORK,
        args=["--no-sandbox", "--disable-gpu", f"--host-resolver-rules=MAP {address} 127.0.0.1:443"],
        env={**os.environ, "LONGRUN_BROWSER_HOST": host},
    )


def tell(page: Page) -> None:
    """Print what a page asks for in vain and which of its scripts fail, for the report of a test that fails: what is missing on a page says little of why."""

    def say(line: str) -> None:
        print(f"{datetime.now().astimezone():%H:%M:%S} {line}")

    page.on("framenavigated", lambda frame: say(f"at {frame.url}"))
    page.on("response", lambda answer: say(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
    page.on("requestfailed", lambda request: say(f"{request.failure} {request.url}"))
    page.on("pageerror", lambda error: say(f"script: {error}"))
    page.on("console", lambda message: say(f"console: {message.text}") if message.type == "error" else None)


def test_nobody_gets_in_without_a_login(server: Server, base: str) -> None:
    """A browser without a password, or with a wrong one, gets to see nothing of MLflow."""
    with sync_playwright() as playwright:
        browser = launch(playwright, server)
        logins: list[HttpCredentials | None] = [None, {"username": "admin", "password": "password1234"}]
        for login in logins:
            page = browser.new_context(http_credentials=login, ignore_https_errors=True).new_page()
            seen = "ERR_INVALID_AUTH_CREDENTIALS"
            with suppress(Error):
                # Chromium shows the refusal's own page, or, where it has no words, an error of its own.
                answer = page.goto(base)
                assert answer
                assert answer.status == 401
                seen = answer.text()
            assert "<script" not in seen
        browser.close()
    authority = server.client()["MLFLOW_TRACKING_SERVER_CERT_PATH"]
    assert requests.get(base, verify=authority, timeout=30).status_code == 401


def test_runs_of_several_pipelines(page: Page, base: str, server: Server, experiment: str, runs: list[str], pictures: Path) -> None:
    """The experiment's page lists every pipeline's run with its metrics."""
    page.goto(f"{base}/#/experiments/{experiment}/runs")
    # The menu would close again when the runs arrive, so they come first.
    expect(page.locator(f"a[href*='/experiments/{experiment}/runs/']").nth(2)).to_be_visible()
    # MLflow hides the metrics until somebody asks for them.
    page.get_by_role("button", name="Columns").locator("visible=true").first.click()
    page.get_by_placeholder("Search columns").fill("holdout")
    for metric in SHOWN:
        page.get_by_text(metric, exact=True).locator("visible=true").first.click()
    page.keyboard.press("Escape")
    client = server.client("admin")
    for run_id in runs[:3]:
        metrics = {metric["key"]: metric["value"] for metric in api(client, "runs/get", run_id=run_id)["run"]["data"]["metrics"]}
        for metric in SHOWN:
            expect(page.get_by_text(re.compile(rf"^{re.escape(str(metrics[metric])[:5])}")).first).to_be_visible()
    page.screenshot(path=pictures / "runs.png")


def test_the_comparison(page: Page, base: str, experiment: str, runs: list[str], pictures: Path) -> None:
    """Two runs beside each other: parameters and metrics."""
    page.goto(f'{base}/#/compare-runs?runs=["{runs[0]}","{runs[1]}"]&experiments=["{experiment}"]')
    expect(page.get_by_text("holdout_rmse").first).to_be_visible()
    expect(page.get_by_text(runs[0]).first).to_be_visible()
    expect(page.get_by_text(runs[1]).first).to_be_visible()
    page.screenshot(path=pictures / "comparison.png")


def test_the_charts(page: Page, base: str, experiment: str, pictures: Path) -> None:
    """The charts of all runs are drawn."""
    page.goto(f"{base}/#/experiments/{experiment}/runs?compareRunsMode=CHART")
    expect(page.locator("svg.main-svg").first).to_be_visible()
    page.screenshot(path=pictures / "charts.png")


def test_a_figure(page: Page, base: str, experiment: str, runs: list[str], pictures: Path) -> None:
    """A figure among a run's artifacts is previewed, and is really a picture."""
    page.goto(f"{base}/#/experiments/{experiment}/runs/{runs[0]}/artifacts/figures/residuals.png")
    image = page.locator("img[src^='blob:'], img[src*='get-artifact']").first
    expect(image).to_be_visible()
    assert image.evaluate("picture => picture.naturalWidth") > 300
    page.screenshot(path=pictures / "figure.png")


def test_the_models_files(page: Page, base: str, server: Server, experiment: str, runs: list[str], pictures: Path) -> None:
    """The model's files are listed, and its MLmodel can be read."""
    model = api(server.client("admin"), "runs/get", run_id=runs[0])["run"]["outputs"]["model_outputs"][0]["model_id"]
    page.goto(f"{base}/#/experiments/{experiment}/models/{model}/artifacts")
    for name in ("MLmodel", "requirements.txt", "input_example.json"):
        expect(page.get_by_text(name, exact=True).first).to_be_visible()
    page.get_by_text("MLmodel", exact=True).first.click()
    expect(page.get_by_text("flavors").first).to_be_visible()
    page.screenshot(path=pictures / "model.png")
