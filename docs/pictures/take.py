"""Takes the README's pictures of a running server's user interface, with Debian's Chromium.

    uv run --with playwright==1.65.2 docs/pictures/take.py    # after: eval "$(make -s env LOGIN=admin)"

Needs `apt-get install chromium fonts-noto-core`. Reads the client contract from the environment; the password goes to
the browser through its own channel, never into a command line. The browser is a throw-away that
does not know the private authority, so it is told to accept it.
"""

import os
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

FOLDER = Path(__file__).parent
SETTLE_MS = 9000
SIZE = {"width": 1440, "height": 860}


def shoot(page: Page, path: str, name: str) -> None:
    """Open a path of the server, give it time to draw, and keep the picture."""
    page.goto(os.environ["MLFLOW_TRACKING_URI"] + path)
    # The page asks the server again and again: there is no moment at which it is done.
    page.wait_for_timeout(SETTLE_MS)
    page.screenshot(path=FOLDER / name)
    print(f"took {name}")


def main() -> None:
    """Take each picture."""
    login = {"username": os.environ["MLFLOW_TRACKING_USERNAME"], "password": os.environ["MLFLOW_TRACKING_PASSWORD"]}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_context(http_credentials=login, ignore_https_errors=True, viewport=SIZE).new_page()
        page.goto(os.environ["MLFLOW_TRACKING_URI"])
        experiment = page.request.get(f"{os.environ['MLFLOW_TRACKING_URI']}/ajax-api/2.0/mlflow/experiments/get-by-name?experiment_name=diabetes").json()[
            "experiment"
        ]["experiment_id"]
        runs = page.request.post(
            f"{os.environ['MLFLOW_TRACKING_URI']}/ajax-api/2.0/mlflow/runs/search", data={"experiment_ids": [experiment], "max_results": 1}
        ).json()["runs"]
        page.wait_for_timeout(SETTLE_MS)
        # The assistant opens itself on the first visit; this server does not offer it.
        page.get_by_text("MLflow Assistant").first.locator("xpath=following::button[1]").click()
        shoot(page, f"/#/experiments/{experiment}/runs", "runs.png")
        shoot(page, f"/#/experiments/{experiment}/runs/{runs[0]['info']['run_id']}/artifacts/figures/residuals.png", "figure.png")
        browser.close()


if __name__ == "__main__":
    main()
