"""The last of nginx's tests, for it leaves the host without our package."""

from testinfra.host import Host

from tests.roles.conftest import Scenario
from tests.roles.mlflow.test_mlflow import SQL
from tests.roles.nginx.test_artifacts import STORE, admin, folder, log_of
from tests.roles.nginx.test_nginx import Client

__all__ = ["admin", "folder"]


def test_without_our_package_it_is_mlflow_alone(scenario: Scenario, trixie: Host, admin: Client, folder: str) -> None:
    """One variable switches it off, and everything still works."""
    assert admin(f"{folder}before.txt", "-X PUT --data-binary content").status == 200
    for role in ("mlflow", "nginx"):
        play = scenario.converge(role, mlflow_longrun_server=False)
        assert play.status == 0, play.text
    assert "longrun" not in trixie.check_output("systemctl show mlflow@1 --property=ExecStart --value").replace("/opt/longrun", "")
    assert admin(f"{folder}before.txt").text == "content"
    assert admin(f"{folder}through.txt", "-X PUT --data-binary content").status == 200
    assert admin(f"{folder}through.txt").text == "content"
    assert STORE not in log_of(trixie, "through.txt")
    ours = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'mlflow' AND query LIKE '%longrun%' AND pid <> pg_backend_pid()"
    assert trixie.check_output(SQL, ours) == "0"
