"""What the server's benchmark measured, and the few statistics that its page needs."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.bench.paired import Pair

STOCK, TUNED, OURS = "stock", "tuned", "ours"
NAMES = (STOCK, TUNED, OURS)
CLIENTS = (1, 8, 32)
# What ours is held against where nothing of MLflow is asked.
HEALTH, DURABLE, PRESIGNED, STORE = "health", "durable", "presigned", "store"
SMALL, MIDDLE = "1 KB", "1 MB"
PUT, GET = "PUT", "GET"


@dataclass(frozen=True)
class Timings:
    """Requests of one kind to one server.

    Attributes:
        latencies: Seconds of each request that was answered.
        seconds: How long all of them took, side by side.
        failed: Requests that were refused or broke; they are in nothing else.
    """

    latencies: tuple[float, ...]
    seconds: float
    failed: int = 0

    def __add__(self, other: "Timings") -> "Timings":
        """Put two blocks together."""
        return Timings(self.latencies + other.latencies, self.seconds + other.seconds, self.failed + other.failed)

    @property
    def median(self) -> float:
        """Seconds; not a number where nothing was answered."""
        return statistics.median(self.latencies) if self.latencies else math.nan

    @property
    def p95(self) -> float:
        """Seconds below which 95 % of the requests stayed; the slowest one, where there are fewer than twenty."""
        if not self.latencies:
            return math.nan
        ordered = sorted(self.latencies)
        return ordered[math.ceil(0.95 * len(ordered)) - 1]

    @property
    def per_second(self) -> float:
        """Requests a second."""
        return len(self.latencies) / self.seconds if self.seconds else math.nan

    def to_json(self) -> dict[str, float | int]:
        """Return what the JSON file holds of them."""
        return {
            "p50_ms": round(1000 * self.median, 3),
            "p95_ms": round(1000 * self.p95, 3),
            "per_second": round(self.per_second, 3),
            "requests": len(self.latencies),
            "failed": self.failed,
        }


# Column -> number of clients -> what was measured.
Table = Mapping[str, Mapping[int, Timings]]


@dataclass(frozen=True)
class Transfers:
    """One large file, again and again.

    Attributes:
        megabytes: Its size.
        seconds: Direction -> column (or `PRESIGNED`, or `STORE`) -> seconds, each time.
    """

    megabytes: int
    seconds: Mapping[str, Mapping[str, Sequence[float]]]

    def rate(self, direction: str, column: str) -> float:
        """Return megabytes a second, of the median time."""
        return self.megabytes / statistics.median(self.seconds[direction][column])


@dataclass(frozen=True)
class Growth:
    """What a transfer does to the server that carries it.

    Attributes:
        megabytes: Size of the transfer.
        before_bytes: Memory of the application tier and nginx before.
        peak_bytes: The most that was seen meanwhile.
        temporary_bytes: The most that lay in temporary files which MLflow held open.
        spilled: Lines of nginx's log that tell of a temporary file.
    """

    megabytes: int
    before_bytes: int
    peak_bytes: int
    temporary_bytes: int
    spilled: int

    @property
    def grown_mib(self) -> float:
        """By how much the memory grew, in MiB."""
        return max(self.peak_bytes - self.before_bytes, 0) / 2**20


@dataclass(frozen=True)
class Artifacts:
    """Everything about artifacts.

    Attributes:
        small: Direction and size, as in "PUT 1 KB" -> column -> timings.
        large: The large file.
        growth: Direction -> column -> what a transfer did to the server.
        resumes: Column -> whether a download that broke off goes on where it stopped.
        whole_or_nothing: Column -> whether an upload that broke off leaves nothing to see.
    """

    small: Mapping[str, Mapping[str, Timings]]
    large: Transfers
    growth: Mapping[str, Mapping[str, Growth]]
    resumes: Mapping[str, bool]
    whole_or_nothing: Mapping[str, bool]


@dataclass(frozen=True)
class Load:
    """One load of a page in a browser.

    Attributes:
        wire_bytes: What came over the wire, headers and all.
        requests: How many answers came, those of the browser's cache included.
        seconds: From the address to the first thing that a person looks for.
    """

    wire_bytes: int
    requests: int
    seconds: float


@dataclass(frozen=True)
class Loads:
    """A page's loads by a browser that has never been there, and by the same one a moment later."""

    first: Sequence[Load]
    second: Sequence[Load]


@dataclass(frozen=True)
class Memory:
    """Proportional share of memory (PSS) of the application tier: nginx and the stores are the same for all and not in it.

    Attributes:
        idle_bytes: After a start and one call of each kind.
        loaded_bytes: After everything that was asked of it.
        processes: How many they are.
    """

    idle_bytes: int
    loaded_bytes: int
    processes: int

    @property
    def most_mib(self) -> float:
        """The larger of both, in MiB."""
        return max(self.idle_bytes, self.loaded_bytes) / 2**20


@dataclass(frozen=True)
class Context:
    """The machine, for whoever compares two pages.

    Attributes:
        cores: Processor cores, which servers and clients share.
        processor: Its name.
        loop_ns: Nanoseconds of one turn of an empty loop in Python, as a measure of its speed.
        load: Of the last minute, before anything was measured.
        load_after: The same at the end.
        mlflow: Version on the host.
        instances: MLflow processes of ours and of tuned stock.
        minutes: How long the command took, with making and removing the host.
        quick: Whether it was the short form.
    """

    cores: int
    processor: str
    loop_ns: float
    load: float
    load_after: float
    mlflow: str
    instances: int
    minutes: float
    quick: bool


@dataclass(frozen=True)
class Results:
    """Everything; a part that was not measured is empty."""

    context: Context
    # Operation -> column -> clients.
    operations: Mapping[str, Table] = field(default_factory=dict)
    # Clients -> /health through the same nginx.
    health: Mapping[int, Timings] = field(default_factory=dict)
    durable: Timings | None = None
    artifacts: Artifacts | None = None
    # Page -> column.
    pages: Mapping[str, Mapping[str, Loads]] = field(default_factory=dict)
    memory: Mapping[str, Memory] = field(default_factory=dict)
    # Column -> seconds from `systemctl restart` until every instance answers, each time.
    start: Mapping[str, Sequence[float]] = field(default_factory=dict)
    # Runs in the database -> operation (or `HEALTH`) -> timings of ours.
    growth: Mapping[int, Mapping[str, Timings]] = field(default_factory=dict)
    training: Pair | None = None
