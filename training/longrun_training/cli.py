"""The command line: one command a verb, and what a failure looks like."""

import os
import signal
import sys
import traceback
from types import FrameType

import typer
from typer.main import get_command

from longrun_training import terminal
from longrun_training.commands import gate, override, promote, reap, report, rollback, sync, train
from longrun_training.errors import OutageError, ProblemError, StoppedError

# Exit statuses: a wrong call or a problem that a person can put right; a server that is away; Ctrl-C and SIGTERM as shells give them.
PROBLEM, OUTAGE, SIGNALLED = 4, 3, 128
# Set, it shows where a bug is.
TRACEBACK = "LONGRUN_TRACEBACK"

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich")


@app.callback()
def longrun() -> None:
    """Train models against a shared MLflow server, and let none through that is worse than the one before.

    The server is the one that MLFLOW_TRACKING_URI, _USERNAME, _PASSWORD and _SERVER_CERT_PATH name: eval "$(make -s env)" sets them.
    """


for module in (train, gate, report, promote, rollback, override, sync, reap):
    name = module.__name__.rpartition(".")[2]
    app.command(name, epilog=module.EPILOG)(getattr(module, name))


def _stop(number: int, _frame: FrameType | None) -> None:
    raise StoppedError(number)


def _run() -> int:
    try:
        return int(get_command(app).main(args=sys.argv[1:], prog_name="longrun", standalone_mode=False) or 0)
    except typer.Exit as ended:
        return ended.exit_code


def main() -> None:
    """Run the command line; a person's error is one line and status 4, and a traceback is shown only to who asks for it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        status = _run()
    except OutageError as error:
        terminal.fail(str(error))
        status = OUTAGE
    except ProblemError as error:
        terminal.fail(str(error))
        status = PROBLEM
    except StoppedError as stop:
        notes = getattr(stop, "__notes__", [])
        terminal.fail(f"interrupted: {notes[0]}" if notes else "interrupted")
        status = SIGNALLED + stop.number
    except Exception as error:  # noqa: BLE001 - a traceback is a bug, so none is shown
        if hasattr(error, "format_message"):
            # What click calls a wrong use: an option that is not there, a value that is no number.
            context = getattr(error, "ctx", None)
            command = context.command_path if context else "longrun"
            terminal.fail(f"{' '.join(error.format_message().split()).rstrip('.')}: see {command} --help")
        else:
            if os.environ.get(TRACEBACK):
                traceback.print_exc()
            happened = " ".join(f"{type(error).__name__}: {error}".split())
            terminal.fail("; ".join([f"a bug in longrun: {happened}", *getattr(error, "__notes__", []), f"{TRACEBACK}=1 shows where"]))
        status = PROBLEM
    sys.exit(status)


if __name__ == "__main__":
    main()
