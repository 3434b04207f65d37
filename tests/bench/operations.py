"""What a client asks of a tracking server, and how it is measured: blocks of each operation, by turns on every server."""

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from longrun_controller.errors import ProblemError
from longrun_training import terminal

from tests.bench import history
from tests.bench.columns import LOGIN, Bench, Column
from tests.bench.loads import Call, Calls, Connection, ask, block, post
from tests.bench.results import CLIENTS, NAMES, OURS, STOCK, TUNED, Table, Timings

SEARCHED_RUNS, FOUND_RUNS = 5000, 100
BATCH_METRICS, BATCH_PARAMETERS = 20, 100
SINCE_MS = 1_700_000_000_000
BLOCK_SECONDS = 1.2
# It answers a few times a second, and is to be asked more than once.
STOCK_BLOCK_SECONDS = 3.0
# Beyond this many clients one round is enough, and of stock one answer for each: it waits for many seconds.
CLIENTS_OF_ALL_ROUNDS = 8
FLOOR_STATEMENTS = 200


@dataclass
class Seeds:
    """What stands in a column's database before it is asked.

    Attributes:
        written: Experiment that new runs go to.
        searched: Experiment of 5,000 finished runs.
        name: Of the runs that were put there; `history.run_id` makes ids of it.
        fresh: How many runs there are that nothing was logged to.
    """

    written: str
    searched: str
    name: str
    fresh: int
    _taken: int = 0
    _steps: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> str:
        """Return a run that nothing was logged to yet.

        Raises:
            ProblemError: None is left.
        """
        with self._lock:
            self._taken += 1
            if self._taken > self.fresh:
                message = f"all {self.fresh} fresh runs are used up: this server is faster than the benchmark thought; make fresh_runs larger"
                raise ProblemError(message)
            return history.run_id(f"{self.name}-fresh", self._taken - 1)

    def step(self) -> int:
        """Return a step that no metric has had."""
        with self._lock:
            return next(self._steps)

    def searched_run(self, number: int) -> str:
        """Return one of the finished runs."""
        return history.run_id(f"{self.name}-searched", number % SEARCHED_RUNS)

    @property
    def history_run(self) -> str:
        """The run with a metric of 10,000 points."""
        return self.searched_run(0)


@dataclass(frozen=True)
class Operation:
    """Something that clients ask for.

    Attributes:
        name: On the command line and in the JSON file.
        label: On the page.
        calls: What one client asks, given the seeds and its number.
        holds: Whether an answer's JSON is what was asked for.
        against_tuned: The aim: at most this share of tuned stock's median with one client; None where there is none.
    """

    name: str
    label: str
    calls: Callable[[Seeds, int], Iterator[Call]]
    holds: Callable[[Mapping[str, list[object]]], bool]
    against_tuned: float | None


def now_ms() -> int:
    """Return the time as MLflow writes it."""
    return time.time_ns() // 1_000_000


def create(seeds: Seeds, client: int) -> Iterator[Call]:
    """Create runs, with the tags that MLflow's client gives them."""
    for number in itertools.count():
        name = f"run-{client}-{number}"
        tags = {"mlflow.user": LOGIN, "mlflow.source.name": "train.py", "mlflow.source.type": "LOCAL", "mlflow.runName": name}
        content = {"experiment_id": seeds.written, "user_id": LOGIN, "run_name": name, "start_time": now_ms()}
        yield post("runs/create", content | {"tags": [{"key": key, "value": value} for key, value in tags.items()]})


def log_metric(seeds: Seeds, _client: int) -> Iterator[Call]:
    """Log one metric, step by step, to a run of the client's own."""
    run = seeds.take()
    while True:
        step = seeds.step()
        yield post("runs/log-metric", {"run_id": run, "run_uuid": run, "key": "loss", "value": 1 / step, "timestamp": now_ms(), "step": step})


def log_batch(seeds: Seeds, _client: int) -> Iterator[Call]:
    """Log twenty metrics, step by step, to a run of the client's own."""
    run = seeds.take()
    while True:
        step, now = seeds.step(), now_ms()
        metrics = [{"key": f"metric_{number}", "value": number + 1 / step, "timestamp": now, "step": step} for number in range(BATCH_METRICS)]
        yield post("runs/log-batch", {"run_id": run, "metrics": metrics, "params": [], "tags": []})


def log_parameters(seeds: Seeds, _client: int) -> Iterator[Call]:
    """Log a hundred parameters to one new run after another: a run's parameters are logged once."""
    parameters = [{"key": f"parameter_{number}", "value": f"value {number}"} for number in range(BATCH_PARAMETERS)]
    while True:
        yield post("runs/log-batch", {"run_id": seeds.take(), "metrics": [], "params": parameters, "tags": []})


def get(seeds: Seeds, client: int) -> Iterator[Call]:
    """Get one finished run after another."""
    for number in itertools.count(client * 97):
        run = seeds.searched_run(number)
        yield Call("GET", f"/api/2.0/mlflow/runs/get?run_uuid={run}&run_id={run}")


def search(seeds: Seeds, _client: int, *, order: str, condition: str = "") -> Iterator[Call]:
    """Search the experiment of 5,000 runs again and again."""
    content = {"experiment_ids": [seeds.searched], "filter": condition, "run_view_type": "ACTIVE_ONLY", "max_results": FOUND_RUNS, "order_by": [order]}
    return itertools.repeat(post("runs/search", content))


def metric_history(seeds: Seeds, _client: int) -> Iterator[Call]:
    """Get every point of one metric again and again."""
    run = seeds.history_run
    return itertools.repeat(Call("GET", f"/api/2.0/mlflow/metrics/get-history?run_uuid={run}&run_id={run}&metric_key={history.HISTORY_KEY}"))


def _found(answer: Mapping[str, list[object]]) -> bool:
    return len(answer["runs"]) == FOUND_RUNS


OPERATIONS = (
    Operation("create", "create run", create, lambda answer: "run" in answer, 0.5),
    Operation("log-metric", "log-metric", log_metric, lambda answer: not answer, 0.5),
    Operation("log-batch", "log-batch, 20 metrics", log_batch, lambda answer: not answer, 0.35),
    Operation("log-params", "log-batch, 100 params", log_parameters, lambda answer: not answer, None),
    Operation("get", "get run", get, lambda answer: "run" in answer, 0.5),
    Operation("search-time", "search 100 of 5,000 by time", partial(search, order="attributes.start_time DESC"), _found, 0.5),
    Operation("search-metric", "search by metric", partial(search, condition="metrics.metric_1 < 0.5", order="metrics.metric_1 ASC"), _found, 0.5),
    Operation("search-tag", "search by tag", partial(search, condition="tags.team = 'team-3'", order="attributes.start_time DESC"), _found, 0.5),
    Operation("history", "history of 10,000 points", metric_history, lambda answer: len(answer["metrics"]) == history.HISTORY_POINTS, 0.5),
)


def experiment(column: Column, name: str) -> str:
    """Make an experiment as the user of the pipelines, who then owns it, and return its id."""
    made: str = ask(column.target, post("experiments/create", {"name": name}))["experiment_id"]
    return made


def seed(bench: Bench, column: Column, *, fresh_runs: int) -> Seeds:
    """Put the same runs into a column's database, under names that no earlier run of this benchmark has used."""
    name = f"bench-{time.time_ns()}"
    seeds = Seeds(experiment(column, f"{name}-written"), experiment(column, f"{name}-searched"), name, fresh_runs)
    values: dict[str, str | int] = {"since": SINCE_MS, "first": 0, "each": SEARCHED_RUNS + fresh_runs}
    bench.host.psql(column.database, history.RUNS, values | {"name": f"{name}-searched", "experiment": seeds.searched, "last": SEARCHED_RUNS - 1})
    bench.host.psql(column.database, history.BARE, values | {"name": f"{name}-fresh", "experiment": seeds.written, "last": fresh_runs - 1})
    points: dict[str, str | int] = {"since": SINCE_MS, "run": seeds.history_run, "key": history.HISTORY_KEY, "points": history.HISTORY_POINTS}
    bench.host.psql(column.database, history.HISTORY, points)
    bench.host.psql(column.database, history.SETTLE)
    return seeds


def verify(column: Column, seeds: Seeds, operations: Sequence[Operation] = OPERATIONS) -> None:
    """Ask for everything a few times: so that what is timed is known to be right, and warm.

    Raises:
        ProblemError: An answer is not what was asked for.
    """
    connection = Connection(column.target)
    try:
        for operation in operations:
            # Each of the instances is to have seen it; stock has its workers behind one port, and takes its time.
            for call in itertools.islice(operation.calls(seeds, 0), 1 if column.name == STOCK else 3):
                _, body = connection.ask(call)
                if not operation.holds(json.loads(body)):
                    message = f"{column.name} answers {operation.name} with {body[:200].decode(errors='replace')}"
                    raise ProblemError(message)
    finally:
        connection.close()


def health(_seeds: Seeds, _client: int) -> Iterator[Call]:
    """Ask whether the server is up: nginx, TLS and MLflow without anything to do."""
    return itertools.repeat(Call("GET", "/health"))


def _calls(of: Callable[[Seeds, int], Iterator[Call]], seeds: Seeds) -> Calls:
    return partial(of, seeds)


@dataclass
class Measured:
    """What came of it: operation -> column -> clients, and the floors."""

    operations: dict[str, Table] = field(default_factory=dict)
    health: dict[int, Timings] = field(default_factory=dict)
    durable: Timings | None = None


def _seconds(name: str, clients: int) -> float:
    """Return how long a block of a column asks; every client has an answer of its own in any case."""
    if name != STOCK:
        return BLOCK_SECONDS
    return STOCK_BLOCK_SECONDS if clients <= CLIENTS_OF_ALL_ROUNDS else 0.0


def measure(bench: Bench, seeds: Mapping[str, Seeds], operations: Sequence[Operation], rounds: int) -> Measured:
    """Measure operations with 1, 8 and 32 clients.

    The servers take turns block by block, in the other order in every other round, so that a machine that gets slower does so for all of them; stock takes
    part in the first round only, and tuned stock, whose aims are about one client, after it with one client only.
    """
    found: dict[str, dict[str, dict[int, Timings]]] = {operation.name: {name: {} for name in NAMES} for operation in operations}
    measured = Measured()
    nothing = Timings((), 0.0)
    turns = [(number, clients) for number in range(rounds) for clients in CLIENTS if not number or clients <= CLIENTS_OF_ALL_ROUNDS]
    with terminal.step("operations", len(turns) * (len(operations) + 1)) as advance:
        for number, clients in turns:
            ours = seeds[OURS]
            again = block(bench.ours.target, _calls(health, ours), clients=clients, seconds=BLOCK_SECONDS)
            measured.health[clients] = measured.health.get(clients, nothing) + again
            advance()
            for operation in operations:
                for name in NAMES[:: -1 if number % 2 else 1]:
                    # They take most of the time, and a second look would not change what one or two orders of magnitude say.
                    if number and (name == STOCK or (name == TUNED and clients > 1)):
                        continue
                    again = block(
                        bench.columns[name].target,
                        _calls(operation.calls, seeds[name]),
                        clients=clients,
                        seconds=_seconds(name, clients),
                        # One alone is asked often enough for a median.
                        least=5 if clients == 1 else 1,
                    )
                    found[operation.name][name][clients] = found[operation.name][name].get(clients, nothing) + again
                if clients == 1 and operation.name == "log-batch":
                    seconds = bench.host.floor(seeds[OURS].take(), FLOOR_STATEMENTS)
                    measured.durable = (measured.durable or nothing) + Timings(tuple(seconds), sum(seconds))
                advance()
    measured.operations = dict(found)
    return measured
