"""MLflow behind its own login, as instances on unix sockets."""

import json
import secrets
import shlex
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from testinfra.host import Host

from tests.roles.conftest import SECRETS, Scenario, wait_for

INSTANCES = (1, 2)
ENVIRONMENT = "/opt/longrun/mlflow/current"
SEARCH = "/api/2.0/mlflow/experiments/search?max_results=100"
SQL = "cd / && runuser -u postgres -- psql --no-psqlrc -At -d mlflow -c %s"


@dataclass
class Api:
    """Calls an instance on its socket, as nginx does."""

    scenario: Scenario
    login: str = ""

    def __call__(self, path: str, body: dict[str, Any] | None = None, *, instance: int = 1, options: str = "") -> tuple[int, str]:
        """Return the status and the text of the answer; `options` are curl's."""
        socket = f"/run/mlflow/{instance}/mlflow.sock"
        post = f"--json {shlex.quote(json.dumps(body))}" if body is not None else ""
        command = f"curl -s -m 60 -w '\\n%{{http_code}}' --unix-socket {socket} {options} {post} {shlex.quote(f'http://localhost{path}')}"
        done = self.scenario.script("trixie", f"{command} -K - <<'END'\n{f'user = {self.login}' if self.login else ''}\nEND\n")
        assert done.status == 0, f"{path}: curl ended with {done.status}"
        text, status = done.stdout.rsplit("\n", 1)
        return int(status), text


@pytest.fixture(scope="module")
def admin(scenario: Scenario) -> Api:
    """Return the API as the administrator gets it."""
    return Api(scenario, f"admin:{scenario.secret('mlflow-admin')}")


@pytest.fixture(scope="module")
def users(scenario: Scenario, admin: Api) -> tuple[Api, Api]:
    """Return the API as two users without any permission get it."""
    made = []
    for name in ("alice", "bob"):
        password = secrets.token_urlsafe(24)
        status, text = admin("/api/2.0/mlflow/users/create", {"username": f"molecule-{name}", "password": password})
        assert status == 200, text
        made.append(Api(scenario, f"molecule-{name}:{password}"))
    return made[0], made[1]


@pytest.mark.parametrize("instance", INSTANCES)
def test_each_instance_answers_on_its_socket_as_its_own_user(scenario: Scenario, trixie: Host, instance: int) -> None:
    """Nothing of MLflow runs as root, and both instances take part."""
    service = trixie.service(f"mlflow@{instance}")
    assert service.is_running
    assert service.is_enabled
    assert Api(scenario)("/health", instance=instance) == (200, "OK")
    pids = trixie.check_output(f"systemctl status --no-pager --lines=0 mlflow@{instance} | grep -oE '─[0-9]+ ' | tr -d '─ '").split()
    # MLflow's command would stay beside it, and hold as much memory.
    assert len(pids) == 1
    assert {trixie.check_output("ps -o user= -p %s", pid) for pid in pids} == {"mlflow"}
    socket = trixie.file(f"/run/mlflow/{instance}/mlflow.sock")
    assert socket.is_socket
    folder = trixie.file(f"/run/mlflow/{instance}")
    assert (folder.user, folder.group, folder.mode) == ("mlflow", "mlflow", 0o750)


@pytest.mark.parametrize("instance", INSTANCES)
def test_login(scenario: Scenario, admin: Api, instance: int) -> None:
    """Nobody comes in without a password, nor with the one that MLflow's documentation gives."""
    assert Api(scenario)(SEARCH, instance=instance)[0] == 401
    assert Api(scenario, "admin:password1234")(SEARCH, instance=instance)[0] == 401
    assert Api(scenario, "admin:")(SEARCH, instance=instance)[0] == 401
    assert admin(SEARCH, instance=instance)[0] == 200


def test_user_sees_nothing_of_another(admin: Api, users: tuple[Api, Api]) -> None:
    """Without a permission an experiment is its owner's alone: not read, not found, not written to."""
    alice, bob = users
    status, text = alice("/api/2.0/mlflow/experiments/create", {"name": f"molecule-{secrets.token_hex(4)}"})
    assert status == 200, text
    experiment = json.loads(text)["experiment_id"]
    read = f"/api/2.0/mlflow/experiments/get?experiment_id={experiment}"
    assert alice(read)[0] == 200
    assert admin(read)[0] == 200
    assert bob(read)[0] == 403
    assert bob("/api/2.0/mlflow/runs/create", {"experiment_id": experiment})[0] == 403
    assert bob("/api/2.0/mlflow/experiments/delete", {"experiment_id": experiment})[0] == 403
    assert bob("/api/2.0/mlflow/users/create", {"username": "molecule-eve", "password": secrets.token_urlsafe(24)})[0] == 403
    assert experiment in [e["experiment_id"] for e in json.loads(alice(SEARCH)[1])["experiments"]]
    assert experiment not in [e["experiment_id"] for e in json.loads(bob(SEARCH)[1]).get("experiments", [])]


def test_artifacts_go_to_minio_and_are_their_owners(scenario: Scenario, trixie: Host, users: tuple[Api, Api]) -> None:
    """A client needs no key for S3, and a permission on the experiment covers its artifacts."""
    alice, bob = users
    experiment = json.loads(alice("/api/2.0/mlflow/experiments/create", {"name": f"molecule-{secrets.token_hex(4)}"})[1])["experiment_id"]
    run = json.loads(alice("/api/2.0/mlflow/runs/create", {"experiment_id": experiment})[1])["run"]["info"]
    assert run["artifact_uri"] == f"mlflow-artifacts:/{experiment}/{run['run_id']}/artifacts"
    body = secrets.token_hex(16)
    path = f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run['run_id']}/artifacts/a.txt"
    assert alice(path, options=f"-X PUT --data-binary {body}")[0] == 200
    assert alice(path) == (200, body)
    assert bob(path)[0] == 403
    assert Api(scenario)(path)[0] == 401
    assert trixie.run(f"find /srv/longrun/minio/mlflow/{experiment} -type d -name a.txt | grep .").rc == 0


@pytest.mark.parametrize("instance", INSTANCES)
def test_runs_are_stored_by_our_statements(trixie: Host, users: tuple[Api, Api], instance: int) -> None:
    """The store is ours, with the index that it needs; MLflow's would do as well, and be slower, unnoticed."""
    alice, _ = users
    experiment = json.loads(alice("/api/2.0/mlflow/experiments/create", {"name": f"molecule-{secrets.token_hex(4)}"})[1])["experiment_id"]
    run = json.loads(alice("/api/2.0/mlflow/runs/create", {"experiment_id": experiment}, instance=instance)[1])["run"]["info"]["run_id"]
    metric = {"run_id": run, "key": "loss", "value": 0.5, "timestamp": 1, "step": 3}
    assert alice("/api/2.0/mlflow/runs/log-metric", metric, instance=instance)[0] == 200
    status, text = alice(f"/api/2.0/mlflow/runs/get?run_id={run}", instance=instance)
    assert status == 200
    assert json.loads(text)["run"]["data"]["metrics"] == [{"key": "loss", "value": 0.5, "timestamp": 1, "step": 3}]
    ours = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'mlflow' AND query LIKE 'EXECUTE longrun_%'"
    assert int(trixie.check_output(SQL, ours)) >= 1
    assert trixie.check_output(SQL, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'longrun_runs_by_start_1'::regclass") == "t"


def test_other_names_of_the_server_are_refused(admin: Api) -> None:
    """A page on another site that points its own name here gets nothing (DNS rebinding)."""
    assert admin(SEARCH, options="-H 'Host: evil.example'")[0] == 403
    assert admin("/api/2.0/mlflow/experiments/create", {"name": "evil"}, options="-H 'Origin: https://evil.example'")[0] == 403


def test_no_port_is_open(trixie: Host) -> None:
    """Only nginx, which may open the sockets, brings anybody here."""
    lines = trixie.check_output("ss --no-header --listening --tcp --udp --numeric --extended").splitlines()
    assert any("uid:971 " in line for line in lines)
    # 972 is mlflow: without CAP_SYS_PTRACE ss tells no names of processes.
    assert [line for line in lines if "uid:972 " in line] == []


@pytest.mark.parametrize(("name", "owner", "mode"), [("pgpass", "mlflow", 0o600), ("mlflow.env", "root", 0o640), ("basic_auth.ini", "root", 0o640)])
def test_files_with_secrets_are_closed(trixie: Host, name: str, owner: str, mode: int) -> None:
    """MLflow reads them; neither it nor anybody else writes those that root owns."""
    file = trixie.file(f"/etc/mlflow/{name}")
    assert (file.user, file.group, file.mode) == (owner, "mlflow", mode)
    assert trixie.run("runuser -u nobody -- cat /etc/mlflow/%s", name).rc != 0


def test_no_secret_shows(scenario: Scenario, trixie: Host) -> None:
    """Any user of the host sees `ps` and the units, and the journal travels in reports of faults."""
    seen = trixie.check_output("ps -eo args; systemctl cat 'mlflow@1'; systemctl show 'mlflow@*'; journalctl --no-pager --output=cat")
    assert "longrun_server server --app-name longrun" in trixie.check_output("ps -eo args")
    assert "MLFLOW_" not in trixie.check_output("systemctl show 'mlflow@1' --property=Environment")
    for name in SECRETS:
        secret = scenario.secret(name)
        assert len(secret) == 32
        # Not `in seen`: the failure would print both.
        assert not seen.count(secret), name
    # The administrator's password is nowhere on the host: its hash is in the database.
    assert scenario.script("trixie", f"grep -rqF -f - /etc /opt/longrun /var/lib/mlflow /var/log /tmp <<< {scenario.secret('mlflow-admin')}").status == 1


def test_refuses_the_tables_of_another_version(scenario: Scenario, trixie: Host) -> None:
    """Tables that hold data are changed by an upgrade, after a backup, and never by a deploy."""
    revision = trixie.check_output(SQL, "SELECT version_num FROM alembic_version")
    before = trixie.check_output("systemctl show 'mlflow@*' --property=MainPID")
    assert trixie.run(SQL, "UPDATE alembic_version SET version_num = 'molecule'").rc == 0
    try:
        play = scenario.converge("mlflow")
    finally:
        assert trixie.run(SQL, f"UPDATE alembic_version SET version_num = '{revision}'").rc == 0  # noqa: S608 - it comes from the database
    assert play.status != 0
    assert "database mlflow is at revision molecule, MLflow" in play.message
    assert trixie.check_output("systemctl show 'mlflow@*' --property=MainPID") == before


@pytest.fixture
def outages(trixie: Host) -> Iterator[Callable[[], tuple[int, int]]]:
    """Return a function that says how often a client was answered so far, and how often no instance was there for it."""
    asked, away, done = 0, 0, threading.Event()
    either = " || ".join(f"curl -sf -m 5 --unix-socket /run/mlflow/{instance}/mlflow.sock http://localhost/health" for instance in INSTANCES)

    def ask() -> None:
        nonlocal asked, away
        while not done.is_set():
            asked += 1
            away += trixie.run(either).rc != 0

    thread = threading.Thread(target=ask)
    thread.start()
    yield lambda: (asked, away)
    done.set()
    thread.join()


def test_an_interrupted_deploy_is_finished_by_the_next_without_an_outage(scenario: Scenario, trixie: Host, outages: Callable[[], tuple[int, int]]) -> None:
    """The environment was written, then the deploy broke off; the next one restarts both instances, but never both at once."""
    show = "systemctl show mlflow@1 mlflow@2 --property=MainPID --value"
    before = trixie.check_output(show).split()
    assert len(before) == len(INSTANCES)
    assert trixie.run("echo interrupted > /opt/longrun/applied/mlflow").rc == 0
    # What former versions have left goes; what only looks like it stays.
    former = ["3.0.0-0123abcd", "server-0123abcd", "server-0123abcd.part", "3.0.0-0123abcd.txt", "server-0123abcd.whl", "3.0.0-not-ours"]
    assert trixie.run(f"cd /opt/longrun/mlflow && mkdir {' '.join(former[:3])} && touch {' '.join(former[3:])}").rc == 0
    # Packed by a former version, which knew no Brotli.
    assert trixie.run(f"rm {ENVIRONMENT}/.packed-* && find {ENVIRONMENT}/pages/ -name '*.br' -delete").rc == 0
    play = scenario.converge("mlflow")
    assert play.status == 0, play.text
    count = f"find {ENVIRONMENT}/pages/ -name '*.{{}}' | wc -l"
    assert trixie.check_output(count.format("br")) == trixie.check_output(count.format("gz")) != "0"
    left = trixie.check_output("ls /opt/longrun/mlflow").split()
    assert set(former).intersection(left) == {"3.0.0-not-ours"}
    assert trixie.run("rm /opt/longrun/mlflow/3.0.0-not-ours").rc == 0
    assert set(trixie.check_output(show).split()).isdisjoint(before)
    asked, away = outages()
    assert asked > 10
    assert away == 0


def test_fewer_instances_stop_the_ones_that_are_too_many(scenario: Scenario, trixie: Host, admin: Api) -> None:
    """An instance that is not in nginx's list any more would go on holding memory and connections."""
    play = scenario.converge("mlflow", mlflow_instances=1)
    assert play.status == 0, play.text
    extra = trixie.service("mlflow@2")
    assert not extra.is_running
    assert not extra.is_enabled
    assert not trixie.file("/run/mlflow/2/mlflow.sock").exists
    assert admin(SEARCH)[0] == 200
    # As the scenario after this one expects it.
    assert trixie.run("systemctl enable --now mlflow@2").rc == 0
    assert wait_for(lambda: trixie.run("curl -sf --unix-socket /run/mlflow/2/mlflow.sock http://localhost/health").rc == 0)
