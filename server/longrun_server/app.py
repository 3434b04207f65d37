"""The entry point of group `mlflow.app`: MLflow's own server with logins, a shorter way through it, and tickets for artifacts."""

# Most of MLflow's functions have no types.
# mypy: disable-error-code="no-untyped-call, no-any-return"

import os
from urllib.parse import urlsplit

import boto3
import mlflow.server.auth
import mlflow.server.handlers
from botocore.config import Config
from fastapi import FastAPI
from flask import Flask
from mlflow.environment_variables import MLFLOW_ENABLE_WORKSPACES, MLFLOW_S3_ENDPOINT_URL
from mlflow.server.auth import create_app as create_mlflow_app
from starlette.middleware import Middleware

from longrun_server import seams
from longrun_server.tickets import Bucket, Tickets

# Where the artifacts lie, as the instance's environment says.
DESTINATION = "MLFLOW_ARTIFACTS_DESTINATION"


def bucket() -> Bucket | None:
    """Return the bucket of this server's artifacts; None where they lie in no S3 store of our own, or where a workspace decides where in it."""
    destination = urlsplit(os.environ.get(DESTINATION, ""))
    if destination.scheme != "s3" or not MLFLOW_S3_ENDPOINT_URL.get() or MLFLOW_ENABLE_WORKSPACES.get():
        return None
    # The keys come from the environment, as MLflow's own client takes them.
    config = Config(signature_version="s3v4", s3={"addressing_style": "path"})
    client = boto3.client("s3", endpoint_url=MLFLOW_S3_ENDPOINT_URL.get(), config=config)
    return Bucket(client, destination.netloc, destination.path.strip("/"))


def create_app() -> FastAPI | Flask:
    """Return MLflow's application with our middleware inside its own: what reaches ours, MLflow has let through."""
    is_known = seams.fit()
    if is_known:
        _ask_less()
    made = create_mlflow_app()
    place = bucket()
    if isinstance(made, FastAPI) and place is not None:
        # The last one of the list is the innermost: authentication and permissions come before it.
        made.user_middleware.append(Middleware(Tickets, bucket=place))
    if isinstance(made, FastAPI) and is_known:
        _shorten(made)
    if is_known:
        _write_at_once()
    return made


def _ask_less() -> None:
    # Names that another version may not have: so they are imported here.
    from longrun_server import answers, permissions  # noqa: PLC0415
    from longrun_server.accounts import Accounts  # noqa: PLC0415

    config = mlflow.server.auth.auth_config
    permissions.install(mlflow.server.auth, Accounts(config.auth_cache_ttl_seconds, config.auth_cache_max_size), permissions.Runs())
    answers.install(mlflow.server.handlers)


def _shorten(made: FastAPI) -> None:
    from longrun_server import dispatch  # noqa: PLC0415

    dispatch.shorten(made, mlflow.server.app)


def _write_at_once() -> None:
    from longrun_server import views  # noqa: PLC0415

    views.install(mlflow.server.app)
