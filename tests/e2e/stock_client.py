"""What a stock MLflow client does with a server; run with plain MLflow and the four variables of the client contract.

Prints one JSON object: run, experiment, and the SHA-256 of what was sent and of what came back.
"""

import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path

import mlflow
import numpy as np
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression

MEGABYTES = int(sys.argv[1])
NAME = sys.argv[2]


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


experiment = mlflow.set_experiment(NAME)
rows = np.arange(20.0).reshape(10, 2)
model = LinearRegression().fit(rows, rows[:, 0])
with tempfile.TemporaryDirectory() as temporary, mlflow.start_run() as run:
    mlflow.log_params({"alpha": 0.5, "unicode": "Größe"})
    for step in range(5):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
    sent = Path(temporary) / "large.bin"
    sent.write_bytes(os.urandom(1_000_000) * MEGABYTES)
    mlflow.log_artifact(str(sent), "data")
    info = mlflow.sklearn.log_model(model, name="model", signature=infer_signature(rows, model.predict(rows)), registered_model_name=NAME)
    client = mlflow.MlflowClient()
    back = Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="data/large.bin", dst_path=f"{temporary}/back"))
    report = {"run_id": run.info.run_id, "experiment_id": experiment.experiment_id, "sent": digest(sent), "received": digest(back)}

# A client that is told to fetch in parts, as older ones had to be, is turned back to the server.
os.environ["MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD"] = "true"
with tempfile.TemporaryDirectory() as temporary:
    again = Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="data/large.bin", dst_path=temporary))
    report["received_in_parts"] = digest(again)

found = mlflow.search_runs([experiment.experiment_id], filter_string="params.alpha = '0.5' and metrics.loss < 0.5")
report["found"] = run.info.run_id in set(found.run_id)
report["history"] = [metric.value for metric in client.get_metric_history(run.info.run_id, "loss")]
report["unicode"] = client.get_run(run.info.run_id).data.params["unicode"]
report["version"] = max(int(version.version) for version in client.search_model_versions(f"name = '{NAME}'"))
report["prediction"] = float(mlflow.pyfunc.load_model(f"models:/{NAME}/{report['version']}").predict(rows)[0])
print(json.dumps(report))
