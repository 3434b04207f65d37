"""Runs that have never been trained, put straight into a server's tables: what 5,000 or a million of them cost to ask for.

Rows are as MLflow's SQL store of this version writes them for a small run. The names of psql's variables stand in the text as `:name`.
"""

from collections.abc import Iterator, Sequence
from hashlib import md5

# A realistic experiment; a million runs are a thousand of them.
RUNS_AN_EXPERIMENT = 1000
PARAMETERS, METRICS, TEAMS = 4, 3, 10
HISTORY_KEY, HISTORY_POINTS = "loss", 10_000

# In the order in which a history grows. Every row is right by construction, so that nobody has to look for the run of each of its metrics.
_MADE = """
SET session_replication_role = replica;
SET synchronous_commit = off;
SET work_mem = '128MB';
CREATE TEMPORARY TABLE made AS
SELECT md5(:'name' || '-' || n) AS run_uuid, n, (:experiment + n / :each)::int AS experiment_id, :since + n * 1000 AS started
FROM generate_series(:first::bigint, :last::bigint) AS n;
"""
_RUNS = """
INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time, end_time, source_version,
                  lifecycle_stage, artifact_uri, experiment_id)
SELECT run_uuid, 'run-' || n, 'UNKNOWN', '', '', 'ci', 'FINISHED', started, started + 60000, '', 'active',
       'mlflow-artifacts:/' || experiment_id || '/' || run_uuid || '/artifacts', experiment_id
FROM made;
INSERT INTO tags (key, value, run_uuid)
SELECT key, value, run_uuid
FROM made CROSS JOIN LATERAL (VALUES ('mlflow.runName', 'run-' || n), ('mlflow.source.name', 'train.py'), ('mlflow.user', 'ci'),
                                     ('team', 'team-' || n % 10)) AS tag (key, value);
INSERT INTO params (key, value, run_uuid)
SELECT 'param_' || k, (n % (7 * k + 3))::text, run_uuid FROM made CROSS JOIN generate_series(1, 4) AS k;
"""
# In a session of its own, beside the one above: two cores are there.
_METRICS = """
INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid)
SELECT 'metric_' || k, (n * 7919 + k * 101) % 100003 / 100003.0, started + 50000, 0, false, run_uuid
FROM made CROSS JOIN generate_series(1, 3) AS k;
INSERT INTO metrics (key, value, timestamp, step, is_nan, run_uuid)
SELECT 'metric_' || k, (n * 7919 + k * 101) % 100003 / 100003.0, started + 50000, 0, false, run_uuid
FROM made CROSS JOIN generate_series(1, 3) AS k;
"""
_BARE = """
INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time, source_version, lifecycle_stage,
                  artifact_uri, experiment_id)
SELECT run_uuid, 'run-' || n, 'UNKNOWN', '', '', 'ci', 'RUNNING', started, '', 'active',
       'mlflow-artifacts:/' || experiment_id || '/' || run_uuid || '/artifacts', experiment_id
FROM made;
INSERT INTO tags (key, value, run_uuid) SELECT 'mlflow.runName', 'run-' || n, run_uuid FROM made;
"""

# Sessions that run side by side.
RUNS: Sequence[str] = (_MADE + _RUNS, _MADE + _METRICS)
# Runs that have just begun: nothing is logged yet.
BARE: Sequence[str] = (_MADE + _BARE,)
# One run's metric of so many steps.
HISTORY: Sequence[str] = (
    """
SET session_replication_role = replica;
INSERT INTO metrics (key, value, timestamp, step, is_nan, run_uuid)
SELECT :'key', 1.0 / n, :since + n * 1000, n, false, :'run' FROM generate_series(1, :points::bigint) AS n;
INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid)
VALUES (:'key', 1.0 / :points, :since + :points * 1000, :points, false, :'run');
""",
)
# Experiments of nobody in particular, numbered on from the last one.
EXPERIMENTS: Sequence[str] = (
    """
INSERT INTO experiments (name, lifecycle_stage, creation_time, last_update_time)
SELECT :'name' || '-' || n, 'active', :since, :since FROM generate_series(1, :count::bigint) AS n;
UPDATE experiments SET artifact_location = 'mlflow-artifacts:/' || experiment_id WHERE artifact_location IS NULL;
""",
)
# The tables of a history, as the two sessions share them.
_TABLES = (("runs", "tags", "params"), ("latest_metrics", "metrics"))
# PostgreSQL's own mark of an index that nobody keeps up to date or asks. A million runs are loaded and indexed in two thirds of the time.
WITHOUT_INDEXES: Sequence[str] = (
    "UPDATE pg_index SET indisready = false, indisvalid = false WHERE indrelid = ANY ('{runs,tags,params,latest_metrics,metrics}'::regclass[]);\n",
)
# Built anew, an index is up to date and asked again. What is sorted in parts that the processor's cache holds takes two thirds of the time.
INDEXES: Sequence[str] = tuple(
    "SET maintenance_work_mem = '16MB';\nSET max_parallel_maintenance_workers = 0;\n" + "".join(f"REINDEX TABLE {table};\n" for table in tables)
    for tables in _TABLES
)
# What a database that has grown by itself has had from autovacuum long ago.
SETTLE: Sequence[str] = tuple(f"VACUUM (ANALYZE) {', '.join(tables)};\nCHECKPOINT;\n" for tables in (*_TABLES, ("experiments",)))
EMPTY: Sequence[str] = ("TRUNCATE runs CASCADE;\n",)


def run_id(name: str, number: int) -> str:
    """Return the id of a run that was made here, as the SQL above makes it."""
    return md5(f"{name}-{number}".encode(), usedforsecurity=False).hexdigest()


def chunks(first: int, end: int, size: int) -> Iterator[tuple[int, int]]:
    """Return first and last number of parts that together are the numbers from `first` to before `end`."""
    for start in range(first, end, size):
        yield start, min(start + size, end) - 1
