"""Artifacts on their way past MLflow: the same answers as MLflow's own, which is asked on its socket beside nginx."""

import json
import secrets
from collections.abc import Iterator

import pytest
from testinfra.host import Host

from tests.roles.conftest import Scenario, wait_for
from tests.roles.nginx.test_nginx import Client

ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts/"
STORE = "127.0.0.1:9000"
NAMES = [
    "plain.txt",
    "with%20space.txt",
    "50%25.txt",
    "a%2Bb&c=d.csv",
    "Gr%C3%B6%C3%9Fe.json",
    "no-ending",
    "MLmodel",
    "deep/er/model.pkl",
    "dots..in.it",
    "quo%22te%27.bin",
]


def past_nginx(scenario: Scenario, login: str) -> Client:
    """Return a client that asks MLflow on its socket."""
    return Client(scenario, login, "http://localhost", "--unix-socket /run/mlflow/1/mlflow.sock")


@pytest.fixture(scope="module")
def admin(scenario: Scenario) -> Client:
    """Return the administrator's client."""
    return Client(scenario, f"admin:{scenario.secret('mlflow-admin')}")


@pytest.fixture(scope="module")
def mlflow(scenario: Scenario) -> Client:
    """Return the administrator's client that asks MLflow itself."""
    return past_nginx(scenario, f"admin:{scenario.secret('mlflow-admin')}")


@pytest.fixture(scope="module")
def folder(admin: Client) -> str:
    """Return the path of a run's artifacts."""
    name = json.dumps({"name": f"molecule-artifacts-{secrets.token_hex(4)}"})
    experiment = json.loads(admin("/api/2.0/mlflow/experiments/create", f"--json '{name}'").text)["experiment_id"]
    run: str = json.loads(admin("/api/2.0/mlflow/runs/create", f"--json '{json.dumps({'experiment_id': experiment})}'").text)["run"]["info"]["run_id"]
    return f"{ARTIFACTS}{experiment}/{run}/artifacts/"


@pytest.fixture(scope="module")
def stranger(admin: Client) -> Iterator[str]:
    """A user to whom nobody has given anything; returns name and password."""
    name, password = f"stranger-{secrets.token_hex(4)}", secrets.token_hex(12)
    body = json.dumps({"username": name, "password": password})
    assert admin("/api/2.0/mlflow/users/create", f"--json '{body}'").status == 200
    yield f"{name}:{password}"
    assert admin("/api/2.0/mlflow/users/delete", f"-X DELETE --json '{json.dumps({'username': name})}'").status == 200


def log_of(trixie: Host, path: str) -> str:
    """Return the lines of nginx's log about a path."""
    found: str = trixie.run("grep -F -- %s /var/log/nginx/access.log", path).stdout
    return found


@pytest.mark.parametrize("name", NAMES)
def test_there_and_back(trixie: Host, admin: Client, mlflow: Client, folder: str, name: str) -> None:
    """Whatever it is called: past MLflow into the store and back, with the same headers as MLflow's own answer; and MLflow finds the same file."""
    trixie.run("head -c 100000 /dev/urandom > /tmp/artifact")
    stored = admin(f"{folder}{name}", "-T /tmp/artifact")
    assert (stored.status, stored.text) == (200, "")
    ours, theirs = admin(f"{folder}{name}", "-o /tmp/ours"), mlflow(f"{folder}{name}", "-o /tmp/theirs")
    assert (ours.status, theirs.status) == (200, 200)
    assert trixie.run("cmp /tmp/artifact /tmp/ours && cmp /tmp/artifact /tmp/theirs").rc == 0
    for header in ("content-type", "content-disposition", "x-content-type-options", "x-frame-options"):
        assert ours.headers[header] == theirs.headers[header], header
    assert ours.headers["content-length"] == "100000"
    told = {*ours.headers, *stored.headers}
    assert not {header for header in told if header.startswith(("x-amz", "x-longrun", "x-accel", "x-minio"))}
    lines = [line for line in log_of(trixie, name).splitlines() if '"PUT ' in line or '"GET ' in line]
    assert len(lines) == 2
    assert all(STORE in line for line in lines), lines


def test_what_is_not_there(admin: Client, mlflow: Client, folder: str) -> None:
    """MLflow's own words, and its own status; a folder is an empty file for it."""
    for path in (f"{folder}nothing.txt", f"{ARTIFACTS}x", f"{folder}deep", f"{folder}%2E%2E/secret", f"{folder}a%23b"):
        ours, theirs = admin(path), mlflow(path)
        assert (ours.status, ours.text) == (theirs.status, theirs.text), path
        assert ours.status >= 400 or path.endswith("/deep")


@pytest.mark.parametrize("path", ["%2E%2E/up", "a/%2E%2E/b", "a%23b", "folder/", "a//b", "%2Fetc/x", "%252E%252E/up"])
def test_paths_that_are_refused(admin: Client, mlflow: Client, folder: str, path: str) -> None:
    """What MLflow refuses is not stored past it; what it makes of a strange path is what we make of it."""
    ours, theirs = (client(f"{folder}{path}", "--path-as-is -X PUT --data-binary content") for client in (admin, mlflow))
    assert (ours.status, ours.text) == (theirs.status, theirs.text)


def test_others_are_kept_out(scenario: Scenario, admin: Client, mlflow: Client, folder: str, stranger: str) -> None:
    """No login, a wrong one, and one without permission: the answers of MLflow, and nothing is stored."""
    assert admin(f"{folder}mine.txt", "-X PUT --data-binary content").status == 200
    for login in ("", "admin:wrong", stranger):
        for options in ("", "-X PUT --data-binary stolen"):
            ours, theirs = (client(scenario, login)(f"{folder}mine.txt", options) for client in (Client, past_nginx))
            assert ours.status == theirs.status == (403 if login == stranger else 401), (login, options)
            assert ours.text == theirs.text, (login, options)
            assert ours.headers.get("www-authenticate") == theirs.headers.get("www-authenticate")
    assert mlflow(f"{folder}mine.txt").text == "content"


def test_nobody_asks_for_a_ticket_but_nginx(admin: Client, folder: str) -> None:
    """The header is taken away, and the inner places are no addresses."""
    forged = "-H 'X-Longrun-Ticket: 1' -H 'X-Longrun-Artifact: /mlflow/x' -H 'X-Accel-Redirect: /_artifact'"
    # In pieces, so that it goes through MLflow itself.
    assert admin(f"{folder}forged.txt", f"{forged} -H 'Transfer-Encoding: chunked' -X PUT --data-binary content").status == 200
    answer = admin(f"{folder}forged.txt", forged)
    assert (answer.status, answer.text) == (200, "content")
    for place in ("/_artifact", "/_store", "/_ticket", "/_login"):
        assert admin(place, forged).status == 404


def test_a_download_is_resumed(trixie: Host, admin: Client, folder: str) -> None:
    """What broke off goes on where it was."""
    trixie.run("head -c 3000000 /dev/urandom > /tmp/artifact")
    assert admin(f"{folder}resumed.bin", "-T /tmp/artifact").status == 200
    trixie.run("head -c 1000000 /tmp/artifact > /tmp/part")
    answer = admin(f"{folder}resumed.bin", "-C - -o /tmp/part")
    assert answer.status == 206
    assert trixie.run("cmp /tmp/artifact /tmp/part").rc == 0
    assert answer.headers["content-range"] == "bytes 1000000-2999999/3000000"


def test_a_broken_upload_leaves_nothing(trixie: Host, admin: Client, mlflow: Client, folder: str) -> None:
    """No client ever sees half a file, nor does a file that was there go."""
    trixie.run("head -c 50000000 /dev/zero > /tmp/large")
    assert admin(f"{folder}whole.bin", "-X PUT --data-binary before").status == 200
    for name in ("half.bin", "whole.bin"):
        # curl's own time limit breaks it off in the middle.
        assert admin(f"{folder}{name}", "-T /tmp/large --limit-rate 10M -H Expect:", seconds=2).status == 0
    assert mlflow(f"{folder}half.bin").status >= 400
    assert mlflow(f"{folder}whole.bin").text == "before"
    assert trixie.run("find /var/lib/nginx /var/lib/mlflow/tmp -type f -size +1M | grep .").rc == 1


def test_the_store_is_away(trixie: Host, admin: Client, folder: str) -> None:
    """A 5xx that MLflow's client repeats, as JSON and with the time to wait; then it works again."""
    assert trixie.run("systemctl stop minio").rc == 0
    try:
        for options in ("", "-X PUT --data-binary content"):
            answer = admin(f"{folder}plain.txt", options)
            assert answer.status == 503
            assert answer.headers["retry-after"] == "30"
            assert json.loads(answer.text)["error_code"] == "TEMPORARILY_UNAVAILABLE"
    finally:
        assert trixie.run("systemctl start minio").rc == 0
    wait_for(lambda: admin(f"{folder}plain.txt", "-o /dev/null").status == 200)
