"""Notes beside a spooled run what `sync_spools.py` needs to judge it later; the output `waiting` says whether there is one.

LONGRUN_SPOOL names the spool, CONFIG the model's longrun.toml, NOTE the file to write.
"""

import json
import os
from pathlib import Path

import runner

FORMAT = 1


def main() -> None:
    """Write the note where a run waits in the spool."""
    spool = Path(runner.needed("LONGRUN_SPOOL"))
    waiting = sorted(path.parent.name for path in spool.glob("*/journal.sqlite3"))
    runner.output("waiting", str(bool(waiting)).lower())
    if not waiting:
        return
    note = {"format": FORMAT, "config": runner.needed("CONFIG"), "commit": os.environ.get("COMMIT", ""), "runs": waiting}
    Path(runner.needed("NOTE")).write_text(json.dumps(note), encoding="utf-8")
    runner.warning(f"the server was away, so {len(waiting)} run(s) wait in this job's artifact for `longrun sync`, which the nightly workflow calls")


if __name__ == "__main__":
    main()
