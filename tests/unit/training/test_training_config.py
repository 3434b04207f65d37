"""longrun.toml is written by hand: each mistake is one line that names the file, the line, the key and what to write instead."""

from pathlib import Path

import pytest
from longrun_training.config import DEFAULT_FOREST, Configuration, load, parse_change
from longrun_training.errors import ProblemError

FULL = """# what people write

[model]
name = "houses"
experiment = "housing"

[data]
source = "data/houses.csv"
target = "price"
group = "street"
ignore = ["id",
  "district",
]

[estimator]
name = "GradientBoostingRegressor"
parameters = { n_estimators = 50, learning_rate = 0.1 }

[evaluation]
folds = 3

[metrics.rmse]
margin = 2.5
floor = 60

[metrics.r2]

[slices."over 60"]
column = "age"
at_least = 60

[gate]
inconclusive = "fail"

[baseline]
reference = 3

[sweep]
metric = "rmse"
parameters.n_estimators = [10, 20]
"""


def write(folder: Path, text: str) -> Path:
    """Put a longrun.toml into a folder."""
    path = folder / "longrun.toml"
    path.write_text(text, encoding="utf-8")
    return path


def problem(path: Path | None, changes: dict[str, object] | None = None) -> str:
    """Load what can't be loaded, and return the line about it."""
    with pytest.raises(ProblemError) as caught:
        load(path, changes)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_every_table_is_read(tmp_path: Path) -> None:
    """What is written is what is used, and the rest is the default."""
    found = load(write(tmp_path, FULL))
    assert (found.model.name, found.experiment) == ("houses", "housing")
    assert found.data.ignore == ("id", "district")
    assert found.estimator.parameters == {"n_estimators": 50, "learning_rate": 0.1}
    assert (found.evaluation.folds, found.evaluation.repeats) == (3, 3)
    assert found.metrics["rmse"].margin == 2.5
    assert found.metrics["r2"].margin is None
    assert found.slices["over 60"].at_least == 60
    assert found.sweep.parameters == {"n_estimators": (10, 20)}
    assert Configuration.model_validate_json(found.model_dump_json()) == found


def test_a_source_is_relative_to_its_file(tmp_path: Path) -> None:
    """A model's folder can be trained from the repository's root; what the command line names is relative to where the person is."""
    path = write(tmp_path, FULL)
    assert load(path).data.source == str(tmp_path / "data/houses.csv")
    assert load(path, {"data.source": "other.csv"}).data.source == "other.csv"


def test_no_file_is_the_default_forest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody without a longrun.toml gets a forest of a bounded size; another estimator does not get a forest's parameters."""
    monkeypatch.chdir(tmp_path)
    found = load(None)
    assert (found.model.name, found.estimator.name, found.estimator.parameters) == ("diabetes", "RandomForestRegressor", DEFAULT_FOREST)
    assert load(None, {"estimator.parameters.n_estimators": 5}).estimator.parameters == DEFAULT_FOREST | {"n_estimators": 5}
    assert load(None, {"estimator.name": "Ridge"}).estimator.parameters == {}
    assert load(None, {"data": {"source": "some/houses.csv", "target": "price"}}).model.name == "houses"
    assert load(None, {"data.source": "sklearn:iris"}).experiment == "iris"


def test_the_file_of_this_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a model's folder nobody has to name its file; another table on the command line takes the place of [data] as a whole."""
    write(tmp_path, FULL)
    monkeypatch.chdir(tmp_path)
    assert load(None).model.name == "houses"
    found = load(None, {"data": {"source": "other.csv", "target": "y"}})
    assert (found.model.name, found.data.source, found.data.group, found.data.ignore) == ("houses", "other.csv", None, ())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[model]\nname = 'a'\n\n[evaluation]\n# how many\nfolds = 1\n", "line 6: evaluation.folds is 1: input should be greater than or equal to 2"),
        ("[evaluation]\nfold = 3\n", "line 2: evaluation.fold is not a key of longrun.toml: did you mean folds?"),
        ("[evaluatoin]\nfolds = 3\n", "line 1: evaluatoin is not a key of longrun.toml: did you mean evaluation?"),
        ("zzz = 1\n", "line 1: zzz is not a key of longrun.toml: known are model, data,"),
        ("[metrics.rmse]\nmargine = 3\n", "line 2: metrics.rmse.margine is not a key of longrun.toml: did you mean margin?"),
        ("[metrics.rmse]\nmargin = -1\n", "line 2: metrics.rmse.margin is -1: input should be greater than or equal to 0"),
        ("[metrics.rmse]\nmargin = nan\n", "line 2: metrics.rmse.margin is nan"),
        ("[metrics.rmse]\nfloor = inf\n", "line 2: metrics.rmse.floor is inf"),
        ("[metrics]\nrmsee.margin = 1\n", "line 2: metrics.rmsee is not a metric: did you mean rmse?"),
        ("[metrics.rmse]\ndirection = 'higher'\n", "line 2: metrics.rmse.direction is 'higher', but of rmse the lower is better"),
        ("[metrics.rmse]\ndirection = 'up'\n", "line 2: metrics.rmse.direction is 'up': input should be 'higher' or 'lower'"),
        ("[gate]\nconfidence = 95\n", "line 2: gate.confidence is 95: input should be less than 1"),
        ("[data]\nignore = [\n  1,\n]\n", "line 2: data.ignore is [1]: input should be a valid string"),
        ("[data]\nsource = 7\n", "line 2: data.source is 7: input should be a valid string"),
        ("data = 7\n", "line 1: data is 7: "),
        ("estimator = 7\n", "line 1: estimator is 7: "),
        ("[data]\ngroup = 'y'\ntarget = 'y'\n", "line 2: data.group is the target too"),
        ("[estimator]\nparameters = { a = 1979-05-27 }\n", "line 2: estimator.parameters.a is datetime.date(1979, 5, 27): it should be a number"),
        ("[slices.'over 60']\nat_least = 60\n", 'line 1: slices."over 60".column is missing'),
        ("[slices.old]\ncolumn = 'age'\n", "line 1: slices.old selects rows by `equals`, or by `at_least` and `below`"),
        ("[slices.old]\ncolumn = 'age'\nequals = 1\nbelow = 3\n", "line 1: slices.old selects rows by"),
        ("[slices.old]\ncolumn = 'age'\nat_least = 3\nbelow = 3\n", "line 4: slices.old.below is 3, which is not above at_least = 3"),
        ("[sweep]\nmetric = 'rms'\n", "line 2: sweep.metric is 'rms': did you mean rmse?"),
        ("[sweep.parameters]\nmax_depth = 3\n", "line 2: sweep.parameters.max_depth is 3: it should be a list of values to try"),
        ("[model\n", "line 1: not TOML"),
        ("[model]\nname = diabetes\n", "line 2: not TOML"),
        ("[model]\nname = 'a'\nname = 'b'\n", "line 3: not TOML"),
        ('[model]\nname = """a\n', "line 2: not TOML"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, expected: str) -> None:
    """The line is that of the statement, also in the middle of a list and below a quoted name."""
    path = write(tmp_path, text)
    said = problem(path)
    assert said.startswith(f"{path}, ")
    assert expected in said


def test_files_that_are_none(tmp_path: Path) -> None:
    """Missing, a folder, not UTF-8, and something else altogether are told apart."""
    assert "does not exist: check --config" in problem(tmp_path / "longrun.toml")
    assert "is not a file" in problem(tmp_path)
    path = write(tmp_path, "")
    path.write_bytes("[model]\nname = 'größe'\n".encode("latin-1"))
    assert "longrun.toml, line 2: not UTF-8" in problem(path)
    path.write_bytes(b"#" * 2_000_000)
    assert "is 2 MB, which is no configuration" in problem(path)


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    """Editors of some systems write one."""
    path = tmp_path / "longrun.toml"
    path.write_bytes(b"\xef\xbb\xbf[model]\nname = 'a'\n")
    assert load(path).model.name == "a"


def test_the_command_line_is_named_where_it_is_wrong(tmp_path: Path) -> None:
    """A mistake of the command line is not looked for in the file."""
    path = write(tmp_path, FULL)
    assert problem(path, {"evaluation.folds": 1}) == "--folds is 1: input should be greater than or equal to 2"
    assert problem(path, {"metrics.rmse.margin": "much"}).startswith("--set metrics.rmse.margin is 'much': input should be a valid number")
    assert problem(path, {"gate.confidnce": 0.9}) == "--set gate.confidnce is not a key of longrun.toml: did you mean confidence?"


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("evaluation.folds=10", "evaluation.folds", 10),
        ("estimator.scale=true", "estimator.scale", True),
        ("metrics.rmse.margin = 2.5", "metrics.rmse.margin", 2.5),
        ("estimator.name=Ridge", "estimator.name", "Ridge"),
        ('estimator.name="Ridge"', "estimator.name", "Ridge"),
        ("data.ignore=['a', 'b']", "data.ignore", ["a", "b"]),
        ('slices."a=b.c".column=age', 'slices."a=b.c".column', "age"),
        ("data.source=a=b.csv", "data.source", "a=b.csv"),
        ("model.name=", "model.name", ""),
        ("model.name=1\nmodel.experiment=2", "model.name", "1\nmodel.experiment=2"),
    ],
)
def test_set(text: str, key: str, value: object) -> None:
    """Numbers, truth values and lists are TOML's; what is none of these is a text, so that nobody quotes twice for a shell."""
    assert parse_change(text) == (key, value)


@pytest.mark.parametrize("text", ["evaluation.folds", "=3", "a b=3", "a.=3", "a\nb=3"])
def test_set_without_sense(text: str) -> None:
    """What is no key or has no value is a line, not a guess."""
    with pytest.raises(ProblemError, match=r"--set evaluation\.folds=10"):
        parse_change(text)


def test_a_change_reaches_a_name_with_dots(tmp_path: Path) -> None:
    """A slice may be called anything, in the file and on the command line."""
    path = write(tmp_path, FULL)
    key, value = parse_change('slices."over 60".at_least=65')
    assert load(path, {key: value}).slices["over 60"].at_least == 65
