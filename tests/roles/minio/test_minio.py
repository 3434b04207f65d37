"""MinIO with one versioned bucket, and a key for MLflow that opens nothing else."""

import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from tests.roles.conftest import Scenario, wait_for

PYTHON = "/opt/longrun/minio/client/bin/python"
ENDPOINT = "127.0.0.1:9000"
# Tries each operation and prints what became of it: "ok", the code of the error, or the answer.
PROBE = """
import io, json, sys
from minio import Minio
from minio.commonconfig import ENABLED
from minio.credentials import StaticProvider
from minio.error import MinioAdminException, S3Error
from minio.minioadmin import MinioAdmin
from minio.versioningconfig import VersioningConfig

endpoint, key, secret = {endpoint!r}, {key!r}, {secret!r}
client = Minio(endpoint, access_key=key, secret_key=secret, secure=False)
admin = MinioAdmin(endpoint=endpoint, credentials=StaticProvider(key, secret), secure=False)

def attempt(work):
    try:
        answer = work()
    except S3Error as error:
        return error.code
    except MinioAdminException as error:
        return "AccessDenied" if "AccessDenied" in str(error) else str(error)
    return "ok" if answer is None else answer

def put(bucket, name, body=b"body"):
    client.put_object(bucket_name=bucket, object_name=name, data=io.BytesIO(body), length=len(body))

def get(bucket, name, version=None):
    return client.get_object(bucket_name=bucket, object_name=name, version_id=version).read().decode()

def versions(bucket, name):
    return sorted(bool(o.is_delete_marker) for o in client.list_objects(bucket_name=bucket, prefix=name, include_version=True))

def version(bucket, name):
    return next(o.version_id for o in client.list_objects(bucket_name=bucket, prefix=name, include_version=True) if not o.is_delete_marker)

print(json.dumps({{name: attempt(work) for name, work in {{{work}}}.items()}}))
"""

Probe = Callable[..., dict[str, Any]]


@pytest.fixture
def probe(scenario: Scenario) -> Probe:
    """Return a function that tries operations, each an expression of PROBE, with MLflow's key or the administrator's."""

    def run(*, root: bool = False, secret: str | None = None, **operations: str) -> dict[str, Any]:
        key = "longrun" if root else "mlflow"
        secret = secret or scenario.secret("minio-root" if root else "minio-mlflow")
        work = ", ".join(f"{name!r}: lambda: {operation}" for name, operation in operations.items())
        program = PROBE.format(endpoint=ENDPOINT, key=key, secret=secret, work=work)
        done = scenario.script("trixie", f"{PYTHON} - <<'END'\n{program}\nEND\n")
        assert done.status == 0, done.stderr
        answers: dict[str, Any] = json.loads(done.stdout)
        assert answers.keys() == operations.keys()
        return answers

    return run


def test_mlflow_reads_and_writes_in_its_bucket(probe: Probe) -> None:
    """All that an artifact needs."""
    answers = probe(
        put="put('mlflow', 'molecule/a')",
        get="get('mlflow', 'molecule/a')",
        list="[o.object_name for o in client.list_objects(bucket_name='mlflow', prefix='molecule/')]",
        remove="client.remove_object(bucket_name='mlflow', object_name='molecule/a')",
        gone="get('mlflow', 'molecule/a')",
    )
    assert answers == {"put": "ok", "get": "body", "list": ["molecule/a"], "remove": "ok", "gone": "NoSuchKey"}


def test_what_mlflow_deletes_or_overwrites_can_be_brought_back(probe: Probe) -> None:
    """The bucket keeps every version, and MLflow's key can't take one away."""
    name = f"molecule/{secrets.token_hex(4)}"
    answers = probe(
        put=f"put('mlflow', {name!r}, b'first')",
        again=f"put('mlflow', {name!r}, b'second')",
        remove=f"client.remove_object(bucket_name='mlflow', object_name={name!r})",
    )
    assert set(answers.values()) == {"ok"}
    answers = probe(
        root=True,
        status="client.get_bucket_versioning(bucket_name='mlflow').status",
        versions=f"versions('mlflow', {name!r})",
        version=f"version('mlflow', {name!r})",
    )
    assert answers["status"] == "Enabled"
    assert answers["versions"] == [False, False, True]
    version = answers["version"]
    purge = f"client.remove_object(bucket_name='mlflow', object_name={name!r}, version_id={version!r})"
    off = "client.set_bucket_versioning(bucket_name='mlflow', config=VersioningConfig('Suspended'))"
    assert probe(purge=purge, off=off) == {"purge": "AccessDenied", "off": "AccessDenied"}
    assert probe(root=True, get=f"get('mlflow', {name!r}, {version!r})") == {"get": "second"}


def test_mlflow_touches_nothing_else(probe: Probe) -> None:
    """A hole in MLflow opens its artifacts and no more."""
    assert probe(root=True, make="client.make_bucket(bucket_name='other')", put="put('other', 'a')") == {"make": "ok", "put": "ok"}
    answers = probe(
        buckets="[b.name for b in client.list_buckets()]",
        make="client.make_bucket(bucket_name='mine')",
        drop="client.remove_bucket(bucket_name='mlflow')",
        list="[o.object_name for o in client.list_objects(bucket_name='other')]",
        get="get('other', 'a')",
        put="put('other', 'b')",
        remove="client.remove_object(bucket_name='other', object_name='a')",
        policy="client.get_bucket_policy(bucket_name='mlflow')",
        users="admin.user_list()",
        info="admin.info()",
    )
    # MinIO answers with the buckets that the key may see.
    assert answers.pop("buckets") in (["mlflow"], "AccessDenied")
    assert answers == dict.fromkeys(answers, "AccessDenied")
    cleared = probe(
        root=True,
        get="get('other', 'a')",
        remove="client.remove_object(bucket_name='other', object_name='a')",
        drop="client.remove_bucket(bucket_name='other')",
    )
    assert cleared == {"get": "body", "remove": "ok", "drop": "ok"}


def test_wrong_secret_is_refused(probe: Probe) -> None:
    """Neither the key nor the administrator has a password that somebody could guess."""
    buckets = "client.list_buckets()"
    assert probe(secret="wrong-secret", buckets=buckets) == {"buckets": "SignatureDoesNotMatch"}  # noqa: S106 - it is meant to be refused
    assert probe(root=True, secret="minioadmin", buckets=buckets) == {"buckets": "SignatureDoesNotMatch"}  # noqa: S106


@pytest.mark.parametrize("path", ["/", "/mlflow/", "/mlflow/molecule/a", "/minio/admin/v3/info", "/minio/v2/metrics/cluster"])
def test_anonymous_gets_nothing(trixie: Host, path: str) -> None:
    """Nobody reads without a key, names of buckets and load included."""
    assert trixie.check_output("curl -s -o /dev/null -w '%%{http_code}' http://%s%s", ENDPOINT, path) == "403"


def test_listens_on_loopback_only(scenario: Scenario, trixie: Host) -> None:
    """Upstream has known holes that nobody mends, so it must be out of reach."""
    # 971 is minio: without CAP_SYS_PTRACE ss tells no names of processes.
    lines = [line.split() for line in trixie.check_output("ss --no-header --listening --tcp --numeric --extended").splitlines() if "uid:971 " in line]
    assert {line[3] for line in lines} in ({ENDPOINT}, {ENDPOINT, "[::1]:9000"})
    assert trixie.run("curl -s -m 5 http://%s:9000/minio/health/ready", scenario.address("trixie")).rc == 7


def test_runs_as_its_own_user_without_powers(trixie: Host) -> None:
    """Whoever breaks into MinIO is user minio, who can write its data and nothing else."""
    service = trixie.service("minio")
    assert service.is_running
    assert service.is_enabled
    process = trixie.process.get(comm="minio")
    assert process.user == "minio"
    status = trixie.file(f"/proc/{process.pid}/status").content_string
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert trixie.check_output("findmnt --noheadings --output TARGET --target /srv/longrun/minio") == "/srv/longrun"


def test_secrets_are_closed(scenario: Scenario, trixie: Host) -> None:
    """They stand in a file of root's, and neither in `ps` nor in the unit nor in the journal."""
    environment = trixie.file("/etc/minio/minio.env")
    assert (environment.mode, environment.user, environment.group) == (0o640, "root", "minio")
    assert scenario.secret("minio-root") in environment.content_string
    seen = trixie.check_output("ps -eo args; systemctl cat minio; systemctl show minio; journalctl --no-pager --output=cat --unit=minio")
    assert "/opt/longrun/minio/minio server" in seen
    for name in ("minio-root", "minio-mlflow"):
        assert scenario.secret(name) not in seen, name


def test_refuses_a_public_address(scenario: Scenario) -> None:
    """The one wrong value that would open the artifact store to everybody."""
    play = scenario.converge("minio", minio_listen_address="0.0.0.0")  # noqa: S104 - it is meant to be refused
    assert play.status != 0
    assert "minio_listen_address=0.0.0.0 is neither loopback nor private" in play.message
    assert play.changed == 0


def test_refuses_a_program_that_was_not_built_here(scenario: Scenario, tmp_path: Path) -> None:
    """A download that broke off, or another file in the cache, must not reach the host."""
    program = tmp_path / "minio"
    program.write_text("#!/bin/sh\n")
    for checksum in (None, f"{'0' * 64}  minio\n"):
        if checksum:
            Path(f"{program}.sha256").write_text(checksum)
        play = scenario.converge("minio", minio_binary=str(program))
        assert play.status != 0
        assert "is missing or does not match" in play.message
        assert play.changed == 0


def test_an_interrupted_deploy_is_finished_by_the_next(scenario: Scenario, trixie: Host) -> None:
    """The environment was written, then the deploy broke off: MinIO still runs with what it read before, and its client lacks a package."""
    before = trixie.process.get(comm="minio").pid
    assert trixie.run("echo interrupted > /opt/longrun/applied/minio").rc == 0
    stamp = "/opt/longrun/minio/client/.complete"
    complete = trixie.file(stamp).content_string
    # As another lock file left it, whose installation the next one took apart.
    assert trixie.run(f"echo another > {stamp}; rm -r /opt/longrun/minio/client/lib/python3*/site-packages/urllib3*").rc == 0
    assert trixie.run(f"{PYTHON} -c 'import minio'").rc != 0
    play = scenario.converge("minio")
    assert play.status == 0, play.text
    assert trixie.file(stamp).content_string == complete
    assert trixie.process.get(comm="minio").pid != before
    assert wait_for(lambda: trixie.run("curl -sf http://%s/minio/health/ready", ENDPOINT).rc == 0)
