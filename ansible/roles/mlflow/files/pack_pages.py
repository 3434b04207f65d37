"""Packs the files of MLflow's pages beside themselves, so that nginx hands them out as they are: `pack_pages.py LINK`.

LINK is made last and points to their folder; it says that all of them are packed.
"""

import gzip
import importlib.util
import sys
from pathlib import Path

PACKED = {".cjs", ".css", ".html", ".js", ".json", ".mjs", ".svg", ".txt"}
SMALLEST_BYTES = 1024

link = Path(sys.argv[1])
# Where MLflow lies, without the seconds that importing it takes.
found = importlib.util.find_spec("mlflow")
if found is None or found.origin is None:
    sys.exit("mlflow is not installed here")
pages = Path(found.origin).parent / "server" / "js" / "build"
for path in sorted(pages.rglob("*")):
    if path.suffix in PACKED and path.stat().st_size >= SMALLEST_BYTES:
        packed = path.with_name(f"{path.name}.gz")
        packed.write_bytes(gzip.compress(path.read_bytes(), 9, mtime=0))
        packed.chmod(0o644)
link.symlink_to(pages)
