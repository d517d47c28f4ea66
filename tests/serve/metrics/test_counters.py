"""The counters of a worker: routes without a model, histograms, and sums over workers."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from service.process.counter_rows import KEY_BYTES
from service.process.shared_memory import COUNTERS, SharedMemory
from service.serve.metrics.counters import (
    BOUNDS,
    LAST_MS,
    ROUTES,
    ROUTES_MAX,
    WorkerCounters,
    count_duration,
    histogram_of,
    sum_counters,
    sum_refusals,
)
from service.serve.responses import V1


def test_routes_have_a_bound() -> None:
    """A worker counts a bounded number of routes, and none whose name does not fit its row."""
    memory = SharedMemory(1, ROUTES_MAX + 2)
    worker = WorkerCounters(memory, 0)
    worker.count_route("/" + "x" * KEY_BYTES, 7)
    assert sum_counters(memory) == {}
    for number in range(2 * ROUTES_MAX):
        worker.count_route(f"/{number}", 7)
        worker.count_route("/0", 7)
    counted = {name: histogram_of(row, V1).total for name, row in sum_counters(memory).items()}
    assert counted == {"/0": 2 * ROUTES_MAX + 1, **{f"/{number}": 1 for number in range(1, ROUTES_MAX)}}


@given(st.lists(st.tuples(st.integers(0, len(ROUTES) - 1), st.integers(0, 2 * BOUNDS[-1])), max_size=40))
def test_durations_are_in_their_buckets(durations: list[tuple[int, int]]) -> None:
    """Each duration counts once, in the first bucket that holds it, and in the sum of its route only."""
    counters = memoryview(bytearray(8 * COUNTERS)).cast("q")
    for route, nanoseconds in durations:
        count_duration(counters, route, nanoseconds)
    for route in range(len(ROUTES)):
        own = [nanoseconds for number, nanoseconds in durations if number == route]
        bounds = [-1, *BOUNDS, 2 * BOUNDS[-1]]
        expected = [sum(low < each <= high for each in own) for low, high in pairwise(bounds)]
        histogram = histogram_of(counters.tolist(), route)
        assert (list(histogram.counts), histogram.nanoseconds) == (expected, sum(own))


def test_counts_are_summed_over_workers() -> None:
    """Counters and refusals add up; the time of the last request is the latest one."""
    memory = SharedMemory(2, 2)
    for slot, last in ((0, 9), (1, 5)):
        worker = WorkerCounters(memory, slot)
        row = worker.model_counters("m", 1)
        count_duration(row, V1, 1000)
        row[LAST_MS] = last
        worker.count_response(422, "invalid_request")
        worker.count_response(200, "")
    row_sum = sum_counters(memory)["m/1"]
    assert histogram_of(row_sum, V1).nanoseconds == 2000
    assert row_sum[LAST_MS] == 9
    assert {code: count for code, count in sum_refusals(memory).items() if count} == {"invalid_request": 2}
