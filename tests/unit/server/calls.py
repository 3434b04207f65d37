"""The same calls to MLflow's own application and to ours, each in a process of its own, for both change MLflow's modules: `python -m tests.unit.server.calls`.

Arguments: `stock` or `ours`, and a folder with a copy of the databases, where `answers.json` gets a list of answers, one a call.
"""

# Most of MLflow's functions have no types.
# mypy: disable-error-code="no-untyped-call, no-any-return"

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from tests.unit.server import lives
from tests.unit.server.asked import AJAX, API, DELETED, MODEL, MODEL_RUN, PASSWORD, RUN, SHUT_RUN, UNKNOWN, Asked, Call, plain

ADMIN = "root"
# What each may do with the experiment "open"; "shut" is nobody's.
USERS = ("nobody", "reader", "editor", "manager", "no-runs", "no-models", "by-role", "by-star", ADMIN)
ASK_EVERYTHING = ("nobody", "editor", "no-runs", ADMIN)
# Who goes the whole way of a client, and who tries each of MLflow's routes with wrong content.
LIVE = ("nobody", "reader", "editor", "manager", "no-models", ADMIN)
SWEEP = ("editor", ADMIN)
PERMISSIONS = "/api/3.0/mlflow/users/permissions/"
# Runs that the calls make are the same to a search: it may list them in any order.
OLD = "attributes.run_name != 'new'"


def calls(opened: str, shut: str) -> list[Call]:
    """Return what each user asks for.

    Args:
        opened: Identifier of the experiment with permissions.
        shut: Of the one without.
    """
    metric = {"key": "loss", "value": 0.5, "timestamp": 1, "step": 3}
    both = [opened, shut]
    return [
        ("GET", f"{API}runs/get?run_id={RUN}", None),
        ("GET", f"{AJAX}runs/get?run_uuid={RUN}", None),
        ("GET", f"{API}runs/get?run_id={DELETED}", None),
        ("GET", f"{API}runs/get?run_id={MODEL_RUN}", None),
        ("GET", f"{API}runs/get?run_id={SHUT_RUN}", None),
        ("GET", f"{API}runs/get?run_id={UNKNOWN}", None),
        ("GET", f"{API}runs/get", None),
        ("HEAD", f"{API}runs/get?run_id={RUN}", None),
        ("OPTIONS", f"{API}runs/get?run_id={RUN}", None),
        ("POST", f"{API}runs/get", {"run_id": RUN}),
        ("GET", f"{API}runs/get/?run_id={RUN}", None),
        ("GET", f"{API}metrics/get-history?run_id={RUN}&metric_key=loss", None),
        ("GET", f"{API}metrics/get-history?run_id={RUN}&metric_key=loss&max_results=1", None),
        ("GET", f"{API}metrics/get-history?run_id={RUN}&metric_key=none", None),
        ("GET", f"{API}metrics/get-history?run_id={MODEL_RUN}&metric_key=loss", None),
        ("GET", f"{API}metrics/get-history?run_id={UNKNOWN}&metric_key=loss", None),
        ("GET", f"{API}metrics/get-history?run_id={SHUT_RUN}&metric_key=loss", None),
        ("GET", f"{AJAX}metrics/get-history-bulk?run_id={RUN}&metric_key=loss", None),
        ("POST", f"{API}runs/search", {"experiment_ids": both, "filter": OLD, "order_by": ["attributes.run_name"]}),
        ("POST", f"{AJAX}runs/search", {"experiment_ids": [opened], "filter": "metrics.loss > 0", "max_results": 2}),
        ("POST", f"{API}runs/search", {"experiment_ids": [opened], "max_results": 60000}),
        ("POST", f"{API}runs/search", {"experiment_ids": []}),
        ("POST", f"{API}runs/create", {"experiment_id": opened, "start_time": 5, "run_name": "new"}),
        ("POST", f"{API}runs/create", {"experiment_id": shut, "start_time": 5, "run_name": "new"}),
        ("POST", f"{API}runs/create", {"experiment_id": "77", "start_time": 5}),
        ("POST", f"{API}runs/create", {"run_name": "new"}),
        ("POST", f"{API}runs/log-metric", {"run_id": RUN, **metric}),
        ("POST", f"{API}runs/log-metric", {"run_id": RUN, **metric, "key": "nan", "value": "NaN"}),
        ("POST", f"{API}runs/log-metric", {"run_id": RUN, **metric, "modelId": MODEL}),
        ("POST", f"{API}runs/log-metric", {"run_id": RUN, **metric, "model_id": "m-unknown"}),
        ("POST", f"{API}runs/log-metric", {"run_id": DELETED, **metric}),
        ("POST", f"{API}runs/log-metric", {"run_id": UNKNOWN, **metric}),
        ("POST", f"{API}runs/log-metric", {"run_id": 7, **metric}),
        ("POST", f"{API}runs/log-metric", b"{not json"),
        ("POST", f"{API}runs/log-metric", b""),
        ("POST", f"{API}runs/log-batch", {"run_id": RUN, "metrics": [metric, {**metric, "key": "acc", "step": 9}], "params": [{"key": "p", "value": "1"}]}),
        ("POST", f"{API}runs/log-batch", {"run_id": RUN, "metrics": [{"key": "x"}]}),
        ("POST", f"{API}runs/log-batch", {"run_id": SHUT_RUN, "metrics": [metric]}),
        ("POST", f"{API}runs/log-batch", {"runId": SHUT_RUN, "metrics": [metric]}),
        ("POST", f"{API}runs/log-batch", {"run_id": RUN, "metrics": [metric, {**metric, "model_id": MODEL}]}),
        ("POST", f"{API}runs/log-batch", {"run_id": RUN, "metrics": [{**metric, "modelId": MODEL}]}),
        ("POST", f"{API}runs/log-batch", {"run_id": RUN, "metrics": [{**metric, "model_id": "m-unknown"}]}),
        ("POST", f"{API}runs/log-batch", {"run_id": RUN, "metrics": [{**metric, "value": "NaN"}], "tags": [{"key": "t", "value": "w"}]}),
        ("POST", f"{API}runs/log-batch", {"run_id": RUN, "params": [{"key": "p", "value": "2"}]}),
        ("POST", f"{AJAX}runs/log-batch", {"run_id": DELETED, "metrics": [metric]}),
        ("POST", f"{API}runs/log-batch", {"run_id": UNKNOWN, "metrics": [metric]}),
        ("POST", f"{API}runs/log-batch", b""),
        ("POST", f"{API}runs/log-parameter", {"run_id": RUN, "key": "k", "value": "v"}),
        ("POST", f"{API}runs/set-tag", {"run_id": RUN, "key": "t", "value": '\u00fc\u2028"\\'}),
        ("POST", f"{API}runs/delete-tag", {"run_id": RUN, "key": "absent"}),
        ("POST", f"{API}runs/update", {"run_id": RUN, "status": "FINISHED", "end_time": 9}),
        ("POST", f"{API}runs/delete", {"run_id": SHUT_RUN}),
        ("GET", f"{API}experiments/get?experiment_id={opened}", None),
        ("GET", f"{API}experiments/get?experiment_id={shut}", None),
        ("GET", f"{API}experiments/get-by-name?experiment_name=open", None),
        ("GET", f"{API}experiments/get-by-name?experiment_name=absent", None),
        ("POST", f"{API}experiments/search", {"max_results": 10}),
        ("POST", f"{API}experiments/set-experiment-tag", {"experiment_id": opened, "key": "a", "value": "b"}),
        ("GET", f"{API}registered-models/search", None),
        ("GET", f"{API}users/current", None),
        ("GET", f"{API}users/get?username=reader", None),
        ("GET", "/version", None),
        ("GET", f"/get-artifact?run_id={RUN}&path=a.txt", None),
        ("GET", f"{API}artifacts/list?run_id={RUN}", None),
        ("GET", f"/get-artifact?run_id={SHUT_RUN}&path=a.txt", None),
        ("GET", f"/get-artifact?run_id={RUN}&path=absent.txt", None),
    ]


# With a login, what it is told of besides, and a call: what has nothing to do with permissions.
STRANGE: list[tuple[str, dict[str, str], Call]] = [
    ("editor", {"host": "elsewhere"}, ("GET", f"{API}runs/get?run_id={RUN}", None)),
    ("editor", {"origin": "https://elsewhere"}, ("POST", f"{API}runs/search", {"experiment_ids": []})),
    ("editor", {"origin": "https://localhost"}, ("POST", f"{API}runs/search", {"experiment_ids": []})),
    ("editor", {"origin": "https://localhost", "access-control-request-method": "POST"}, ("OPTIONS", f"{API}runs/search", None)),
    ("editor", {"x-mlflow-workspace": "other"}, ("GET", f"{API}runs/get?run_id={RUN}", None)),
    ("editor", {"x-mlflow-workspace": " "}, ("GET", f"{API}runs/get?run_id={RUN}", None)),
    ("editor", {"content-type": "text/plain"}, ("POST", f"{API}runs/search", {"experiment_ids": []})),
    ("editor", {"authorization": "Bearer x"}, ("GET", f"{API}runs/get?run_id={RUN}", None)),
    ("editor", {"authorization": "Basic !"}, ("GET", f"{API}runs/get?run_id={RUN}", None)),
    ("editor", {}, ("GET", f"{API}runs/search-not", None)),
    ("editor", {}, ("PUT", f"{API}runs/create", {"experiment_id": "1"})),
]
WITHOUT_A_LOGIN = (0, 1, 6, 11, 18, 22, 26, 35, 46)


def environment(folder: Path) -> dict[str, str]:
    """Return the environment that `mlflow server` would hand to an instance."""
    return {
        "_MLFLOW_SERVER_FILE_STORE": (folder / "tracking").read_text(encoding="utf-8"),
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": f"{folder}/artifacts",
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SGI_NAME": "uvicorn",
        "MLFLOW_AUTH_CONFIG_PATH": f"{folder}/auth.ini",
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "of no use",
        "MLFLOW_SERVER_ALLOWED_HOSTS": "localhost",
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": "https://localhost",
        "MLFLOW_SERVER_X_FRAME_OPTIONS": "DENY",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def ask_all(asked: Asked, opened: str, shut: str) -> None:
    """Ask as everybody."""
    table = calls(opened, shut)
    for number in WITHOUT_A_LOGIN:
        asked.ask(None, table[number])
    for number in WITHOUT_A_LOGIN[::4]:
        asked.ask("editor", table[number], "not the password")
        asked.ask("absent", table[number])
    for user in USERS:
        for call in table if user in ASK_EVERYTHING else table[::2]:
            asked.ask(user, call)
    for user, headers, call in STRANGE:
        asked.ask(user, call, headers=headers)


def change_all(asked: Asked, opened: str, behind: Any, wait: Any) -> None:  # noqa: ANN401, PLR0915 - a store of MLflow's; one change after the other
    """Change users and permissions, through the server and behind its back, and ask after each.

    Args:
        asked: Where to ask.
        opened: Identifier of an experiment.
        behind: A second auth store on the same database, as another instance has it.
        wait: Lets the time go by after which nothing is remembered.
    """
    get: Call = ("GET", f"{API}runs/get?run_id={RUN}", None)
    search: Call = ("POST", f"{API}runs/search", {"experiment_ids": [opened], "filter": OLD, "order_by": ["attributes.run_name"]})
    write: Call = ("POST", f"{API}runs/set-tag", {"run_id": RUN, "key": "c", "value": "d"})
    users: Call = ("GET", f"{API}users/list", None)
    on = {"username": "nobody", "resource_type": "experiment", "resource_id": opened}

    def look(user: str = "nobody", password: str = PASSWORD) -> None:
        for call in (get, search, write, users, get):
            asked.ask(user, call, password)

    look()
    asked.ask(ADMIN, ("POST", f"{PERMISSIONS}grant", {**on, "permission": "READ"}))
    look()
    asked.ask(ADMIN, ("POST", f"{PERMISSIONS}revoke", on))
    look()
    behind.grant_user_permission("nobody", "experiment", opened, "EDIT")
    look()
    behind.revoke_user_resource_permission("nobody", "experiment", opened)
    wait()
    look()
    behind.grant_user_permission("nobody", "experiment", opened, "EDIT")
    behind.grant_user_permission("nobody", "run", "*", "DENY")
    look()
    behind.revoke_user_resource_permission("nobody", "run", "*")
    look()
    # What is withheld from an answer.
    model: Call = ("GET", f"{API}runs/get?run_id={MODEL_RUN}", None)
    asked.ask("no-models", model)
    behind.revoke_user_resource_permission("no-models", "logged_model", "*")
    asked.ask("no-models", model)
    asked.ask(ADMIN, ("POST", f"{PERMISSIONS}grant", {"username": "no-models", "resource_type": "logged_model", "resource_id": "*", "permission": "DENY"}))
    asked.ask("no-models", model)
    # Administrators come and go.
    behind.update_user("nobody", is_admin=True)
    look()
    behind.update_user("nobody", is_admin=False)
    wait()
    look()
    asked.ask(ADMIN, ("PATCH", f"{API}users/update-admin", {"username": "nobody", "is_admin": True}))
    look()
    asked.ask(ADMIN, ("PATCH", f"{API}users/update-admin", {"username": "nobody", "is_admin": False}))
    look()
    # Passwords.
    asked.ask("nobody", ("PATCH", f"{API}users/update-password", {"username": "nobody", "password": "another password 2", "current_password": PASSWORD}))
    look()
    look(password="another password 2")  # noqa: S106 - of nobody
    behind.update_user("nobody", password=PASSWORD)
    look()
    wait()
    look(password="another password 2")  # noqa: S106 - of nobody
    # A user who is gone, and another one of the same name with nothing granted.
    asked.ask(ADMIN, ("DELETE", f"{API}users/delete", {"username": "editor"}))
    look("editor")
    asked.ask(ADMIN, ("POST", f"{API}users/create", {"username": "editor", "password": PASSWORD}))
    look("editor")
    look("manager")
    behind.delete_user("manager")
    behind.create_user("manager", "the second manager 3")
    look("manager", "the second manager 3")
    # A role, its grants, and who has it.
    role = behind.create_role(name="writers", workspace="default")
    behind.assign_role_to_user(behind.get_user("nobody").id, role.id)
    grant = behind.add_role_permission(role.id, "experiment", opened, "MANAGE")
    look()
    asked.ask(ADMIN, ("DELETE", "/api/3.0/mlflow/roles/permissions/remove", {"role_permission_id": grant.id}))
    look()


def main(which: str, folder: Path) -> None:
    """Ask MLflow's application, or ours, and write down the answers."""
    os.environ |= environment(folder)
    from cachetools import TTLCache  # noqa: PLC0415 - MLflow's modules read the environment
    from mlflow.server import auth, handlers  # noqa: PLC0415
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore  # noqa: PLC0415

    now = [0.0]

    def clock() -> float:
        return now[0]

    def wait() -> None:
        now[0] += 61

    auth._USER_AUTH_CACHE = TTLCache(100, 60, timer=clock)
    if which == "ours":
        from longrun_server import accounts, app, dispatch, permissions  # noqa: PLC0415

        vars(accounts)["Accounts"] = partial(accounts.Accounts, clock=clock)
        vars(permissions)["Runs"] = partial(permissions.Runs, clock=clock)
        made: Any = app.create_app()
        layers = made.user_middleware
        assert layers[0].cls is dispatch.ShortWay
        assert ("GET", f"{API}runs/get") in layers[0].kwargs["routes"]
        assert type(auth.store).__name__ == "Accounts"
    else:
        from longrun_server import store  # noqa: PLC0415

        # Else MLflow would find ours by its entry point.
        vars(store)["CHECKED"] = frozenset()
        made = auth.create_app()
    assert type(handlers._get_tracking_store()).__name__ == ("SqlStore" if which == "ours" else "SqlAlchemyStore")
    behind = SqlAlchemyStore()
    behind.init_db(auth.auth_config.database_uri)
    ids = json.loads((folder / "experiments.json").read_text(encoding="utf-8"))
    asked = Asked(made)
    ask_all(asked, ids["open"], ids["shut"])
    for user in LIVE:
        lives.live(asked, user, ids["open"], ids["shut"])
    for call in lives.sweep(handlers.get_endpoints()):
        for who in SWEEP if call[2] else (None, *SWEEP):
            asked.ask(who, call)
    # A run that `mlflow gc` removes, after it was asked for.
    gone = asked.ask(ADMIN, ("POST", f"{API}runs/create", {"experiment_id": ids["open"], "start_time": 5, "run_name": "new"}))["run"]["info"]["run_id"]
    of_gone: list[Call] = [
        ("GET", f"{API}runs/get?run_id={gone}", None),
        ("GET", f"{API}metrics/get-history?run_id={gone}&metric_key=loss", None),
        ("POST", f"{API}runs/set-tag", {"run_id": gone, "key": "c", "value": "d"}),
        ("GET", f"{API}metrics/get-history?run_id={gone}&metric_key=loss", None),
    ]
    for call in of_gone:
        asked.ask("editor", call)
    handlers._get_tracking_store()._hard_delete_run(gone)  # type: ignore[attr-defined]
    for call in of_gone[1:] + of_gone[:1]:
        asked.ask("editor", call)
    change_all(asked, ids["open"], behind, wait)
    (folder / "answers.json").write_text(json.dumps([{**each, "what": plain(each["what"])} for each in asked.answers]), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
