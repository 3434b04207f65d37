"""Two runs at once: one waits for the other, and what was built is not built again."""

import threading
from pathlib import Path

import pytest
from longrun_controller.errors import ProblemError
from longrun_controller.locks import alone

DEADLINE_SECONDS = 10


def test_the_second_run_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so first, and goes on once the first one has ended; another thing is not kept waiting."""
    monkeypatch.setenv("LONGRUN_CACHE", str(tmp_path / "new"))
    order: list[str] = []
    waiting = threading.Event()

    def second() -> None:
        with alone("image", waiting.set):
            order.append("second")

    thread = threading.Thread(target=second)
    with alone("image"):
        thread.start()
        assert waiting.wait(DEADLINE_SECONDS)
        with alone("environments"):
            order.append("first")
    thread.join(DEADLINE_SECONDS)
    assert order == ["first", "second"]


def test_a_cache_that_can_not_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line says which, and how to take another."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("LONGRUN_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ProblemError, match="LONGRUN_CACHE"), alone("image"):
        pytest.fail("nothing was locked")
