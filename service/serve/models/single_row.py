"""The commonest request, one row in the usual JSON body: read, predicted and counted by two calls of machine code.

    cells   (CELLS,) int64: the plan of softmax/kernels/single.py, then the addresses and numbers below

The steps are those of the general way (scanner.py, Model.classify, metrics.py), written as one kernel on each side of
the encoding: from Python every call, array argument and counter costs as much as the arithmetic of a small model.
Whatever is unusual about a request is left to the general way, which finds the same bits or words the refusal.
"""

import time
from typing import Final

import numpy as np
from numba import carray, types

from service.compiler import inlined, kernel
from service.process.shared_memory import COUNTERS
from service.serve.metrics.counters import (
    BOUNDS,
    BUCKETS,
    COMPUTE_NANOSECONDS,
    EXECUTIONS,
    LAST_MS,
    NANOSECONDS,
    ROWS,
    WorkerCounters,
)
from service.serve.responses import V1
from service.serve.wire.row_scanner import scan_rows
from service.softmax.kernels.lanes import stack
from service.softmax.kernels.single import CELLS as PLAN_CELLS
from service.softmax.kernels.single import ITEMSIZE, SingleRowPlan, numbers_at, predict_single, single_row

# Cells behind the plan: the addresses of the model's counters, of the counter of the status 200 and of the time of
# day, and two readings of the clock.
COUNTED, ANSWERED, NOW_MS, STARTED, COMPUTED, CELLS = range(PLAN_CELLS, PLAN_CELLS + 6)
DOUBT: Final = -2
# CPython keeps the bytes of a bytes object at this distance from its start, and a zero byte behind them.
BYTES_AT: Final = bytes.__basicsize__ - 1

MONOTONIC: Final = np.int32(time.CLOCK_MONOTONIC)
_BOUNDS: Final = np.array(BOUNDS)
_clock_gettime = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.CPointer(types.int64)))


class SingleRow:
    """Answers one model's lone rows. Used by the event loop's thread alone.

    Args:
        single: The model's buffers.
        counters: Where the model's requests are counted.
        meter: Where the worker's answers are counted.
    """

    def __init__(self, single: SingleRowPlan, counters: memoryview, meter: WorkerCounters) -> None:
        self._kept: Final = (single, counters, meter)  # only their addresses are in use
        self.P: Final = single.P
        self._cells: Final = np.zeros(CELLS, np.int64)
        self._cells[:PLAN_CELLS] = single.cells
        self._cells[[COUNTED, ANSWERED, NOW_MS]] = [
            np.frombuffer(memory, np.int64).ctypes.data for memory in (counters, meter.statuses[200:], meter.now_ms)
        ]
        self._at: Final = self._cells.ctypes.data

    def predict(self, data: bytes, start: int) -> int:
        """Write the probabilities of the row in the body data[start:] to P; returns its label, or below 0 in doubt."""
        label: int = lone_forward(id(data) + BYTES_AT + start, len(data) - start, self._at)
        return label

    def count(self) -> None:
        """Count the request whose answer is ready."""
        lone_counted(self._at)


@inlined
def _clock(like):
    """Nanoseconds of the clock that `time.perf_counter_ns` reads."""
    reading = stack(like)
    _clock_gettime(MONOTONIC, reading)
    return reading[0] * 1_000_000_000 + reading[1]


@inlined
def _read_and_predict(start, length, cells, kind):
    if scan_rows(start, length, single_row(cells, kind)) != 1:
        return DOUBT
    return predict_single(cells, kind)


@kernel("int64(int64,int64,int64)", unlocked=False)
def lone_forward(start, length, at):
    """Read the text of that length, predict its row, and note the times; cells (CELLS,) stand at the address `at`."""
    cells = carray(numbers_at(at, np.int64), CELLS)
    cells[STARTED] = _clock(cells)
    if cells[ITEMSIZE] == 4:
        label = _read_and_predict(start, length, cells, np.float32)
    else:
        label = _read_and_predict(start, length, cells, np.float64)
    cells[COMPUTED] = _clock(cells)
    return label


@kernel("void(int64)", unlocked=False)
def lone_counted(at):
    """Count one request of one row, from its STARTED to now; cells (CELLS,) stand at the address `at`."""
    cells = carray(numbers_at(at, np.int64), CELLS)
    counters = carray(numbers_at(cells[COUNTED], np.int64), COUNTERS)
    taken = _clock(cells) - cells[STARTED]
    bucket = 0
    while bucket < _BOUNDS.size and _BOUNDS[bucket] < taken:
        bucket += 1
    counters[V1] += 1
    counters[ROWS] += 1
    counters[EXECUTIONS] += 1
    counters[NANOSECONDS] += taken
    counters[COMPUTE_NANOSECONDS] += cells[COMPUTED] - cells[STARTED]
    counters[BUCKETS + bucket] += 1
    counters[LAST_MS] = carray(numbers_at(cells[NOW_MS], np.int64), 1)[0]
    carray(numbers_at(cells[ANSWERED], np.int64), 1)[0] += 1
