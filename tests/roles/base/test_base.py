"""What every host needs before a service is installed on it."""

import socket

import pytest

from tests.roles.conftest import Scenario, wait_for

HOSTS = ("trixie", "bookworm")
AUTHORITY = "/usr/local/share/ca-certificates/ca.crt"


@pytest.mark.parametrize("name", HOSTS)
def test_users_have_fixed_numbers(scenario: Scenario, name: str) -> None:
    """Data on the volume belongs to numbers: a new host must give its users the same ones."""
    host = scenario.host(name)
    for user, number in {"postgres": 970, "minio": 971, "mlflow": 972}.items():
        assert (host.user(user).uid, host.user(user).gid, host.user(user).group) == (number, number, user)
        # Locked: "!" or "*", and no hash.
        assert host.check_output("getent shadow %s", user).split(":")[1].strip("!*") == ""
    for user in ("minio", "mlflow"):
        assert host.user(user).shell == "/usr/sbin/nologin"


@pytest.mark.parametrize("name", HOSTS)
def test_trusts_the_extra_authority_and_no_other(scenario: Scenario, name: str) -> None:
    """A proxy that re-signs TLS is trusted because it was named, and a stranger is not."""
    host = scenario.host(name)
    assert host.run("openssl verify %s", AUTHORITY).rc == 0
    stranger = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=stranger -keyout /dev/null -out /tmp/stranger.crt"
    assert host.run(stranger).rc == 0
    assert host.run("openssl verify /tmp/stranger.crt").rc != 0


@pytest.mark.parametrize("name", HOSTS)
def test_a_port_that_nobody_named_is_closed(scenario: Scenario, name: str) -> None:
    """What listens by mistake, or for a moment, must not be reached; the host itself still reaches it."""
    host = scenario.host(name)
    assert host.run("systemd-run --unit=molecule-listener --collect python3 -m http.server 8999").rc == 0
    try:
        assert wait_for(lambda: host.run("curl -sf http://localhost:8999/").rc == 0)
        with socket.socket() as probe:
            probe.settimeout(3)
            with pytest.raises(ConnectionRefusedError):
                probe.connect((scenario.address(name), 8999))
    finally:
        host.run("systemctl stop molecule-listener")
    assert host.service("nftables").is_enabled


def test_an_interrupted_run_is_finished_by_the_next(scenario: Scenario) -> None:
    """The certificate was copied, then the run broke off before the trust store was made: no handler knows of it any more."""
    host = scenario.host("trixie")
    assert host.run(f"mv {AUTHORITY} /tmp && update-ca-certificates --fresh && mv /tmp/ca.crt {AUTHORITY}").rc == 0
    assert host.run("openssl verify %s", AUTHORITY).rc != 0
    play = scenario.converge("base")
    assert play.status == 0, play.text
    assert host.run("openssl verify %s", AUTHORITY).rc == 0


def test_refuses_a_host_without_its_data_volume(scenario: Scenario) -> None:
    """The history would lie on the host's own disk and go with the host."""
    play = scenario.converge("base", base_data_path="/srv/elsewhere")
    assert play.status != 0
    assert "nothing is mounted at base_data_path=/srv/elsewhere on trixie" in play.message
    assert play.changed == 0


def test_refuses_a_full_volume(scenario: Scenario) -> None:
    """A database that fills its disk in the middle of a deploy is worse off than one that was left alone."""
    play = scenario.converge("base", base_data_free_min_mb=10**9)
    assert play.status != 0
    assert "MB free, base_data_free_min_mb=1000000000: make room or enlarge the volume" in play.message
    assert play.changed == 0


def test_unread_configuration_tells_what_a_service_has_yet_to_read(scenario: Scenario) -> None:
    """Every role's restart after an interrupted deploy hangs on these exit statuses."""
    host = scenario.host("trixie")
    program = "/opt/longrun/unread-configuration"
    assert host.run("echo one > /tmp/one; echo two > /tmp/two").rc == 0
    assert host.run(f"{program} check molecule /tmp/one /tmp/two").rc == 3
    assert host.run(f"{program} remember molecule /tmp/one /tmp/two").rc == 0
    assert host.run(f"{program} check molecule /tmp/one /tmp/two").rc == 0
    assert host.run(f"{program} check molecule /tmp/one").rc == 3
    assert host.run(f"echo more >> /tmp/two; {program} check molecule /tmp/one /tmp/two").rc == 3
    assert host.run(f"{program} check molecule /tmp/one /tmp/missing").rc not in {0, 3}
    assert host.run(f"{program} remember molecule /tmp/missing").rc != 0
    assert host.run(f"{program} forget molecule /tmp/one").rc == 2
    assert host.run("rm /opt/longrun/applied/molecule /tmp/one /tmp/two").rc == 0
