"""What the role mlflow reads from MLflow's files, held against what alembic says of them."""

import importlib.util
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from tests.servers import ROOT

PROGRAM = ROOT / "ansible" / "roles" / "mlflow" / "files" / "inspect_databases.py"
spec = importlib.util.spec_from_file_location("inspect_databases", PROGRAM)
assert spec
assert spec.loader
program = importlib.util.module_from_spec(spec)
spec.loader.exec_module(program)


def migration(folder: Path, name: str, text: str) -> None:
    """Write a migration's file."""
    (folder / "versions").mkdir(exist_ok=True)
    (folder / "versions" / f"{name}.py").write_text(text)


@pytest.mark.parametrize("name", ["mlflow", "mlflow_auth"])
def test_needed_is_the_head_that_alembic_finds(name: str) -> None:
    """For both of this MLflow's databases."""
    found = importlib.util.find_spec("mlflow")
    assert found
    assert found.origin
    folder = Path(found.origin).parent / program.MIGRATIONS[name][0]
    configuration = Config()
    configuration.set_main_option("script_location", str(folder))
    assert program.needed(folder) == ScriptDirectory.from_config(configuration).get_current_head()


def test_a_merge_follows_both(tmp_path: Path) -> None:
    """Alembic writes both revisions down in a tuple, and newer templates give types."""
    migration(tmp_path, "a", 'revision = "a"\ndown_revision = None\n')
    migration(tmp_path, "b", 'revision: str = "b"\ndown_revision: str | None = "a"\n')
    migration(tmp_path, "c", 'revision = "c"\ndown_revision = "a"\n')
    migration(tmp_path, "d", 'revision = "d"\ndown_revision = ("b", "c")\n')
    migration(tmp_path, "helper", "import os\n")
    assert program.needed(tmp_path) == "d"


def test_two_heads_are_refused(tmp_path: Path) -> None:
    """A deploy that does not know what is needed must not go on."""
    with pytest.raises(SystemExit, match="0 of MLflow's migrations"):
        program.needed(tmp_path)
    migration(tmp_path, "a", 'revision = "a"\ndown_revision = None\n')
    migration(tmp_path, "b", 'revision = "b"\ndown_revision = None\n')
    with pytest.raises(SystemExit, match="2 of MLflow's migrations"):
        program.needed(tmp_path)
