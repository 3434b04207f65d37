"""What must hold on every server, in production too."""

import re
import socket
import ssl
from urllib.parse import urlsplit

import pytest
import requests

from .conftest import Deployment

UNITS = {"postgresql": ["postgresql"], "minio": ["minio"], "mlflow": ["mlflow@1"], "nginx": ["nginx"]}


@pytest.mark.parametrize("group", UNITS)
def test_services_run_and_start_with_the_host(deployment: Deployment, group: str) -> None:
    """A service that runs but is not enabled is gone after the next reboot."""
    hosts = list(deployment.hosts(group))
    assert hosts
    for host in hosts:
        for unit in UNITS[group]:
            service = host.service(unit)
            assert service.is_running, unit
            assert service.is_enabled, unit
        assert host.run("systemctl --failed --no-legend").stdout == ""


def test_nothing_else_listens(deployment: Deployment) -> None:
    """Only 443, ssh, and on several hosts the private ports of the datastores, listen beyond the loopback."""
    names = {name for group in UNITS for name in deployment.inventory[group]["hosts"]}
    single = len(names) == 1
    for host in deployment.hosts("nginx"):
        lines = host.check_output("ss --no-header --listening --tcp --numeric").splitlines()
        assert lines
        ports = {int(line.split()[3].rsplit(":", 1)[1]) for line in lines if not re.match(r"127\.|\[::1\]", line.split()[3])}
        if single:
            assert ports == {22, 443}
        else:
            assert {22, 443} <= ports


def test_processes_have_users_of_their_own(deployment: Deployment) -> None:
    """Nothing that talks to the network runs as root, nginx's master apart."""
    for group, user in (("minio", "minio"), ("mlflow", "mlflow"), ("postgresql", "postgres")):
        for host in deployment.hosts(group):
            processes = host.process.filter(user=user)
            assert processes, group
            assert not [process for process in host.process.filter(user="root") if re.search(r"mlflow server|longrun_server|minio server", process.args)]


def test_secret_files_are_closed(deployment: Deployment) -> None:
    """Secrets on the host are for their service only."""
    for host in deployment.hosts("mlflow"):
        for name, mode in (("mlflow.env", 0o640), ("basic_auth.ini", 0o640), ("pgpass", 0o600)):
            file = host.file(f"/etc/mlflow/{name}")
            assert file.exists
            assert file.mode == mode, name
    for host in deployment.hosts("nginx"):
        assert host.file("/etc/nginx/tls/server.key").mode == 0o600
    for host in deployment.hosts("minio"):
        assert host.file("/etc/minio/minio.env").mode == 0o640


def test_data_lies_on_the_data_volume(deployment: Deployment) -> None:
    """What is not on the volume goes with the host."""
    for host in deployment.hosts("postgresql"):
        path = host.check_output("su postgres -c \"psql -At -c 'SHOW data_directory'\"")
        assert path.startswith("/srv/longrun/")
        assert host.check_output("su postgres -c \"psql -At -c 'SHOW data_checksums'\"") == "on"
    for host in deployment.hosts("minio"):
        assert "MINIO_VOLUMES=/srv/longrun/" in host.file("/etc/minio/minio.env").content_string


def test_anonymous_gets_nothing_but_health(deployment: Deployment) -> None:
    """Whoever has no login learns that the server is up, and no more."""
    for path, status in (("/health", 200), ("/", 401), ("/version", 401), ("/api/2.0/mlflow/experiments/search", 401), ("/api/3.0/mlflow/server-info", 401)):
        assert requests.get(deployment.public_url + path, verify=str(deployment.ca_certificate), timeout=30).status_code == status, path


def test_tls_is_new_and_ours(deployment: Deployment) -> None:
    """The environment's own authority signed the certificate; nothing older than TLS 1.2 is spoken."""
    url = urlsplit(deployment.public_url)
    context = ssl.create_default_context(cafile=str(deployment.ca_certificate))
    with (
        socket.create_connection((url.hostname, url.port or 443), timeout=10) as connection,
        context.wrap_socket(connection, server_hostname=url.hostname) as secure,
    ):
        assert secure.version() in {"TLSv1.2", "TLSv1.3"}
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(str(deployment.ca_certificate))
    old.minimum_version = ssl.TLSVersion.TLSv1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection((url.hostname, url.port or 443), timeout=10) as connection, pytest.raises((ssl.SSLError, ConnectionResetError)):
        old.wrap_socket(connection, server_hostname=url.hostname)
