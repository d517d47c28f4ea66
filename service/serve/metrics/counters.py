"""Counters of requests, kernel calls and feedback, in shared memory.

A worker counts in its own slot of the shared memory. Every endpoint that returns counts sums all slots, so each worker
returns the same numbers. prometheus.py renders them as text.

    row of a model version   the counters below, then one histogram of durations for each of ROUTES
    row of another route     the same; only its first histogram is used
    histogram                the sum in nanoseconds, then one count for each of BOUNDS, then one for longer durations
    after the histograms     requests that an overloaded worker refused, by kind: SHED_PREDICTIONS to SHED_FEEDBACK
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from typing import Final, NamedTuple

from service.process.counter_rows import KEY_BYTES, counter_row, counter_rows, named_counter_rows
from service.process.shared_memory import (
    BUSY_NANOSECONDS,
    CODES_MAX,
    COMMIT_NANOSECONDS,
    COMMITS,
    COUNTERS,
    LOG_DOUBTS,
    REFUSALS,
    STATUS_MAX,
    STATUSES,
    SharedMemory,
)
from service.serve.error_codes import ERROR_CODES
from service.serve.metrics.field_counters import FieldCounters, FieldKey
from service.serve.responses import V1, V2

# Counters of one model version, in the order of their cells. Those of feedback follow, from FEEDBACK_START on.
FAILURES, ROWS, EXECUTIONS, COMPUTE_NANOSECONDS, LAST_MS, FEEDBACK_START = range(6)
FEEDBACK_EVENTS, FEEDBACK_ROWS, FEEDBACK_DUPLICATES, FEEDBACK_REFUSALS, FEEDBACK_COUNTERS = range(5)
# The histograms of a model version: predictions by their protocol, V1 or V2, then these two.
EXPLAIN, FEEDBACK = range(V2 + 1, V2 + 3)
# The route of each histogram; a path with a version, or without a model's name, counts here too.
ROUTES: Final = (
    "/v1/models/{name}:predict",
    "/v2/models/{name}/infer",
    "/v1/models/{name}:explain",
    "/v1/models/{name}:feedback",
)
# Upper bounds of the duration buckets in nanoseconds: the classic ones, from 50 us to a request that times out.
BOUNDS: Final = tuple(
    microseconds * 1000
    for microseconds in (
        50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
        1_000_000, 2_500_000, 5_000_000, 10_000_000,
    )
)  # fmt: skip
HISTOGRAM_CELLS: Final = len(BOUNDS) + 2
# The cell of each histogram's sum.
HISTOGRAMS: Final = tuple(
    FEEDBACK_START + FEEDBACK_COUNTERS + number * HISTOGRAM_CELLS for number in range(len(ROUTES))
)
# The cells of requests that were refused because the worker was overloaded, from SHED on.
SHED: Final = HISTOGRAMS[-1] + HISTOGRAM_CELLS
SHED_PREDICTIONS, SHED_EXPLANATIONS, SHED_FEEDBACK, SHED_COUNTERS = range(4)
assert SHED + SHED_COUNTERS <= COUNTERS  # noqa: S101  # the cells of a row hold every counter
# Routes without histograms of models that a worker counts: more than there are.
ROUTES_MAX: Final = 96
# The cell of each error code.
CODE_CELLS: Final = {code: cell for cell, code in enumerate(ERROR_CODES)}
assert len(CODE_CELLS) <= CODES_MAX  # noqa: S101  # the cells of a slot hold every code


class Histogram(NamedTuple):
    """A histogram of durations.

    Attributes:
        counts: The number of durations in each bucket, the longest last.
        nanoseconds: The sum of the durations.
    """

    counts: Sequence[int]
    nanoseconds: int

    @property
    def total(self) -> int:
        """The number of durations."""
        return sum(self.counts)


def histogram_of(counters: Sequence[int], number: int) -> Histogram:
    """Return a histogram of a row of counters; `number` is V1, V2, EXPLAIN or FEEDBACK."""
    start = HISTOGRAMS[number]
    return Histogram(counters[start + 1 : start + HISTOGRAM_CELLS], counters[start])


def count_duration(counters: memoryview, histogram: int, nanoseconds: int) -> None:
    """Count a request in a histogram of its model version."""
    start = HISTOGRAMS[histogram]
    counters[start] += nanoseconds
    counters[start + 1 + bisect_left(BOUNDS, nanoseconds)] += 1


def count_prediction(counters: memoryview, histogram: int, rows: int, nanoseconds: int) -> None:
    """Count one request that is answered with probabilities; `histogram` is V1, V2 or EXPLAIN."""
    counters[ROWS] += rows
    count_duration(counters, histogram, nanoseconds)


def count_prediction_and_call(  # noqa: PLR0917  # six positional numbers: keywords cost a tenth of the call
    counters: memoryview, histogram: int, rows: int, nanoseconds: int, kernel_nanoseconds: int, now_ms: int
) -> None:
    """Count a request that had its own kernel call, as `count_prediction` and `count_kernel_call` together do."""
    start = HISTOGRAMS[histogram]
    counters[start] += nanoseconds
    counters[start + 1 + bisect_left(BOUNDS, nanoseconds)] += 1
    counters[ROWS] += rows
    counters[EXECUTIONS] += 1
    counters[COMPUTE_NANOSECONDS] += kernel_nanoseconds
    counters[LAST_MS] = now_ms


class WorkerCounters:
    """The counters of one worker.

    Args:
        memory: The shared memory.
        slot: The worker's slot.

    Attributes:
        now_ms: Milliseconds since 1970 in one cell. The worker updates it ten times a second, so reading the time costs
            nothing.
        statuses: The number of responses by HTTP status, in one cell for each status.
    """

    def __init__(self, memory: SharedMemory, slot: int) -> None:
        self._memory = memory
        self._slot = slot
        self._cells = memory.cells
        self._start = memory.slot(slot)
        self._refusals = self._start + REFUSALS
        self._routes: dict[str, memoryview] = {}
        self.now_ms = memoryview(bytearray(8)).cast("q")
        self.statuses = memory.cells[self._start + STATUSES : self._start + STATUSES + STATUS_MAX]

    def model_counters(self, name: str, version: int) -> memoryview:
        """Return the counters of a model version, in the order of the constants above."""
        return self._row(f"{name}/{version}")

    def field_counters(self, key: FieldKey) -> FieldCounters:
        """Return the counters of the fields of a model version."""
        return FieldCounters(self._memory, self._slot, key)

    def _row(self, key: str) -> memoryview:
        start = counter_row(self._memory, self._slot, key)
        return self._cells[start : start + COUNTERS]

    def count_response(self, status: int, code: str) -> None:
        """Count one HTTP response; `code` is that of an error, else empty."""
        self.statuses[status] += 1
        if code:
            self.count_refusal(code)

    def count_refusal(self, code: str) -> None:
        """Count one error response by its code."""
        self._cells[self._refusals + CODE_CELLS[code]] += 1

    def count_route(self, route: str, nanoseconds: int) -> None:
        """Count one request that FastAPI answered; a path of the operator's own that has no room is not counted."""
        counters = self._routes.get(route)
        if counters is None:
            if len(self._routes) == ROUTES_MAX or len(route) > KEY_BYTES:
                return
            counters = self._routes[route] = self._row(route)
        count_duration(counters, V1, nanoseconds)

    def count_commit(self, nanoseconds: int) -> None:
        """Count one transaction of feedback, and its duration."""
        self._cells[self._start + COMMITS] += 1
        self._cells[self._start + COMMIT_NANOSECONDS] += nanoseconds

    def total_commits(self) -> int:
        """Return the transactions of feedback that all workers have written."""
        return self._memory.sum_over_workers(COMMITS)

    def log_doubts(self) -> int:
        """Return how often the learner has found that the log lacks an event which it had learned."""
        return self._memory.learner_cells[LOG_DOUBTS]

    def count_kernel_call(self, counters: memoryview, nanoseconds: int) -> None:
        """Count one kernel call, which may be shared by several requests."""
        counters[EXECUTIONS] += 1
        counters[COMPUTE_NANOSECONDS] += nanoseconds
        counters[LAST_MS] = self.now_ms[0]

    def count_busy(self, nanoseconds: int) -> None:
        """Count time in which the event loop's thread worked or waited for a core."""
        self._cells[self._start + BUSY_NANOSECONDS] += nanoseconds

    def set_gauge(self, cell: int, value: int) -> None:
        """Set one cell of the worker's slot."""
        self._cells[self._start + cell] = value


def sum_counters(memory: SharedMemory) -> dict[str, list[int]]:
    """Sum the counters of each row's name over all workers; LAST_MS is the latest of all."""
    sums: defaultdict[str, list[int]] = defaultdict(lambda: [0] * COUNTERS)
    for name, counters in counter_rows(memory):
        row = sums[name]
        last = max(row[LAST_MS], counters[LAST_MS])
        sums[name] = [a + b for a, b in zip(row, counters, strict=True)]
        sums[name][LAST_MS] = last
    return dict(sums)


def sum_model_counters(memory: SharedMemory, name: str, version: int) -> list[int]:
    """Sum the counters of one model version over all workers; LAST_MS is of no use in the sum."""
    rows = list(named_counter_rows(memory, f"{name}/{version}"))
    return [sum(column) for column in zip(*rows, strict=True)] if rows else [0] * COUNTERS


def sum_refusals(memory: SharedMemory) -> dict[str, int]:
    """Sum the error responses of each code over all workers."""
    return {code: memory.sum_over_workers(REFUSALS + cell) for code, cell in CODE_CELLS.items()}
