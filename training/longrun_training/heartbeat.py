"""The sign of life: a tag on the server that is renewed while the process lives, so that `longrun reap` can tell a dead run from a long one."""

import threading
from contextlib import suppress

from mlflow import MlflowClient

from longrun_training.records import HEARTBEAT
from longrun_training.spool import now

# At most so often a tag is set; `reap` waits many times longer.
INTERVAL_SECONDS = 30.0


class Heartbeat(threading.Thread):
    """Renews the tag until it is stopped. Nothing that goes wrong here reaches the run: without an answer it just tries again later."""

    def __init__(self, client: MlflowClient, run_id: str, interval: float = INTERVAL_SECONDS) -> None:
        super().__init__(name="longrun-heartbeat", daemon=True)
        self._client = client
        self._run_id = run_id
        self._interval = interval
        self._stopped = threading.Event()

    def run(self) -> None:
        """Beat. The first beat is the tag that the run was made with."""
        while not self._stopped.wait(self._interval):
            with suppress(Exception):
                self._client.set_tag(self._run_id, HEARTBEAT, str(now()))

    def stop(self) -> None:
        """End it, without waiting for an answer that is on its way."""
        self._stopped.set()
