"""Check mode tells what would be done and does none of it."""

import pytest

from tests.roles.conftest import Scenario


@pytest.mark.parametrize("name", ["trixie", "bookworm"])
def test_check_mode_changed_nothing(scenario: Scenario, name: str) -> None:
    """Whoever runs --check against a production host relies on it."""
    host = scenario.host(name)
    assert not host.file("/opt/longrun").exists
    assert not host.file("/etc/mlflow").exists
    assert not host.file("/etc/systemd/system/minio.service").exists
    assert [user for user in ("postgres", "minio", "mlflow") if host.user(user).exists] == []
    assert [package for package in ("acl", "nginx", "postgresql-common") if host.package(package).is_installed] == []
    assert host.check_output("ls /srv/longrun") == "ssh"
