"""For the tests of sweeps: a longrun.toml with a grid, the runs that a sweep made, and something that happens in the midst of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from longrun_training import sweep as sweeping
from mlflow.entities import Run

from tests.unit.training import record_helpers as helpers

# The file, the estimator and the folds; then what is tried.
GRID = """
model.name = "{name}"
data = {{ source = "houses.csv", target = "price" }}
estimator.name = "{estimator}"
evaluation = {{ folds = 2, repeats = 2 }}
[sweep.parameters]
{parameters}
"""


def write(name: str, parameters: str, estimator: str = "Ridge") -> None:
    """Write the longrun.toml of the current folder."""
    Path("longrun.toml").write_text(GRID.format(name=name, parameters=parameters, estimator=estimator), encoding="utf-8")


def runs(experiment: str) -> tuple[Run, list[Run]]:
    """Return the parent and its children in the order of their numbers."""
    found = helpers.runs_of(experiment)
    [parent] = [run for run in found if run.data.tags["longrun.kind"] == "sweep"]
    children = [run for run in found if run.data.tags["longrun.kind"] == "trial"]
    assert len(found) == len(children) + 1
    assert all(run.data.tags["mlflow.parentRunId"] == parent.info.run_id for run in children)
    return parent, sorted(children, key=lambda run: int(run.data.tags["mlflow.runName"].split()[1].rstrip(":")))


@contextmanager
def after_the_first(act: Callable[[], None]) -> Iterator[None]:
    """Do something as soon as the first child is finished, when all workers are busy with the next ones."""
    acted = False
    keep = sweeping._Search._keep

    def keep_and_act(search: sweeping._Search, done: sweeping.Trial) -> None:
        nonlocal acted
        keep(search, done)
        if not acted:
            acted = True
            act()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sweeping._Search, "_keep", keep_and_act)
        yield
