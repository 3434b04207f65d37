"""Makes MLflow's tables and its administrator, with the password on standard input; does nothing where they are.

What `mlflow db upgrade`, `python -m mlflow.server.auth db upgrade` and the first start of a server do, one after the other: each of the three would import
all of MLflow anew, which takes much longer than what they do.
Runs as MLflow's user, with MLFLOW_TRACKING_URI, MLFLOW_AUTH_CONFIG_PATH and PGPASSFILE set.
"""

import os
import sys

os.environ["MLFLOW_AUTH_ADMIN_PASSWORD"] = sys.stdin.readline().rstrip("\n")

# Reads its configuration, the password included, while it is imported.
from mlflow.db import commands as runs
from mlflow.server.auth import auth_config, bootstrap_admin_user
from mlflow.server.auth.cli import commands as users

runs(["upgrade", os.environ["MLFLOW_TRACKING_URI"]], standalone_mode=False)
users(["db", "upgrade", "--url", auth_config.database_uri], standalone_mode=False)
bootstrap_admin_user()
