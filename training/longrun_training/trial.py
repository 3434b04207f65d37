"""One trial of a sweep, as a process or a machine of its own runs it. Light to import: neither MLflow nor anything that draws."""

import os
import pickle
import platform
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]
from threadpoolctl import threadpool_limits

from longrun_training import evaluation
from longrun_training.config import Configuration
from longrun_training.errors import ProblemError
from longrun_training.evaluation import Split

# What has to be equal where a trial is measured and where its model is trained.
PACKAGES = ("longrun-training", "numpy", "pandas", "scikit-learn")
SHOWN_CHARACTERS = 200
# How soon a worker notices that the process that started it was killed.
LOOK_SECONDS = 2.0

_parts: Split | None = None


@dataclass(frozen=True)
class Measured:
    """What a combination of parameters is worth.

    Attributes:
        folds: The scores of each fold, in order.
        seconds: How long it took.
    """

    folds: tuple[Mapping[str, float], ...]
    seconds: float

    @property
    def scores(self) -> dict[str, float]:
        """`cv_<score>_mean` and `cv_<score>_std`."""
        return evaluation.summarize(self.folds)


def measure(parts: Split, configuration: Configuration) -> Measured:
    """Cross-validate on one processor; the hold-out is not looked at, so that it stays fair for the combination that is chosen.

    Raises:
        ProblemError: The estimator refuses the parameters or the rows, or breaks.
    """
    started = time.monotonic()
    try:
        with threadpool_limits(limits=1):
            folds = tuple(evaluation.cross_validate(parts, configuration, jobs=1))
    except ProblemError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever breaks, it is this trial's
        # Another process may not have the class of the error.
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise ProblemError(said if len(said) <= SHOWN_CHARACTERS else said[:SHOWN_CHARACTERS] + "…") from None
    return Measured(folds, time.monotonic() - started)


def enter(path: Path, parent: int) -> None:
    """Make this process a worker: it reads the data once, says nothing, leaves Ctrl-C to its parent, and ends with it.

    Args:
        path: What `joblib.dump` wrote of a Split.
        parent: The process that started it.
    """
    global _parts  # noqa: PLW0603 - a worker has one table for all of its trials
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    threading.Thread(target=_follow, args=(parent,), name="longrun-follow", daemon=True).start()
    # All workers of a machine share the pages of one file.
    _parts = joblib.load(path, mmap_mode="r")


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os._exit(1)


def measure_here(configuration: Configuration) -> Measured:
    """Measure with the data that `enter` read.

    Raises:
        ProblemError: As `measure`.
    """
    assert _parts is not None  # noqa: S101 - a worker enters before it works
    return measure(_parts, configuration)


def unpack(content: bytes) -> Any:  # noqa: ANN401 - whatever was packed
    """Return what was pickled; a worker of a cluster runs this, so that the data can be had again when it dies."""
    return pickle.loads(content)  # noqa: S301 - from the scheduler, which may run any code anyway


def versions() -> dict[str, str]:
    """Return Python's version and those of the packages that a trial's numbers come from."""
    return {"Python": ".".join(platform.python_version_tuple()[:2]), **{name: version(name) for name in PACKAGES}}
