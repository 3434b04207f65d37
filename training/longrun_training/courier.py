"""The thread that carries records to the server while the training goes on, and how long it waits for a server that went away."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import requests
from mlflow.exceptions import MlflowException

from longrun_training import terminal
from longrun_training.errors import OutageError, ProblemError
from longrun_training.sending import GATHERED, Sender
from longrun_training.server import Server, pauses
from longrun_training.spool import Entry, Kind

Result = TypeVar("Result")

# What needs everything before it to be on the server.
CLOSING = frozenset({Kind.MODEL, Kind.REGISTER, Kind.END})
# How long gathered records wait: first so long, then twice as long each time, so that a long run is seen live and costs few requests.
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 5.0, 30.0
# A wait for the server is said to be one after this.
NOTICE_SECONDS = 2.0


class Patience:
    """Repeats what a server that is away did not do, for a bounded time."""

    def __init__(self, server: Server, seconds: float) -> None:
        self._server = server
        self._seconds = seconds
        self._hurry = threading.Event()

    def hurry(self) -> None:
        """Wait no longer: the next failure is the last."""
        self._hurry.set()

    def __call__(self, action: Callable[[], Result], subject: str, failed: Callable[[], None]) -> Result:
        """Run an action until it succeeds.

        Args:
            action: What the server is asked for.
            subject: What it works on, for the error.
            failed: Called after each try that failed, before the next.

        Raises:
            OutageError: The server stayed away.
            ProblemError: It refuses.
        """
        began: float | None = None
        said = False
        for pause in pauses():
            try:
                done = action()
            except (MlflowException, requests.RequestException) as error:
                problem = self._server.explain(error, subject)
                now = time.monotonic()
                began = began or now
                failed()
                if not isinstance(problem, OutageError) or self._hurry.is_set() or now + pause > began + self._seconds:
                    raise problem from error
            else:
                if said:
                    terminal.note(f"{self._server.address} answers again")
                return done
            if not said and now - began >= NOTICE_SECONDS:
                said = True
                terminal.note(f"{self._server.address} does not answer or is restarting: trying again, for {self._seconds:.0f} s at most")
            self._hurry.wait(pause)
        raise AssertionError  # pragma: no cover - the pauses never end


class Courier(threading.Thread):
    """Sends what it is given, in order, except that parameters, metrics and tags are gathered.

    Attributes:
        outage: Why it gave up on a server that is away.
        problem: Why it stopped: the server refuses, or a mistake of ours.
    """

    def __init__(self, sender: Sender, patience: Patience, subject: str, lost: Callable[[ProblemError], None]) -> None:
        super().__init__(name="longrun-courier", daemon=True)
        self._sender = sender
        self._patience = patience
        self._subject = subject
        self._lost = lost
        self._changed = threading.Condition()
        self._queue: deque[Entry] = deque()
        self._sending = 0
        self._oldest: float | None = None
        self._wait = FIRST_WAIT_SECONDS
        self._closing = False
        self._wanted = False
        self.outage: OutageError | None = None
        self.problem: Exception | None = None

    @property
    def gave_up(self) -> bool:
        """Whether it sends nothing any more although there is more to send."""
        return self.outage is not None or self.problem is not None

    def put(self, entry: Entry) -> None:
        """Give it a record; returns at once."""
        with self._changed:
            self._queue.append(entry)
            if self._oldest is None and entry.kind in GATHERED:
                self._oldest = time.monotonic()
            self._changed.notify_all()

    def settle(self) -> bool:
        """Wait until all that it was given is on the server; return whether it is."""
        with self._changed:
            self._wanted = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.gave_up or not (self._queue or self._sending))
            self._wanted = False
            return not self.gave_up

    def finish(self, *, hurry: bool, seconds: float | None = None) -> bool:
        """Send the rest and end; return whether all was sent.

        Args:
            hurry: Give up at the first failure.
            seconds: How long it may take all in all, failures or not.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if hurry:
            self._patience.hurry()
        self.join(seconds)
        return not self.is_alive() and not self.gave_up

    def run(self) -> None:
        """Send until there is nothing more to come."""
        try:
            while ready := self._next():
                self._send(ready)
                with self._changed:
                    self._sending = 0
                    self._changed.notify_all()
        except OutageError as error:
            self._halt(outage=error)
            self._lost(error)
        except ProblemError as error:
            self._halt(problem=error)
            self._lost(error)
        except Exception as error:  # noqa: BLE001 - a mistake of ours: whoever waits for the thread raises it
            self._halt(problem=error)

    def _halt(self, outage: OutageError | None = None, problem: Exception | None = None) -> None:
        with self._changed:
            self.outage, self.problem = outage, problem
            self._changed.notify_all()

    def _next(self) -> list[Entry]:
        """Wait for something to send; nothing means the end."""
        with self._changed:
            while True:
                taken = self._take()
                if taken or (self._closing and not self._queue):
                    self._sending = len(taken)
                    return taken
                self._changed.wait(None if self._oldest is None else max(0.0, self._oldest + self._wait - time.monotonic()))

    def _take(self) -> list[Entry]:
        """Return what has to go now, and take it from the queue."""
        if any(entry.kind in CLOSING for entry in self._queue) or self._closing or self._wanted or self._due():
            taken = list(self._queue)
            self._queue.clear()
        else:
            taken = [entry for entry in self._queue if entry.kind not in GATHERED]
            self._queue = deque(entry for entry in self._queue if entry.kind in GATHERED)
        if not self._queue:
            self._oldest = None
        return taken

    def _due(self) -> bool:
        if self._oldest is None or time.monotonic() < self._oldest + self._wait:
            return False
        self._wait = min(2 * self._wait, LONGEST_WAIT_SECONDS)
        return True

    def _send(self, entries: Sequence[Entry]) -> None:
        deliver(self._sender, entries, lambda action: self._patience(action, self._subject, self._look))

    def _look(self) -> None:
        self._sender.careful = True


def deliver(sender: Sender, entries: Sequence[Entry], patiently: Callable[[Callable[[], None]], None]) -> None:
    """Send records: before each one that needs all before it, what was gathered until then goes in one request."""
    gathered: list[Entry] = []

    def flush() -> None:
        if gathered:
            patiently(lambda: sender.gather(gathered))
            gathered.clear()

    for entry in entries:
        if entry.kind in GATHERED:
            gathered.append(entry)
            continue
        if entry.kind in CLOSING:
            flush()
        patiently(partial(sender.send, entry))
    flush()
