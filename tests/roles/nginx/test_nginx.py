"""TLS, logins and a polite 429 in front of MLflow."""

import json
import re
import secrets
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from testinfra.host import Host

from tests.roles.conftest import Scenario, wait_for

AUTHORITY = "/usr/local/share/ca-certificates/ca.crt"
CERTIFICATE = "/etc/nginx/tls/server.crt"
SEARCH = "/api/2.0/mlflow/experiments/search?max_results=1"
CLOSED = [
    "/ajax-api/3.0/mlflow/assistant/sessions",
    "/api/2.0/mlflow/gateway/endpoints/list",
    "/ajax-api/3.0/mlflow/gateway/endpoints/list",
    "/gateway/any/mlflow/invocations",
    "/metrics",
    "/signup",
    "/gateway/page.html",
    "/api/2.0/mlflow/users/create-ui",
]
# What a client says it takes, what it gets, and what unpacks that.
TAKEN = [
    ("", "identity", "cat"),
    ("-H 'Accept-Encoding: identity'", "identity", "cat"),
    ("-H 'Accept-Encoding: gzip'", "gzip", "zcat"),
    ("-H 'Accept-Encoding: br'", "br", "brotli -d"),
    # As browsers say it.
    ("-H 'Accept-Encoding: gzip, deflate, br, zstd'", "br", "brotli -d"),
    ("-H 'Accept-Encoding: br;q=0, gzip'", "gzip", "zcat"),
]
MLFLOW_UNITS = "mlflow@1 mlflow@2"
# Asks an instance for its health, and waits for it to close the connection.
WAIT_FOR_THE_END = """
import socket
instance = socket.socket(socket.AF_UNIX)
instance.settimeout(10)
instance.connect("/run/mlflow/1/mlflow.sock")
instance.sendall(b"GET /health HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
print(instance.recv(4096).split()[0].decode())
try:
    while instance.recv(4096):
        pass
    print("closed")
except TimeoutError as error:
    print(type(error).__name__)
"""
# How long an answer is waited for; and how curl says that it waited no longer.
PATIENT_SECONDS, TIMED_OUT = 60, 28


@dataclass
class Answer:
    """What a client gets."""

    status: int
    text: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Client:
    """Asks nginx as a client does: by the public name, and with the certificate checked."""

    scenario: Scenario
    login: str = ""

    # Of the server, and how curl gets there.
    base: str = "https://localhost"
    way: str = f"--cacert {AUTHORITY}"

    def __call__(self, path: str, options: str = "", *, seconds: int = PATIENT_SECONDS) -> Answer:
        """Return the answer to one request; `options` are curl's. One that was not there after so many seconds has status 0."""
        command = f"curl -s -m {seconds} -D /dev/stderr -w '\\n%{{http_code}}' {self.way} {options} {shlex.quote(self.base + path)}"
        done = self.scenario.script("trixie", f"{command} -K - <<'END'\n{f'user = {self.login}' if self.login else ''}\nEND\n")
        text, status = done.stdout.rsplit("\n", 1)
        assert done.status in ({0, TIMED_OUT} if seconds < PATIENT_SECONDS else {0}), f"{path}: curl ended with {done.status}"
        headers = re.findall(r"(?m)^([\w-]+): (.*?)\r?$", done.stderr)
        return Answer(int(status), text, {name.lower(): value for name, value in headers})


@pytest.fixture(scope="module")
def anonymous(scenario: Scenario) -> Client:
    """Return a client without a login."""
    return Client(scenario)


@pytest.fixture(scope="module")
def admin(scenario: Scenario) -> Client:
    """Return the administrator's client."""
    return Client(scenario, f"admin:{scenario.secret('mlflow-admin')}")


def test_certificate_verifies_for_its_names_only(scenario: Scenario, trixie: Host) -> None:
    """A client that is given the authority's certificate needs no exception, and gets none."""
    assert trixie.check_output("openssl x509 -in %s -noout -ext subjectAltName", CERTIFICATE).split()[-3:] == ["DNS:localhost,", "IP", "Address:127.0.0.1"]
    for name in ("localhost", "127.0.0.1"):
        assert trixie.run("curl -sf --cacert %s https://%s/health", AUTHORITY, name).rc == 0, name
    # Another name for the same server, and another authority: curl calls both 60.
    assert trixie.run("curl -sf --cacert %s --connect-to ::127.0.0.1:443 https://other.example/health", AUTHORITY).rc == 60
    assert trixie.run("curl -sf --cacert /tmp/stranger.crt --capath /nonexistent https://localhost/health").rc in {60, 77}
    assert trixie.run("curl -sf --cacert %s https://%s/health", AUTHORITY, scenario.address("trixie")).rc == 60
    key = trixie.file("/etc/nginx/tls/server.key")
    assert (key.user, key.mode) == ("root", 0o600)
    # The authority's own key stays on the controller.
    middle = (scenario.directory / "ca.key").read_text().splitlines()[1]
    assert scenario.script("trixie", f"grep -rqF -f - /etc /opt/longrun /var/lib/nginx /var/log /tmp <<< {middle}").status == 1


def test_old_tls_and_plain_http_are_refused(trixie: Host) -> None:
    """A password travels with every request, so none goes out in a way that can be read."""
    assert trixie.run("curl -sf --cacert %s --tlsv1.2 https://localhost/health", AUTHORITY).rc == 0
    assert trixie.run("curl -sf --cacert %s --ciphers DEFAULT@SECLEVEL=0 --tlsv1.0 --tls-max 1.1 https://localhost/health", AUTHORITY).rc == 35
    assert trixie.run("curl -s http://localhost/health").rc == 7


def test_only_https_and_ssh_are_open(trixie: Host) -> None:
    """Every other port of a finished server is on the loopback, or closed."""
    addresses = [line.split()[3] for line in trixie.check_output("ss --no-header --listening --tcp --numeric").splitlines()]
    assert {int(address.rsplit(":", 1)[1]) for address in addresses if not address.startswith(("127.", "[::1]"))} == {22, 443}


@pytest.mark.parametrize("path", ["/", "/version", "/static-files/index.html", "/api/3.0/mlflow/server-info", "/ajax-api/3.0/mlflow/server-info", SEARCH])
def test_nothing_without_a_login(scenario: Scenario, anonymous: Client, admin: Client, path: str) -> None:
    """MLflow gives some of these to everybody; what is served here, and by which version, is nobody's business."""
    assert anonymous(path).status == 401
    assert Client(scenario, "admin:password1234")(path).status == 401
    assert admin(path).status in {200, 404}


def test_health_is_open(anonymous: Client) -> None:
    """A monitor needs no password, and learns only that the server is up."""
    answer = anonymous("/health")
    assert (answer.status, answer.text) == (200, "OK")


@pytest.mark.parametrize("path", CLOSED)
def test_what_is_not_tracking_is_closed_even_to_the_administrator(anonymous: Client, admin: Client, path: str) -> None:
    """These reach out to other hosts, or make accounts, or tell about this host."""
    for client in (anonymous, admin):
        answer = client(path)
        assert answer.status == 403
        assert json.loads(answer.text)["error_code"] == "PERMISSION_DENIED"
    assert admin(path, "-X POST --json '{}'").status == 403


@pytest.mark.parametrize(
    "path",
    ["//metrics", "/./metrics", "/%6detrics", "/x/../metrics", "/ajax-api/2.0/mlflow//gateway/endpoints/list", "/api/3.0/mlflow/%67ateway/endpoints/list"],
)
def test_other_spellings_are_closed_too(admin: Client, path: str) -> None:
    """Nginx must judge the path that MLflow will see."""
    assert admin(path, "--path-as-is").status == 403


def test_the_pages_hear_that_there_is_no_gateway(admin: Client) -> None:
    """Without an answer the list of runs shows "Something went wrong"; with a target it would reach out to other hosts."""
    answer = admin("/ajax-api/2.0/mlflow/gateway-proxy?gateway_path=api/2.0/endpoints")
    assert answer.status == 200
    assert json.loads(answer.text) == {"endpoints": []}


def test_login_and_artifacts_come_through(trixie: Host, admin: Client) -> None:
    """The way of a run: an experiment, a run, a large artifact there and back."""
    assert admin(SEARCH).status == 200
    name = f"molecule-nginx-{secrets.token_hex(4)}"
    experiment = json.loads(admin("/api/2.0/mlflow/experiments/create", f"--json '{json.dumps({'name': name})}'").text)["experiment_id"]
    run = json.loads(admin("/api/2.0/mlflow/runs/create", f"--json '{json.dumps({'experiment_id': experiment})}'").text)["run"]["info"]["run_id"]
    path = f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run}/artifacts/large"
    assert trixie.run("head -c 20000000 /dev/urandom > /tmp/large").rc == 0
    assert admin(path, "-T /tmp/large").status == 200
    assert admin(path, "-o /tmp/back").status == 200
    assert trixie.run("cmp /tmp/large /tmp/back").rc == 0


def test_an_instance_keeps_an_idle_connection(trixie: Host) -> None:
    """It is nginx that lets go: were it the instance, after uvicorn's own 5 s, a request on its way there would fail."""
    assert trixie.run("python3 -c %s", WAIT_FOR_THE_END).stdout.split() == ["HTTP/1.1", "TimeoutError"]


def test_the_pages_are_handed_out_packed(trixie: Host, anonymous: Client, admin: Client) -> None:
    """A script is sent as small as the client takes it, and kept for ever; who takes nothing packed gets the same; nobody gets it without a login."""
    found = re.search(r'src="(static-files/static/js/main\.[0-9a-f]+\.js)"', admin("/").text)
    assert found
    script = f"/{found[1]}"
    assert anonymous(script).status == 401
    sizes = []
    for takes, encoding, unpack in TAKEN:
        answer = admin(script, f"{takes} -o /tmp/{encoding}")
        assert answer.status == 200
        assert answer.headers.get("content-encoding", "identity") == encoding, takes
        assert answer.headers["vary"] == "Accept-Encoding", takes
        assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
        assert answer.headers["strict-transport-security"]
        assert answer.headers["content-type"] == "application/javascript"
        # The first is as MLflow has it.
        assert trixie.run(f"{unpack} < /tmp/{encoding} | cmp - /tmp/identity").rc == 0, takes
        assert admin(script, f"{takes} -H 'If-None-Match: {answer.headers['etag']}'").status == 304
        sizes.append(int(answer.headers["content-length"]))
    plain, _, gzip, brotli = sizes[:4]
    assert brotli < 0.85 * gzip < 0.3 * plain
    assert admin("/").status == 200
    index = admin("/static-files/index.html")
    assert index.headers["cache-control"] == "private, no-cache"
    assert admin("/static-files/index.html", f"-H 'If-None-Match: {index.headers['etag']}'").status == 304
    assert admin("/static-files/none.js").status == 404
    assert admin("/static-files/../basic_auth.ini", "--path-as-is").status in {400, 404}


def test_the_packed_content_is_the_content(trixie: Host, admin: Client) -> None:
    """Every packed file unpacks to its neighbour, and none is missing: nginx sends a browser nothing packed where only one of both is there."""
    pages = "/opt/longrun/mlflow/current/pages/"
    for ending, unpack in (("gz", "zcat"), ("br", "brotli -dc")):
        command = f'cd {pages} && find . -name \'*.{ending}\' | while read -r file; do {unpack} "$file" | cmp -s - "${{file%.*}}" || echo "$file"; done'
        assert not trixie.check_output(command)
        assert int(trixie.check_output(f"find {pages} -name '*.{ending}' | wc -l")) > 200
        assert not trixie.check_output(f'find {pages} -name \'*.js\' -size +1k | while read -r file; do [ -e "$file.{ending}" ] || echo "$file"; done')
    module = trixie.check_output(f"cd {pages} && find static -name '*.mjs' | head -n 1")
    assert admin(f"/static-files/{module}").headers["content-type"] == "application/javascript"


@pytest.fixture(scope="class")
def without_mlflow(trixie: Host) -> Iterator[None]:
    """Stop every instance for a while, as an upgrade does."""
    assert trixie.run(f"systemctl stop {MLFLOW_UNITS}").rc == 0
    assert trixie.run("head -c 5000000 /dev/zero > /tmp/body").rc == 0
    yield
    assert trixie.run(f"systemctl start {MLFLOW_UNITS}").rc == 0
    # Not through nginx, which has yet to hear of it.
    sockets = " && ".join(f"curl -sf --unix-socket /run/mlflow/{number}/mlflow.sock http://localhost/health" for number in (1, 2))
    assert wait_for(lambda: trixie.run(sockets).rc == 0)


@pytest.mark.usefixtures("without_mlflow")
class TestWithoutMlflow:
    """While no instance is up."""

    @pytest.mark.parametrize(
        ("path", "options"),
        [
            ("/health", ""),
            ("/", ""),
            ("/version", ""),
            ("/static-files/index.html", ""),
            # Its ending must not make the answer a picture.
            ("/api/2.0/mlflow-artifacts/artifacts/0/run/artifacts/plot.png", "-T /tmp/body"),
            (SEARCH, ""),
            ("/api/3.0/mlflow/server-info", ""),
            ("/api/2.0/mlflow/runs/create", '--json \'{"experiment_id": "0"}\''),
            ("/api/2.0/mlflow-artifacts/artifacts/0/run/artifacts/file", "-T /tmp/body"),
            ("/api/2.0/mlflow-artifacts/artifacts/0/run/artifacts/file", "-T /tmp/body -H 'Transfer-Encoding: chunked'"),
        ],
    )
    def test_clients_are_told_to_come_back(self, admin: Client, path: str, options: str) -> None:
        """429 with Retry-After is what every MLflow client repeats; a page in HTML would end a run."""
        answer = admin(path, options)
        assert answer.status == 429
        assert answer.headers["retry-after"] == "30"
        assert answer.headers["content-type"] == "application/json"
        assert json.loads(answer.text)["error_code"] == "TEMPORARILY_UNAVAILABLE"


def test_mlflow_is_back_at_once(trixie: Host) -> None:
    """Nginx must not go on holding for dead what answers again: a page asks for many files at once, and shows nothing where one of them is missing."""
    burst = " ".join(f"-o /dev/null https://localhost/health?{number}" for number in range(24))
    asked = f"curl -s --cacert {AUTHORITY} --parallel --parallel-immediate --write-out '%{{http_code}} ' {burst}"
    assert trixie.check_output(asked).split() == ["200"] * 24


@pytest.mark.parametrize(("value", "reason"), [("broken", "nginx_proxy_timeout_seconds"), (-5, "proxy_read_timeout")])
def test_bad_value_leaves_nginx_as_it_was(scenario: Scenario, trixie: Host, anonymous: Client, value: object, reason: str) -> None:
    """One is refused by the role's own specification, the other by `nginx -t`; neither reaches the running server."""
    state = "sha256sum /etc/nginx/nginx.conf; systemctl show nginx --property=MainPID; pgrep -P $(cat /run/nginx.pid)"
    before = trixie.check_output(state)
    play = scenario.converge("nginx", nginx_proxy_timeout_seconds=value)
    assert play.status != 0
    assert reason in play.message
    assert trixie.check_output(state) == before
    assert anonymous("/health").status == 200


def test_certificate_is_renewed_in_time_and_served(scenario: Scenario, trixie: Host) -> None:
    """A new certificate on the disk is worth nothing while nginx goes on serving the old one."""
    served = f"openssl s_client -connect localhost:443 -CAfile {AUTHORITY} -verify_return_error </dev/null 2>/dev/null | openssl x509 -noout -serial"
    before = trixie.check_output(served)
    master = trixie.check_output("cat /run/nginx.pid")
    play = scenario.converge("nginx", nginx_certificate_renew_days=400)
    assert play.status == 0, play.text
    assert trixie.check_output("openssl x509 -in %s -noout -serial", CERTIFICATE) != before
    assert trixie.check_output(served) == trixie.check_output("openssl x509 -in %s -noout -serial", CERTIFICATE)
    # A reload: no connection was refused meanwhile.
    assert trixie.check_output("cat /run/nginx.pid") == master


def test_an_interrupted_deploy_is_finished_by_the_next(scenario: Scenario, trixie: Host) -> None:
    """The configuration was written, then the deploy broke off: the workers still run with the old one."""
    workers = "pgrep -P $(cat /run/nginx.pid) | sort"
    before = set(trixie.check_output(workers).split())
    assert before
    assert trixie.run("echo interrupted > /opt/longrun/applied/nginx").rc == 0
    play = scenario.converge("nginx")
    assert play.status == 0, play.text
    assert wait_for(lambda: set(trixie.check_output(workers).split()).isdisjoint(before))


def test_log_holds_no_login(scenario: Scenario, trixie: Host) -> None:
    """A log travels further than its host."""
    log = trixie.file("/var/log/nginx/access.log").content_string
    assert "GET /health" in log
    assert scenario.secret("mlflow-admin") not in log
    assert "max_results" not in log
