"""The statistics of the server's benchmark."""

import math

from tests.bench.results import Timings, Transfers


def test_p95_is_a_latency_that_was_measured() -> None:
    """Nineteen of twenty requests are no slower; of fewer, it is the slowest one."""
    assert Timings(tuple(float(n) for n in range(20, 0, -1)), 1.0).p95 == 19.0
    assert Timings((1.0, 2.0, 9.0), 1.0).p95 == 9.0
    assert Timings((1.0, 2.0, 9.0), 1.0).median == 2.0


def test_blocks_add_up() -> None:
    """Requests a second are answers over the whole time: a slow block weighs as much as it lasted."""
    both = Timings((0.1,) * 10, 1.0) + Timings((0.1,) * 2, 2.0, failed=3)
    assert both.per_second == 4.0
    assert both.to_json() == {"p50_ms": 100.0, "p95_ms": 100.0, "per_second": 4.0, "requests": 12, "failed": 3}


def test_nothing_answered_is_no_number() -> None:
    """Zero would be the best of all latencies."""
    nothing = Timings((), 0.0)
    assert all(math.isnan(value) for value in (nothing.median, nothing.p95, nothing.per_second))


def test_a_rate_is_that_of_the_median_transfer() -> None:
    """One transfer that something disturbed does not count."""
    assert Transfers(100, {"PUT": {"ours": [1.0, 2.0, 50.0]}}).rate("PUT", "ours") == 50.0
