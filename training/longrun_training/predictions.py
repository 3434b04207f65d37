"""What a model says of each held-out row: the artifact that makes any run a paired baseline for any later one."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from longrun_training.config import Configuration, Slice
from longrun_training.data import Dataset
from longrun_training.errors import ProblemError
from longrun_training.evaluation import Split
from longrun_training.scores import Probabilities, Task

FILE_NAME = "predictions.parquet"
PROBABILITY, SLICE = "probability_", "slice_"


@dataclass(frozen=True)
class Predictions:
    """One row a held-out row, sorted by its name.

    Attributes:
        frame: `row_id` (text), `group` (text, with a group column only), `actual` and `predicted` (float64, or texts where they are classes),
            `probability_<class>` (float64) where the model says them, `slice_<name>` (bool).
    """

    frame: pd.DataFrame

    @property
    def task(self) -> Task:
        """Whether the answers are numbers or classes."""
        return "regression" if pd.api.types.is_float_dtype(self.frame["actual"]) else "classification"

    @property
    def actual(self) -> npt.NDArray[Any]:
        """What was measured, one a row."""
        return np.asarray(self.frame["actual"], dtype=np.float64 if self.task == "regression" else object)

    @property
    def predicted(self) -> npt.NDArray[Any]:
        """What the model says, one a row."""
        return np.asarray(self.frame["predicted"], dtype=np.float64 if self.task == "regression" else object)

    @property
    def groups(self) -> npt.NDArray[Any] | None:
        """The group of each row, or None."""
        return np.asarray(self.frame["group"], dtype=object) if "group" in self.frame else None

    @cached_property
    def probabilities(self) -> Probabilities | None:
        """What the model gives each class, or None."""
        columns = [str(name) for name in self.frame.columns if str(name).startswith(PROBABILITY)]
        if not columns:
            return None
        return Probabilities(tuple(name.removeprefix(PROBABILITY) for name in columns), self.frame[columns].to_numpy(dtype=np.float64))

    @property
    def slices(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Which rows each slice has."""
        return {str(name).removeprefix(SLICE): np.asarray(self.frame[name], dtype=bool) for name in self.frame.columns if str(name).startswith(SLICE)}

    @cached_property
    def sha256(self) -> str:
        """Fingerprint of the rows and their answers, not of what the model says: equal for all models that can be compared row by row."""
        answers = [value.hex() for value in self.actual] if self.task == "regression" else list(self.actual)
        return hashlib.sha256(json.dumps([list(self.frame["row_id"]), answers]).encode()).hexdigest()

    def write(self, path: Path) -> None:
        """Store as Parquet."""
        parquet.write_table(pa.Table.from_pandas(self.frame, preserve_index=False), path, compression="zstd")


def collect(parts: Split, predicted: npt.NDArray[Any], probabilities: Probabilities | None, slices: Mapping[str, npt.NDArray[np.bool_]]) -> Predictions:
    """Put together what a model says of the hold-out.

    Args:
        parts: The split.
        predicted: One a held-out row, in the table's order.
        probabilities: Of the same rows.
        slices: Name → which of all rows of the table it has, see `masks`.
    """
    dataset, rows = parts.dataset, parts.holdout
    kind: Any = "float64" if dataset.task == "regression" else object
    columns: dict[str, Any] = {"row_id": [dataset.row_ids[row] for row in rows]}
    if dataset.groups is not None:
        columns["group"] = list(dataset.groups.iloc[rows])
    columns["actual"] = np.asarray(parts.holdout_answers, dtype=kind)
    columns["predicted"] = np.asarray(predicted, dtype=kind)
    if probabilities is not None:
        columns |= {f"{PROBABILITY}{name}": probabilities.values[:, column] for column, name in enumerate(probabilities.classes)}
    columns |= {f"{SLICE}{name}": mask[rows] for name, mask in slices.items()}
    return Predictions(pd.DataFrame(columns).sort_values("row_id", ignore_index=True))


def holdout_sha256(parts: Split) -> str:
    """Return the fingerprint that the predictions of any model of this hold-out have."""
    return collect(parts, np.asarray(parts.holdout_answers), None, {}).sha256


def masks(dataset: Dataset, configuration: Configuration) -> dict[str, npt.NDArray[np.bool_]]:
    """Return which rows of the table each slice has.

    Raises:
        ProblemError: A slice asks for a range in a column of texts.
    """
    return {name: _mask(dataset.table[part.column], name, part, configuration) for name, part in configuration.slices.items()}


def _mask(column: "pd.Series[Any]", name: str, part: Slice, configuration: Configuration) -> npt.NDArray[np.bool_]:
    numbers = pd.api.types.is_float_dtype(column)
    if part.equals is not None:
        if not numbers:
            return np.asarray(column == str(part.equals), dtype=bool)
        try:
            return np.asarray(column == float(part.equals), dtype=bool)
        except ValueError as error:
            fault = f"is {part.equals!r}, but column {part.column!r} holds numbers: write a number"
            raise configuration.problem(("slices", name, "equals"), fault) from error
    if not numbers:
        raise configuration.problem(("slices", name), f"is a range, but column {part.column!r} holds texts: write `equals`")
    low = -np.inf if part.at_least is None else part.at_least
    high = np.inf if part.below is None else part.below
    # An empty field is in no range.
    return np.asarray((column >= low) & (column < high), dtype=bool)


def read(path: Path) -> Predictions:
    """Read what `write` stored, and check that it is what it should be.

    Raises:
        ProblemError: The file can't be read or is something else.
    """
    try:
        frame = parquet.read_table(path).to_pandas()
    except OSError as error:
        message = f"{path} can't be read: {error.strerror or error}: was it downloaded completely?"
        raise ProblemError(message) from error
    except pa.ArrowException as error:
        message = f"{path} is not a Parquet file that can be read ({error}): was it downloaded completely?"
        raise ProblemError(message) from error
    fault = _fault(frame)
    if fault:
        message = f"{path} does not hold predictions as longrun writes them: {fault}"
        raise ProblemError(message)
    for name in ("row_id", "group", "actual", "predicted"):
        if name in frame and not pd.api.types.is_float_dtype(frame[name]):
            frame[name] = frame[name].astype(object)
    return Predictions(frame)


def _fault(frame: pd.DataFrame) -> str | None:
    """Return why a table is not what `write` stores."""
    lacking = {"row_id", "actual", "predicted"}.difference(frame.columns)
    if lacking:
        return f"column {min(lacking)!r} is missing"
    texts = [name for name in ("actual", "predicted") if not pd.api.types.is_float_dtype(frame[name])]
    strange = [name for name in frame.columns if str(name).startswith(PROBABILITY) and not pd.api.types.is_float_dtype(frame[name])]
    strange += [name for name in frame.columns if str(name).startswith(SLICE) and not pd.api.types.is_bool_dtype(frame[name])]
    twice = list(frame["row_id"][frame["row_id"].duplicated()])
    faults = {
        "there are no rows": not len(frame),
        "of the actual and the predicted answers, one are numbers and the other texts": len(texts) == 1,
        "an answer or the name of a row is empty": bool(frame[["row_id", *texts]].isna().to_numpy().any()),
        f"the row {twice[:1]} is there twice": bool(twice),
        "the rows are not sorted by row_id": not frame["row_id"].is_monotonic_increasing,
        f"the columns {strange} are of another type": bool(strange),
    }
    return next((fault for fault, there in faults.items() if there), None)
