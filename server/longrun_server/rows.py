"""What the rows that PostgreSQL returned become: MLflow's entities, or the text of an answer at once.

The text is what MLflow writes by way of an entity and a message for each run, metric, param and tag, to the byte; that takes several times as long as to
find them.
"""

# MLflow gives no types to most of what is called here.
# mypy: disable-error-code="no-untyped-call, no-any-return"

from collections.abc import Iterable, Mapping
from json.encoder import encode_basestring_ascii as quoted

from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelInput,
    LoggedModelOutput,
    Metric,
    Run,
    RunData,
    RunInfo,
    RunInputs,
    RunOutputs,
)
from mlflow.entities.run_status import RunStatus
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME

from longrun_server.answers import double, text
from longrun_server.sql import Points, RunRow, UnusualError

STATUSES = frozenset(map(RunStatus.to_string, RunStatus.all_status()))


def run(row: RunRow, *, with_model_inputs: bool) -> Run:
    """Return the entity as MLflow makes it."""
    info = RunInfo(
        run_id=row.run_id,
        run_name=_name(row),
        experiment_id=str(row.experiment_id),
        user_id=row.user_id,
        status=row.status,
        start_time=row.start_time,
        end_time=row.end_time,
        lifecycle_stage=row.lifecycle_stage,
        artifact_uri=row.artifact_uri,
    )
    data = RunData([Metric(key, float(value), int(timestamp), int(step)) for key, value, timestamp, step in row.metrics])
    # An object for each pair would only be taken apart again.
    data._params = row.params  # noqa: SLF001
    data._tags = row.tags  # noqa: SLF001
    return Run(info, data, _inputs(row, with_models=with_model_inputs), _outputs(row))


def metrics(key: str, points: Points) -> list[Metric]:
    """Return the points of a metric as MLflow makes them."""
    return [Metric(key, float(value), int(timestamp), int(step)) for value, timestamp, step in zip(*points, strict=True)]


def search_text(found: Iterable[RunRow], next_token: bytes | None) -> str:
    """Return the text of `SearchRuns.Response`.

    Raises:
        UnusualError: A status that MLflow does not know.
    """
    return _page("runs", [_run_text(row) for row in found], next_token)


def history_text(key: str, points: Points, next_token: bytes | None) -> str:
    """Return the text of `GetMetricHistory.Response`."""
    begin = f'{{\n      "key": {quoted(key)},\n      "value": '
    items = [f'{begin}{_number(value)},\n      "timestamp": {timestamp},\n      "step": {step}\n    }}' for value, timestamp, step in zip(*points, strict=True)]
    return _page("metrics", items, next_token)


def _number(value: str) -> str:
    """Return how Python writes a floating point number that PostgreSQL has written.

    With a point and no exponent both write the same, the shortest that reads as that number; reading and writing 10,000 takes ten times as long as this.
    """
    return value if "." in value and "e" not in value else double(float(value))


def _name(row: RunRow) -> str | None:
    return row.name or row.tags.get(MLFLOW_RUN_NAME) or row.name


def _inputs(row: RunRow, *, with_models: bool) -> RunInputs:
    """Return each dataset once, with the tags of all its inputs, and the models that are asked for."""
    inputs: dict[str, DatasetInput] = {}
    for dataset_id, name, digest, source_type, source, schema, profile, key, value in row.datasets:
        if dataset_id not in inputs:
            inputs[dataset_id] = DatasetInput(Dataset(name, digest, source_type, source, schema, profile), tags=[])
        if key is not None:
            inputs[dataset_id].tags.append(InputTag(key, value))
    models = [LoggedModelInput(model) for kind, model, _ in row.models if kind == "MODEL_INPUT"] if with_models else []
    return RunInputs(list(inputs.values()), models)


def _outputs(row: RunRow) -> RunOutputs:
    return RunOutputs([LoggedModelOutput(model, step) for kind, model, step in row.models if kind == "MODEL_OUTPUT"])


def _run_text(row: RunRow) -> str:
    if row.status not in STATUSES:
        raise UnusualError
    run_id, name = quoted(row.run_id), _name(row)
    named = "" if name is None else f'\n        "run_name": {quoted(name)},'
    ended = f'\n        "end_time": {row.end_time},' if row.end_time else ""
    kept = f'\n        "artifact_uri": {quoted(row.artifact_uri)},' if row.artifact_uri else ""
    data = []
    if row.metrics:
        data.append(
            _list(
                "metrics",
                [
                    f'{quoted(key)},\n            "value": {_number(value)},\n            "timestamp": {timestamp},\n            "step": {step}'
                    for key, value, timestamp, step in row.metrics
                ],
            )
        )
    if row.params:
        data.append(_list("params", _pairs(row.params)))
    if row.tags:
        data.append(_list("tags", _pairs(row.tags)))
    of_data = ",".join(data) + "\n      " if data else ""
    # Few runs have these: so it is by way of MLflow's.
    inputs = _deeper(text(_inputs(row, with_models=False).to_proto())) if row.datasets else "{}"
    outputs = _deeper(text(_outputs(row).to_proto())) if row.models else "{}"
    return f"""{{
      "info": {{
        "run_uuid": {run_id},
        "experiment_id": "{row.experiment_id}",{named}
        "user_id": {quoted(row.user_id)},
        "status": "{row.status}",
        "start_time": {row.start_time},{ended}{kept}
        "lifecycle_stage": {quoted(row.lifecycle_stage)},
        "run_id": {run_id}
      }},
      "data": {{{of_data}}},
      "inputs": {inputs},
      "outputs": {outputs}
    }}"""


def _pairs(pairs: Mapping[str, str]) -> list[str]:
    return [f'{quoted(key)},\n            "value": {quoted(value)}' for key, value in pairs.items()]


def _list(name: str, items: Iterable[str]) -> str:
    """Return a list of a run's data, of objects each of which begins with its key."""
    joined = '\n          },\n          {\n            "key": '.join(items)
    return f'\n        "{name}": [\n          {{\n            "key": {joined}\n          }}\n        ]'


def _deeper(written: str) -> str:
    """Return a text as it stands within a run: a line break in it is never within a string."""
    return written.replace("\n", "\n      ")


def _page(name: str, items: list[str], next_token: bytes | None) -> str:
    parts = []
    if items:
        joined = ",\n    ".join(items)
        parts.append(f'"{name}": [\n    {joined}\n  ]')
    if next_token:
        parts.append(f'"next_page_token": {quoted(next_token.decode())}')
    joined = ",\n  ".join(parts)
    return f"{{\n  {joined}\n}}" if parts else "{}"
