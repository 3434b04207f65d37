"""The data to learn from: scikit-learn's diabetes data or a person's own table, checked before anything is done with it."""

import csv
import hashlib
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from longrun_training.errors import ProblemError

# What pandas reads as a missing value, and what it reads as 1 and 0 in a column of numbers.
MISSING = frozenset(["", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"])
MISSING |= frozenset(["<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"])
TRUTH = frozenset(["True", "TRUE", "true", "False", "FALSE", "false"])
# The trees hold features as float32.
LARGEST = float(np.finfo(np.float32).max)
# How much of a person's file an error line repeats.
SHOWN_COLUMNS, SHOWN_CHARACTERS = 20, 40

DIABETES_COLUMNS = {
    "age": "age_years",
    "sex": "sex",
    "bmi": "bmi_kg_per_m2",
    "bp": "blood_pressure_mmhg",
    "s1": "total_cholesterol_mg_per_dl",
    "s2": "ldl_mg_per_dl",
    "s3": "hdl_mg_per_dl",
    "s4": "cholesterol_hdl_ratio",
    "s5": "log_triglycerides",
    "s6": "glucose_mg_per_dl",
    "target": "progression",
}


@dataclass(frozen=True)
class Dataset:
    """A table of numbers with one column to predict.

    Attributes:
        name: What the experiment and the model are called where nobody says otherwise.
        table: Rows x (features + target), all float64 and finite, columns in the order of the source.
        target: The column to predict.
        unit: The target's unit, as the figures' axes name it.
        source: Where the table came from: a file, or the name of the Python function that ships it.
    """

    name: str
    table: pd.DataFrame
    target: str
    unit: str
    source: Path | str

    @property
    def label(self) -> str:
        """What an error line calls the data."""
        return self.source.name if isinstance(self.source, Path) else self.name

    @cached_property
    def features(self) -> pd.DataFrame:
        """The columns to learn from: rows x features, float64."""
        return self.table.drop(columns=self.target)

    @cached_property
    def answers(self) -> "pd.Series[float]":
        """The column to predict: one float64 a row, in the target's unit."""
        return self.table[self.target]

    @cached_property
    def sha256(self) -> str:
        """Fingerprint of the content, 64 hexadecimal digits: column names and values, in order.

        The same table has the same fingerprint whether it came from CSV or Parquet, and whatever its file is called.
        """
        digest = hashlib.sha256(json.dumps(list(self.table.columns)).encode())
        digest.update(np.ascontiguousarray(self.table.to_numpy(), dtype="<f8").tobytes())
        return digest.hexdigest()


def load(path: Path | None, target: str | None) -> Dataset:
    """Load a person's table, or the diabetes data where none is named.

    Args:
        path: CSV (comma-separated, UTF-8, one header line) or Parquet; the extension decides.
        target: The column to predict.

    Raises:
        ProblemError: One of the two is missing, or the file is not a table of finite numbers with that column.
    """
    if path is None and target is None:
        return diabetes()
    if path is None:
        message = f"--target {target} needs --data FILE: the table that has this column"
        raise ProblemError(message)
    if target is None:
        message = f"--data {path} needs --target COLUMN: the column to predict"
        raise ProblemError(message)
    readers = {".csv": _read_csv, ".parquet": _read_parquet}
    read = readers.get(path.suffix.lower())
    if not path.exists():
        message = f"{path} does not exist: check --data"
        raise ProblemError(message)
    if not path.is_file():
        message = f"{path} is not a file: --data takes one CSV or Parquet file"
        raise ProblemError(message)
    if read is None:
        message = f"{path}: only {' and '.join(readers)} can be read: convert the file, or give it the right extension"
        raise ProblemError(message)
    try:
        if path.stat().st_size == 0:
            message = f"{path} is empty (0 bytes): was it written completely?"
            raise ProblemError(message)
        table = read(path, target)
    except OSError as error:
        message = f"{path} can't be read: {error.strerror or error}"
        raise ProblemError(message) from error
    if table[target].nunique() == 1:
        message = f"{path}: the target {target!r} is {table[target].iloc[0]:g} in every row, so there is nothing to learn: choose another --target"
        raise ProblemError(message)
    return Dataset(path.stem, table, target, "unit of the column", path.resolve())


def diabetes() -> Dataset:
    """Return the diabetes data that scikit-learn ships: 442 patients x 10 features, in the units that they were measured in.

    Source: Efron, Hastie, Johnstone and Tibshirani (2004), Least Angle Regression; https://www4.stat.ncsu.edu/~boos/var.select/diabetes.html.
    The target is a score of how far the disease progressed within one year, from 25 to 346.
    """
    from sklearn.datasets import load_diabetes  # noqa: PLC0415 - a second of import that a person's own data don't need

    table = load_diabetes(as_frame=True, scaled=False).frame.rename(columns=DIABETES_COLUMNS).astype("float64")
    return Dataset("diabetes", table, "progression", "score after one year", "sklearn.datasets.load_diabetes")


def _cut(text: str) -> str:
    """Shorten a piece of a person's file to what fits into an error line, quoted."""
    return repr(text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…")


def _check_columns(path: Path, columns: list[str], target: str) -> None:
    if not columns:
        message = f"{path} has no columns: the first line of a CSV file names them"
        raise ProblemError(message)
    for position, column in enumerate(columns, 1):
        if not column.strip():
            message = f"{path}: column {position} has no name: name it, or leave it out (pandas writes such an index column unless index=False)"
            raise ProblemError(message)
    twice = sorted({column for column in columns if columns.count(column) > 1}) if len(set(columns)) < len(columns) else []
    if twice:
        message = f"{path}: the column name {_cut(twice[0])} is there {columns.count(twice[0])} times: give every column its own name"
        raise ProblemError(message)
    if target not in columns:
        shown = ", ".join(_cut(column) for column in columns[:SHOWN_COLUMNS])
        more = f" and {len(columns) - SHOWN_COLUMNS} more" if len(columns) > SHOWN_COLUMNS else ""
        separated = " (is it separated by something else than commas?)" if len(columns) == 1 and set(columns[0]) & set(";\t|") else ""
        message = f"{path} has no column {_cut(target)} for --target; its columns are {shown}{more}{separated}"
        raise ProblemError(message)
    if len(columns) == 1:
        message = f"{path} has no column besides the target {_cut(target)}: there is nothing to predict it from"
        raise ProblemError(message)


def _no_rows(path: Path) -> ProblemError:
    return ProblemError(f"{path} has columns but no rows: was it written completely?")


def _fault(text: str) -> str | None:
    """Return why a field of a CSV file is no number that can be learnt from, and what to do; None where it is one."""
    bare = text.strip()
    if bare in MISSING:
        return f"holds no value ({_cut(bare)}): fill it or remove the row" if bare else "is empty: fill it or remove the row"
    if bare in TRUTH:
        return None
    try:
        # Python reads 1_000 and other scripts' digits as numbers, pandas does not.
        number = float(bare) if bare.isascii() and "_" not in bare else None
    except ValueError:
        number = None
    if number is None:
        return f"holds {_cut(text)}, which is not a number: encode it as numbers or leave the column out"
    return None if abs(number) <= LARGEST else _too_large(bare)


def _too_large(value: str) -> str:
    return f"holds {value}, which is infinite or larger than {LARGEST:.1e}: correct it or remove the row"


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield each record of a CSV file that is not blank, with the number of the line that it starts on.

    Raises:
        ProblemError: A line is not UTF-8, or its quotes never end.
    """
    before = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            for record in reader:
                if record:
                    yield before + 1, record
                before = reader.line_num
    except UnicodeDecodeError as error:
        message = f"{path}{_first_line_not_utf8(path)}: not UTF-8 ({error.reason}): save the file as UTF-8"
        raise ProblemError(message) from error
    except csv.Error as error:
        message = f"{path}, line {before + 1}: not CSV ({error}): correct the file"
        raise ProblemError(message) from error


def _first_line_not_utf8(path: Path) -> str:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return f", line {number}"
    return ""


def _read_csv(path: Path, target: str) -> pd.DataFrame:
    _, header = next(_records(path), (0, []))
    _check_columns(path, header, target)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(path, names=header, header=0, dtype="float64", index_col=False, encoding="utf-8-sig")
    except (ValueError, pd.errors.ParserWarning) as error:
        # pandas is fast but can't say where: our own slow reading finds the field.
        raise _explain_csv(path, header) or ProblemError(f"{path}: not a table of numbers ({error})") from error
    if not len(table):
        raise _no_rows(path)
    if not _usable(table):
        raise _explain_csv(path, header) or ProblemError(f"{path} holds missing, infinite or too large values: correct them")
    return table


def _usable(table: pd.DataFrame) -> bool:
    return bool((table.abs() <= LARGEST).to_numpy().all())


def _explain_csv(path: Path, header: list[str]) -> ProblemError | None:
    """Return what is wrong with the first field of a CSV file that can't be used."""
    records = _records(path)
    next(records)
    for line, record in records:
        if len(record) != len(header):
            return ProblemError(f"{path}, line {line}: {len(record)} fields where the header has {len(header)}: correct the line")
        for column, text in zip(header, record, strict=True):
            if fault := _fault(text):
                return ProblemError(f"{path}, line {line}: column {_cut(column)} {fault}")
    return None


def _read_parquet(path: Path, target: str) -> pd.DataFrame:
    try:
        # Opened by us: pyarrow would read a path like year=2024/x.parquet as one more column.
        with path.open("rb") as file:
            stored = parquet.ParquetFile(file)
            # An index that pandas stored beside the columns is no feature.
            columns = [name for name in stored.schema_arrow.names if not name.startswith("__index_level_")]
            _check_columns(path, columns, target)
            whole = stored.read()
    except pa.ArrowException as error:
        message = f"{path} is not a Parquet file that can be read ({error}): write it again"
        raise ProblemError(message) from error
    if not whole.num_rows:
        raise _no_rows(path)
    return pd.DataFrame({name: _numbers(path, name, whole.column(name)) for name in columns})


def _numbers(path: Path, name: str, column: pa.ChunkedArray) -> "pd.Series[float]":
    """Return one column of a Parquet file as float64, or raise the ProblemError that names its first unusable row."""
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_boolean(kind)):
        message = (
            f"{path}, row 1: column {_cut(name)} holds {_cut(str(column[0].as_py()))} (type {kind}), which is not a number: "
            "encode it as numbers or leave the column out"
        )
        raise ProblemError(message)
    values: pd.Series[float] = column.cast("float64").to_pandas()
    unusable = ~(values.abs() <= LARGEST)
    if unusable.any():
        row = int(unusable.to_numpy().argmax())
        fault = "is empty: fill it or remove the row" if np.isnan(values[row]) else _too_large(f"{values[row]:g}")
        message = f"{path}, row {row + 1}: column {_cut(name)} {fault}"
        raise ProblemError(message)
    return values
