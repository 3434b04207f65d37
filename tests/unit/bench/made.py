"""Results that nobody measured, for the page and the verdict."""

from dataclasses import replace
from typing import Any

from tests.bench.browser import RUNS, START
from tests.bench.growth import ASKED, SIZES
from tests.bench.operations import OPERATIONS
from tests.bench.paired import Pair
from tests.bench.results import (
    CLIENTS,
    GET,
    HEALTH,
    NAMES,
    OURS,
    PRESIGNED,
    PUT,
    STOCK,
    STORE,
    TUNED,
    Artifacts,
    Context,
    Growth,
    Load,
    Loads,
    Memory,
    Results,
    Timings,
    Transfers,
)

MIB = 2**20
CONTEXT = Context(2, "a processor", 20.0, 0.5, 1.5, "3.17.2", 2, 12.0, quick=False)
# Seconds of a request with one client.
MEDIANS = {STOCK: 0.4, TUNED: 0.02, OURS: 0.006}


def timings(seconds: float, clients: int = 1) -> Timings:
    """Return twenty requests that took equally long."""
    return Timings((seconds,) * 20, 20 * seconds / clients)


def growth(**changes: Any) -> Growth:  # noqa: ANN401 - any attribute
    """Return what a transfer does to a server that it does nothing to."""
    return replace(Growth(5000, 600 * MIB, 610 * MIB, 0, 0), **changes)


def artifacts(**changes: Any) -> Artifacts:  # noqa: ANN401 - any attribute
    """Return artifacts that meet every aim."""
    seconds = {STORE: [0.5], PRESIGNED: [1.0], STOCK: [9.0], TUNED: [8.0], OURS: [1.1]}
    found = Artifacts(
        small={"PUT 1 KB": {name: timings(MEDIANS[name]) for name in NAMES}},
        large=Transfers(512, {PUT: seconds, GET: seconds}),
        growth={direction: dict.fromkeys(NAMES, growth()) for direction in (PUT, GET)},
        resumes={STOCK: False, TUNED: False, OURS: True},
        whole_or_nothing=dict.fromkeys(NAMES, True),
    )
    return replace(found, **changes)


def results(**changes: Any) -> Results:  # noqa: ANN401 - any attribute
    """Return a whole run that meets every aim."""
    loads = Loads([Load(1_300_000, 60, 2.0)], [Load(20_000, 60, 0.8)])
    found = Results(
        CONTEXT,
        operations={
            # Stock answers no faster when more ask.
            operation.name: {name: {clients: timings(MEDIANS[name], 1 if name == STOCK else 8) for clients in CLIENTS} for name in NAMES}
            for operation in OPERATIONS
        },
        health={clients: timings(0.001, clients) for clients in CLIENTS},
        durable=timings(0.0015),
        artifacts=artifacts(),
        pages={page: dict.fromkeys(NAMES, loads) for page in (START, RUNS)},
        memory={name: Memory(600 * MIB, 650 * MIB, 4) for name in NAMES},
        start={name: [9.0, 11.0] for name in NAMES},
        growth={size: {name: timings(0.005 + size / 1e9) for name in (*ASKED, HEALTH)} for size in SIZES},
        training=Pair([5.2, 5.3], [5.0, 5.1]),
    )
    return replace(found, **changes)
