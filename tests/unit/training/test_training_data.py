"""A person's file is either a table of finite numbers or one line that says where it isn't."""

from decimal import Decimal
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from longrun_training.data import Dataset, diabetes, load
from longrun_training.errors import ProblemError
from pyarrow import parquet

ROWS = "".join(f"{n},{n * n},{n / 2}\n" for n in range(20))
HEADER = "a,b,y\n"


def problem(path: Path | None, target: str | None = "y") -> str:
    """Load what can't be loaded, and return the line about it."""
    with pytest.raises(ProblemError) as caught:
        load(path, target)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_diabetes_is_the_default() -> None:
    """Somebody who has no data yet gets the 442 x 10 table that scikit-learn ships, whole and in real units."""
    dataset = load(None, None)
    assert (dataset.name, dataset.target) == ("diabetes", "progression")
    assert dataset.features.shape == (442, 10)
    assert (dataset.answers.min(), dataset.answers.max()) == (25, 346)
    assert dataset.features["age_years"].between(18, 100).all()
    assert dataset.sha256 == diabetes().sha256


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
    assert problem(table_csv, None) == f"--data {table_csv} needs --target COLUMN: the column to predict"
    assert "--target price needs --data FILE" in problem(None, "price")


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
