"""The entry point of group `mlflow.tracking_store`: which store answers for a PostgreSQL URI.

MLflow loads this while it is itself being imported, so it imports nothing of MLflow before it is asked for a store.
"""

# MLflow gives no types to most of what is called here.
# mypy: disable-error-code="no-untyped-call, no-any-return"

import logging
import os
from typing import TYPE_CHECKING

from mlflow.version import VERSION

from longrun_server.seams import CHECKED

if TYPE_CHECKING:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

# The only driver whose connections ours can use.
DRIVER = "psycopg2"
_logger = logging.getLogger(__name__)


def build(store_uri: str, artifact_uri: str | None = None) -> "SqlAlchemyStore":
    """Return our store, or MLflow's own where ours has not been checked: another MLflow, workspaces, a read replica, another driver.

    Args:
        store_uri: `postgresql://...`, as SQLAlchemy reads it.
        artifact_uri: Where new experiments keep their artifacts; None for MLflow's own choice.
    """
    # MLflow's own builders are private, and there is one for servers and one for clients.
    from mlflow.environment_variables import MLFLOW_ENABLE_WORKSPACES  # noqa: PLC0415
    from mlflow.server.constants import READ_REPLICA_BACKEND_STORE_URI_ENV_VAR  # noqa: PLC0415
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH  # noqa: PLC0415
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore  # noqa: PLC0415
    from mlflow.store.tracking.sqlalchemy_workspace_store import WorkspaceAwareSqlAlchemyStore  # noqa: PLC0415
    from mlflow.tracking._tracking_service.utils import _SERVER_ARTIFACT_ROOT_ENV_VAR  # noqa: PLC0415
    from sqlalchemy import make_url  # noqa: PLC0415

    replica = os.environ.get(READ_REPLICA_BACKEND_STORE_URI_ENV_VAR)
    root = artifact_uri or os.environ.get(_SERVER_ARTIFACT_ROOT_ENV_VAR, DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH)
    if MLFLOW_ENABLE_WORKSPACES.get():
        return WorkspaceAwareSqlAlchemyStore(store_uri, root, read_db_uri=replica)
    if VERSION not in CHECKED:
        _logger.warning(
            "longrun's tracking store was checked with MLflow %s, not with %s: MLflow's own store answers, as correct and slower",
            ", ".join(sorted(CHECKED)),
            VERSION,
        )
    elif replica is None and make_url(store_uri).get_dialect().driver == DRIVER:
        from longrun_server.sqlstore import SqlStore  # noqa: PLC0415

        return SqlStore(store_uri, root)
    return SqlAlchemyStore(store_uri, root, read_db_uri=replica)
