"""`python -m longrun_server`: MLflow's command becomes the server that it would have started."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

STARTS = "import mlflow.server; from longrun_server.__main__ import become; become({command!r}, extra_env={{'ADDED': 'yes'}}, synchronous=False)"
SAYS = "import os; print(os.getpid(), os.environ['ADDED'], os.environ['KEPT'])"
ROOT = Path(__file__).parents[3]


def test_it_becomes_the_command() -> None:
    """The same process, with both environments."""
    program = STARTS.format(command=[sys.executable, "-c", SAYS])
    environment = {**os.environ, "KEPT": "yes", "PYTHONPATH": str(ROOT / "server"), "MLFLOW_DISABLE_TELEMETRY": "true"}
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment)
    output, _ = process.communicate(timeout=120)
    assert output.split() == [str(process.pid), "yes", "yes"]


@pytest.mark.parametrize(
    ("added", "way"),
    [
        pytest.param({"_MLFLOW_SGI_NAME": "uvicorn", "MLFLOW_TRACKING_URI": "sqlite://"}, "here", id="read-later"),
        pytest.param({"prometheus_multiproc_dir": "/nowhere"}, "anew", id="read-when-imported"),
    ],
)
def test_uvicorn_runs_here_unless_mlflow_had_to_know_more(added: dict[str, str], way: str) -> None:
    """What is imported is not imported again; where MLflow reads something while it is imported, it is."""
    program = (
        "import os, sys; import longrun_server.__main__ as main; os.execvp = lambda *_: print('anew')\n"
        f"main.become([sys.executable, '-m', 'uvicorn', '--version'], extra_env={added!r}, synchronous=False)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "server"), "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert ("anew" if "anew" in done.stdout else "here" if "Running uvicorn" in done.stdout else done.stdout) == way


def test_mlflow_knows_that_a_server_imports_it() -> None:
    """Else it would leave its own checks of host and origin out."""
    program = "import longrun_server.__main__, mlflow.server; print(bool(mlflow.server.is_running_as_server))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "server"), "MLFLOW_DISABLE_TELEMETRY": "true"}
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment).stdout == "True\n"


def test_a_wrong_call_is_mlflows_to_answer(tmp_path: Path) -> None:
    """In its words, and nothing is started."""
    done = subprocess.run(
        [sys.executable, "-m", "longrun_server", "server", "--no-such-option"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "server"), "MLFLOW_DISABLE_TELEMETRY": "true"},
    )
    assert done.returncode == 2
    assert "Usage: mlflow server" in done.stderr
