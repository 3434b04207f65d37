"""The inside of MLflow that our store stands for: it fails here when MLflow changes it, before anybody's answers do."""

import hashlib
import inspect
from collections.abc import Callable

import pytest
from longrun_server.sql import log_statement
from longrun_server.sqlstore import SqlStore
from mlflow.entities import RunData, RunInfo
from mlflow.store.db.utils import _get_managed_session_maker, create_sqlalchemy_engine
from mlflow.store.tracking import sqlalchemy_store as stock
from mlflow.store.tracking.abstract_store import AbstractStore
from mlflow.store.tracking.dbmodels import models
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking.registry import StoreRegistry
from mlflow.utils import validation

# What ours replaces, and what of MLflow it does in its own way: read the difference, see whether it holds for ours as well, then put the new digest here.
SEAMS: dict[str, Callable[..., object]] = {
    each.__qualname__: each
    for each in (
        SqlAlchemyStore.log_batch,
        SqlAlchemyStore.log_metric,
        SqlAlchemyStore._log_metrics,
        SqlAlchemyStore._log_metrics_once,
        SqlAlchemyStore._update_latest_metrics_if_necessary,
        SqlAlchemyStore.sanitize_metric_value,
        SqlAlchemyStore.log_param,
        SqlAlchemyStore._log_params,
        SqlAlchemyStore.set_tag,
        SqlAlchemyStore._set_tags,
        SqlAlchemyStore.update_run_info,
        SqlAlchemyStore._check_run_is_active,
        SqlAlchemyStore.create_run,
        SqlAlchemyStore._get_experiment,
        SqlAlchemyStore._check_experiment_is_active,
        SqlAlchemyStore.get_run,
        SqlAlchemyStore._get_run,
        SqlAlchemyStore._get_run_inputs,
        SqlAlchemyStore._get_model_inputs,
        SqlAlchemyStore._get_model_outputs,
        SqlAlchemyStore._get_model_outputs_bulk,
        SqlAlchemyStore._search_runs,
        SqlAlchemyStore._filter_experiment_ids,
        SqlAlchemyStore.get_metric_history,
        SqlAlchemyStore._validate_run_accessible,
        SqlAlchemyStore.__init__,
        AbstractStore.search_runs,
        stock._get_orderby_clauses,
        stock._get_sqlalchemy_filter_clauses,
        models.SqlRun,
        models.SqlMetric,
        models.SqlLatestMetric,
        models.SqlParam,
        models.SqlTag,
        models.SqlDataset,
        models.SqlInput,
        models.SqlInputTag,
        RunData,
        RunInfo.__init__,
        validation._validate_batch_log_data,
        validation._validate_metric,
        validation._validate_metric_name,
        validation.validate_param_and_metric_name,
        validation._validate_param,
        validation._validate_tag,
        _get_managed_session_maker,
        create_sqlalchemy_engine,
        StoreRegistry.register_entrypoints,
    )
}
DIGESTS = {
    "SqlAlchemyStore.log_batch": "5616623d30fd5426",
    "SqlAlchemyStore.log_metric": "6879e33b0b4706d9",
    "SqlAlchemyStore._log_metrics": "0affe82445dca798",
    "SqlAlchemyStore._log_metrics_once": "f1c94a7256af5033",
    "SqlAlchemyStore._update_latest_metrics_if_necessary": "9a68eb580f007f5e",
    "SqlAlchemyStore.sanitize_metric_value": "6552ab68700c2dcd",
    "SqlAlchemyStore.log_param": "59473f77e3089520",
    "SqlAlchemyStore._log_params": "35754b45b5a5d30a",
    "SqlAlchemyStore.set_tag": "b23963bf08b06c99",
    "SqlAlchemyStore._set_tags": "a47520dc63cd5d01",
    "SqlAlchemyStore.update_run_info": "14938c2a7fe61092",
    "SqlAlchemyStore._check_run_is_active": "2d0a464a2b7cfff5",
    "SqlAlchemyStore.create_run": "1977e5b6797b5385",
    "SqlAlchemyStore._get_experiment": "e0b652dfc2f17b39",
    "SqlAlchemyStore._check_experiment_is_active": "73de7d7bfa78f865",
    "SqlAlchemyStore.get_run": "bd060906b88f7c59",
    "SqlAlchemyStore._get_run": "bdb42651147d8265",
    "SqlAlchemyStore._get_run_inputs": "48b091ad4c46c6d1",
    "SqlAlchemyStore._get_model_inputs": "e1fd61eddced1a35",
    "SqlAlchemyStore._get_model_outputs": "469fc35c666741a3",
    "SqlAlchemyStore._get_model_outputs_bulk": "c4f5e9ee613b396a",
    "SqlAlchemyStore._search_runs": "5235efb440f86762",
    "SqlAlchemyStore._filter_experiment_ids": "e9a3b10d0909ad18",
    "SqlAlchemyStore.get_metric_history": "2dc49cb772ee972b",
    "SqlAlchemyStore._validate_run_accessible": "1c6b257183446586",
    "SqlAlchemyStore.__init__": "bdd2e1a3d33927c3",
    "AbstractStore.search_runs": "e7a1699ef73ed6e1",
    "_get_orderby_clauses": "c048293f9b23c520",
    "_get_sqlalchemy_filter_clauses": "faede20adc4b42a6",
    "SqlRun": "e4c00dea58e01e06",
    "SqlMetric": "f4349d9a70aeb75a",
    "SqlLatestMetric": "dcd66eadd915ae06",
    "SqlParam": "8642ca9285e4df2a",
    "SqlTag": "550a6b9635d9091f",
    "SqlDataset": "83d3340c6b11ea1c",
    "SqlInput": "c1de1aa3ba3e8057",
    "SqlInputTag": "ef4abbe75c48b161",
    "RunData": "d53ffc346fec9735",
    "RunInfo.__init__": "52bcf6223d56725a",
    "_validate_batch_log_data": "1f02c1f067b65111",
    "_validate_metric": "60ec9c176f1837de",
    "_validate_metric_name": "5a39973bb5b518e1",
    "validate_param_and_metric_name": "5c3055c7170edc7c",
    "_validate_param": "6f9e98bcdc4a5c25",
    "_validate_tag": "023bda940850d704",
    "_get_managed_session_maker": "1f18307528cb24b6",
    "create_sqlalchemy_engine": "c7de518f4c60ca3b",
    "StoreRegistry.register_entrypoints": "e6a5fe7431c943a9",
}
OVERRIDDEN = ("log_batch", "log_metric", "log_param", "set_tag", "create_run", "get_run", "get_metric_history", "_search_runs")


@pytest.mark.parametrize("name", SEAMS)
def test_seam(name: str) -> None:
    """Source and signature are those that were read."""
    source = inspect.getsource(SEAMS[name])
    assert hashlib.sha256(source.encode()).hexdigest()[:16] == DIGESTS[name], f"MLflow changed {name}"


def test_every_digest_has_its_seam() -> None:
    """A digest of nothing would guard nothing."""
    assert list(DIGESTS) == list(SEAMS)


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_ours_takes_what_mlflows_takes(name: str) -> None:
    """The same arguments in the same order, with the same defaults."""
    ours, theirs = (inspect.signature(getattr(kind, name)).parameters.values() for kind in (SqlStore, SqlAlchemyStore))
    assert [(each.name, each.default, each.kind) for each in ours] == [(each.name, each.default, each.kind) for each in theirs]


def test_nothing_else_is_overridden() -> None:
    """Everything else stays MLflow's."""
    assert {name for name in vars(SqlStore) if hasattr(SqlAlchemyStore, name) and inspect.isfunction(vars(SqlStore)[name])} == {*OVERRIDDEN, "__init__"}


def test_statements_have_names_of_their_own() -> None:
    """Two under one name would be one on a connection."""
    flags = [(bool(number & 1), bool(number & 2), bool(number & 4), bool(number & 8)) for number in range(16)]
    made = [log_statement(metrics=metrics, params=params, tags=tags, name=name) for metrics, params, tags, name in flags]
    assert len({each.name for each in made}) == len({each.text for each in made}) == 16
    assert all(len(each.name) < 64 for each in made)
