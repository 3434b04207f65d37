"""The data to learn from: a set that scikit-learn ships or a person's own table, checked before anything is done with it."""

import csv
import hashlib
import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from longrun_training import machine
from longrun_training.config import SHIPPED, Configuration
from longrun_training.errors import ProblemError
from longrun_training.scores import Task

# What pandas reads as a missing value, and what it reads as 1 and 0 in a column of numbers.
MISSING = frozenset(["", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"])
MISSING |= frozenset(["<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"])
TRUTH = frozenset(["True", "TRUE", "true", "False", "FALSE", "false"])
# A number that stands for a class or a group: 3 and 3.0 are one.
WHOLE = re.compile(r"(-?\d+)\.0+")
# The trees hold features as float32.
LARGEST = float(np.finfo(np.float32).max)
# How much of a person's file an error line repeats.
SHOWN_COLUMNS, SHOWN_CHARACTERS, SHOWN_CLASSES = 20, 40, 3
# How many times the numbers of a table are in memory while a model is fitted: as read, in two parts, and once more in each fit; and a CSV's beginning that
# tells how long its lines are.
COPIES, SAMPLE_BYTES, NUMBER_BYTES = 4, 10**6, 8


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
# The sets that come with scikit-learn itself and have one column to predict.
SETS: Mapping[str, Task] = {
    "diabetes": "regression",
    "breast_cancer": "classification",
    "digits": "classification",
    "iris": "classification",
    "wine": "classification",
}
EXAMPLES: Mapping[Task, str] = {"regression": "RandomForestRegressor", "classification": "RandomForestClassifier"}


@dataclass(frozen=True)
class Dataset:
    """A table with one column to predict.

    Attributes:
        name: What the experiment and the model are called where nobody says otherwise.
        table: All rows and columns as read, in the order of the source. Features and a regression's target are float64 and finite; classes and groups are
            texts; ignored columns are float64 (NaN where empty) or texts (empty where empty).
        target: The column to predict.
        unit: The target's unit, as the figures' axes name it; empty for classes.
        source: Where the table came from: a file, or the name of the Python function that ships it.
        task: Whether the target is a number or a class.
        group: The column whose equal values belong together.
        ignored: Columns that are not learnt from.
    """

    name: str
    table: pd.DataFrame
    target: str
    unit: str
    source: Path | str
    task: Task = "regression"
    group: str | None = None
    ignored: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What an error line calls the data."""
        return self.source.name if isinstance(self.source, Path) else self.name

    @cached_property
    def features(self) -> pd.DataFrame:
        """The columns to learn from: rows x features, float64."""
        others = {self.target, self.group, *self.ignored}
        return self.table[[name for name in self.table.columns if name not in others]]

    @cached_property
    def answers(self) -> "pd.Series[Any]":
        """The column to predict: one float64 a row, in the target's unit, or the name of a class."""
        return self.table[self.target]

    @cached_property
    def groups(self) -> "pd.Series[Any] | None":
        """The group of each row, a text; None without a group column."""
        return None if self.group is None else self.table[self.group]

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The classes, sorted; none of a regression."""
        return tuple(sorted(self.answers.unique())) if self.task == "classification" else ()

    @cached_property
    def sha256(self) -> str:
        """Fingerprint of the content, 64 hexadecimal digits: column names and values, in order.

        The same table has the same fingerprint whether it came from CSV or Parquet, and whatever its file is called.
        """
        digest = hashlib.sha256(json.dumps(list(self.table.columns)).encode())
        texts = [name for name in self.table.columns if not _is_number(self.table[name])]
        digest.update(np.ascontiguousarray(self.table.drop(columns=texts).to_numpy(), dtype="<f8").tobytes())
        for name in texts:
            digest.update(json.dumps([name, *self.table[name]]).encode())
        return digest.hexdigest()

    @cached_property
    def schema_sha256(self) -> str:
        """Fingerprint of what the columns are, not of what they hold: names, kinds and roles, in any order."""
        kinds = sorted([name, "number" if _is_number(self.table[name]) else "text"] for name in self.table.columns if name not in self.ignored)
        return hashlib.sha256(json.dumps([kinds, self.target, self.group, self.task]).encode()).hexdigest()

    @cached_property
    def row_ids(self) -> list[str]:
        """One name a row, made of its content alone: 16 hexadecimal digits, and `-2`, `-3` and so on for the further rows that are equal.

        All columns count, by name and in no order, so that a row keeps its name when rows are appended or columns are no longer learnt from.
        """
        seen: dict[str, int] = {}
        names = []
        for digest in self.row_digests:
            name = digest[:8].hex()
            seen[name] = seen.get(name, 0) + 1
            names.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
        return names

    @cached_property
    def row_digests(self) -> list[bytes]:
        """The SHA-256 of each row's content, 32 bytes."""
        columns = sorted(self.table.columns)
        texts = [name for name in columns if not _is_number(self.table[name])]
        # Adding 0 makes the two zeros one.
        numbers = np.ascontiguousarray(self.table[[name for name in columns if name not in texts]].to_numpy(dtype="<f8") + 0.0)
        beginning = hashlib.sha256(json.dumps(columns).encode())
        digests = []
        for position in range(len(self.table)):
            digest = beginning.copy()
            digest.update(numbers[position].tobytes())
            digests.append(digest)
        for name in texts:
            for digest, value in zip(digests, self.table[name], strict=True):
                digest.update(json.dumps(value).encode())
        return [digest.digest() for digest in digests]


def _is_number(column: "pd.Series[Any]") -> bool:
    return column.dtype == np.float64


@dataclass(frozen=True)
class _Roles:
    """What a table's columns are for, and where that was written."""

    configuration: Configuration
    target: str
    task: Task

    @property
    def group(self) -> str | None:
        return self.configuration.data.group

    @property
    def ignored(self) -> tuple[str, ...]:
        return self.configuration.data.ignore

    def text(self, column: str) -> bool:
        """Whether a column names classes or groups, so that each value must be there and any text will do."""
        return column == self.group or (column == self.target and self.task == "classification")

    def any(self, column: str) -> bool:
        """Whether a column may hold anything, or nothing."""
        return column in self.ignored and not self.text(column) and column != self.target

    def wish(self, column: str) -> str:
        """Return what to do about a value that is no number."""
        return "encode it as numbers, or take a classifier" if column == self.target else "encode it as numbers or leave the column out"


def load(configuration: Configuration, task: Task) -> Dataset:
    """Load the table that a configuration names: one of scikit-learn's sets, or a file.

    Args:
        configuration: Its `[data]`: the source (CSV is comma-separated, UTF-8, with one header line), the target and what other columns are for.
        task: What the estimator does: a regression's target must be numbers.

    Raises:
        ProblemError: The source is not there, or not a table that can be learnt from.
    """
    data = configuration.data
    if data.source.startswith(SHIPPED):
        return _shipped(configuration, task)
    path = Path(data.source)
    if data.target is None:
        message = f"{configuration.where('data', 'source')} {path} needs --target COLUMN (or data.target): the column to predict"
        raise ProblemError(message)
    roles = _Roles(configuration, data.target, task)
    table = _read(path, roles)
    _check_target(str(path), table, roles)
    unit = data.unit or ("unit of the column" if task == "regression" else "")
    return Dataset(path.stem, table, data.target, unit, path.resolve(), task, data.group, data.ignore)


def _read(path: Path, roles: _Roles) -> pd.DataFrame:
    option = roles.configuration.where("data", "source")
    readers: dict[str, Callable[[Path, _Roles], pd.DataFrame]] = {".csv": _read_csv, ".parquet": _read_parquet}
    read = readers.get(path.suffix.lower())
    if not path.exists():
        message = f"{path} does not exist: check {option}"
        raise ProblemError(message)
    if not path.is_file():
        message = f"{path} is not a file: {option} takes one CSV or Parquet file"
        raise ProblemError(message)
    if read is None:
        message = f"{path}: only {' and '.join(readers)} can be read: convert the file, or give it the right extension"
        raise ProblemError(message)
    try:
        if path.stat().st_size == 0:
            message = f"{path} is empty (0 bytes): was it written completely?"
            raise ProblemError(message)
        return read(path, roles)
    except OSError as error:
        message = f"{path} can't be read: {error.strerror or error}"
        raise ProblemError(message) from error
    except (MemoryError, pa.ArrowMemoryError) as error:
        message = f"{path} does not fit into this machine's memory: take a sample of its rows, or a larger machine"
        raise ProblemError(message) from error


def _check_target(label: str, table: pd.DataFrame, roles: _Roles) -> None:
    answers = table[roles.target]
    if answers.nunique() == 1:
        value = answers.iloc[0]
        shown = f"{value:g}" if _is_number(answers) else _cut(value)
        message = f"{label}: the target {roles.target!r} is {shown} in every row, so there is nothing to learn: choose another --target"
        raise ProblemError(message)


def _shipped(configuration: Configuration, task: Task) -> Dataset:
    """Return one of the sets that scikit-learn ships, with the names of its classes."""
    name = configuration.data.source.removeprefix(SHIPPED)
    if name not in SETS:
        raise configuration.problem(
            ("data", "source"), f"is {configuration.data.source!r}: scikit-learn ships {', '.join(SETS)}; or name a CSV or Parquet file"
        )
    if name == "diabetes":
        table, target, unit = _diabetes()
    else:
        table, target, unit = _classes_of(name)
    if configuration.data.target not in {None, target}:
        raise configuration.problem(("data", "target"), f"is {configuration.data.target!r}, but what {SHIPPED}{name} predicts is {target!r}: leave it out")
    if SETS[name] != task:
        kinds = {"regression": "measurements", "classification": "classes"}
        fault = (
            f"{configuration.estimator.name} does not predict {kinds[SETS[name]]}, which is what {SHIPPED}{name} has: "
            f"take another estimator, for example {EXAMPLES[SETS[name]]}"
        )
        raise configuration.problem(("estimator", "name"), f"is the wrong kind: {fault}")
    roles = _Roles(configuration, target, task)
    _check_columns(f"{SHIPPED}{name}", list(table.columns), roles)
    if roles.group is not None:
        table[roles.group] = pd.Series([_label(f"{value}") for value in table[roles.group]], dtype=object)
    data = configuration.data
    return Dataset(name, table, target, data.unit or unit, f"sklearn.datasets.load_{name}", task, data.group, data.ignore)


def _diabetes() -> tuple[pd.DataFrame, str, str]:
    """Return the diabetes data: 442 patients x 10 features, in the units that they were measured in.

    Source: Efron, Hastie, Johnstone and Tibshirani (2004), Least Angle Regression; https://www4.stat.ncsu.edu/~boos/var.select/diabetes.html.
    The target is a score of how far the disease progressed within one year, from 25 to 346.
    """
    from sklearn.datasets import load_diabetes  # noqa: PLC0415 - a second of import that a person's own data don't need

    table = load_diabetes(as_frame=True, scaled=False).frame.rename(columns=DIABETES_COLUMNS).astype("float64")
    return table, "progression", "score after one year"


def _classes_of(name: str) -> tuple[pd.DataFrame, str, str]:
    """Return a set of scikit-learn whose target are classes, by their names."""
    from sklearn import datasets  # noqa: PLC0415 - as above

    loaded = getattr(datasets, f"load_{name}")(as_frame=True)
    table = loaded.data.astype("float64")
    names = [str(found) for found in loaded.target_names]
    table["class"] = pd.Series([names[number] for number in loaded.target], dtype=object)
    return table, "class", ""


def _cut(text: str) -> str:
    """Shorten a piece of a person's file to what fits into an error line, quoted."""
    return repr(text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…")


def _listed(columns: Sequence[str]) -> str:
    shown = ", ".join(_cut(column) for column in columns[:SHOWN_COLUMNS])
    return shown + (f" and {len(columns) - SHOWN_COLUMNS} more" if len(columns) > SHOWN_COLUMNS else "")


def _check_columns(label: str, columns: list[str], roles: _Roles) -> None:
    if not columns:
        message = f"{label} has no columns: the first line of a CSV file names them"
        raise ProblemError(message)
    for position, column in enumerate(columns, 1):
        if not column.strip():
            message = f"{label}: column {position} has no name: name it, or leave it out (pandas writes such an index column unless index=False)"
            raise ProblemError(message)
    twice = sorted({column for column in columns if columns.count(column) > 1}) if len(set(columns)) < len(columns) else []
    if twice:
        message = f"{label}: the column name {_cut(twice[0])} is there {columns.count(twice[0])} times: give every column its own name"
        raise ProblemError(message)
    _check_named(label, columns, roles)
    others = {roles.target, roles.group, *roles.ignored}
    if len(columns) == 1 or others.issuperset(columns):
        besides = f"the target {_cut(roles.target)}" + (" and those that are not learnt from" if len(columns) > 1 else "")
        message = f"{label} has no column besides {besides}: there is nothing to predict it from"
        raise ProblemError(message)


def _check_named(label: str, columns: list[str], roles: _Roles) -> None:
    """Check that each column that the configuration speaks of is there, and no other where it lists them."""
    where, data = roles.configuration.where, roles.configuration.data
    wanted = [(roles.target, where("data", "target"))]
    wanted += [] if roles.group is None else [(roles.group, where("data", "group"))]
    wanted += [(column, where("data", "ignore")) for column in roles.ignored]
    wanted += [(part.column, where("slices", name, "column")) for name, part in roles.configuration.slices.items()]
    present = set(columns)
    for column, place in wanted:
        if column not in present:
            separated = " (is it separated by something else than commas?)" if len(columns) == 1 and set(columns[0]) & set(";\t|") else ""
            message = f"{label} has no column {_cut(column)} for {place}; its columns are {_listed(columns)}{separated}"
            raise ProblemError(message)
    if data.columns is not None and present != set(data.columns):
        lacking, new = [name for name in data.columns if name not in present], [name for name in columns if name not in data.columns]
        changes = [f"{what} {_listed(names)}" for what, names in (("it lacks", lacking), ("it has besides", new)) if names]
        message = f"{label} has other columns than {where('data', 'columns')} says: {' and '.join(changes)}: correct the data, or change the list"
        raise ProblemError(message)


def _no_rows(path: Path) -> ProblemError:
    return ProblemError(f"{path} has columns but no rows: was it written completely?")


def _check_memory(path: Path, cells: float) -> None:
    """Refuse a table that would end in the kernel killing the process, without a word."""
    needed, free = cells * NUMBER_BYTES * COPIES, machine.free_memory()
    if free is not None and needed > free:
        message = (
            f"{path} holds about {cells / 1e6:.0f} million numbers, whose training takes about {needed / 1e9:.1f} GB of memory, "
            f"and {free / 1e9:.1f} GB are free here: take a sample of its rows, or a larger machine"
        )
        raise ProblemError(message)


def _label(text: str) -> str:
    """Return a class or a group as it is called whether it came as a text or as a number."""
    bare = text.strip()
    whole = WHOLE.fullmatch(bare)
    return whole[1] if whole else bare


def _fault(text: str, wish: str) -> str | None:
    """Return why a field of a CSV file is no number that can be learnt from, and what to do; None where it is one."""
    if empty := _emptiness(text):
        return empty
    bare = text.strip()
    if bare in TRUTH:
        return None
    try:
        # Python reads 1_000 and other scripts' digits as numbers, pandas does not.
        number = float(bare) if bare.isascii() and "_" not in bare else None
    except ValueError:
        number = None
    if number is None:
        return f"holds {_cut(text)}, which is not a number: {wish}"
    return None if abs(number) <= LARGEST else _too_large(bare)


def _emptiness(text: str) -> str | None:
    bare = text.strip()
    if bare not in MISSING:
        return None
    return f"holds no value ({_cut(bare)}): fill it or remove the row" if bare else "is empty: fill it or remove the row"


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


def _read_csv(path: Path, roles: _Roles) -> pd.DataFrame:
    _, header = next(_records(path), (0, []))
    _check_columns(str(path), header, roles)
    _check_memory(path, _cells(path, len(header)))
    texts = {name for name in header if roles.text(name) or roles.any(name)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            kinds: dict[str, Any] = {name: "object" if name in texts else "float64" for name in header}
            table = pd.read_csv(path, names=header, header=0, dtype=kinds, index_col=False, encoding="utf-8-sig")
    except (ValueError, pd.errors.ParserWarning) as error:
        # pandas is fast but can't say where: our own slow reading finds the field.
        raise _explain_csv(path, header, roles) or ProblemError(f"{path}: not a table of numbers ({error})") from error
    if not len(table):
        raise _no_rows(path)
    for name in texts:
        if roles.any(name):
            table[name] = _anything(table[name])
        else:
            table[name] = pd.Series([np.nan if pd.isna(value) else _label(value) for value in table[name]], dtype=object)
    if not _usable(table, roles):
        raise _explain_csv(path, header, roles) or ProblemError(f"{path} holds missing, infinite or too large values: correct them")
    return table


def _cells(path: Path, columns: int) -> float:
    """Return about how many fields a CSV file has, from how long its first lines are."""
    with path.open("rb") as file:
        sample = file.read(SAMPLE_BYTES)
    return path.stat().st_size / len(sample) * max(1, sample.count(b"\n")) * columns


def _anything(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """Return a column that is not learnt from as numbers where it holds nothing else, else as texts."""
    bare = [None if pd.isna(value) or value.strip() in MISSING else value.strip() for value in column]
    if all(value is None or value in TRUTH for value in bare):
        return pd.Series([np.nan if value is None else float(value.lower() == "true") for value in bare], dtype="float64")
    numbers = pd.to_numeric(pd.Series(bare, dtype=object), errors="coerce").astype("float64")
    if all(value is None or not np.isnan(number) for value, number in zip(bare, numbers, strict=True)):
        return numbers
    return pd.Series(["" if value is None else value for value in bare], dtype=object)


def _usable(table: pd.DataFrame, roles: _Roles) -> bool:
    texts = [name for name in table.columns if roles.text(name)]
    numbers = table.drop(columns=[*texts, *(name for name in table.columns if roles.any(name))])
    return bool((numbers.abs() <= LARGEST).to_numpy().all()) and not table[texts].isna().to_numpy().any()


def _explain_csv(path: Path, header: list[str], roles: _Roles) -> ProblemError | None:
    """Return what is wrong with the first field of a CSV file that can't be used."""
    records = _records(path)
    next(records)
    for line, record in records:
        if len(record) != len(header):
            return ProblemError(f"{path}, line {line}: {len(record)} fields where the header has {len(header)}: correct the line")
        for column, text in zip(header, record, strict=True):
            if roles.any(column):
                continue
            if fault := (_emptiness(text) if roles.text(column) else _fault(text, roles.wish(column))):
                return ProblemError(f"{path}, line {line}: column {_cut(column)} {fault}")
    return None


def _read_parquet(path: Path, roles: _Roles) -> pd.DataFrame:
    try:
        # Opened by us: pyarrow would read a path like year=2024/x.parquet as one more column.
        with path.open("rb") as file:
            stored = parquet.ParquetFile(file)
            # An index that pandas stored beside the columns is no feature.
            columns = [name for name in stored.schema_arrow.names if not name.startswith("__index_level_")]
            _check_columns(str(path), columns, roles)
            _check_memory(path, float(stored.metadata.num_rows) * len(columns))
            whole = stored.read()
    except pa.ArrowMemoryError:
        raise
    except pa.ArrowException as error:
        message = f"{path} is not a Parquet file that can be read ({error}): write it again"
        raise ProblemError(message) from error
    if not whole.num_rows:
        raise _no_rows(path)
    return pd.DataFrame({name: _column(path, name, whole.column(name), roles) for name in columns})


def _column(path: Path, name: str, column: pa.ChunkedArray, roles: _Roles) -> "pd.Series[Any]":
    """Return one column of a Parquet file as what it is for, or raise the ProblemError that names its first unusable row."""
    if roles.any(name):
        if _numeric(column.type):
            return column.cast("float64").to_pandas()  # type: ignore[no-any-return]
        return pd.Series(["" if value is None else str(value) for value in column.to_pylist()], dtype=object)
    if not roles.text(name):
        return _numbers(path, name, column, roles)
    texts = []
    for row, value in enumerate(column.to_pylist(), 1):
        if value is None or value != value or (fault := _emptiness(str(value))):  # noqa: PLR0124 - NaN differs from itself
            fault = "is empty: fill it or remove the row" if value is None or value != value else fault  # noqa: PLR0124
            message = f"{path}, row {row}: column {_cut(name)} {fault}"
            raise ProblemError(message)
        texts.append(_label(str(value)))
    return pd.Series(texts, dtype=object)


def _numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_boolean(kind))


def _numbers(path: Path, name: str, column: pa.ChunkedArray, roles: _Roles) -> "pd.Series[float]":
    """Return one column of a Parquet file as float64, or raise the ProblemError that names its first unusable row."""
    kind = column.type
    if not _numeric(kind):
        message = f"{path}, row 1: column {_cut(name)} holds {_cut(str(column[0].as_py()))} (type {kind}), which is not a number: {roles.wish(name)}"
        raise ProblemError(message)
    values: pd.Series[float] = column.cast("float64").to_pandas()
    unusable = ~(values.abs() <= LARGEST)
    if unusable.any():
        row = int(unusable.to_numpy().argmax())
        fault = "is empty: fill it or remove the row" if np.isnan(values[row]) else _too_large(f"{values[row]:g}")
        message = f"{path}, row {row + 1}: column {_cut(name)} {fault}"
        raise ProblemError(message)
    return values
