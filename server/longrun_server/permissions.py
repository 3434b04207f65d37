"""MLflow's own permission checks, asking less often: each is still made, for every request.

MLflow has no entry point for this, so functions of `mlflow.server.auth` are put in place of themselves (`install`). What each decides is MLflow's; what
changes is where the facts come from: accounts (`longrun_server.accounts`), the experiment of a run, and the login of the request at hand.
"""

# Most of MLflow's functions have no types.
# mypy: disable-error-code="no-untyped-call, no-any-return"

import threading
import time
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any, cast

from cachetools import TTLCache
from flask import Response, g, request
from mlflow.environment_variables import MLFLOW_ENABLE_WORKSPACES
from mlflow.exceptions import MlflowException
from mlflow.server.auth import (
    _after_request,
    _before_request,
    _run_requirement,
    _validate_can_update_run_and_models,
    auth_config,
    authenticate_request,
    filter_experiment_ids,
    make_forbidden_response,
    redact_get_run_model_links,
    redact_metric_history_model_ids,
    redact_search_runs_model_links,
    retention_gate,
    sender_is_admin,
    validate_can_log_batch,
)
from mlflow.server.auth.config import DEFAULT_AUTHORIZATION_FUNCTION
from mlflow.server.auth.permissions import RESOURCE_TYPE_EXPERIMENT, RESOURCE_TYPE_LOGGED_MODEL, RESOURCE_TYPE_RUN, RESOURCE_TYPE_WORKSPACE
from mlflow.server.auth.requirements import ACTION_NOT_DENIED, Requirement
from mlflow.server.handlers import _get_tracking_store
from mlflow.store.tracking.dbmodels.models import SqlRun
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy import select
from werkzeug.datastructures import Authorization

from longrun_server import batches
from longrun_server.accounts import Accounts
from longrun_server.sql import UnusualError
from longrun_server.sqlstore import SqlStore

# They read the whole answer, a search's hundred runs too, before they ask whether the user may see the logged models that it names. Almost all users may.
REDACTORS = (redact_get_run_model_links, redact_search_runs_model_links, redact_metric_history_model_ids)
# The experiment of a run is forever; a run that `mlflow gc` has removed is not.
RUN_SECONDS = 60
RUNS = 20_000
_LOGIN, _RUN = "_longrun_login", "_longrun_run"
_NOT_FOUND = 404

Needs = tuple[tuple[str, str], list[Requirement]]


class Runs:
    """The experiments of runs: of a run that was asked for lately from memory, else in a statement of its own; MLflow reads the whole run instead.

    Args:
        clock: Seconds, of any start.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._known: TTLCache[str, str] = TTLCache(RUNS, RUN_SECONDS, timer=clock)
        self._lock = threading.Lock()

    def requirement(self, run_id: Any, action: str) -> Needs | None:  # noqa: ANN401 - whatever the client sent
        """Return what a user needs for an action on a run, as MLflow's `_run_requirement` does; None where there is no such run."""
        experiment_id = self._experiment(run_id)
        if experiment_id is None:
            # It is MLflow that says what is wrong.
            needs: Needs | None = _run_requirement(run_id, action)
            return needs
        experiment = (RESOURCE_TYPE_EXPERIMENT, experiment_id)
        return experiment, [
            Requirement(RESOURCE_TYPE_EXPERIMENT, experiment_id, "read"),
            Requirement(RESOURCE_TYPE_RUN, "*", action, fallback_if_no_grant=(experiment,)),
        ]

    def are_gone(self, answer: Response) -> bool:
        """Return whether the request was let through for a run that is no more, which MLflow would have refused."""
        run_id: str | None = g.get(_RUN)
        if run_id is None or not (answer.status_code == _NOT_FOUND or (request.method == "GET" and answer.is_sequence and answer.get_data() == b"{}")):
            return False
        with self._lock:
            self._known.pop(run_id, None)
        try:
            return _look_up(run_id) is None
        except MlflowException:
            return False

    def _experiment(self, run_id: object) -> str | None:
        if not isinstance(run_id, str) or MLFLOW_ENABLE_WORKSPACES.get():
            return None
        with self._lock:
            known = self._known.get(run_id)
        if known is not None:
            setattr(g, _RUN, run_id)
            return known
        try:
            experiment_id = _look_up(run_id)
        except MlflowException:
            return None
        if experiment_id is not None:
            with self._lock:
                self._known[run_id] = experiment_id
        return experiment_id


def install(auth: ModuleType, accounts: Accounts, runs: Runs) -> None:
    """Put our own in place of functions of MLflow's, before it makes its application.

    Args:
        auth: `mlflow.server.auth`.
        accounts: In place of its store.
        runs: In place of the look-up of a run.
    """
    ours: dict[str, object] = {
        "store": accounts,
        "_before_request": partial(_check, accounts),
        "_after_request": partial(_check_after, runs),
        "_run_requirement": runs.requirement,
        "filter_experiment_ids": partial(_visible, accounts),
    }
    # A function of somebody else may have its reasons for being asked each time.
    if auth_config.authorization_function == DEFAULT_AUTHORIZATION_FUNCTION:
        ours["authenticate_request"] = _authenticate_once
    for name, each in ours.items():
        setattr(auth, name, each)
    for route, may in auth.BEFORE_REQUEST_VALIDATORS.items():
        if may is validate_can_log_batch:
            auth.BEFORE_REQUEST_VALIDATORS[route] = _can_log_batch
    for route, redact in auth.AFTER_REQUEST_HANDLERS.items():
        if redact in REDACTORS:
            auth.AFTER_REQUEST_HANDLERS[route] = partial(_redact, accounts, redact)


def _check(accounts: Accounts) -> Response | None:
    """Return MLflow's refusal of the request, or None."""
    return accounts.believe(_before_request, lambda refusal: refusal is None)


def _check_after(runs: Runs, answer: Response) -> Response:
    """Return the answer as MLflow lets it go out."""
    checked: Response = _after_request(make_forbidden_response() if runs.are_gone(answer) else answer)
    return checked


def _can_log_batch() -> bool:
    """Return whether the user may log the batch; which logged models it would log to only a message tells, and a plain batch names none."""
    try:
        batches.of_request()
    except (MlflowException, UnusualError):
        allowed: bool = validate_can_log_batch()
    else:
        allowed = _validate_can_update_run_and_models(set())
    return allowed


def _visible(accounts: Accounts, experiment_ids: list[str]) -> list[str]:
    """Return the experiments of a search that the user may see."""
    return accounts.believe(lambda: filter_experiment_ids(experiment_ids), lambda kept: len(kept) == len(experiment_ids))


def _redact(accounts: Accounts, redact: Callable[[Response], None], answer: Response) -> None:
    """Have MLflow take out of an answer what the user may not see, if there is such a thing."""
    if not accounts.believe(_sees_models, bool):
        redact(answer)


def _authenticate_once() -> Authorization | Response:
    """Return whose request this is; the second time without checking name and password again."""
    login: Authorization | Response | None = g.get(_LOGIN)
    if login is None:
        login = authenticate_request()
        if isinstance(login, Authorization):
            setattr(g, _LOGIN, login)
    return login


def _sees_models() -> bool:
    """Return whether the redactors have nothing to withhold from this user."""
    if sender_is_admin():
        return True
    # This handler runs after a request that MLflow has let through.
    username = cast("Authorization", _authenticate_once()).username
    gate = retention_gate(str(username), (RESOURCE_TYPE_WORKSPACE, "*"), [Requirement(RESOURCE_TYPE_LOGGED_MODEL, "*", ACTION_NOT_DENIED)])
    return bool(gate.retains(RESOURCE_TYPE_LOGGED_MODEL))


def _look_up(run_id: str) -> str | None:
    """Return the experiment of a run; None where there is none, or where the runs lie in no database."""
    store = _get_tracking_store()
    if not isinstance(store, SqlAlchemyStore):
        return None
    if isinstance(store, SqlStore):
        try:
            return store.experiment_of(run_id)
        except UnusualError:
            pass
    with store.ManagedSessionMaker() as session:
        experiment_id = session.execute(select(SqlRun.experiment_id).where(SqlRun.run_uuid == run_id)).scalar_one_or_none()
    return None if experiment_id is None else str(experiment_id)
