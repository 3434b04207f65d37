"""The file gate.json: what is written is read back, and nothing else is."""

import json
import stat
from pathlib import Path

import pytest
from longrun_training import gate_file
from longrun_training.errors import ProblemError
from longrun_training.judgement import Comparison, Judgement, RunReference, Verdict

RUN = RunReference(run_id="a" * 32, url="http://x/#/experiments/1/runs/a", experiment="houses", model="houses", version="3", commit="c" * 40)
COMPARISON = Comparison(
    metric="r2", scope="hold-out", kind="hold-out", direction="higher", baseline=-0.5, candidate=None, margin=0.1, rows=1, verdict=Verdict.FAIL, reason="NaN"
)
JUDGEMENT = Judgement(
    model="houses", verdict=Verdict.FAIL, exit_status=1, reason="r2 “fell”", judged_at="2026-11-26T07:00:00+00:00", candidate=RUN, comparisons=(COMPARISON,)
)


def test_written_and_read_back(tmp_path: Path) -> None:
    """The folder is made, nothing is lost, and nothing but the file is left."""
    path = tmp_path / "made" / "gate.json"
    gate_file.write(JUDGEMENT, path)
    gate_file.write(JUDGEMENT, path)
    assert gate_file.read(path) == JUDGEMENT
    assert json.loads(path.read_text(encoding="utf-8"))["comparisons"][0]["candidate"] is None
    assert [found.name for found in path.parent.iterdir()] == ["gate.json"]
    assert stat.S_IMODE(path.stat().st_mode) & 0o400
    # An unpublished judgement leaves no trace of an older one's baseline.
    assert gate_file.tags(JUDGEMENT)["longrun.gate.baseline"] == ""
    assert gate_file.tags(JUDGEMENT)["longrun.gate.verdict"] == "fail"


def test_a_file_that_is_none(tmp_path: Path) -> None:
    """One line says what is wrong: no file, no JSON, another format, a key that nobody knows."""
    path = tmp_path / "gate.json"
    with pytest.raises(ProblemError, match="does not exist: `longrun gate` writes it"):
        gate_file.read(path)
    good = json.loads(gate_file.to_json(JUDGEMENT))
    for text, fault in {
        "": "Invalid JSON",
        "\udcff": "can't be read",
        json.dumps({**good, "format": 2}): "format: Input should be 1",
        json.dumps({**good, "verdict": "great"}): "verdict: Input should be",
        json.dumps({**good, "surprise": 1}): "surprise: Extra inputs",
    }.items():
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(ProblemError, match=fault) as caught:
            gate_file.read(path)
        assert "\n" not in str(caught.value)


def test_no_place_for_the_file(tmp_path: Path) -> None:
    """A folder that is a file, and a file that is a folder, are a person's mistakes."""
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "gate.json", tmp_path / "folder"):
        with pytest.raises(ProblemError, match="can't be written"):
            gate_file.write(JUDGEMENT, path)
    assert sorted(found.name for found in tmp_path.iterdir()) == ["file", "folder"]
