"""Reads an experiment's history with a stock MLflow client and the four variables of the client contract: `stock_history.py EXPERIMENT`.

Prints one JSON object: of each training, its run's status, tags, parameters, metrics (every step), artifacts and registered versions, by `longrun.attempt`.
"""

import json
import sys

import mlflow

EXPERIMENT = sys.argv[1]
client = mlflow.MlflowClient()
experiment = client.get_experiment_by_name(EXPERIMENT)
assert experiment is not None
history = {}
for run in client.search_runs([experiment.experiment_id], "tags.`longrun.kind` = 'train'", max_results=1000):
    versions = client.search_model_versions(f"run_id = '{run.info.run_id}'")
    history[run.data.tags["longrun.attempt"]] = {
        "run_id": run.info.run_id,
        "status": run.info.status,
        "start_time": run.info.start_time,
        "end_time": run.info.end_time,
        "tags": run.data.tags,
        "parameters": run.data.params,
        "metrics": run.data.metrics,
        "folds": [metric.value for metric in client.get_metric_history(run.info.run_id, "cv_rmse")],
        "artifacts": [file.path for file in client.list_artifacts(run.info.run_id)],
        "versions": [int(version.version) for version in versions],
    }
print(json.dumps(history))
