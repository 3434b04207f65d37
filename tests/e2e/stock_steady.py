"""A stock MLflow client that logs batch after batch, whatever happens to the server meanwhile; run as `stock_client.py` is.

Prints the run's id, then the number of each batch once the server has taken it.
"""

import sys
import time

import mlflow
from mlflow.entities import Metric

BATCHES, METRICS = int(sys.argv[1]), int(sys.argv[2])

client = mlflow.MlflowClient()
experiment = mlflow.set_experiment("steady")
run = client.create_run(experiment.experiment_id).info.run_id
print(run, flush=True)
for step in range(BATCHES):
    now = int(time.time() * 1000)
    client.log_batch(run, [Metric(f"metric_{number}", number + step / BATCHES, now, step) for number in range(METRICS)])
    print(step, flush=True)
