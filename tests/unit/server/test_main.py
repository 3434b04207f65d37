"""`python -m longrun_server`: MLflow's command becomes the server that it would have started."""

import os
import subprocess
import sys
from pathlib import Path

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
