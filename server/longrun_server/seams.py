"""The versions of MLflow whose inside the modules here were read in and lean on; with any other, MLflow runs as it is."""

import logging

from mlflow.version import VERSION

# What each leans on is named in the module, and tests/unit/server/test_seams.py and test_store_seam.py fail when it moves.
CHECKED = frozenset({"3.17.2"})

_logger = logging.getLogger(__name__)


def fit(version: str = VERSION) -> bool:
    """Return whether this is a version of MLflow that was checked; the log says so where it is not."""
    if version in CHECKED:
        return True
    _logger.warning("MLflow %s has not been checked with longrun (%s has): its own, slower request path is used.", version, ", ".join(sorted(CHECKED)))
    return False
