"""Who measures the trials of a sweep: processes of this machine, or the workers of a Dask cluster.

A worker that dies takes only its own trial with it, and that is tried again. What was measured before is with us already.
"""

import logging
import os
import pickle
import queue
import signal
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol

import joblib  # type: ignore[import-untyped]
from joblib.externals.loky import ProcessPoolExecutor  # type: ignore[import-untyped]

from longrun_training import trial
from longrun_training.config import Configuration
from longrun_training.errors import ProblemError, StoppedError
from longrun_training.evaluation import Split
from longrun_training.trial import Measured

if TYPE_CHECKING:
    from concurrent.futures import Future

# How often a trial is begun on this machine; a cluster's scheduler counts for itself.
LIVES = 2
POLL_SECONDS = 0.5
DISPATCH_SECONDS = 2.0
CONNECT_SECONDS = 10
# How long a cluster may be without any worker, and how often that is looked at.
DESERTED_SECONDS, LOOK_SECONDS = 60.0, 5.0
SHOWN_CHARACTERS = 200
LOGGERS = ("distributed", "distributed.client", "tornado")


class CrewError(ProblemError):
    """Nobody is left who could measure anything."""


class Job(Protocol):
    """A trial that is being measured."""

    def result(self) -> Measured:
        """Wait for it.

        Raises:
            CrewError: Nobody can measure it.
            ProblemError: This trial failed.
            StoppedError: The crew was stopped meanwhile.
        """


class Crew(Protocol):
    """Some workers.

    Attributes:
        size: How many trials are measured at once.
        name: What the screen calls them.
    """

    size: int
    name: str

    def start(self, configuration: Configuration) -> Job:
        """Wait for a worker that has nothing to do, and give it a trial.

        Raises:
            CrewError: Nobody is left.
            StoppedError: The crew was stopped meanwhile.
        """

    def stop(self) -> None:
        """End all workers and what they do; a second time does nothing."""


def usable_processors() -> int:
    """Return how many processors this process may use."""
    return int(joblib.cpu_count())


class Processes:
    """Workers on this machine: joblib's processes (loky), each in a pool of its own, so that it is known whose trial died with it."""

    def __init__(self, parts: Split, jobs: int) -> None:
        self.size, self.name = jobs, f"{jobs} process{'' if jobs == 1 else 'es'}"
        self._stopped = threading.Event()
        self._guard = threading.Lock()
        # Each worker, and the last trial that it was given.
        self._pools: dict[Any, Future[Measured]] = {}
        # None: a worker that is yet to be started.
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(jobs):
            self._idle.put(None)
        self._folder = TemporaryDirectory(prefix="longrun-", ignore_cleanup_errors=True)
        self._data = Path(self._folder.name, "data")
        try:
            joblib.dump(parts, self._data)
        except OSError as error:
            self._folder.cleanup()
            message = f"{self._folder.name} can't hold the data for the sweep's processes ({error.strerror}): free some space, or set TMPDIR"
            raise ProblemError(message) from error

    def start(self, configuration: Configuration) -> Job:
        """See `Crew`."""
        while True:
            self.check()
            try:
                return _ProcessJob(self, self._idle.get(timeout=POLL_SECONDS), configuration)
            except queue.Empty:
                continue

    def check(self) -> None:
        """Raise StoppedError once the crew was stopped."""
        if self._stopped.is_set():
            raise StoppedError(signal.SIGTERM)

    def submit(self, pool: Any, configuration: Configuration) -> tuple[Any, "Future[Measured]"]:  # noqa: ANN401 - loky has no types
        """Give a trial to a worker, or to a new one where it has died; return the worker and what is to come."""
        with self._guard:
            self.check()
            if pool is not None:
                try:
                    future = self._pools[pool] = pool.submit(trial.measure_here, configuration)
                except BrokenProcessPool:
                    del self._pools[pool]
                    pool.shutdown(wait=False)
                else:
                    return pool, future
            pool = ProcessPoolExecutor(max_workers=1, initializer=trial.enter, initargs=(self._data, os.getpid()))
            future = self._pools[pool] = pool.submit(trial.measure_here, configuration)
            return pool, future

    def free(self, pool: Any) -> None:  # noqa: ANN401 - as above
        """Take a worker back."""
        self._idle.put(pool)

    def stop(self) -> None:
        """See `Crew`."""
        with self._guard:
            self._stopped.set()
            pools, self._pools = self._pools, {}
        for pool, future in pools.items():
            # loky stumbles over a trial that is not on its way to the process yet; that takes milliseconds.
            deadline = time.monotonic() + DISPATCH_SECONDS
            while not (future.running() or future.done()) and time.monotonic() < deadline:
                time.sleep(0.01)
            pool.shutdown(wait=False, kill_workers=True)
        self._folder.cleanup()


class _ProcessJob:
    def __init__(self, crew: Processes, pool: Any, configuration: Configuration) -> None:  # noqa: ANN401 - as above
        self._crew = crew
        self._configuration = configuration
        self._begin(pool)

    def _begin(self, pool: Any) -> None:  # noqa: ANN401 - as above
        self._pool, self._future = self._crew.submit(pool, self._configuration)
        self._future.add_done_callback(self._done)

    def _done(self, future: "Future[Measured]") -> None:
        # At once, not when somebody asks for the result: the server may keep that one waiting. A dead worker's place is needed for the next try.
        if future.cancelled() or not isinstance(future.exception(), BrokenProcessPool):
            self._crew.free(self._pool)

    def result(self) -> Measured:
        for life in range(1, LIVES + 1):
            try:
                return self._future.result()
            except ProblemError:
                raise
            except BrokenProcessPool as error:
                self._crew.check()
                if life == LIVES:
                    self._crew.free(self._pool)
                    message = f"its process was killed {LIVES} times: is there too little memory? take fewer --jobs"
                    raise ProblemError(message) from error
                self._begin(self._pool)
            except Exception:
                self._crew.check()
                raise
        raise AssertionError  # pragma: no cover - the last life returns or raises


class Cluster:
    """The workers of a Dask cluster. Its scheduler gives the trial of a dead worker to another one."""

    def __init__(self, parts: Split, address: str) -> None:
        self._address = address
        self._stopped = threading.Event()
        self._guard = threading.Lock()
        self._looked = self._seen = time.monotonic()
        self._gone: str | None = None
        self._client = _connect(address)
        try:
            self.size = self._check_workers()
            # Scattered data would be lost with the worker that has them; this the scheduler has done again.
            self._parts = self._client.submit(trial.unpack, pickle.dumps(parts), pure=False)
        except BaseException:
            self.stop()
            raise
        self.name = f"{self.size} thread{'' if self.size == 1 else 's'} of the cluster {address}"
        self._slots = threading.Semaphore(self.size)

    def _check_workers(self) -> int:
        """Return how many trials the cluster can measure at once.

        Raises:
            ProblemError: There are no workers, or they have other packages than we.
        """
        try:
            threads: dict[str, int] = dict(self._client.nthreads())
            found: dict[str, dict[str, str]] = self._client.run(trial.versions)
        except Exception as error:
            raise self._unable(error) from error
        if not threads:
            message = f"the cluster at {self._address} has no workers: start some (dask worker {self._address}), or take --jobs N instead of --dask"
            raise ProblemError(message)
        ours = trial.versions()
        for worker, theirs in found.items():
            for name, wanted in ours.items():
                if theirs.get(name) != wanted:
                    message = f"the worker {worker} has {name} {theirs.get(name)}, and here it is {wanted}: install the same packages on both sides"
                    raise ProblemError(message)
        return sum(threads.values())

    def _unable(self, error: Exception) -> CrewError:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        shown = said if len(said) <= SHOWN_CHARACTERS else said[:SHOWN_CHARACTERS] + "…"
        return CrewError(f"the cluster at {self._address} can't measure trials ({shown}): its scheduler and workers need longrun and the same packages as here")

    def start(self, configuration: Configuration) -> Job:
        """See `Crew`."""
        while True:
            self.check()
            if self._slots.acquire(timeout=POLL_SECONDS):
                break
        try:
            future = self._client.submit(trial.measure, self._parts, configuration, pure=False)
        except Exception as error:
            self.check()
            raise self._unable(error) from error
        future.add_done_callback(lambda _: self._slots.release())
        return _ClusterJob(self, future)

    def check(self) -> None:
        """Raise what ended the crew."""
        if self._stopped.is_set():
            raise StoppedError(signal.SIGTERM)
        if self._gone is not None:
            raise CrewError(self._gone)

    def look(self) -> None:
        """See whether anybody is still there; asked often, it looks now and then."""
        with self._guard:
            now = time.monotonic()
            if now < self._looked + LOOK_SECONDS:
                return
            self._looked = now
            try:
                present = bool(self._client.nthreads())
            except Exception:  # noqa: BLE001 - whatever keeps the scheduler from answering
                present = False
            if present:
                self._seen = now
            elif now > self._seen + DESERTED_SECONDS:
                self._gone = f"the cluster at {self._address} has had no worker for {DESERTED_SECONDS:.0f} s"

    def lost(self, error: Exception) -> ProblemError:
        """Return what an error of the cluster means for a trial."""
        if type(error).__name__ == "KilledWorker":
            return ProblemError("every worker that tried it died: is there too little memory on them?")
        if type(error).__name__ in {"CancelledError", "FutureCancelledError", "CommClosedError"}:
            self._gone = f"the connection to the cluster at {self._address} is lost: is its scheduler up?"
        else:
            self._gone = str(self._unable(error))
        return CrewError(self._gone)

    def stop(self) -> None:
        """See `Crew`."""
        if not self._stopped.is_set():
            self._stopped.set()
            # Without a client, its trials are forgotten by the scheduler.
            self._client.close(timeout=CONNECT_SECONDS)


def _connect(address: str) -> Any:  # noqa: ANN401 - most of Dask has no types
    try:
        # Only here: it takes seconds, it need not be installed, and most sweeps run on one machine.
        distributed: Any = import_module("distributed")
    except ImportError as error:
        message = f"--dask needs the package distributed, which is not installed here: install the cluster's version ({error}), or take --jobs N instead"
        raise ProblemError(message) from error
    for name in LOGGERS:
        # What happens to the cluster is told in our own lines.
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        return distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        said = " ".join(str(error).split())[:SHOWN_CHARACTERS]
        message = f"--dask {address}: no Dask scheduler answers there within {CONNECT_SECONDS} s ({said}): write it as in --dask tcp://host:8786"
        raise ProblemError(message) from error


class _ClusterJob:
    def __init__(self, crew: Cluster, future: Any) -> None:  # noqa: ANN401 - Dask's futures are not those of concurrent.futures
        self._crew = crew
        self._future = future

    def result(self) -> Measured:
        while True:
            self._crew.check()
            try:
                measured: Measured = self._future.result(timeout=POLL_SECONDS)
            except ProblemError:
                raise
            except TimeoutError:
                self._crew.look()
            except Exception as error:
                self._crew.check()
                raise self._crew.lost(error) from error
            else:
                return measured


def gather(parts: Split, *, jobs: int | None, cluster: str | None) -> Crew:
    """Return a crew that is ready to work.

    Args:
        parts: The data of all trials.
        jobs: Processes of this machine; None: one a processor.
        cluster: The address of a Dask scheduler, where its workers are wanted instead.

    Raises:
        ProblemError: The cluster can't be used, or the disk is full.
    """
    return Cluster(parts, cluster) if cluster is not None else Processes(parts, jobs or usable_processors())
