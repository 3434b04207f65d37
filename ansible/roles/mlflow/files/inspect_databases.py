"""Prints as JSON, for each database, the schema revision that it is at and the one that this MLflow needs; changes nothing.

Runs as MLflow's user, with MLFLOW_TRACKING_URI, MLFLOW_AUTH_CONFIG_PATH and PGPASSFILE set. A database without tables
has the revision null. `administrator` says whether the administrator is there.
"""

import json
import os
from typing import Any

import sqlalchemy
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from mlflow.server.auth.config import read_auth_config
from mlflow.server.auth.db import utils as auth_migrations
from mlflow.store.db import utils as migrations


def revision(engine: sqlalchemy.Engine, version_table: str) -> str | None:
    """Return the schema revision that a database is at."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection, opts={"version_table": version_table}).get_current_revision()


def main() -> None:
    """Look at both databases."""
    uri, auth = os.environ["MLFLOW_TRACKING_URI"], read_auth_config()
    tracking_engine, auth_engine = sqlalchemy.create_engine(uri), sqlalchemy.create_engine(auth.database_uri)
    report: dict[str, Any] = {
        "mlflow": {
            "present": revision(tracking_engine, "alembic_version"),
            "needed": ScriptDirectory.from_config(migrations._get_alembic_config(uri)).get_current_head(),
        },
        "mlflow_auth": {
            "present": revision(auth_engine, "alembic_version_auth"),
            "needed": ScriptDirectory.from_config(auth_migrations._get_alembic_config(auth.database_uri)).get_current_head(),
        },
        "administrator": False,
    }
    if report["mlflow_auth"]["present"]:
        with auth_engine.connect() as connection:
            query = sqlalchemy.text("SELECT count(*) FROM users WHERE username = :name")
            report["administrator"] = bool(connection.execute(query, {"name": auth.admin_username}).scalar())
    print(json.dumps(report))


if __name__ == "__main__":
    main()
