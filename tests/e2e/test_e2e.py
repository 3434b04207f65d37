"""The whole way, on a server of its own, in the order of the server's life.

Tests run in the order they stand here: each begins with what the one before left.
"""

import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
from longrun_controller import terraform
from longrun_controller.environment import Environment
from longrun_controller.errors import ProblemError
from longrun_controller.platforms import container
from longrun_controller.progress import Progress
from requests.auth import HTTPBasicAuth

from tests.servers import ROOT, Server, api, artifacts_of, last_run_url, run, runs_of, say, versions_of

LARGE_MB = 100
# A host that reaches nobody any more, while the connection that it is installed over stays.
LOSE_NETWORK = """nft 'add table inet lost
add chain inet lost output { type filter hook output priority 0; }
add rule inet lost output oifname != "lo" ct state new reject'"""
AS_MLFLOW = "exec setpriv --reuid mlflow --regid mlflow --clear-groups /opt/longrun/mlflow/current/bin/python -"


# --- the first minutes ---


def test_up_says_what_comes_next(server: Server) -> None:
    """A newcomer must not have to look anything up after `make up`."""
    assert server.up
    text = server.up.text
    for expected in ("https://localhost:", "admin", "make password ENV=e2e", "make train ENV=e2e", "make status ENV=e2e", "model", "version 1"):
        assert expected in text, expected
    for step in ("tools", "host (Terraform)", "datastores", "deploy", "users", "training run"):
        assert re.search(rf"{re.escape(step)}.*\d+ s", text), f"no time for {step}"


def test_up_shows_no_secret(server: Server) -> None:
    """Neither `ps`, nor the logs, nor the host's journal or unit files may hold a secret."""
    secrets = server.secrets()
    assert len(secrets) >= 7
    assert len(server.seen) > 100, "the watch over ps saw nothing"
    logs = "".join(path.read_text(errors="replace") for path in server.directory.glob("logs/*.log"))
    assert "TASK" in logs
    host = server.shell(
        "journalctl --no-pager --output=cat; cat /etc/systemd/system/*.service; cat /proc/[0-9]*/cmdline | tr '\\0' ' '; cat /var/log/nginx/*.log"
    )
    assert "mlflow@" in host
    assert server.up
    places = {"ps": "\n".join(server.seen), "logs": logs, "the host": host, "the terminal": server.up.text}
    for name, secret in secrets.items():
        for place, text in places.items():
            assert secret not in text, f"{name} stands in {place}"


def test_secret_files_are_private(server: Server) -> None:
    """The key and the vault belong to the person who made them, and the vault is encrypted."""
    for name in (".vault-password", "vault.yml", "ssh_key", "terraform.tfstate"):
        assert (server.directory / name).stat().st_mode & 0o077 == 0, name
    assert (server.directory / "vault.yml").read_text().startswith("$ANSIBLE_VAULT;")
    ignored = run(["git", "check-ignore", *(str(server.directory / name) for name in (".vault-password", "ssh_key", "terraform.tfstate"))])
    assert len(ignored.stdout.split()) == 3


def test_read_only_checks(server: Server) -> None:
    """`tests/server` runs against any server, production too; here against this one."""
    done = run([sys.executable, "-m", "pytest", "-q", "tests/server"], environment={"LONGRUN_ENV": server.name}, log=server.log, check=False)
    if done.status:
        pytest.fail(done.stdout[-3000:], pytrace=False)
    assert re.search(r"[1-9]\d* passed", done.stdout)
    say(done.stdout.splitlines()[-1])


def test_status(server: Server) -> None:
    """`make status` tells what runs, and what the history holds."""
    printed = server.make("status")
    for expected in ("healthy", "postgresql@", "minio", "mlflow@1", "mlflow@2", "nginx", "1 runs", "1 model versions"):
        assert expected in printed.text, expected
    server.make("verify")


# --- history builds up ---


def test_second_training_joins_the_first(server: Server) -> None:
    """Two pipelines in a row: one experiment, versions 1 and 2, every artifact there and the same at each download."""
    client = server.client()
    before = runs_of(client, "diabetes")
    assert len(before) == 1
    trained = server.make("train")
    run_id = last_run_url(trained).rsplit("/", 1)[1]
    assert set(runs_of(client, "diabetes")) == {*before, run_id}
    assert versions_of(client, "diabetes") == [1, 2]
    artifacts = artifacts_of(client, run_id)
    assert {"figures/residuals.png", "figures/importance.png", "environment.json", "predictions.parquet", "configuration.json"} <= set(artifacts)
    assert artifacts_of(client, run_id) == artifacts
    # Same code, same data, same seed: the two runs tell the same.
    first, second = (api(client, "runs/get", run_id=each)["run"]["data"] for each in (before[0], run_id))
    measured = {"latency_ms", "duration_seconds"}
    metrics = [{metric["key"]: metric["value"] for metric in data["metrics"] if metric["key"] not in measured} for data in (first, second)]
    assert "holdout_rmse" in metrics[0]
    assert metrics[0] == metrics[1]
    assert metrics[0]["holdout_rmse"] > 0


def test_own_data(server: Server, tmp_path: Path) -> None:
    """A person's own CSV becomes an experiment of its own; what can't be used is one line and no run."""
    rows = "\n".join(f"{n},{n % 7},{n * 2.5 + n % 7}" for n in range(60))
    good = tmp_path / "prices.csv"
    good.write_text(f"a,b,price\n{rows}\n")
    server.make("train", f"DATA={good}", "TARGET=price")
    client = server.client()
    assert len(runs_of(client, "prices")) == 1
    cases = {
        "no such column": (f"a,b,price\n{rows}\n", "cost", "cost"),
        "empty": ("", "price", "empty"),
        "not numbers": (f"a,b,price\n{rows}\nx,1,2\n", "price", "number"),
    }
    for name, (content, target, word) in cases.items():
        bad = tmp_path / "prices.csv"
        bad.write_text(content)
        failed = server.make("train", f"DATA={bad}", f"TARGET={target}", check=False)
        lines = [line for line in failed.stderr.splitlines() if line.startswith("longrun:")]
        assert failed.status != 0, name
        assert len(lines) == 1, (name, failed.stderr)
        assert word in lines[0], (name, lines)
        assert "Traceback" not in failed.text
    assert len(runs_of(client, "prices")) == 1


def test_stock_client(server: Server, stock_python: Path) -> None:
    """Plain MLflow and the four variables of the client contract, and nothing else, can do everything."""
    environment = {**server.client(), "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run(
        [stock_python, ROOT / "tests/e2e/stock_client.py", str(LARGE_MB), "stock"],
        env={**{key: os.environ[key] for key in ("PATH", "HOME")}, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["sent"] == report["received"] == report["received_in_parts"]
    assert report["found"]
    assert report["history"] == [1 / step for step in range(1, 6)]
    assert report["unicode"] == "Größe"
    assert report["version"] == 1
    assert report["prediction"] == pytest.approx(0, abs=1e-6)


def test_clients_are_sent_to_nobody_else(server: Server) -> None:
    """MLflow would hand out addresses of MinIO, which no client reaches: a stock client would hang on its own loopback."""
    client = server.client()
    answer = requests.get(
        f"{client['MLFLOW_TRACKING_URI']}/api/3.0/mlflow/server-info",
        auth=("ci", client["MLFLOW_TRACKING_PASSWORD"]),
        verify=client["MLFLOW_TRACKING_SERVER_CERT_PATH"],
        timeout=30,
    )
    capabilities = {name: value for name, value in answer.json().items() if "multipart" in name or "presigned" in name}
    assert len(capabilities) == 4
    assert not any(capabilities.values()), capabilities


# --- who may come in ---


def test_every_route_wants_a_login(server: Server) -> None:
    """MLflow gives some of its paths to anybody; here only /health is open, whatever the version adds."""
    names = ("MLFLOW_BACKEND_STORE_URI", "MLFLOW_AUTH_CONFIG_PATH", "PGPASSFILE", "MLFLOW_FLASK_SERVER_SECRET_KEY", "MLFLOW_SERVER_ALLOWED_HOSTS")
    listing = (ROOT / "tests/e2e/list_routes.py").read_text()
    done = subprocess.run(
        [
            "podman",
            "exec",
            "-i",
            server.host,
            "bash",
            "-c",
            "set -a; . /etc/mlflow/mlflow.env; export _MLFLOW_SGI_NAME=uvicorn; " + AS_MLFLOW,
        ],
        input=listing,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    routes = json.loads(done.stdout.splitlines()[-1])
    assert len(routes) > 200, names
    client = server.client()
    base, authority = client["MLFLOW_TRACKING_URI"], client["MLFLOW_TRACKING_SERVER_CERT_PATH"]
    session = requests.Session()
    # A bundle of certificates named in the environment would take the authority's place.
    session.trust_env = False
    session.verify = authority
    # A password costs MLflow 100 ms: the wrong ones are tried on a sample of every kind of path.
    sample = [
        *routes[:: max(1, len(routes) // 25)],
        ["GET", "/"],
        ["GET", "/version"],
        ["GET", "/api/3.0/mlflow/server-info"],
        ["GET", "/static-files/index.html"],
    ]
    refused = {401, 403}
    open_paths = set()
    for method, path in [*routes, *sample]:
        answer = session.request(method, base + path, timeout=30, allow_redirects=False)
        if answer.status_code not in refused:
            open_paths.add(path)
    assert open_paths == {"/health"}
    for login in (("admin", "password1234"), ("ci", "wrong password"), ("nobody", "at all")):
        for method, path in sample:
            if path == "/health":
                continue
            answer = session.request(method, base + path, auth=HTTPBasicAuth(*login), timeout=30, allow_redirects=False)
            assert answer.status_code in refused, (login, method, path, answer.status_code)


def test_paths_that_are_not_offered(server: Server) -> None:
    """The assistant, the gateway, metrics and signing up are refused to everybody, the administrator too."""
    client = server.client("admin")
    for path in ("/ajax-api/3.0/mlflow/assistant/status", "/gateway/x/mlflow/invocations", "/ajax-api/3.0/mlflow/gateway/secrets/list", "/metrics", "/signup"):
        answer = requests.get(
            client["MLFLOW_TRACKING_URI"] + path,
            auth=("admin", client["MLFLOW_TRACKING_PASSWORD"]),
            verify=client["MLFLOW_TRACKING_SERVER_CERT_PATH"],
            timeout=30,
        )
        assert answer.status_code == 403, path


def test_only_two_ports_answer_from_outside(server: Server) -> None:
    """PostgreSQL, MinIO and MLflow answer nobody from outside the host: every port of its private address is tried."""
    address = server.outputs()["hosts"]["server"]["private_address"]
    found = []
    for port in range(1, 65536):
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex((address, port)) == 0:
                found.append(port)
    assert found == [22, 443]


def test_login_problems_are_one_line(server: Server, tmp_path: Path) -> None:
    """A wrong password is told at once, in one line, with what to do; a server that can't be reached loses no run: `longrun sync` sends it later."""
    program, spool = ROOT / "training/.venv/bin/longrun", str(tmp_path / "spool")
    client = server.client()
    before = runs_of(client, "diabetes")
    failed = run([program, "train", "--spool", spool], environment={**client, "MLFLOW_TRACKING_PASSWORD": "wrong"}, check=False, timeout=60)
    lines = [line for line in failed.stderr.splitlines() if line.strip()]
    assert failed.status == 4
    assert len(lines) == 1, failed.stderr
    assert "login" in lines[0], lines
    away = run([program, "train", "--repeats", "1", "--spool", spool], environment={**client, "MLFLOW_TRACKING_URI": "https://localhost:1"}, timeout=120)
    assert "can't be reached" in away.stderr
    assert "longrun sync" in away.stderr
    assert runs_of(client, "diabetes") == before
    meant = run([program, "sync", "--spool", spool], environment=client, check=False)
    assert meant.status != 0, "a run that was meant for one server must not reach another unasked"
    assert "https://localhost:1" in meant.stderr
    run([program, "sync", "--spool", spool, "--any-server"], environment=client)
    assert len(runs_of(client, "diabetes")) == len(before) + 1
    assert run([program, "sync", "--spool", spool], environment=client).status == 0
    assert len(runs_of(client, "diabetes")) == len(before) + 1


# --- mistakes ---


def test_mistakes_get_one_line_and_change_nothing(server: Server, second: Server) -> None:
    """Each mistake: one line that says what, where and what to do; a status other than zero; nothing half-made."""

    def refused(*arguments: str, words: tuple[str, ...], of: Server = server) -> None:
        failed = of.make(*arguments, check=False)
        lines = [line for line in failed.stderr.splitlines() if line.startswith("longrun:")]
        assert failed.status != 0, arguments
        assert len(lines) == 1, (arguments, failed.stderr)
        for word in words:
            assert word in lines[0], (word, lines[0])
        assert "Traceback" not in failed.text

    state = (server.directory / "terraform.tfstate").read_bytes()
    refused("destroy", words=("CONFIRM=e2e",))
    refused("new", words=("already",))
    refused("up", words=("no environment", "make new"), of=Server("e2e-none", server.log))
    refused("up", words=("can't name", "letters"), of=Server("No Such", server.log))
    refused("status", words=("no server yet",), of=second)

    before = server.edit("vars.yml", r"mlflow_instances: 2", "mlflow_instances: [2")
    refused("up", words=("vars.yml", "line"))
    (server.directory / "vars.yml").write_text(before.replace("mlflow_instances: 2", "mlflow_instances: many"))
    refused("deploy", words=("mlflow_instances",))
    (server.directory / "vars.yml").write_text(f"{before}\nbase_data_free_min_mb: 999999999\n")
    refused("provision", words=("MB free", "make room"))
    (server.directory / "vars.yml").write_text(before)

    key = server.directory / ".vault-password"
    right = key.read_text()
    key.write_text("wrong\n")
    refused("up", words=("vault.yml", "does not open"))
    key.write_text(right)

    port = int(re.search(r"https_port\s*=\s*(\d+)", (second.directory / "server.tfvars").read_text())[1])  # type: ignore[index]
    with socket.create_server(("127.0.0.1", port)):
        refused("up", words=(f"port {port}", "https_port"), of=second)
    taken = re.search(r"https_port\s*=\s*(\d+)", (server.directory / "server.tfvars").read_text())[1]  # type: ignore[index]
    before = second.edit("server.tfvars", r"(https_port\s*=\s*)\d+", rf"\g<1>{taken}")
    refused("up", words=(f"port {taken}", "'e2e'", "https_port"), of=second)
    (second.directory / "server.tfvars").write_text(before)
    assert not (second.directory / "terraform.tfstate").exists()
    assert (server.directory / "terraform.tfstate").read_bytes() == state


# --- it lasts ---


def test_second_up_changes_nothing(server: Server) -> None:
    """`make up` again: nothing changes, every run stays, and it is quick."""
    client = server.client()
    before = set(runs_of(client, "diabetes"))
    again = server.make("up")
    say(f"second up after {again.seconds:.0f} s, training included")
    assert "nothing to change" in again.text
    assert again.text.count("nothing changed") == 3
    assert before < set(runs_of(client, "diabetes"))


@pytest.mark.parametrize("guard", ["as it is", "without prevent_destroy", "without the volume"])
def test_no_plan_deletes_data(server: Server, guard: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A renamed host would take its volume with it; the plan is read before it is applied, also where the guard in the code is gone."""
    source = tmp_path / "terraform"
    shutil.copytree(ROOT / "terraform", source)
    main = source / "platforms" / "container" / "main.tf"
    text = main.read_text()
    before = (server.directory / "server.tfvars").read_text()
    if guard == "without the volume":
        text, count = re.subn(r'(?s)resource "docker_volume" "data" \{.*?\n\}\n', "", text)
        text = re.sub(r"(?s)  mounts \{.*?\n  \}\n", "", text)
        assert count == 1
    else:
        server.edit("server.tfvars", r"(?m)\Z", 'hosts = { other = { groups = ["postgresql", "minio", "mlflow", "nginx"] } }\n')
    if guard == "without prevent_destroy":
        text, count = re.subn(r"(?m)^\s+prevent_destroy = true$", "", text)
        assert count == 1
    main.write_text(text)
    monkeypatch.setattr(terraform, "SOURCE", source)
    volumes = run(["podman", "volume", "ls", "-q", "--filter", "label=longrun.environment=e2e"]).stdout
    host = run(["podman", "inspect", "--format", "{{.Id}}", server.host]).stdout
    with pytest.raises(ProblemError) as refused, Progress(server.directory / "logs").step("host") as step:
        terraform.Terraform(Environment.load(server.name)).apply(step)
    (server.directory / "server.tfvars").write_text(before)
    say(str(refused.value))
    assert 'docker_volume.data["server"]' in str(refused.value)
    assert "nothing was changed" in str(refused.value)
    assert run(["podman", "volume", "ls", "-q", "--filter", "label=longrun.environment=e2e"]).stdout == volumes
    assert run(["podman", "inspect", "--format", "{{.Id}}", server.host]).stdout == host


def test_no_instance_means_429_and_no_lost_run(server: Server, stock_python: Path) -> None:
    """While MLflow is away, clients are told to come back, do so, and lose nothing."""
    client = server.client()
    server.shell("systemctl stop 'mlflow@*'")
    base, authority = client["MLFLOW_TRACKING_URI"], client["MLFLOW_TRACKING_SERVER_CERT_PATH"]
    login = ("ci", client["MLFLOW_TRACKING_PASSWORD"])
    for method, path, body in (
        ("GET", "/", None),
        ("POST", "/api/2.0/mlflow/runs/create", "{}"),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/x", b"0" * 5_000_000),
    ):
        answer = requests.request(method, base + path, data=body, auth=login, verify=authority, timeout=30)
        assert answer.status_code == 429, path
        assert answer.headers["Retry-After"] == "30"
        assert answer.json()["error_code"] == "TEMPORARILY_UNAVAILABLE"
    process = subprocess.Popen(
        [stock_python, ROOT / "tests/e2e/stock_client.py", "1", "patient"],
        env={**{key: os.environ[key] for key in ("PATH", "HOME")}, **client, "MLFLOW_DISABLE_TELEMETRY": "true"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # The client has met a 429 once nginx has logged one for it.
    deadline = time.monotonic() + 60
    while "429" not in server.shell("grep -c 'experiments/get-by-name.* 429 ' /var/log/nginx/access.log >/dev/null && echo 429 || true"):
        assert time.monotonic() < deadline, "the client never came"
        time.sleep(0.5)
    server.shell("systemctl start mlflow@1 mlflow@2")
    output, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors[-2000:]
    assert json.loads(output.splitlines()[-1])["sent"]
    assert len(runs_of(client, "patient")) == 1


def test_interrupted_up_finishes(second: Server) -> None:
    """Ctrl-C in one step, a lost network in another, a kill in a third: `make up` again goes on from there and finishes."""
    # Started in the background, a shell has its children ignore Ctrl-C; these must not.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    steps = ((signal.SIGINT, "Install the packages postgresql"), (None, "minio : Copy the program"), (signal.SIGKILL, "Make the tables and the administrator"))
    for sent, marker in steps:
        say(f"make up ENV=e2e-b, {sent.name if sent else 'the network is lost'} at '{marker}'")
        process = subprocess.Popen(
            ["make", "-s", "up", "ENV=e2e-b"],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stderr
        for line in process.stderr:
            if marker in line:
                if sent:
                    os.killpg(process.pid, sent)
                else:
                    second.shell(LOSE_NETWORK, host="data")
                break
        rest = process.stderr.read()
        process.wait(timeout=60)
        assert process.returncode != 0
        assert "Traceback" not in rest
        if sent is signal.SIGINT:
            assert "interrupted; run the same command again" in rest
        if not sent:
            assert "Install the Python packages of /opt/longrun/minio/client" in rest
            second.shell("nft delete table inet lost", host="data")
    finished = second.make("up")
    assert "version 1" in finished.text


def test_the_engine_outlives_the_clone_that_started_it(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever deletes a clone must not leave an engine behind that starts no container for the next one."""
    image = run(["podman", "inspect", "--format", "{{.ImageName}}", server.host]).stdout.strip()
    clone, own = tmp_path / "clone", tmp_path / "run" / "podman.sock"
    clone.mkdir()
    monkeypatch.setattr(container, "SYSTEM_SOCKET", tmp_path / "none")
    monkeypatch.setattr(container, "OWN_SOCKET", own)
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.chdir(clone)
    address = container.engine()
    with socket.socket(socket.AF_UNIX) as asked:
        asked.connect(str(own))
        process, _, _ = struct.unpack("3i", asked.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    try:
        clone.rmdir()
        options = ["--network=none", "--security-opt=seccomp=unconfined", "--ulimit=nofile=20000:20000", "--ulimit=nproc=1000:1000"]
        assert "PRETTY_NAME" in run(["podman", "--remote", f"--url={address}", "run", "--rm", *options, image, "cat", "/etc/os-release"]).stdout
    finally:
        os.kill(process, signal.SIGTERM)


def test_two_servers_do_not_see_each_other(server: Server, second: Server) -> None:
    """A second environment beside the first: other ports, other network, other users, other authority, other runs."""
    one, two = server.client(), second.client()
    assert one["MLFLOW_TRACKING_URI"] != two["MLFLOW_TRACKING_URI"]
    assert len(runs_of(two, "diabetes")) == 1 < len(runs_of(one, "diabetes"))
    crossed = requests.get(
        f"{two['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/users/current",
        auth=("ci", one["MLFLOW_TRACKING_PASSWORD"]),
        verify=two["MLFLOW_TRACKING_SERVER_CERT_PATH"],
        timeout=30,
    )
    assert crossed.status_code == 401
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"{two['MLFLOW_TRACKING_URI']}/health", verify=one["MLFLOW_TRACKING_SERVER_CERT_PATH"], timeout=30)


def test_the_datastores_of_two_hosts_answer_each_other_only(server: Server, second: Server) -> None:
    """PostgreSQL and MinIO on a host of their own answer the host that runs MLflow, and neither a neighbour nor this machine."""
    address = second.outputs()["hosts"]["data"]["private_address"]
    probe = "timeout 3 bash -c '</dev/tcp/{}/{}' 2>/dev/null && echo reached || true"
    for port in (5432, 9000):
        command = probe.format(address, port)
        assert "reached" in second.shell(command, host="web"), port
        # podman routes between its networks, so it is the host's firewall that keeps the neighbour out.
        assert "reached" not in server.shell(command), port
        assert "reached" not in run(["bash", "-c", command]).stdout, port
    for host, services in {"data": {"postgresql@17-main", "minio"}, "web": {"mlflow@1", "mlflow@2", "nginx"}}.items():
        running = second.shell("systemctl list-units --state=running --plain --no-legend 'postgresql@*' 'minio*' 'mlflow@*' 'nginx*'", host=host)
        assert {line.split()[0].removesuffix(".service") for line in running.splitlines()} == services


def test_destroy_leaves_nothing(second: Server) -> None:
    """With the name typed again, everything goes: containers, volumes, networks and state."""
    second.make("destroy", "CONFIRM=e2e-b")
    label = "label=longrun.environment=e2e-b"
    assert not run(["podman", "ps", "-aq", "--filter", label]).stdout
    for kind in ("volume", "network"):
        assert not run(["podman", kind, "ls", "-q", "--filter", label]).stdout
    assert not (second.directory / "terraform.tfstate").exists()
