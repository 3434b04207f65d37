"""What the verbs that change the registered model begin with."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from longrun_training.config import Configuration, load
from longrun_training.errors import ProblemError
from longrun_training.gate import place_of
from longrun_training.lookup import Place
from longrun_training.server import Server, calm


@contextmanager
def registry(config: Path | None) -> Iterator[tuple[Place, Configuration]]:
    """Find the model's place on the server, and explain what goes wrong there while the block works on it.

    Raises:
        OutageError: The server is away.
        ProblemError: It refuses, or the experiment is not there.
    """
    configuration = load(config)
    server = Server.from_environment()
    with calm(), server.explaining(f"model {configuration.model.name!r}"):
        place = place_of(configuration, server)
        if place is None:
            message = f"there is no experiment {configuration.experiment!r} on {server.address}: `longrun train` makes it; or check [model] in longrun.toml"
            raise ProblemError(message)
        yield place, configuration
