"""A person's file is either a table of finite numbers or one line that says where it isn't."""

from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from longrun_training import config, machine
from longrun_training.data import SETS, Dataset
from longrun_training.data import load as load_table
from longrun_training.errors import ProblemError
from longrun_training.scores import Task
from pyarrow import parquet

ROWS = "".join(f"{n},{n * n},{n / 2}\n" for n in range(20))
HEADER = "a,b,y\n"


def load(path: Path | str, target: str | None, task: Task = "regression", **data: object) -> Dataset:
    """Load a table as the command line names it."""
    source = {"source": str(path)} | ({} if target is None else {"target": target})
    return load_table(config.load(None, {"data": source | data}), task)


def problem(path: Path | str, target: str | None = "y", task: Task = "regression", **data: object) -> str:
    """Load what can't be loaded, and return the line about it."""
    with pytest.raises(ProblemError) as caught:
        load(path, target, task, **data)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_diabetes_is_the_default() -> None:
    """Somebody who has no data yet gets the 442 x 10 table that scikit-learn ships, whole and in real units."""
    dataset = load_table(config.load(None), "regression")
    assert (dataset.name, dataset.target) == ("diabetes", "progression")
    assert dataset.features.shape == (442, 10)
    assert (dataset.answers.min(), dataset.answers.max()) == (25, 346)
    assert dataset.features["age_years"].between(18, 100).all()
    assert dataset.sha256 == load("sklearn:diabetes", None).sha256


@pytest.mark.parametrize(
    ("name", "shape", "classes"), [("breast_cancer", (569, 30), 2), ("digits", (1797, 64), 10), ("iris", (150, 4), 3), ("wine", (178, 13), 3)]
)
def test_sets_with_classes(name: str, shape: tuple[int, int], classes: int) -> None:
    """What scikit-learn ships is there by its name, and its classes have names and no numbers."""
    dataset = load(f"sklearn:{name}", None, "classification")
    assert (dataset.name, dataset.features.shape, len(dataset.classes)) == (name, shape, classes)
    assert all(isinstance(found, str) for found in dataset.classes)
    assert name != "iris" or dataset.classes == ("setosa", "versicolor", "virginica")


def test_sets_that_can_not_be_used() -> None:
    """A name that is none, another target, and the wrong kind of estimator each say what to write."""
    assert "scikit-learn ships diabetes, breast_cancer" in problem("sklearn:linnerud", None)
    assert "what sklearn:iris predicts is 'class'" in problem("sklearn:iris", "petal", "classification")
    assert "does not predict classes, which is what sklearn:iris has" in problem("sklearn:iris", None)
    assert "for example RandomForestRegressor" in problem("sklearn:diabetes", None, "classification")
    assert "sklearn:diabetes has no column 'street' for --set data.group" in problem("sklearn:diabetes", None, group="street")
    assert len(SETS) == 5


def test_a_group_and_ignored_columns_of_a_shipped_set() -> None:
    """Neither is learnt from."""
    dataset = load("sklearn:diabetes", None, group="age_years", ignore=["sex"])
    assert dataset.features.shape == (442, 8)
    assert dataset.groups is not None
    assert "59" in set(dataset.groups)


def test_csv_is_read_as_written(table_csv: Path, table: pd.DataFrame) -> None:
    """The values that a person wrote are the values that are learnt from, and the file gives the name."""
    dataset = load(table_csv, "price")
    pd.testing.assert_frame_equal(dataset.table, table)
    assert (dataset.name, dataset.source) == ("houses", table_csv)
    assert list(dataset.features.columns) == ["area", "age"]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\xef\xbb\xbf" + (HEADER + ROWS).encode(), id="byte-order mark of a spreadsheet"),
        pytest.param((HEADER + ROWS).replace("\n", "\r\n").encode(), id="Windows line ends"),
        pytest.param(f"\n{HEADER}\n{ROWS}\n\n".encode(), id="blank lines"),
        pytest.param(('"a","b","y"\n' + ROWS.replace(",", " , ")).encode(), id="quotes and spaces"),
    ],
)
def test_spellings_of_the_same_csv(tmp_path: Path, content: bytes) -> None:
    """What editors and spreadsheets add to a file does not change the data, so it does not change the fingerprint either."""
    plain, spelt = tmp_path / "plain.csv", tmp_path / "spelt.csv"
    plain.write_text(HEADER + ROWS, encoding="utf-8")
    spelt.write_bytes(content)
    assert load(spelt, "y").sha256 == load(plain, "y").sha256


def test_truth_values_are_one_and_zero(tmp_path: Path) -> None:
    """A yes-or-no column is usable, in CSV and in Parquet alike."""
    csv, stored = tmp_path / "t.csv", tmp_path / "t.parquet"
    csv.write_text("a,y\nTrue,1\nFalse,2\n", encoding="utf-8")
    pd.DataFrame({"a": [True, False], "y": [1, 2]}).to_parquet(stored)
    assert list(load(csv, "y").features["a"]) == list(load(stored, "y").features["a"]) == [1.0, 0.0]


def test_fingerprint_is_of_the_content(tmp_path: Path, table_csv: Path, table: pd.DataFrame) -> None:
    """The same table under another name and format is the same data; one changed digit, name or order is not."""
    stored = tmp_path / "other.parquet"
    table.to_parquet(stored)
    known = load(table_csv, "price").sha256
    assert len(known) == 64
    assert load(stored, "price").sha256 == known
    changed = [table.replace({"area": {table["area"][7]: table["area"][7] + 1e-9}}), table.rename(columns={"age": "years"}), table[::-1], table.iloc[:-1]]
    for other in changed:
        assert Dataset("houses", other, "price", "", table_csv).sha256 != known


def test_columns_of_a_pandas_index_are_no_features(tmp_path: Path, table: pd.DataFrame) -> None:
    """`to_parquet` stores an index beside the columns; a model must not learn the row numbers."""
    stored = tmp_path / "indexed.parquet"
    table.set_index(pd.Index([f"house {n}" for n in range(60)])).to_parquet(stored)
    assert "__index_level_0__" in parquet.read_schema(stored).names
    assert list(load(stored, "price").table.columns) == ["area", "age", "price"]


def test_decimal_columns_are_numbers(tmp_path: Path) -> None:
    """Databases export money as decimals."""
    stored = tmp_path / "money.parquet"
    parquet.write_table(pa.table({"a": [1, 2], "y": [Decimal("1.50"), Decimal("2.25")]}), stored)
    assert list(load(stored, "y").answers) == [1.5, 2.25]


def test_one_option_without_the_other(table_csv: Path) -> None:
    """Half a wish is not guessed."""
    assert problem(table_csv, None) == f"--data {table_csv} needs --target COLUMN (or data.target): the column to predict"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty (0 bytes)"),
        (b"\n\n", "has no columns"),
        (HEADER.encode(), "has columns but no rows"),
        (b"a,b,z\n1,2,3\n", "has no column 'y' for --target; its columns are 'a', 'b', 'z'"),
        (b"a;b;y\n1;2;3\n", "separated by something else than commas?"),
        (b"a,a,y\n1,2,3\n", "the column name 'a' is there 2 times"),
        (b",b,y\n1,2,3\n", "column 1 has no name"),
        (b"y\n1\n2\n", "no column besides the target 'y'"),
        ((HEADER + ROWS + "1,Rome,3\n").encode(), "line 22: column 'b' holds 'Rome', which is not a number"),
        ((HEADER + "1,2,high\n" + ROWS).encode(), "line 2: column 'y' holds 'high', which is not a number"),
        ((HEADER + ROWS + '1,"1,000",3\n').encode(), "line 22: column 'b' holds '1,000', which is not a number"),
        ((HEADER + ROWS + "1,1_000,3\n").encode(), "line 22: column 'b' holds '1_000', which is not a number"),
        ((HEADER + '1,"two\nlines",3\n').encode(), "line 2: column 'b' holds 'two\\nlines', which is not a number"),
        (('"a\nb",b,y\n' + ROWS + "1,x,3\n").encode(), "line 23: column 'b' holds 'x'"),
        ((HEADER + ROWS + "1,,3\n").encode(), "line 22: column 'b' is empty"),
        ((HEADER + ROWS + "1,NA,3\n").encode(), "line 22: column 'b' holds no value ('NA')"),
        ((HEADER + ROWS + "-inf,1,3\n").encode(), "line 22: column 'a' holds -inf, which is infinite"),
        ((HEADER + ROWS + "1,1e300,3\n").encode(), "line 22: column 'b' holds 1e300, which is infinite or larger than"),
        ((HEADER + ROWS + "1,2\n").encode(), "line 22: 2 fields where the header has 3"),
        ((HEADER + ROWS + "1,2,3,4\n").encode(), "line 22: 4 fields where the header has 3"),
        ((HEADER + "1,2,3,4\n1,2,3,4\n").encode(), "line 2: 4 fields where the header has 3"),
        ("größe,b,y\n".encode("latin-1"), "line 1: not UTF-8"),
        ((HEADER + ROWS).encode() + "é,1,2\n".encode("latin-1"), "line 22: not UTF-8"),
        ((HEADER + ROWS).encode("utf-16"), "line 1: not UTF-8"),
        (b"a,b,y\n" + b"1,2,7\n" * 20, "the target 'y' is 7 in every row"),
    ],
)
def test_csv_that_can_not_be_used(tmp_path: Path, content: bytes, expected: str) -> None:
    """Each mistake is named with its place, because a file of a million rows can't be searched by eye."""
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    text = problem(path)
    assert text.startswith(str(path))
    assert expected in text


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (pa.table({"a": ["x", "z"], "y": [1, 2]}), "row 1: column 'a' holds 'x' (type string), which is not a number"),
        (pa.table({"a": [1, None], "y": [1, 2]}), "row 2: column 'a' is empty"),
        (pa.table({"a": [1.0, float("nan")], "y": [1, 2]}), "row 2: column 'a' is empty"),
        (pa.table({"a": [1.0, float("inf")], "y": [1, 2]}), "row 2: column 'a' holds inf, which is infinite"),
        (pa.table([pa.array([1]), pa.array([2]), pa.array([3])], names=["a", "a", "y"]), "the column name 'a' is there 2 times"),
        (pa.table({"a": pa.array([], pa.int64()), "y": pa.array([], pa.int64())}), "has columns but no rows"),
        (pa.table({"a": [1, 2], "z": [1, 2]}), "has no column 'y' for --target"),
        (pa.table({"a": [1, 2], "y": [3, 3]}), "the target 'y' is 3 in every row"),
    ],
)
def test_parquet_that_can_not_be_used(tmp_path: Path, stored: pa.Table, expected: str) -> None:
    """Parquet has no lines, so its mistakes are named by row and column."""
    path = tmp_path / "table.parquet"
    parquet.write_table(stored, path)
    assert expected in problem(path)


def test_broken_parquet(tmp_path: Path, table: pd.DataFrame) -> None:
    """A download that broke off, or a file with the wrong extension, is no traceback."""
    path = tmp_path / "table.parquet"
    path.write_text(HEADER + ROWS, encoding="utf-8")
    assert "is not a Parquet file that can be read" in problem(path)
    table.to_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    assert "is not a Parquet file that can be read" in problem(path)


def test_files_that_are_none(tmp_path: Path) -> None:
    """Folders, missing files and other formats are told apart."""
    assert "does not exist" in problem(tmp_path / "nowhere.csv")
    assert "is not a file" in problem(tmp_path)
    sheet = tmp_path / "table.xlsx"
    sheet.write_bytes(b"x")
    assert "only .csv and .parquet can be read" in problem(sheet)


def test_an_error_repeats_only_the_beginning_of_a_field(tmp_path: Path) -> None:
    """A whole document in a field, or a thousand columns, would push the sentence off the screen."""
    path = tmp_path / "table.csv"
    path.write_text(f"a,y\n{'x' * 5000},1\n", encoding="utf-8")
    assert len(problem(path)) < 300
    path.write_text(",".join(f"c{n}" for n in range(1000)) + "\n", encoding="utf-8")
    assert problem(path).endswith("and 980 more")


CLASSES = "a,town,kind,y\n" + "".join(f"{n},{'Rome' if n % 2 else 'Oslo'},{n % 3},{'yes' if n % 3 else 'no'}\n" for n in range(12))


def test_classes_groups_and_ignored_columns(tmp_path: Path) -> None:
    """A classifier learns from numbers, predicts texts, and leaves alone what it was told to."""
    path = tmp_path / "t.csv"
    path.write_text(CLASSES, encoding="utf-8")
    dataset = load(path, "y", "classification", group="town", ignore=["kind"])
    assert list(dataset.features.columns) == ["a"]
    assert dataset.classes == ("no", "yes")
    assert dataset.groups is not None
    assert sorted(dataset.groups.unique()) == ["Oslo", "Rome"]
    assert dataset.table["kind"].dtype == np.float64
    stored = tmp_path / "t.parquet"
    pd.read_csv(path).to_parquet(stored)
    other = load(stored, "y", "classification", group="town", ignore=["kind"])
    assert (other.sha256, other.row_ids, other.schema_sha256) == (dataset.sha256, dataset.row_ids, dataset.schema_sha256)


def test_numbers_as_classes(tmp_path: Path) -> None:
    """0 and 1 are the same two classes from CSV and from Parquet, as whole numbers and as 0.0 and 1.0; 007 and 7 are two groups."""
    csv, stored = tmp_path / "t.csv", tmp_path / "t.parquet"
    csv.write_text("a,g,y\n1,007,0\n2,7,1.0\n3,7,1\n", encoding="utf-8")
    pd.DataFrame({"a": [1, 2, 3], "g": ["007", "7", "7"], "y": [0.0, 1.0, 1.0]}).to_parquet(stored)
    for path in (csv, stored):
        dataset = load(path, "y", "classification", group="g")
        assert (dataset.classes, list(dataset.groups if dataset.groups is not None else [])) == (("0", "1"), ["007", "7", "7"])


def test_ignored_columns_may_hold_anything(tmp_path: Path) -> None:
    """A comment with gaps, a date, a flag: they are kept for slices, and an empty field is no fault."""
    path, stored = tmp_path / "t.csv", tmp_path / "t.parquet"
    path.write_text("a,note,flag,size,y\n1,,True,3,1\n2,x y,False,,2\n", encoding="utf-8")
    pd.DataFrame({"a": [1, 2], "note": [None, "x y"], "flag": [True, False], "size": [3.0, None], "y": [1, 2]}).to_parquet(stored)
    for found in (load(path, "y", ignore=["note", "flag", "size"]).table, load(stored, "y", ignore=["note", "flag", "size"]).table):
        assert list(found["note"]) == ["", "x y"]
        assert list(found["flag"]) == [1.0, 0.0]
        assert found["size"].tolist()[0] == 3.0
        assert np.isnan(found["size"].tolist()[1])


@pytest.mark.parametrize(
    ("content", "task", "data", "expected"),
    [
        ("a,g,y\n1,x,no\n2,,yes\n", "classification", {"group": "g"}, "line 3: column 'g' is empty"),
        ("a,g,y\n1,x,no\n2,z,NA\n", "classification", {"group": "g"}, "line 3: column 'y' holds no value ('NA')"),
        ("a,g,y\n1,x,no\n2,z,yes\n", "classification", {}, "line 2: column 'g' holds 'x', which is not a number: encode it as numbers or leave the column out"),
        ("a,g,y\n1,3,no\n2,3,yes\n", "regression", {}, "line 2: column 'y' holds 'no', which is not a number: encode it as numbers, or take a classifier"),
        ("a,g,y\n1,3,no\n2,3,no\n", "classification", {}, "the target 'y' is 'no' in every row"),
        ("a,g,y\n1,3,4\n", "regression", {"group": "h"}, "has no column 'h' for --set data.group; its columns are 'a', 'g', 'y'"),
        ("a,g,y\n1,3,4\n", "regression", {"ignore": ["g", "h"]}, "has no column 'h' for --set data.ignore"),
        ("a,g,y\n1,3,4\n", "regression", {"group": "g", "ignore": ["a"]}, "has no column besides the target 'y' and those that are not learnt from"),
        ("a,g,y\n1,3,4\n", "regression", {"columns": ["a", "b", "y"]}, "has other columns than --set data.columns says: it lacks 'b' and it has besides 'g'"),
    ],
)
def test_csv_that_does_not_fit_its_configuration(tmp_path: Path, content: str, task: Task, data: dict[str, object], expected: str) -> None:
    """A changed schema, or a text where a number is wanted, is named with what to do."""
    path = tmp_path / "t.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ProblemError) as caught:
        load_table(config.load(None, {"data": {"source": str(path), "target": "y"}, **{f"data.{name}": value for name, value in data.items()}}), task)
    assert expected in str(caught.value)


def test_a_file_of_longrun_toml_is_named_with_its_line(tmp_path: Path) -> None:
    """Who renamed a column in the data finds the line that still has the old name; a slice's column counts too."""
    (tmp_path / "t.csv").write_text("a,b,y\n1,2,3\n2,3,4\n", encoding="utf-8")
    written = tmp_path / "longrun.toml"
    written.write_text("[data]\nsource = 't.csv'\ntarget = 'price'\n", encoding="utf-8")
    with pytest.raises(ProblemError, match=r"t\.csv has no column 'price' for .*longrun\.toml, line 3: data\.target; its columns are 'a', 'b', 'y'"):
        load_table(config.load(written), "regression")
    written.write_text("[data]\nsource = 't.csv'\ntarget = 'y'\n[slices.old]\nbelow = 3\ncolumn = 'age'\n", encoding="utf-8")
    with pytest.raises(ProblemError, match=r"has no column 'age' for .*longrun\.toml, line 6: slices\.old\.column"):
        load_table(config.load(written), "regression")


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array(["x", None]), "row 2: column 'g' is empty"),
        (pa.array([1.0, float("nan")]), "row 2: column 'g' is empty"),
        (pa.array(["", "x"]), "row 1: column 'g' is empty"),
    ],
)
def test_parquet_without_a_group(tmp_path: Path, column: pa.Array, expected: str) -> None:
    """A row without a group can be on neither side."""
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"a": [1, 2], "g": column, "y": [1, 2]}), path)
    assert expected in problem(path, group="g")


def test_a_huge_table_is_refused_before_it_is_read(tmp_path: Path, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel kills who takes too much memory without a word; the line says how much it would take and how much there is."""
    monkeypatch.setattr(machine, "free_memory", lambda: 1000)
    for path, write in ((tmp_path / "t.csv", table.to_csv), (tmp_path / "t.parquet", table.to_parquet)):
        write(path, index=False)
        assert "take a sample of its rows, or a larger machine" in problem(path, "price")
    monkeypatch.setattr(machine, "free_memory", lambda: None)
    assert load(tmp_path / "t.csv", "price").features.shape == (60, 2)


def test_memory_that_runs_out_all_the_same(tmp_path: Path, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    """An estimate can be wrong."""
    path = tmp_path / "t.csv"
    table.to_csv(path, index=False)

    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(pd, "read_csv", full)
    assert "does not fit into this machine's memory" in problem(path, "price")


def test_the_machine_says_how_much_memory_is_free() -> None:
    """On Linux it is known, and not more than there is."""
    free, total = machine.free_memory(), machine.hardware()["memory_bytes"]
    assert isinstance(free, int)
    assert isinstance(total, int)
    assert 0 < free <= total


def test_a_schema_is_what_columns_are(tmp_path: Path) -> None:
    """Other rows do not change it; another name, kind or role does."""
    path = tmp_path / "t.csv"

    def schema(text: str, **data: object) -> str:
        path.write_text(text, encoding="utf-8")
        return load(path, "y", "regression", **data).schema_sha256

    known = schema("a,b,y\n1,2,3\n4,5,6\n")
    assert schema("b,a,y\n7,8,9\n1,1,1\n") == known
    assert len({known, schema("a,c,y\n1,2,3\n4,5,6\n"), schema("a,b,y\n1,2,3\n4,5,6\n", group="b"), schema("a,b,y\n1,2,3\n4,5,6\n", ignore=["b"])}) == 4
