"""The container platform without an engine: what a plan needs of it, and what it foresees."""

from typing import Any

import pytest
from longrun_controller.platforms import container

VALUES: dict[str, Any] = {"name": "unit", "platform": "container", "hosts": {"data": {}, "web": {}}}


class Engine:
    """A podman with the hosts of one environment, which remembers what it was asked to change."""

    def __init__(self, **states: str) -> None:
        self.hosts = states
        self.changes: list[tuple[str, ...]] = []

    def listed(self, name: str) -> list[dict[str, Any]]:
        return [{"Names": [f"longrun-{name}-{host}"], "State": state} for host, state in self.hosts.items()]

    def __call__(self, *arguments: str, check: bool = True) -> str:
        assert check
        self.changes.append(arguments)
        return ""


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """An engine with one host that runs and one that does not."""
    made = Engine(data="running", web="exited")
    monkeypatch.setattr(container, "_podman", made)
    monkeypatch.setattr(container, "_containers", made.listed)
    monkeypatch.setattr(container, "engine", lambda: "unix:///run/longrun/podman.sock")
    return made


def test_what_is_started_is_foreseen_and_no_image_is_built(engine: Engine) -> None:
    """A plan takes seconds: it needs the image's name, and `provision` builds it."""
    assert container.foresee(VALUES, print) == ["start container longrun-unit-web"]
    assert not engine.changes
    container.start(VALUES)
    assert engine.changes == [("start", "longrun-unit-web")]


def test_strays_are_what_is_discarded(engine: Engine) -> None:
    """What a plan names is what is removed then; a host that the state holds is neither."""
    known = {'docker_container.host["data"]'}
    assert container.strays(VALUES, known) == ["container longrun-unit-web"]
    assert not engine.changes
    assert container.discard(VALUES, known) == ["container longrun-unit-web"]
    assert engine.changes == [("rm", "--force", "longrun-unit-web")]
    assert container.strays(VALUES, known | {'docker_container.host["web"]'}) == []
