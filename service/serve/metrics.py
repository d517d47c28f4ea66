"""What operators see: counters in the shared board, and their text for Prometheus.

A worker counts in its own slot of the board; every endpoint that tells numbers sums all slots, so the answer is the
same whichever worker gives it.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from service.board import (
    BODY_BYTES,
    COMMIT_NANOSECONDS,
    COMMITS,
    CONNECTIONS,
    COUNTERS,
    IN_FLIGHT,
    READY,
    STATUS_MAX,
    STATUSES,
    Board,
)
from service.serve.writer import SOURCE_COUNTERS

# Counters of one model version, in the order of their cells.
V1, V2, FAILURES, ROWS, EXECUTIONS, NANOSECONDS, COMPUTE_NANOSECONDS, LAST_MS, BUCKETS = range(9)
# Upper bounds in nanoseconds; the last bucket takes the rest. From below one kernel call to a request that times out.
BOUNDS: Final = tuple(
    int(seconds * 1e9)
    for seconds in (
        2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0
    )
)  # fmt: skip
# Then the four counters of feedback, see writer.py.
FEEDBACK: Final = BUCKETS + len(BOUNDS) + 1
assert FEEDBACK + SOURCE_COUNTERS <= COUNTERS  # noqa: S101  # the cells of a row hold every counter


def predicted(counters: memoryview, protocol: int, rows: int, nanoseconds: int) -> None:
    """Count one prediction request that was answered with probabilities."""
    counters[protocol] += 1
    counters[ROWS] += rows
    counters[NANOSECONDS] += nanoseconds
    counters[BUCKETS + bisect_left(BOUNDS, nanoseconds)] += 1


def predicted_alone(  # noqa: PLR0917  # six positional numbers: keywords cost a tenth of the call
    counters: memoryview, protocol: int, rows: int, nanoseconds: int, kernel_nanoseconds: int, now_ms: int
) -> None:
    """Count a request that had a kernel call of its own: `predicted` and `Meter.executed` in one."""
    counters[protocol] += 1
    counters[ROWS] += rows
    counters[NANOSECONDS] += nanoseconds
    counters[BUCKETS + bisect_left(BOUNDS, nanoseconds)] += 1
    counters[EXECUTIONS] += 1
    counters[COMPUTE_NANOSECONDS] += kernel_nanoseconds
    counters[LAST_MS] = now_ms


class Meter:
    """The counters of one worker."""

    def __init__(self, board: Board, slot: int) -> None:
        self.board = board
        self.slot = slot
        self.cells = board.cells
        # Milliseconds since 1970 in one cell, renewed ten times a second: exact enough, and free.
        self.now_ms = memoryview(bytearray(8)).cast("q")
        self._at = board.slot(slot)
        self.commits = board.cells[self._at + COMMITS : self._at + COMMIT_NANOSECONDS + 1]
        self.statuses = board.cells[self._at + STATUSES : self._at + STATUSES + STATUS_MAX]

    def row(self, name: str, version: int) -> memoryview:
        """The counters of a model version, in the order of the constants above."""
        start = self.board.row(self.slot, f"{name}/{version}")
        return self.cells[start : start + COUNTERS]

    def answered(self, status: int) -> None:
        """Count one answer, whatever it was about."""
        self.statuses[status] += 1

    def executed(self, counters: memoryview, nanoseconds: int) -> None:
        """Count one call of a kernel, which may have served several requests."""
        counters[EXECUTIONS] += 1
        counters[COMPUTE_NANOSECONDS] += nanoseconds
        counters[LAST_MS] = self.now_ms[0]

    def gauge(self, cell: int, value: int) -> None:
        """Set one of the slot's own cells."""
        self.cells[self._at + cell] = value


def totals(board: Board) -> dict[str, list[int]]:
    """The counters of each "name/version", summed over all workers; the time of the last inference is the latest."""
    sums: defaultdict[str, list[int]] = defaultdict(lambda: [0] * COUNTERS)
    for name, counters in board.counted():
        row = sums[name]
        last = max(row[LAST_MS], counters[LAST_MS])
        sums[name] = [a + b for a, b in zip(row, counters, strict=True)]
        sums[name][LAST_MS] = last
    return dict(sums)


class BoardCollector(Collector):
    """Turns the board into Prometheus metrics when they are asked for."""

    def __init__(self, board: Board, version: str) -> None:
        self._board = board
        self._version = version

    def collect(self) -> Iterable[Metric]:
        """Every metric of the service, summed over workers."""
        info = GaugeMetricFamily("softstep_info", "The running version.", labels=["version"])
        info.add_metric([self._version], 1)
        yield info
        yield self._gauge("softstep_workers_ready", "Workers that answer predictions.", READY)
        yield self._gauge("softstep_connections", "Open connections.", CONNECTIONS)
        yield self._gauge("softstep_requests_in_flight", "Requests being worked on.", IN_FLIGHT)
        yield self._gauge("softstep_request_body_bytes", "Request body bytes held in memory.", BODY_BYTES)
        answers = CounterMetricFamily("softstep_http_responses", "Answers by HTTP status.", labels=["status"])
        for status in range(100, STATUS_MAX):
            count = self._board.total(STATUSES + status)
            if count:
                answers.add_metric([str(status)], count)
        yield answers
        yield from self._models()

    def _gauge(self, name: str, text: str, cell: int) -> Metric:
        return GaugeMetricFamily(name, text, value=self._board.total(cell))

    def _models(self) -> Iterable[Metric]:
        labels = ["model", "version"]
        requests = CounterMetricFamily(
            "softstep_predict_requests", "Answered prediction requests.", labels=[*labels, "protocol"]
        )
        failures = CounterMetricFamily("softstep_predict_failures", "Refused prediction requests.", labels=labels)
        rows = CounterMetricFamily("softstep_predict_rows", "Predicted rows.", labels=labels)
        executions = CounterMetricFamily("softstep_kernel_calls", "Kernel calls.", labels=labels)
        compute = CounterMetricFamily("softstep_kernel_seconds", "Seconds in kernels.", labels=labels)
        durations = HistogramMetricFamily(
            "softstep_predict_duration_seconds", "From a whole request to its whole answer.", labels=labels
        )
        for key, counters in sorted(totals(self._board).items()):
            name, _, version = key.partition("/")
            names = [name, version]
            requests.add_metric([*names, "v1"], counters[V1])
            requests.add_metric([*names, "v2"], counters[V2])
            failures.add_metric(names, counters[FAILURES])
            rows.add_metric(names, counters[ROWS])
            executions.add_metric(names, counters[EXECUTIONS])
            compute.add_metric(names, counters[COMPUTE_NANOSECONDS] / 1e9)
            durations.add_metric(names, _buckets(counters), counters[NANOSECONDS] / 1e9)
        yield from (requests, failures, rows, executions, compute, durations)


def _buckets(counters: list[int]) -> list[tuple[str, float]]:
    """Cumulative counts by upper bound in seconds."""
    bounds = [*(str(bound / 1e9) for bound in BOUNDS), "+Inf"]
    running, buckets = 0, []
    for bound, count in zip(bounds, counters[BUCKETS : BUCKETS + len(bounds)], strict=True):
        running += count
        buckets.append((bound, float(running)))
    return buckets


def exposition(board: Board, version: str) -> bytes:
    """The metrics of all workers in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(BoardCollector(board, version))
    return generate_latest(registry)
