"""Prints as JSON, for each database, the schema revision that it is at and the one that this MLflow needs; changes nothing.

Runs as MLflow's user, with MLFLOW_TRACKING_URI, MLFLOW_AUTH_CONFIG_PATH and PGPASSFILE set. A database without tables
has the revision null. `administrator` says whether the administrator is there.

Every deploy asks this, so it reads MLflow's files and does not import them: that takes as long as the rest of it twenty times over.
"""

import ast
import configparser
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import sqlalchemy
from alembic.runtime.migration import MigrationContext

# Where MLflow keeps its migrations, and the table in which alembic writes down how far they have come.
MIGRATIONS = {"mlflow": ("store/db_migrations", "alembic_version"), "mlflow_auth": ("server/auth/db/migrations", "alembic_version_auth")}


def _identifiers(migration: Path) -> dict[str, Any]:
    """Return what a migration's file calls itself and what it follows."""
    found = {}
    for statement in ast.parse(migration.read_bytes()).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=("revision" | "down_revision") as name)], value=ast.expr() as value):
                found[name] = ast.literal_eval(value)
            case ast.AnnAssign(target=ast.Name(id=("revision" | "down_revision") as name), value=ast.expr() as value):
                found[name] = ast.literal_eval(value)
    return found


def needed(folder: Path) -> str:
    """Return the revision that no other migration of a folder follows, as `alembic heads` does.

    Raises:
        SystemExit: There is not one such revision.
    """
    revisions: set[str] = set()
    followed: set[str] = set()
    for migration in folder.glob("versions/*.py"):
        found = _identifiers(migration)
        if "revision" in found:
            before = found.get("down_revision") or ()
            revisions.add(found["revision"])
            followed.update([before] if isinstance(before, str) else before)
    last = revisions - followed
    if len(last) != 1:
        sys.exit(f"{len(last)} of MLflow's migrations in {folder} are followed by none, and one should be")
    return last.pop()


def present(engine: sqlalchemy.Engine, table: str) -> str | None:
    """Return the schema revision that a database is at."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection, opts={"version_table": table}).get_current_revision()


def main() -> None:
    """Look at both databases."""
    found = importlib.util.find_spec("mlflow")
    if found is None or found.origin is None:
        sys.exit("mlflow is not installed here")
    auth = configparser.ConfigParser()
    auth.read(os.environ["MLFLOW_AUTH_CONFIG_PATH"])
    engines = {
        "mlflow": sqlalchemy.create_engine(os.environ["MLFLOW_TRACKING_URI"]),
        "mlflow_auth": sqlalchemy.create_engine(auth["mlflow"]["database_uri"]),
    }
    report: dict[str, Any] = {
        name: {"present": present(engines[name], table), "needed": needed(Path(found.origin).parent / folder)} for name, (folder, table) in MIGRATIONS.items()
    }
    report["administrator"] = False
    if report["mlflow_auth"]["present"]:
        with engines["mlflow_auth"].connect() as connection:
            query = sqlalchemy.text("SELECT count(*) FROM users WHERE username = :name")
            report["administrator"] = bool(connection.scalar(query, {"name": auth["mlflow"]["admin_username"]}))
    print(json.dumps(report))


if __name__ == "__main__":
    main()
