"""`longrun.toml`: what one model is trained on, how it is scored, and what a newer version of it must hold."""

import difflib
import json
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from longrun_training.errors import ProblemError
from longrun_training.scores import METRICS

FILE_NAME = "longrun.toml"
# How a source names one of the sets that scikit-learn ships.
SHIPPED = "sklearn:"
# Where nobody names an estimator; the depth bounds the size of the model, which would be gigabytes for a large table.
DEFAULT_FOREST = {"n_estimators": 200, "max_depth": 12}
# The options of their own that keys have on the command line; the others have --set.
OPTIONS = {
    "model.name": "--model",
    "model.experiment": "--experiment",
    "data.source": "--data",
    "data.target": "--target",
    "estimator.name": "--estimator",
    "evaluation.folds": "--folds",
    "evaluation.repeats": "--repeats",
    "evaluation.seed": "--seed",
}
LARGEST_BYTES = 10**6
SHOWN_CHARACTERS = 60
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")

Direction = Literal["higher", "lower"]
Scalar = bool | int | float | str | None
Parameter = Scalar | list[Scalar]


class _Table(BaseModel):
    """A table of the file: a key that nobody knows is an error, and nothing changes after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Model(_Table):
    """`[model]`: the registered model, and the experiment that its runs are in (the model's name where left out)."""

    name: str = "diabetes"
    experiment: str | None = None


class Data(_Table):
    """`[data]`: where the rows come from, and what its columns are.

    Attributes:
        source: `sklearn:<name>` (diabetes, breast_cancer, iris, wine, digits, linnerud is not taken) or a CSV or Parquet file, relative to longrun.toml.
        target: The column to predict; known for scikit-learn's sets.
        unit: The target's unit, for axes and reports.
        group: A column whose equal values belong together (a patient): never split between training and hold-out, resampled as one, not a feature.
        ignore: Columns that are not learnt from; slices may still use them.
        columns: Every column that the data must have, in any order; data with others are refused. Left out, any will do.
    """

    source: str = "sklearn:diabetes"
    target: str | None = None
    unit: str | None = None
    group: str | None = None
    ignore: tuple[str, ...] = ()
    columns: tuple[str, ...] | None = None


class Estimator(_Table):
    """`[estimator]`: a scikit-learn classifier or regressor by its class name, and its parameters; the text "None" is Python's None."""

    name: str = "RandomForestRegressor"
    parameters: dict[str, Parameter] = Field(default_factory=dict)
    scale: bool = False  # a StandardScaler before it


class Evaluation(_Table):
    """`[evaluation]`: repeated cross-validation on the training rows, and the share of rows that no fit ever sees."""

    folds: Annotated[int, Field(ge=2)] = 5
    repeats: Annotated[int, Field(ge=1)] = 3
    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.2
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class Metric(_Table):
    """`[metrics.<name>]`: one metric and what the gate asks of it.

    Attributes:
        direction: Which way is better; known for our own metrics (scores.py), so it is for checking.
        margin: How much worse than the baseline is still accepted, in the metric's unit; None: compared and shown, but never judged.
        floor: The worst value that is accepted at all: a maximum where lower is better.
        slices: Whether the slices are judged by it too.
    """

    direction: Direction | None = None
    margin: Annotated[float, Field(ge=0)] | None = None
    floor: float | None = None
    slices: bool = True


class Slice(_Table):
    """`[slices.<name>]`: hold-out rows that are judged by themselves: a column that equals a value, or lies in [at_least, below)."""

    column: str
    equals: bool | int | float | str | None = None
    at_least: float | None = None
    below: float | None = None


class Gate(_Table):
    """`[gate]`.

    Attributes:
        confidence: Of the intervals, before Holm's correction.
        inconclusive: What the exit status says of an inconclusive verdict: `report` keeps 2, `pass` makes it 0, `fail` makes it 1.
        resamples: Bootstrap draws.
        minimum_rows: A slice (or hold-out) with fewer rows is shown but not judged.
        model_size_mb: The largest model accepted, in 10^6 bytes.
        latency_ms: The longest accepted time for predicting one row (median).
    """

    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    inconclusive: Literal["report", "pass", "fail"] = "report"
    resamples: Annotated[int, Field(ge=200, le=100_000)] = 2000
    minimum_rows: Annotated[int, Field(ge=2)] = 10
    model_size_mb: Annotated[float, Field(gt=0)] | None = None
    latency_ms: Annotated[float, Field(gt=0)] | None = None


class Baseline(_Table):
    """`[baseline]`: what a candidate is compared with.

    Attributes:
        branch: The branch whose runs count: the merge base with it, else the nearest first-parent ancestor that has a run.
        ancestors: How many ancestors are looked at.
        champion: Whether the `champion` alias is taken where no ancestor has a run.
        reference: A pinned version (its number, or an alias) that is compared as well, against slow drift.
        reference_margin_factor: The reference's margins are this many times the metrics' own.
        stale_days: A baseline older than this is called stale in the report.
    """

    branch: str = "main"
    ancestors: Annotated[int, Field(ge=1, le=5000)] = 200
    champion: bool = True
    reference: str | int | None = None
    reference_margin_factor: Annotated[float, Field(gt=0)] = 1.0
    stale_days: Annotated[float, Field(gt=0)] = 30.0


class Sweep(_Table):
    """`[sweep]`: parameter name → values; every combination is one child run. The best by `metric` (a metric's name) is what the parent points at."""

    metric: str | None = None
    parameters: dict[str, tuple[Parameter, ...]] = Field(default_factory=dict)


class Origin:
    """Where a configuration's keys were written: in a file, on the command line, or nowhere, so that an error can name the place.

    Args:
        path: The file; None where there was none.
        text: What it holds.
        changed: The keys that the command line gave.
    """

    def __init__(self, path: Path | None = None, text: str = "", changed: Collection[str] = ()) -> None:
        self.path = path
        self._lines = text.splitlines()
        self._changed = {_key(name) for name in changed}

    def __eq__(self, other: object) -> bool:
        """Say yes to any other origin: where a configuration was written is no part of what it says."""
        return isinstance(other, Origin)

    __hash__ = None  # type: ignore[assignment]

    def where(self, key: Sequence[str]) -> str:
        """Return `models/x/longrun.toml, line 12: evaluation.folds`, or the option that gave it, or the key alone where nobody wrote it."""
        if any(tuple(key[: len(changed)]) == changed for changed in self._changed):
            return OPTIONS.get(_dotted(key), f"--set {_dotted(key)}")
        # A key that is missing is missing where its table begins.
        line = next((found for length in range(len(key), 0, -1) if (found := self._line(key[:length]))), None)
        if line:
            return f"{self.path}, line {line}: {_dotted(key)}"
        if any(changed[: len(key)] == tuple(key) for changed in self._changed):
            return f"--set {_dotted(key)}"
        return f"{self.path}: {_dotted(key)}" if self.path else _dotted(key)

    def _line(self, key: Sequence[str]) -> int | None:
        # tomllib tells no lines, but it tells which beginnings of the file are whole: a statement begins right after the last of them that lacks it.
        whole = 0
        for count in range(1, len(self._lines) + 1):
            try:
                read = tomllib.loads("\n".join(self._lines[:count]) + "\n")
            except tomllib.TOMLDecodeError:
                continue
            if _holds(read, key):
                return whole + 1
            whole = count
        return None


def _holds(table: object, key: Sequence[str]) -> bool:
    for part in key:
        if not isinstance(table, dict):
            # Inside a list or a value: its statement is as near as a line gets.
            return True
        if part not in table:
            return False
        table = table[part]
    return True


def _dotted(key: Sequence[str]) -> str:
    return ".".join(part if BARE_KEY.fullmatch(part) else json.dumps(part, ensure_ascii=False) for part in key)


def _key(dotted: str) -> tuple[str, ...]:
    """Split `slices."over 60".column` as TOML does.

    Raises:
        ProblemError: It is no key.
    """
    try:
        table: object = tomllib.loads(f"{dotted} = 0") if "\n" not in dotted else None
    except tomllib.TOMLDecodeError:
        table = None
    key: list[str] = []
    while isinstance(table, dict) and len(table) == 1:
        name, table = next(iter(table.items()))
        key.append(name)
    if not key or table != 0:
        message = f"--set {dotted!r}: not a key of {FILE_NAME}: write it as in --set evaluation.folds=10"
        raise ProblemError(message)
    return tuple(key)


class Configuration(_Table):
    """One `longrun.toml`."""

    _origin: Origin = PrivateAttr(default_factory=Origin)

    model: Model = Model()
    data: Data = Data()
    estimator: Estimator = Estimator()
    evaluation: Evaluation = Evaluation()
    metrics: dict[str, Metric] = Field(default_factory=dict)
    slices: dict[str, Slice] = Field(default_factory=dict)
    gate: Gate = Gate()
    baseline: Baseline = Baseline()
    sweep: Sweep = Sweep()

    @property
    def experiment(self) -> str:
        """The experiment's name."""
        return self.model.experiment or self.model.name

    def remember(self, origin: Origin) -> None:
        """Note where the keys were written."""
        self._origin = origin

    def where(self, *key: str) -> str:
        """Return where a key was written: `longrun.toml, line 3: data.target`, or the option that gave it."""
        return self._origin.where(key)

    def problem(self, key: Sequence[str], fault: str) -> ProblemError:
        """Return the error about a key: the file, the line, the key, and then the fault (`is 7: …`)."""
        return ProblemError(f"{self._origin.where(key)} {fault}")


def parse_change(text: str) -> tuple[str, object]:
    """Split `evaluation.folds=10` into a key and its value; what is no TOML value is a text.

    Raises:
        ProblemError: There is no `=`, or no key before it.
    """
    name, equals, value = text.partition("=")
    # The `=` of a quoted key does not end it.
    while equals and name.count('"') % 2:
        more, equals, value = value.partition("=")
        name = f"{name}={more}"
    if not equals or not name.strip():
        message = f"--set {text!r} gives no value: write it as in --set evaluation.folds=10"
        raise ProblemError(message)
    key = _dotted(_key(name.strip()))
    try:
        read = tomllib.loads(f"value = {value.strip()}")
    except tomllib.TOMLDecodeError:
        return key, value
    return key, read["value"] if set(read) == {"value"} else value


def load(path: Path | None, changes: Mapping[str, object] | None = None) -> Configuration:
    """Read a longrun.toml (the one in the current folder where None and there; the defaults where there is none), with the command line's changes over it.

    A path in the file is relative to the file, one in the changes to the current folder.

    Args:
        path: The file.
        changes: `"evaluation.seed": 7` and the like; they win. A whole table (`"data": {...}`) takes the place of the file's.

    Raises:
        ProblemError: One line naming the file, the line of the file, the key, what is wrong and what is accepted.
    """
    changes = changes or {}
    if path is None and Path(FILE_NAME).is_file():
        path = Path(FILE_NAME)
    text = _text(path) if path else ""
    table = _parse(path, text) if path else {}
    origin = Origin(path, text, changes)
    if path:
        _resolve_source(table, path.parent)
    for name, value in changes.items():
        _put(table, _key(name), value)
    _fill(table)
    try:
        configuration = Configuration.model_validate(table)
    except ValidationError as error:
        raise _explain(error, table, origin) from error
    configuration.remember(origin)
    _check(configuration)
    return configuration


def _text(path: Path) -> str:
    if not path.exists():
        message = f"{path} does not exist: check --config"
        raise ProblemError(message)
    if not path.is_file():
        message = f"{path} is not a file: --config takes one {FILE_NAME}"
        raise ProblemError(message)
    try:
        content = path.read_bytes()
    except OSError as error:
        message = f"{path} can't be read: {error.strerror or error}"
        raise ProblemError(message) from error
    if len(content) > LARGEST_BYTES:
        message = f"{path} is {len(content) / 1e6:.0f} MB, which is no configuration: check --config"
        raise ProblemError(message)
    try:
        # A spreadsheet's or an editor's byte-order mark is no key.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        message = f"{path}, line {line}: not UTF-8 ({error.reason}): save the file as UTF-8"
        raise ProblemError(message) from error


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        said = str(error)
        place = re.search(r" \(at (?:line (\d+), column \d+|(end of document))\)", said)
        line = "" if place is None else f", line {place[1] or len(text.splitlines()) or 1}"
        message = f"{path}{line}: not TOML ({said[: place.start()] if place else said}): correct it; texts stand in quotes"
        raise ProblemError(message) from error


def _resolve_source(table: dict[str, Any], folder: Path) -> None:
    data = table.get("data")
    source = data.get("source") if isinstance(data, dict) else None
    if isinstance(data, dict) and isinstance(source, str) and not source.startswith(SHIPPED):
        data["source"] = str(folder / source)


def _put(table: dict[str, Any], key: Sequence[str], value: object) -> None:
    for part in key[:-1]:
        below = table.setdefault(part, {})
        if not isinstance(below, dict):
            below = table[part] = {}
        table = below
    table[key[-1]] = value


def _fill(table: dict[str, Any]) -> None:
    """Add the defaults that depend on other keys: the forest where no estimator is named, and the model's name from the data's."""
    estimator = table.setdefault("estimator", {})
    if isinstance(estimator, dict) and "name" not in estimator and isinstance(estimator.get("parameters", {}), dict):
        estimator["parameters"] = {**DEFAULT_FOREST, **estimator.get("parameters", {})}
    model, data = table.setdefault("model", {}), table.get("data", {})
    source = data.get("source") if isinstance(data, dict) else None
    if isinstance(model, dict) and "name" not in model and isinstance(source, str):
        model["name"] = source.removeprefix(SHIPPED) if source.startswith(SHIPPED) else Path(source).stem


# The tables whose keys are names that a person chose.
SECTIONS: Mapping[str, type[BaseModel]] = {"metrics": Metric, "slices": Slice}


def _explain(error: ValidationError, table: Mapping[str, Any], origin: Origin) -> ProblemError:
    """Return the line about the first fault that pydantic found."""
    fault = error.errors(include_url=False)[0]
    key: list[str] = []
    value: Any = table
    for part in fault["loc"]:
        # Below a value, pydantic goes on with the types that it tried.
        if not isinstance(value, dict) or (part not in value and fault["type"] != "missing"):
            break
        key.append(str(part))
        value = value.get(part)
    where = origin.where(key)
    if fault["type"] == "extra_forbidden":
        known = _known(key[:-1])
        close = difflib.get_close_matches(key[-1], known, 1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
        return ProblemError(f"{where} is not a key of {FILE_NAME}: {hint}")
    if fault["type"] == "missing":
        return ProblemError(f"{where} is missing: add it")
    said = str(fault["msg"]).removeprefix("Value error, ")
    if key[:2] in (["estimator", "parameters"], ["sweep", "parameters"]):
        said = "it should be a number, a text, true, false, or a list of such" if key[0] == "estimator" else "it should be a list of values to try"
    shown = repr(value) if len(repr(value)) <= SHOWN_CHARACTERS else repr(value)[:SHOWN_CHARACTERS] + "…"
    return ProblemError(f"{where} is {shown}: {said[:1].lower()}{said[1:]}")


def _known(key: Sequence[str]) -> list[str]:
    """Return the keys of a table of the file."""
    kind: type[BaseModel] = Configuration
    for part in key:
        field = kind.model_fields.get(part)
        annotation = field.annotation if field else SECTIONS.get(key[0])
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            kind = annotation
    return list(kind.model_fields)


def _check(configuration: Configuration) -> None:
    """Check what one key says of another.

    Raises:
        ProblemError: A metric is not known or has the other direction, or a slice selects nothing.
    """
    for name, metric in configuration.metrics.items():
        kind = METRICS.get(name)
        if kind is None:
            raise configuration.problem(("metrics", name), f"is not a metric: {_suggest(name, METRICS)}")
        if metric.direction not in {None, kind.direction}:
            raise configuration.problem(("metrics", name, "direction"), f"is {metric.direction!r}, but of {name} the {kind.direction} is better: leave it out")
    if configuration.sweep.metric is not None and configuration.sweep.metric not in METRICS:
        raise configuration.problem(("sweep", "metric"), f"is {configuration.sweep.metric!r}: {_suggest(configuration.sweep.metric, METRICS)}")
    for name, part in configuration.slices.items():
        bounds = (part.at_least, part.below)
        if (part.equals is None) == (bounds == (None, None)):
            raise configuration.problem(("slices", name), "selects rows by `equals`, or by `at_least` and `below`: write one of the two")
        if part.at_least is not None and part.below is not None and part.at_least >= part.below:
            raise configuration.problem(("slices", name, "below"), f"is {part.below:g}, which is not above at_least = {part.at_least:g}: no row can be in it")
    if configuration.data.group is not None and configuration.data.group == configuration.data.target:
        raise configuration.problem(("data", "group"), "is the target too: name another column")


def _suggest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean {close[0]}?" if close else f"take one of {', '.join(known)}"
