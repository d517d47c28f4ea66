"""What is counted: cells of the shared board; `exposition.py` makes Prometheus' text of them.

A worker counts in its own slot of the board; every endpoint that tells numbers sums all slots, so the answer is the
same whichever worker gives it.
"""

from bisect import bisect_left
from collections import defaultdict
from typing import Final

from service.process.counter_rows import counter_row, counter_rows
from service.process.shared_memory import COMMIT_NANOSECONDS, COMMITS, COUNTERS, STATUS_MAX, STATUSES, SharedMemory

# Counters of one model version, in the order of their cells; before them stand the answered requests of each protocol,
# at V1 and V2 of responses.py.
FAILURES, ROWS, EXECUTIONS, NANOSECONDS, COMPUTE_NANOSECONDS, LAST_MS, BUCKETS = range(2, 9)
# Upper bounds in nanoseconds; the last bucket takes the rest. From below one kernel call to a request that times out.
BOUNDS: Final = tuple(
    int(seconds * 1e9)
    for seconds in (
        2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0
    )
)  # fmt: skip
# Then the counters of feedback, from the cell FEEDBACK_START on.
FEEDBACK_START: Final = BUCKETS + len(BOUNDS) + 1
FEEDBACK_EVENTS, FEEDBACK_ROWS, FEEDBACK_DUPLICATES, FEEDBACK_REFUSALS, FEEDBACK_COUNTERS = range(5)
assert FEEDBACK_START + FEEDBACK_COUNTERS <= COUNTERS  # noqa: S101  # the cells of a row hold every counter


def count_prediction(counters: memoryview, protocol: int, rows: int, nanoseconds: int) -> None:
    """Count one prediction request that was answered with probabilities."""
    counters[protocol] += 1
    counters[ROWS] += rows
    counters[NANOSECONDS] += nanoseconds
    counters[BUCKETS + bisect_left(BOUNDS, nanoseconds)] += 1


def count_prediction_and_call(  # noqa: PLR0917  # six positional numbers: keywords cost a tenth of the call
    counters: memoryview, protocol: int, rows: int, nanoseconds: int, kernel_nanoseconds: int, now_ms: int
) -> None:
    """Count a request with a kernel call of its own; replaces `count_prediction` and `count_kernel_call`."""
    counters[protocol] += 1
    counters[ROWS] += rows
    counters[NANOSECONDS] += nanoseconds
    counters[BUCKETS + bisect_left(BOUNDS, nanoseconds)] += 1
    counters[EXECUTIONS] += 1
    counters[COMPUTE_NANOSECONDS] += kernel_nanoseconds
    counters[LAST_MS] = now_ms


class WorkerCounters:
    """The counters of one worker."""

    def __init__(self, board: SharedMemory, slot: int) -> None:
        self.board = board
        self.slot = slot
        self.cells = board.cells
        # Milliseconds since 1970 in one cell, renewed ten times a second: exact enough, and free.
        self.now_ms = memoryview(bytearray(8)).cast("q")
        self._at = board.slot(slot)
        self.statuses = board.cells[self._at + STATUSES : self._at + STATUSES + STATUS_MAX]

    def model_counters(self, name: str, version: int) -> memoryview:
        """The counters of a model version, in the order of the constants above."""
        start = counter_row(self.board, self.slot, f"{name}/{version}")
        return self.cells[start : start + COUNTERS]

    def count_response(self, status: int) -> None:
        """Count one answer, whatever it was about."""
        self.statuses[status] += 1

    def count_commit(self, nanoseconds: int) -> None:
        """Count one transaction that holds feedback, and its duration."""
        self.cells[self._at + COMMITS] += 1
        self.cells[self._at + COMMIT_NANOSECONDS] += nanoseconds

    def count_kernel_call(self, counters: memoryview, nanoseconds: int) -> None:
        """Count one call of a kernel, which may have served several requests."""
        counters[EXECUTIONS] += 1
        counters[COMPUTE_NANOSECONDS] += nanoseconds
        counters[LAST_MS] = self.now_ms[0]

    def set_gauge(self, cell: int, value: int) -> None:
        """Set one of the slot's own cells."""
        self.cells[self._at + cell] = value


def sum_counters(board: SharedMemory) -> dict[str, list[int]]:
    """The counters of each "name/version", summed over all workers; the time of the last inference is the latest."""
    sums: defaultdict[str, list[int]] = defaultdict(lambda: [0] * COUNTERS)
    for name, counters in counter_rows(board):
        row = sums[name]
        last = max(row[LAST_MS], counters[LAST_MS])
        sums[name] = [a + b for a, b in zip(row, counters, strict=True)]
        sums[name][LAST_MS] = last
    return dict(sums)
