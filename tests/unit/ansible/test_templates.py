"""What lands on a host, rendered by Ansible itself with the real defaults and the real group_vars."""

import configparser
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from .roles import ANSIBLE, ROLES, load, options_of, templates_of

Render = Callable[[str], str]
GROUPS = ("postgresql", "minio", "mlflow", "nginx")
HOST = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "data_path": "/srv/longrun"}
ONE = {"server": {**HOST, "private_address": "10.1.2.10"}}
TWO = {"data": {**HOST, "private_address": "10.1.2.10"}, "web": {**HOST, "private_address": "10.1.2.11"}}
CLOUD = {"cloud": {**HOST, "private_address": "10.1.2.10"}}
CARRIES = {"server": GROUPS, "data": ("postgresql", "minio"), "web": ("mlflow", "nginx"), "cloud": ("postgresql", "mlflow", "nginx")}
# Names and addresses of other tests must not get in: these occur nowhere else.
SECRETS = {
    "vault_postgresql_mlflow_password": "SECRET-postgresql",
    "vault_minio_root_password": "SECRET-minio-root",
    "vault_minio_mlflow_secret_key": "SECRET-minio-key",
    "vault_mlflow_admin_password": "SECRET-admin",
    "vault_mlflow_flask_secret_key": "SECRET-flask",
    "vault_user_passwords": {"ci": "SECRET-ci"},
    "vault_tls_ca_certificate": "certificate",
    "vault_tls_ca_private_key": "SECRET-ca",
}


def render(folder: Path, hosts: dict[str, dict[str, str]], **variables: object) -> Render:
    """Render every template of every role on every host; return what reads them."""
    inventory = {
        "all": {"hosts": hosts, "vars": {"longrun_environment": "local", "public_url": "https://mlflow.example.org:8443"}},
        **{group: {"hosts": {name: {} for name in hosts if group in CARRIES[name]}} for group in GROUPS},
    }
    (folder / "inventory.json").write_text(json.dumps(inventory))
    (folder / "ansible.cfg").write_text("[connection]\npipelining = true\n")
    (folder / "values.yml").write_text(yaml.safe_dump({**SECRETS, **variables}))
    files = [ANSIBLE / "roles" / role / part / "main.yml" for part in ("defaults", "vars") for role in ROLES]
    paths = [path for role in ROLES for path in templates_of(role)]
    facts = {"distribution_major_version": "13", "distribution": "Debian", "cacheable": True}
    texts = {path.name: f"{{{{ lookup('ansible.builtin.template', '{path}') }}}}" for path in paths}
    # One task for all of them: each would take half a second.
    tasks = [
        {"name": "Pretend to be Debian 13", "ansible.builtin.set_fact": facts},
        {"name": "Render", "ansible.builtin.copy": {"dest": f"{folder}/{{{{ inventory_hostname }}}}.json", "content": texts, "mode": "0600"}},
    ]
    play = {
        "name": "Render",
        "hosts": "all",
        "gather_facts": False,
        "any_errors_fatal": True,
        "vars_files": [*map(str, files), str(ANSIBLE / "group_vars" / "all.yml"), str(folder / "values.yml")],
        "tasks": tasks,
    }
    (folder / "play.yml").write_text(yaml.safe_dump([play], sort_keys=False))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "inventory.json", "play.yml"],
        cwd=folder,
        env={**environment, "ANSIBLE_CONFIG": str(folder / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    rendered = {host: json.loads((folder / f"{host}.json").read_text()) for host in hosts}

    def read(name: str) -> str:
        host, _, template = name.rpartition("/")
        return str(rendered[host or next(iter(hosts))][template])

    return read


@pytest.fixture(scope="session")
def one(tmp_path_factory: pytest.TempPathFactory) -> Render:
    """One host with everything and one instance."""
    return render(tmp_path_factory.mktemp("one"), ONE, mlflow_instances=1)


@pytest.fixture(scope="session")
def two(tmp_path_factory: pytest.TempPathFactory) -> Render:
    """Data on one host, three instances on the other."""
    return render(tmp_path_factory.mktemp("two"), TWO, mlflow_instances=3)


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Render:
    """A bucket of AWS in MinIO's place."""
    return render(tmp_path_factory.mktemp("cloud"), CLOUD, mlflow_s3_bucket="acme-longrun")


def sockets(configuration: str) -> list[str]:
    """Return the instances that nginx hands requests to."""
    return re.findall(r"server unix:(\S+)", configuration)


def test_nginx_knows_every_instance(one: Render, two: Render) -> None:
    """An instance that nginx does not know does nothing; one that is not there costs every third request a retry."""
    assert sockets(one("nginx.conf.j2")) == ["/run/mlflow/1/mlflow.sock"]
    assert sockets(two("web/nginx.conf.j2")) == [f"/run/mlflow/{number}/mlflow.sock" for number in (1, 2, 3)]


def test_nginx_configuration_is_whole(one: Render) -> None:
    """Every block ends, and nothing but TLS is listened on."""
    configuration = one("nginx.conf.j2")
    bare = re.sub(r"'[^']*'|#.*", "", configuration)
    assert bare.count("{") == bare.count("}") > 10
    assert re.findall(r"(?m)^\s*listen (.+);", configuration) == ["443 ssl default_server"]
    assert "server_name mlflow.example.org;" in configuration
    assert "Retry-After 30 always" in configuration


def test_nginx_and_mlflow_meet_on_the_same_sockets(one: Render) -> None:
    """Two roles name the same path, each on its own."""
    unit = one("mlflow@.service.j2")
    assert "--uds /run/mlflow/%i/mlflow.sock" in unit
    assert "RuntimeDirectory=mlflow/%i" in unit


def rules(text: str) -> list[list[str]]:
    """Return an access list's lines, word by word."""
    return [line.split() for line in text.splitlines() if line and not line.startswith("#")]


def test_one_host_lets_nobody_in_over_the_network(one: Render) -> None:
    """PostgreSQL then listens on its socket only."""
    assert rules(one("pg_hba.conf.j2")) == [
        ["local", "all", "postgres", "peer"],
        ["local", "mlflow", "mlflow", "scram-sha-256"],
        ["local", "mlflow_auth", "mlflow", "scram-sha-256"],
    ]
    assert "listen_addresses = ''\n" in one("longrun.conf.j2")


def test_another_host_comes_in_by_its_address_alone(two: Render) -> None:
    """Not a whole network: one rule a host and a database, over the private network."""
    listed = rules(two("data/pg_hba.conf.j2"))
    assert [rule for rule in listed if rule[0] == "host"] == [
        ["host", "mlflow", "mlflow", "10.1.2.11/32", "scram-sha-256"],
        ["host", "mlflow_auth", "mlflow", "10.1.2.11/32", "scram-sha-256"],
    ]
    assert "listen_addresses = '10.1.2.10'\n" in two("data/longrun.conf.j2")
    assert "--address 10.1.2.10:9000" in two("data/minio.env.j2")


def test_nothing_is_trusted(one: Render, two: Render) -> None:
    """A `trust` line would let every user of the host in as anybody."""
    for text in (one("pg_hba.conf.j2"), two("data/pg_hba.conf.j2")):
        listed = rules(text)
        assert len(listed) >= 3
        assert {rule[-1] for rule in listed} == {"peer", "scram-sha-256"}


def test_connections_fit(one: Render, two: Render) -> None:
    """All pools of all instances, and some for people, or the last client is refused."""
    for text, instances in ((one("longrun.conf.j2"), 1), (two("data/longrun.conf.j2"), 3)):
        found = re.search(r"max_connections = (\d+)", text)
        assert found
        assert int(found[1]) == 20 + 30 * instances


def settings(text: str) -> dict[str, str]:
    """Return an environment file's settings."""
    return dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))


def test_no_password_is_in_an_address(one: Render, two: Render) -> None:
    """MLflow writes its addresses into logs and hands them to child processes as arguments."""
    for text in (one("mlflow.env.j2"), two("web/mlflow.env.j2")):
        values = settings(text)
        addresses = {name: value for name, value in values.items() if "://" in value}
        assert {"MLFLOW_BACKEND_STORE_URI", "MLFLOW_S3_ENDPOINT_URL", "MLFLOW_ARTIFACTS_DESTINATION"} <= set(addresses)
        assert not [name for name, value in addresses.items() if "SECRET" in value or re.search(r"//[^/]*:[^/]*@", value)]
    for text in (one("basic_auth.ini.j2"), two("web/basic_auth.ini.j2"), one("mlflow@.service.j2"), one("minio.service.j2"), one("nginx.conf.j2")):
        assert "SECRET" not in text


def test_each_secret_is_in_one_file(two: Render) -> None:
    """What a file holds decides who may read it: these three, with 0640 and 0600."""
    where = {
        template: sorted(set(re.findall(r"SECRET-[a-z-]+", two(f"{host}/{template}"))))
        for host, template in (("web", "mlflow.env.j2"), ("web", "pgpass.j2"), ("data", "minio.env.j2"))
    }
    assert where == {
        "mlflow.env.j2": ["SECRET-flask", "SECRET-minio-key"],
        "pgpass.j2": ["SECRET-postgresql"],
        "minio.env.j2": ["SECRET-minio-root"],
    }


def test_mlflow_finds_its_stores(one: Render, two: Render) -> None:
    """By socket and loopback on one host, by the private address from another."""
    alone, apart = settings(one("mlflow.env.j2")), settings(two("web/mlflow.env.j2"))
    assert alone["MLFLOW_BACKEND_STORE_URI"] == "postgresql+psycopg2://mlflow@/mlflow?host=/var/run/postgresql&port=5432"
    assert apart["MLFLOW_BACKEND_STORE_URI"] == "postgresql+psycopg2://mlflow@/mlflow?host=10.1.2.10&port=5432"
    assert alone["MLFLOW_S3_ENDPOINT_URL"] == "http://127.0.0.1:9000"
    assert apart["MLFLOW_S3_ENDPOINT_URL"] == "http://10.1.2.10:9000"


def test_a_bucket_takes_the_place_of_minio(cloud: Render) -> None:
    """The host's own role opens it: a key or an address of MinIO in the environment would come first."""
    values = settings(cloud("mlflow.env.j2"))
    assert values["MLFLOW_ARTIFACTS_DESTINATION"] == "s3://acme-longrun"
    assert not {"MLFLOW_S3_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} & set(values)


def open_ports(rules: str) -> dict[int, list[str]]:
    """Return who may reach each port of a host, by what its firewall says; nobody named is everybody."""
    found = re.findall(r"(?m)^ +(?:ip saddr \{ (.+) \} )?tcp dport (\d+) accept$", rules)
    return {int(port): sources.split(", ") if sources else [] for sources, port in found}


def test_the_firewall_opens_what_a_host_carries(one: Render, two: Render, cloud: Render) -> None:
    """The datastores from the hosts that run MLflow and nobody else; everything that is not named is closed."""
    assert open_ports(one("nftables.conf.j2")) == {22: [], 443: []}
    assert open_ports(two("data/nftables.conf.j2")) == {22: [], 5432: ["10.1.2.11"], 9000: ["10.1.2.11"]}
    assert open_ports(two("web/nftables.conf.j2")) == {22: [], 443: []}
    assert open_ports(cloud("nftables.conf.j2")) == {22: [], 443: []}
    assert "policy drop;" in one("nftables.conf.j2")


def test_mlflow_answers_to_its_own_name_only(one: Render) -> None:
    """Another Host header is how a page in a browser reaches a server that it should not."""
    values = settings(one("mlflow.env.j2"))
    assert values["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",") == ["mlflow.example.org:8443", "localhost", "localhost:8443", "127.0.0.1:8443"]
    assert values["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"] == "https://mlflow.example.org:8443"
    assert values["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert values["MLFLOW_ENABLE_AI_GATEWAY"] == "false"


def test_pools_fit_into_their_share(one: Render) -> None:
    """Three engines, each with its pool and what is beyond it, within what group_vars promises PostgreSQL; almost all of it is kept."""
    values = settings(one("mlflow.env.j2"))
    kept, beyond = int(values["MLFLOW_SQLALCHEMYSTORE_POOL_SIZE"]), int(values["MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW"])
    assert (kept, beyond) == (9, 1)
    assert 3 * (kept + beyond) <= load(ANSIBLE / "group_vars/all.yml")["mlflow_connections_per_instance"]


def test_nobody_sees_anothers_runs_by_default(one: Render) -> None:
    """MLflow's own default lets every user read everything."""
    parser = configparser.ConfigParser()
    parser.read_string(one("basic_auth.ini.j2"))
    login = parser["mlflow"]
    assert login["default_permission"] == "NO_PERMISSIONS"
    assert login["admin_username"] == "admin"
    assert int(login["auth_cache_ttl_seconds"]) == options_of("mlflow")["mlflow_auth_cache_seconds"]["default"]


@pytest.mark.parametrize("template", ["mlflow@.service.j2", "minio.service.j2"])
def test_units_are_confined(one: Render, template: str) -> None:
    """A hole in a service must not be one in the host."""
    unit = one(template)
    for line in ("NoNewPrivileges=true", "ProtectSystem=strict", "ProtectHome=true", "PrivateTmp=true", "CapabilityBoundingSet=\n", "UMask=0027"):
        assert line in unit, line
    assert re.search(r"(?m)^User=(mlflow|minio)$", unit)


def test_nothing_is_left_to_render(one: Render, two: Render) -> None:
    """A template in a value would reach the service as it stands."""
    seen = 0
    for role in ROLES:
        for path in templates_of(role):
            for text in (one(path.name), two(f"data/{path.name}"), two(f"web/{path.name}")):
                seen += 1
                assert not re.search(r"\{\{|\{%", text), path.name
                assert text.endswith("\n"), path.name
    assert seen >= 27
