"""`longrun` with nobody who takes notes: what a training takes by itself. `python -m tests.bench.untracked train …`, as `longrun train …`.

Everything is computed as in any training, the figures drawn and the model saved; only the journal and the server are left out.
"""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from longrun_training import cli, sweep, train
from longrun_training.records import Description, LoggedData, Outcome
from longrun_training.server import Server
from longrun_training.tracking import Recorder
from matplotlib.figure import Figure


class Silent(Recorder):
    """A recorder that records nothing. A method that it lacks would need the server, and fails."""

    def __init__(self) -> None:
        self.uuid = "00000000-0000-4000-8000-000000000000"
        self.outcome = Outcome(self.uuid, None, None, None, None, None)

    def log_parameters(self, parameters: Mapping[str, object]) -> None:
        pass

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        pass

    def set_tags(self, tags: Mapping[str, str]) -> None:
        pass

    def log_dataset(self, dataset: LoggedData) -> None:
        pass

    def log_figure(self, figure: Figure, path: str) -> None:
        """Draw the figure: a training without a server would have it drawn as well."""
        figure.savefig(io.BytesIO(), format=Path(path).suffix.removeprefix("."))

    def log_json(self, content: Mapping[str, object], path: str) -> None:
        pass

    def log_text(self, text: str, path: str) -> None:
        pass

    def log_file(self, source: Path, path: str) -> None:
        pass

    def log_model(self, folder: Path, *, parameters: Mapping[str, object], model_type: str) -> None:
        pass

    def register(self, alias: str | None = "candidate") -> None:
        pass


@contextmanager
def silently(_description: Description, *, spool: Path, server: Server) -> Iterator[Recorder]:  # noqa: ARG001 - as `tracking.record`
    """Take `tracking.record`'s place."""
    yield Silent()


if __name__ == "__main__":
    for module in (train, sweep):
        setattr(module, "record", silently)  # noqa: B010 - the modules don't export what they import
    cli.main()
