"""Takes the README's pictures of a running server's user interface, with Debian's Chromium.

    uv run --with playwright==1.65.2 docs/pictures/take.py    # after: eval "$(make -s env LOGIN=admin)"

Reads the client contract from the environment; the password goes to the browser through its own channel, never into a
command line. The browser is a throw-away that does not know the private authority, so it is told to accept it.
"""

import os
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

FOLDER = Path(__file__).parent
SIZE = {"width": 1440, "height": 860}


def shoot(page: Page, path: str, name: str) -> None:
    """Open a path of the server, wait until it is quiet, and keep the picture."""
    page.goto(os.environ["MLFLOW_TRACKING_URI"] + path, wait_until="networkidle")
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
        shoot(page, f"/#/experiments/{experiment}/runs", "runs.png")
        shoot(page, f"/#/experiments/{experiment}/runs/{runs[0]['info']['run_id']}/artifacts/figures%2Fresiduals.png", "figure.png")
        browser.close()


if __name__ == "__main__":
    main()
