"""Makes MLflow's administrator with the password on standard input; does nothing where there is one."""

import os
import sys

os.environ["MLFLOW_AUTH_ADMIN_PASSWORD"] = sys.stdin.readline().rstrip("\n")

# Reads its configuration, the password included, while it is imported.
from mlflow.server.auth import bootstrap_admin_user

bootstrap_admin_user()
