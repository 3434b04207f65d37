"""What of MLflow's inside we lean on, as it was when it was read: where this fails, read it again, then note the new version in `longrun_server.seams`."""

import hashlib
import inspect
import logging
from importlib import import_module
from typing import Any

import pytest
from longrun_server.seams import CHECKED, fit
from mlflow.version import VERSION

# By module: each name, and the first characters of its source's SHA-256.
READ = {
    "mlflow.entities.metric": {
        "Metric.from_proto": "2ffe57a2d5d7",
        "Metric.to_proto": "fd40b900b388",
    },
    "mlflow.entities.param": {
        "Param.from_proto": "9b3819474833",
    },
    "mlflow.entities.run": {
        "Run.to_proto": "71cea2026e5b",
    },
    "mlflow.entities.run_data": {
        "RunData.to_proto": "853a33748682",
    },
    "mlflow.entities.run_info": {
        "RunInfo.to_proto": "baedf9ddbc58",
    },
    "mlflow.entities.run_status": {
        "RunStatus": "36d2b1951090",
    },
    "mlflow.entities.run_tag": {
        "RunTag.from_proto": "0b31932470f0",
    },
    "mlflow.server.auth": {
        "_after_request": "a12244138d8e",
        "_authenticate_cached": "d09f6f01ada8",
        "_authorize_create_in_experiment_as": "554a308b1a4f",
        "_before_request": "1ccae2c2dc05",
        "_denied_sibling_tiers": "6502f060da14",
        "_fetch_or_none": "cbbbdb9b3e12",
        "_find_fastapi_validator": "4fc04ea77da2",
        "_init_store_for_app": "59925924cc6e",
        "_invalidate_user_auth_cache": "552d76357ed2",
        "_native_fastapi_routes": "c77689c388ed",
        "_redact_run_response": "c394237f3124",
        "_run_requirement": "dd0c00e3e845",
        "_validate_can_update_run_and_models": "d4afe68f1baf",
        "_withhold_denied_metric_references": "32be041f4a3d",
        "_withhold_denied_run_model_links": "03c3384ba44a",
        "add_fastapi_permission_middleware": "344ee9b3adc6",
        "authenticate_request": "f8cc35eba793",
        "authenticate_request_basic_auth": "710311421414",
        "bootstrap_admin_user": "cdbce92e06fd",
        "create_admin_user": "69495ad4367f",
        "create_app": "56bbc25136ed",
        "filter_experiment_ids": "ce6b17aa2357",
        "make_forbidden_response": "20eb439531ac",
        "redact_get_run_model_links": "09916f901a06",
        "redact_metric_history_model_ids": "af214cf0c3b1",
        "redact_search_runs_model_links": "7748c2595f20",
        "resolve_permissions": "89b4cbe23336",
        "retention_gate": "4e1446fc3bd1",
        "sender_is_admin": "7a9ed36212d5",
        "validate_can_log_batch": "b03706c5c5ae",
    },
    "mlflow.server.auth.db.models": {
        "SqlRole": "e3cd61598cff",
        "SqlRolePermission": "6d0e0d9af88e",
        "SqlUser": "e287d7977093",
        "SqlUserRoleAssignment": "48895f838930",
    },
    "mlflow.server.auth.entities": {
        "User": "3f5a84010c44",
    },
    "mlflow.server.auth.sqlalchemy_store": {
        "RoleGrantRow": "cd021558e293",
        "SqlAlchemyStore.authenticate_user": "c472bd4fddf6",
        "SqlAlchemyStore.get_user": "d7a5d659abec",
        "SqlAlchemyStore.init_db": "94650545f1d7",
        "SqlAlchemyStore.list_grants": "7da32bf85069",
    },
    "mlflow.server.fastapi_app": {
        "_EfficientWSGIMiddleware": "98bcb48fe09d",
        "_EfficientWSGIResponder": "f5e1df51786c",
        "add_fastapi_workspace_middleware": "d8d5ee8b68c3",
        "add_gateway_timing_middleware": "8ddc5843da61",
        "create_fastapi_app": "eea5803dc258",
    },
    "mlflow.server.fastapi_security": {
        "init_fastapi_security": "b85decbd9969",
    },
    "mlflow.server.handlers": {
        "_assert_required": "1d2935a1fb40",
        "_disable_if_artifacts_only": "74e27c695a13",
        "_get_metric_history": "36f50171b2d0",
        "_get_request_json": "4bc12c0a6336",
        "_get_request_message": "6f8d3d06867c",
        "_log_batch": "9afe7a1d3378",
        "_search_runs": "7549b2693d06",
        "catch_mlflow_exception": "e2b5d5211322",
        "search_runs_impl": "8df9382dd1bb",
    },
    "mlflow.server.workspace_helpers": {
        "resolve_workspace_for_request_if_enabled": "6a120d154ab0",
        "workspace_before_request_handler": "1925ef4fea80",
    },
    "mlflow.store.db.utils": {
        "_get_managed_session_maker": "1f18307528cb",
    },
    "mlflow.store.tracking.sqlalchemy_store": {
        "SqlAlchemyStore._get_run": "bdb42651147d",
        "SqlAlchemyStore.get_run": "bd060906b88f",
    },
    "mlflow.server": {
        "_run_server": "8a85124a03c8",
    },
    "mlflow.utils.process": {
        "_exec_cmd": "9b236c90b9be",
    },
    "mlflow.utils.proto_json_utils": {
        "_mark_int64_fields": "4a16634e0d8c",
        "_merge_json_dicts": "d4a303ae3cdf",
        "message_to_json": "a9b66a85e21d",
    },
    "mlflow.utils.validation": {
        "_validate_batch_log_api_req": "379021763a8d",
    },
}


def digest(module: str, name: str) -> str:
    """Return the first characters of the SHA-256 of the source of a function or class."""
    found: Any = import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return hashlib.sha256(inspect.getsource(found).encode()).hexdigest()[:12]


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in READ.items() for name in names])
def test_it_is_as_it_was_read(module: str, name: str) -> None:
    """A function that we stand in for, or a table or layer whose shape we know."""
    assert digest(module, name) == READ[module][name], f"{module}.{name} has changed"


def test_the_version_that_is_installed_was_checked() -> None:
    """Else none of it is in use, and nobody would notice."""
    assert VERSION in CHECKED
    assert fit()


def test_another_version_runs_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """With one warning."""
    with caplog.at_level(logging.WARNING):
        assert not fit("3.18.0")
    assert ["MLflow 3.18.0 has not been checked" in message for message in caplog.messages] == [True]
