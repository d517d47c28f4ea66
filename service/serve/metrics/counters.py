"""Counters of requests, kernel calls and feedback, in shared memory.

A worker counts in its own slot of the shared memory. Every endpoint that returns counts sums all slots, so each worker
returns the same numbers. prometheus.py renders them as text.
"""

from bisect import bisect_left
from collections import defaultdict
from typing import Final

from service.process.counter_rows import counter_row, counter_rows
from service.process.shared_memory import COMMIT_NANOSECONDS, COMMITS, COUNTERS, STATUS_MAX, STATUSES, SharedMemory

# Counters of one model version, in the order of their cells. The two cells before them, V1 and V2 of responses.py,
# count the answered requests of each protocol.
FAILURES, ROWS, EXECUTIONS, NANOSECONDS, COMPUTE_NANOSECONDS, LAST_MS, BUCKETS = range(2, 9)
# Upper bounds of the duration buckets in nanoseconds, from less than one kernel call to a request that times out. One
# more bucket counts longer durations.
BOUNDS: Final = tuple(
    int(seconds * 1e9)
    for seconds in (
        2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0
    )
)  # fmt: skip
# The counters of feedback, from the cell FEEDBACK_START on.
FEEDBACK_START: Final = BUCKETS + len(BOUNDS) + 1
FEEDBACK_EVENTS, FEEDBACK_ROWS, FEEDBACK_DUPLICATES, FEEDBACK_REFUSALS, FEEDBACK_COUNTERS = range(5)
assert FEEDBACK_START + FEEDBACK_COUNTERS <= COUNTERS  # noqa: S101  # the cells of a row hold every counter


def count_prediction(counters: memoryview, protocol: int, rows: int, nanoseconds: int) -> None:
    """Count one prediction request that is answered with probabilities."""
    counters[protocol] += 1
    counters[ROWS] += rows
    counters[NANOSECONDS] += nanoseconds
    counters[BUCKETS + bisect_left(BOUNDS, nanoseconds)] += 1


def count_prediction_and_call(  # noqa: PLR0917  # six positional numbers: keywords cost a tenth of the call
    counters: memoryview, protocol: int, rows: int, nanoseconds: int, kernel_nanoseconds: int, now_ms: int
) -> None:
    """Count a request that had its own kernel call, as `count_prediction` and `count_kernel_call` together do."""
    counters[protocol] += 1
    counters[ROWS] += rows
    counters[NANOSECONDS] += nanoseconds
    counters[BUCKETS + bisect_left(BOUNDS, nanoseconds)] += 1
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
        self.now_ms = memoryview(bytearray(8)).cast("q")
        self.statuses = memory.cells[self._start + STATUSES : self._start + STATUSES + STATUS_MAX]

    def model_counters(self, name: str, version: int) -> memoryview:
        """Return the counters of a model version, in the order of the constants above."""
        start = counter_row(self._memory, self._slot, f"{name}/{version}")
        return self._cells[start : start + COUNTERS]

    def count_response(self, status: int) -> None:
        """Count one HTTP response."""
        self.statuses[status] += 1

    def count_commit(self, nanoseconds: int) -> None:
        """Count one transaction of feedback, and its duration."""
        self._cells[self._start + COMMITS] += 1
        self._cells[self._start + COMMIT_NANOSECONDS] += nanoseconds

    def count_kernel_call(self, counters: memoryview, nanoseconds: int) -> None:
        """Count one kernel call, which may be shared by several requests."""
        counters[EXECUTIONS] += 1
        counters[COMPUTE_NANOSECONDS] += nanoseconds
        counters[LAST_MS] = self.now_ms[0]

    def set_gauge(self, cell: int, value: int) -> None:
        """Set one cell of the worker's slot."""
        self._cells[self._start + cell] = value


def sum_counters(memory: SharedMemory) -> dict[str, list[int]]:
    """Sum the counters of each "name/version" over all workers; LAST_MS is the latest of all."""
    sums: defaultdict[str, list[int]] = defaultdict(lambda: [0] * COUNTERS)
    for name, counters in counter_rows(memory):
        row = sums[name]
        last = max(row[LAST_MS], counters[LAST_MS])
        sums[name] = [a + b for a, b in zip(row, counters, strict=True)]
        sums[name][LAST_MS] = last
    return dict(sums)
