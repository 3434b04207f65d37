"""What two runs at once must not do both: build the same thing, or choose the same ports."""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from longrun_controller.environment import cache_directory
from longrun_controller.errors import ProblemError


@contextmanager
def alone(what: str, wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Keep every other run of this user's clones out of the block while it lasts.

    Args:
        what: The name of the block.
        wait: Called where another run is in it, before waiting for that one.

    Raises:
        ProblemError: The cache, where the locks lie, can't be written.
    """
    cache = cache_directory()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        file = open(cache / f"{what}.lock", "w", encoding="utf-8")  # noqa: SIM115 - open for as long as the lock is held
    except OSError as error:
        message = f"the cache {cache} can't be written ({error.strerror}): set LONGRUN_CACHE to a folder that can"
        raise ProblemError(message) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
