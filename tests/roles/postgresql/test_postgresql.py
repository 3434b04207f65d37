"""PostgreSQL on the data volume, for MLflow's role and nobody else."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from testinfra.host import Host

from tests.roles.conftest import Scenario

VERSIONS = {"trixie": "17", "bookworm": "15"}
CONFIGURATION = "/etc/postgresql/17/main/conf.d/longrun.conf"


def query(host: Host, statement: str, database: str = "postgres") -> str:
    """Ask as the administrator, who comes in by the name of his system user."""
    return str(host.check_output("cd / && runuser -u postgres -- psql --no-psqlrc -At -d %s -c %s", database, statement))


@dataclass
class Login:
    """Logs in as MLflow does, from a system user who is nobody."""

    scenario: Scenario

    def __call__(
        self, name: str, statement: str, *, database: str = "mlflow", password: str = "", user: str = "mlflow", address: str = "/var/run/postgresql"
    ) -> tuple[int, str]:
        """Return psql's exit status and what it said; without a password, with the right one."""
        psql = ["psql", "--no-psqlrc", "-At", "-h", address, "-U", user, "-d", database, "-c", statement]
        text = f"cd /; PGPASSWORD={shlex.quote(password or self.scenario.secret('postgresql'))} runuser -u nobody -- {shlex.join(psql)}"
        done = self.scenario.script(name, text)
        return done.status, (done.stderr if done.status else done.stdout).strip()


@pytest.fixture
def login(scenario: Scenario) -> Login:
    """Return a function that logs in with MLflow's password."""
    return Login(scenario)


@pytest.mark.parametrize("name", VERSIONS)
def test_cluster_lies_on_the_data_volume_with_checksums(scenario: Scenario, name: str) -> None:
    """A disk that turns a bit must be noticed, and a replaced host must find its data."""
    host, version = scenario.host(name), VERSIONS[name]
    assert query(host, "SHOW data_directory") == f"/srv/longrun/postgresql/{version}/main"
    assert query(host, "SHOW data_checksums") == "on"
    assert query(host, "SHOW fsync") == "on"
    # PostgreSQL's own order of letters where it has one: no upgrade of the system's library changes what an index is sorted by.
    order = "SELECT pg_encoding_to_char(encoding), datcollate, datlocprovider FROM pg_database WHERE datname = 'mlflow'"
    assert query(host, order) == f"UTF8|C.UTF-8|{'b' if int(version) >= 17 else 'c'}"
    assert host.check_output("findmnt --noheadings --output TARGET --target /srv/longrun/postgresql") == "/srv/longrun"
    # The package's own cluster, on the host's disk, was never made.
    assert host.run("ls -A /var/lib/postgresql/*/").stdout.strip() == ""
    assert host.service(f"postgresql@{version}-main").is_running
    assert host.service("postgresql").is_enabled


@pytest.mark.parametrize("name", VERSIONS)
def test_right_password_opens_and_wrong_ones_do_not(scenario: Scenario, login: Login, name: str) -> None:
    """Whoever gets a shell on the host has not got the history yet."""
    assert login(name, "SELECT current_user") == (0, "mlflow")
    status, text = login(name, "SELECT 1", password="wrong")  # noqa: S106 - it is meant to be refused
    assert status != 0
    assert "password authentication failed" in text
    # The administrator comes in by his system user only, and no other name comes in at all.
    assert "Peer authentication failed" in login(name, "SELECT 1", user="postgres", database="postgres")[1]
    assert "no pg_hba.conf entry" in login(name, "SELECT 1", user="nobody")[1]
    assert query(scenario.host(name), "SELECT left(rolpassword, 14) FROM pg_authid WHERE rolname = 'mlflow'") == "SCRAM-SHA-256$"


@pytest.mark.parametrize("database", ["postgres", "template1"])
def test_mlflow_reaches_its_own_databases_only(login: Login, database: str) -> None:
    """What MLflow's role can't open, a hole in MLflow can't either."""
    status, text = login("trixie", "SELECT 1", database=database)
    assert status != 0
    assert "no pg_hba.conf entry" in text


def test_mlflow_has_no_power_beyond_its_databases(trixie: Host, login: Login) -> None:
    """It owns two databases; it makes no others, no roles, reads no files and runs no programs."""
    assert query(trixie, "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = 'mlflow'") == "f|f|f|f|f"
    assert query(trixie, "SELECT string_agg(datname, ',' ORDER BY datname) FROM pg_database WHERE datdba = 'mlflow'::regrole") == "mlflow,mlflow_auth"
    for statement in ("CREATE DATABASE other", "CREATE ROLE other", "COPY (SELECT 1) TO PROGRAM 'id'", "SELECT pg_read_file('/etc/passwd')"):
        status, text = login("trixie", statement)
        assert status != 0, statement
        assert "permission denied" in text, statement
    status, text = login("trixie", "CREATE TABLE t (i int); DROP TABLE t", database="mlflow_auth")
    assert status == 0, text


def test_public_may_not_connect(trixie: Host) -> None:
    """A role that somebody makes later has no business in MLflow's databases."""
    assert query(trixie, "SELECT has_database_privilege('public', 'mlflow', 'CONNECT'), has_database_privilege('public', 'mlflow_auth', 'CONNECT')") == "f|f"


def test_single_host_listens_on_its_socket_only(trixie: Host) -> None:
    """A port that is not open needs no firewall."""
    listening = trixie.check_output("ss --no-header --listening --tcp --numeric --extended")
    assert ":22 " in listening
    # postgres, by number: without CAP_SYS_PTRACE ss tells no names of processes.
    assert "uid:970 " not in listening
    assert trixie.file("/var/run/postgresql/.s.PGSQL.5432").is_socket


def test_host_of_its_own_serves_mlflow_hosts_only(scenario: Scenario, bookworm: Host, login: Login) -> None:
    """PostgreSQL on a second host listens on its private address, for the addresses that MLflow runs on."""
    address = scenario.address("bookworm")
    listening = bookworm.check_output("ss --no-header --listening --tcp --numeric --extended").splitlines()
    assert [line.split()[3] for line in listening if "uid:970 " in line] == [f"{address}:5432"]
    assert login("trixie", "SELECT current_user", address=address) == (0, "mlflow")
    assert "password authentication failed" in login("trixie", "SELECT 1", address=address, password="wrong")[1]  # noqa: S106
    assert "no pg_hba.conf entry" in login("trixie", "SELECT 1", address=address, user="postgres", database="postgres")[1]
    assert "no pg_hba.conf entry" in login("bookworm", "SELECT 1", address=address)[1]


@pytest.fixture
def other_cluster(trixie: Host) -> Iterator[str]:
    """Put the cluster of another major version on the volume, as a host of another Debian release leaves it."""
    path = "/srv/longrun/other"
    assert trixie.run(f"install -d -o postgres -g postgres {path}/16/main && echo 16 > {path}/16/main/PG_VERSION").rc == 0
    yield path
    assert trixie.run(f"rm -r {path}").rc == 0


def test_refuses_the_cluster_of_another_major_version(scenario: Scenario, trixie: Host, other_cluster: str) -> None:
    """An empty cluster beside the old one would look like a server that forgot everything."""
    play = scenario.converge("postgresql", postgresql_data_path=other_cluster)
    assert play.status != 0
    assert "/srv/longrun/other on trixie holds a cluster of PostgreSQL 16, but Debian 13 brings 17" in play.message
    assert play.changed == 0
    assert trixie.check_output("ls %s", other_cluster) == "16"


def test_an_interrupted_deploy_is_finished_by_the_next(scenario: Scenario, trixie: Host) -> None:
    """The file was written, then the deploy broke off: the server still runs with the old value, no handler knows, and a database is still everybody's."""
    remember = f"/opt/longrun/unread-configuration remember postgresql {CONFIGURATION}"
    assert trixie.run(f"cp -p {CONFIGURATION} /tmp/new && sed -i s/^max_wal_size.*/max_wal_size=3GB/ {CONFIGURATION} && {remember}").rc == 0
    assert trixie.run(f"systemctl restart postgresql@17-main && cp -p /tmp/new {CONFIGURATION}").rc == 0
    assert query(trixie, "SHOW max_wal_size") == "3GB"
    query(trixie, "GRANT CONNECT ON DATABASE mlflow TO PUBLIC")
    play = scenario.converge("postgresql")
    assert play.status == 0, play.text
    assert query(trixie, "SHOW max_wal_size") == "2GB"
    assert query(trixie, "SELECT has_database_privilege('public', 'mlflow', 'CONNECT')") == "f"
