"""What actions/upload-artifact does with the few inputs that our workflows give it."""

import json
import os
import re
import sys
import time
import zipfile
from pathlib import Path

# What the action refuses in a name, and the wildcards that this stand-in does not know.
FORBIDDEN, WILDCARDS = re.compile(r'[":<>|*?\r\n\\/]'), re.compile(r"[*?\[\]!]")


def main() -> int:
    """Zip the files, and note whose they are."""
    workspace, store = Path(os.environ["GITHUB_WORKSPACE"]), Path(os.environ["LONGRUN_STAND_INS"], "artifacts")
    name, run = os.environ["UPLOAD_NAME"], int(os.environ["GITHUB_RUN_ID"])
    wanted = [line.strip() for line in os.environ["UPLOAD_PATH"].splitlines() if line.strip()]
    if FORBIDDEN.search(name) or any(WILDCARDS.search(path) for path in wanted):
        print(f"::error::the name {name!r} or a path of {wanted} can't be used")
        return 1
    hidden = os.environ["UPLOAD_HIDDEN"] == "true"
    searched = [workspace / path for path in wanted]
    files = sorted({file for path in searched for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()})
    kept = [file for file in files if hidden or not any(part.startswith(".") for part in file.relative_to(workspace).parts)]
    if not kept:
        kind = os.environ["UPLOAD_NOTHING"]
        print(f"::{'error' if kind == 'error' else 'warning'}::no files were found with the provided path: {', '.join(wanted)}")
        return int(kind == "error")
    store.mkdir(parents=True, exist_ok=True)
    taken = [note for path in store.glob("*.json") if (note := json.loads(path.read_text()))["run"] == run and note["name"] == name]
    if taken:
        print(f"::error::an artifact with the name {name} exists already on this run")
        return 1
    # One file lies at the root; of several places, what they have in common is cut off.
    root = (
        searched[0] if len(searched) == 1 and searched[0].is_dir() else Path(os.path.commonpath([path.parent if path.is_file() else path for path in searched]))
    )
    identifier = time.time_ns() // 1000
    with zipfile.ZipFile(store / f"{identifier}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in kept:
            archive.write(file, file.relative_to(root))
    (store / f"{identifier}.json").write_text(json.dumps({"id": identifier, "name": name, "run": run}))
    print(f"artifact {name}: {len(kept)} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
