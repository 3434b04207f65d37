"""The per-row predictions of a run from last year must still pair with those of today."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from longrun_training import evaluation, model, predictions
from longrun_training.config import Configuration, load
from longrun_training.data import Dataset
from longrun_training.errors import ProblemError
from longrun_training.predictions import Predictions, collect, masks, read
from longrun_training.scores import Probabilities

RANDOM = np.random.default_rng(20261126)
TABLE = pd.DataFrame(
    {
        "age": RANDOM.integers(20, 80, 80).astype("float64"),
        "town": RANDOM.choice(["Rome", "Oslo"], 80).astype(object),
        "y": RANDOM.normal(size=80).round(6),
    }
)
DATASET = Dataset("people", TABLE, "y", "", "made here", ignored=("town",))


def sliced(**slices: Mapping[str, object]) -> Configuration:
    """Return a configuration with slices."""
    return load(None, {f"slices.{name}": part for name, part in slices.items()})


def made(dataset: Dataset = DATASET, offset: float = 0.0) -> Predictions:
    """Return predictions of a split, the actual answers plus an offset."""
    parts = evaluation.split(dataset, load(None, {"evaluation.folds": 2}))
    return collect(parts, np.asarray(parts.holdout_answers) + offset, None, {})


def test_one_row_a_held_out_row() -> None:
    """Rows are sorted by name, so that two runs' rows lie side by side."""
    frame = made().frame
    assert list(frame.columns) == ["row_id", "actual", "predicted"]
    assert frame["row_id"].is_monotonic_increasing
    assert frame["row_id"].str.fullmatch("[0-9a-f]{16}").all()
    assert 5 <= len(frame) <= 30


def test_rows_keep_their_names_and_sides() -> None:
    """Rows in another order, more rows, a column that is no longer learnt from, and another seed: each old row stays where it was."""
    known = made().frame
    shuffled = Dataset("people", TABLE.sample(frac=1, random_state=1).reset_index(drop=True), "y", "", "made here", ignored=("town",))
    pd.testing.assert_frame_equal(made(shuffled).frame, known)
    unlearnt = Dataset("people", TABLE[["y", "town", "age"]], "y", "", "made here", ignored=("town", "age"))
    assert unlearnt.row_ids == DATASET.row_ids
    more = Dataset("people", pd.concat([TABLE, TABLE[:40].assign(y=lambda table: table["y"] + 1)], ignore_index=True), "y", "", "x", ignored=("town",))
    assert set(known["row_id"]) < set(made(more).frame["row_id"])


def test_equal_rows_are_told_apart_and_stay_together() -> None:
    """A table may hold a row twice; both are on one side, or the model would have seen the answer."""
    twice = Dataset("people", pd.concat([TABLE, TABLE], ignore_index=True), "y", "", "made here", ignored=("town",))
    names = list(made(twice).frame["row_id"])
    assert len(set(names)) == len(names) == 2 * len(made().frame)
    assert set(names) == {name + end for name in made().frame["row_id"] for end in ("", "-2")}


def test_the_fingerprint_is_of_the_rows_and_answers() -> None:
    """Two models are comparable whatever they say; not when one answer was corrected."""
    assert made().sha256 == made(offset=1.0).sha256
    corrected = Dataset("people", TABLE.assign(y=TABLE["y"] + 1e-9), "y", "", "made here", ignored=("town",))
    assert made(corrected).sha256 != made().sha256


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Also numbers that are none, texts, groups, probabilities and slices."""
    frame = made().frame.assign(group="a", slice_old=True)
    frame.loc[0, "predicted"] = np.nan
    Predictions(frame).write(tmp_path / "p.parquet")
    found = read(tmp_path / "p.parquet")
    pd.testing.assert_frame_equal(found.frame, frame, check_dtype=False)
    assert (found.task, found.sha256, found.probabilities) == ("regression", made().sha256, None)
    assert np.isnan(found.predicted[0])
    assert list(found.groups if found.groups is not None else []) == ["a"] * len(frame)
    assert found.slices["old"].all()


def test_classes_and_probabilities(tmp_path: Path) -> None:
    """A class is a text, and its probability a column of its name."""
    frame = pd.DataFrame({"row_id": ["1", "2"], "actual": ["a", "b c"], "predicted": ["a", "a"], "probability_a": [0.6, 0.7], "probability_b c": [0.4, 0.3]})
    Predictions(frame).write(tmp_path / "p.parquet")
    found = read(tmp_path / "p.parquet")
    assert found.task == "classification"
    assert list(found.actual) == ["a", "b c"]
    assert found.probabilities is not None
    assert found.probabilities.classes == ("a", "b c")
    assert found.probabilities.values.tolist() == [[0.6, 0.4], [0.7, 0.3]]


def test_classes_that_a_model_does_not_know() -> None:
    """A classifier fitted without a class gives it 0, so that all models have the same columns."""
    configuration = load(None, {"estimator.name": "LogisticRegression"})
    features = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0]})
    fitted = model.fit(configuration, features, pd.Series(["a", "a", "c", "c"]))
    given = model.probabilities(fitted, features, ("a", "b", "c"))
    assert given is not None
    assert given.values[:, 1].tolist() == [0.0] * 4
    assert given.values.sum(axis=1) == pytest.approx(1.0)
    assert isinstance(given, Probabilities)


@pytest.mark.parametrize(
    ("part", "chosen"),
    [
        ({"column": "age", "at_least": 60}, TABLE["age"] >= 60),
        ({"column": "age", "at_least": 30, "below": 40}, (TABLE["age"] >= 30) & (TABLE["age"] < 40)),
        ({"column": "age", "below": 40}, TABLE["age"] < 40),
        ({"column": "age", "equals": 40}, TABLE["age"] == 40),
        ({"column": "town", "equals": "Rome"}, TABLE["town"] == "Rome"),
    ],
)
def test_slices(part: dict[str, object], chosen: "pd.Series[bool]") -> None:
    """Of any column, also one that is not learnt from; the lower bound is in it, the upper one is not."""
    assert (masks(DATASET, sliced(part=part))["part"] == chosen).all()


def test_slices_without_sense() -> None:
    """A range of texts, or a text where the column has numbers, is a line that names the key."""
    with pytest.raises(ProblemError, match=r"--set slices\.part is a range, but column 'town' holds texts"):
        masks(DATASET, sliced(part={"column": "town", "below": 3}))
    with pytest.raises(ProblemError, match=r"--set slices\.part\.equals is 'old', but column 'age' holds numbers"):
        masks(DATASET, sliced(part={"column": "age", "equals": "old"}))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda frame: frame.drop(columns="actual"), "column 'actual' is missing"),
        (lambda frame: frame[:0], "no rows"),
        (lambda frame: frame.assign(predicted="x"), "one are numbers and the other texts"),
        (lambda frame: frame[::-1], "not sorted"),
        (lambda frame: pd.concat([frame[:1], frame]), "is there twice"),
        (lambda frame: frame.assign(slice_a="x", probability_b="y"), r"\['probability_b', 'slice_a'\] are of another type"),
    ],
)
def test_predictions_that_are_none(tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], expected: str) -> None:
    """Somebody else's artifact of the same name is one line."""
    Predictions(change(made().frame)).write(tmp_path / "p.parquet")
    with pytest.raises(ProblemError, match=expected):
        read(tmp_path / "p.parquet")


def test_broken_files(tmp_path: Path) -> None:
    """A download that broke off is one line."""
    path = tmp_path / predictions.FILE_NAME
    with pytest.raises(ProblemError, match="can't be read"):
        read(path)
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(ProblemError, match="is not a Parquet file"):
        read(path)
