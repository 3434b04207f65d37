"""The least that storing 20 metrics for good can cost here: one statement of PostgreSQL from Python, committed to disk.

    floor.py DATABASE RUN COUNT

Runs on the host, as MLflow's user and with its Python. Prints as JSON how many seconds each took.
"""

import json
import sys
import time

import sqlalchemy

KEYS = [f"floor_{number}" for number in range(20)]
STATEMENT = """
WITH sent AS (
  SELECT * FROM unnest(%(keys)s::text[], %(values)s::float8[]) AS sent (key, value)
), stored AS (
  INSERT INTO metrics (key, value, timestamp, step, is_nan, run_uuid)
  SELECT key, value, %(timestamp)s, %(step)s, false, %(run)s FROM sent
  ON CONFLICT DO NOTHING
)
INSERT INTO latest_metrics AS latest (key, value, timestamp, step, is_nan, run_uuid)
SELECT key, value, %(timestamp)s, %(step)s, false, %(run)s FROM sent
ON CONFLICT (key, run_uuid) DO UPDATE
SET value = excluded.value, timestamp = excluded.timestamp, step = excluded.step, is_nan = excluded.is_nan
WHERE (latest.step, latest.timestamp, latest.value) < (excluded.step, excluded.timestamp, excluded.value)
"""


def main(database: str, run: str, count: int) -> None:
    """Store them so often, each time with a new step."""
    connection = sqlalchemy.create_engine(f"postgresql+psycopg2://mlflow@/{database}?host=/var/run/postgresql").raw_connection()
    # As in a block of requests, nothing is begun but by the statement itself.
    connection.driver_connection.autocommit = True  # type: ignore[union-attr] # psycopg2's own
    cursor = connection.cursor()
    seconds = []
    for _ in range(count):
        now = time.time_ns()
        values = {"keys": KEYS, "values": [now % 1000 / 1000.0] * len(KEYS), "timestamp": now // 1_000_000, "step": now // 1000, "run": run}
        started = time.perf_counter()
        cursor.execute(STATEMENT, values)
        seconds.append(time.perf_counter() - started)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
