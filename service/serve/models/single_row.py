"""Shortest path for the most common request, one row in the usual JSON body: two calls of machine code.

    cells   (CELLS,) int64: the plan of softmax/kernels/single.py, then the addresses and numbers below

One kernel parses the body and predicts the row; the other counts the request once its response is encoded. The steps
are those of the general path (wire/row_scanner.py, `classify`, metrics/counters.py). From Python, each call, array
argument and counter costs as much as the arithmetic of a small model. For an unusual request the first kernel returns
a negative label; the general path then computes the same bits, or words the error.
"""

import time
from typing import Final

import numpy as np
from numba import carray, types

from service.compiler import inlined, kernel
from service.process.shared_memory import COUNTERS
from service.serve.metrics.counters import (
    BOUNDS,
    COMPUTE_NANOSECONDS,
    EXECUTIONS,
    HISTOGRAMS,
    LAST_MS,
    ROWS,
    WorkerCounters,
)
from service.serve.responses import V1
from service.serve.wire.row_scanner import scan_rows
from service.softmax.kernels.addresses import numbers_at
from service.softmax.kernels.lane_operations import stack
from service.softmax.kernels.single import CELLS as PLAN_CELLS
from service.softmax.kernels.single import ITEMSIZE, SingleRowPlan, predict_single, single_row

# Cells after the plan: the addresses of the model's counters, of the counter of status 200 and of the time of day,
# then two clock readings.
COUNTERS_ADDRESS, STATUS_ADDRESS, NOW_MS_ADDRESS, STARTED_NS, COMPUTED_NS, CELLS = range(PLAN_CELLS, PLAN_CELLS + 6)
# The label of a body that is left to the general path.
UNSCANNED: Final = -2
# CPython keeps the bytes of a bytes object at this offset, and a zero byte after them.
BYTES_OFFSET: Final = bytes.__basicsize__ - 1

# The cells of the histogram of predictions: the sum, then the buckets.
NANOSECONDS: Final = HISTOGRAMS[V1]
BUCKETS: Final = NANOSECONDS + 1

MONOTONIC: Final = np.int32(time.CLOCK_MONOTONIC)
_BOUNDS: Final = np.array(BOUNDS)
_clock_gettime = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.CPointer(types.int64)))


class SingleRow:
    """Predicts requests of one row for one model. Use it on the event loop's thread only.

    Args:
        single: The model's buffers.
        counters: The model version's counters.
        meter: The worker's counters.

    Attributes:
        P: Probabilities (1, K) of the last prediction, in the model's dtype.
    """

    def __init__(self, single: SingleRowPlan, counters: memoryview, meter: WorkerCounters) -> None:
        self._owners: Final = (single, counters, meter)  # the kernels use addresses of their memory
        self.P: Final = single.P
        self._cells: Final = np.zeros(CELLS, np.int64)
        self._cells[:PLAN_CELLS] = single.cells
        self._cells[[COUNTERS_ADDRESS, STATUS_ADDRESS, NOW_MS_ADDRESS]] = [
            np.frombuffer(memory, np.int64).ctypes.data for memory in (counters, meter.statuses[200:], meter.now_ms)
        ]
        self._address: Final = self._cells.ctypes.data

    def predict_row(self, data: bytes, start: int) -> int:
        """Write the probabilities of the row in the body data[start:] to P.

        Returns:
            The label, or a negative number if the general path has to handle the body.
        """
        label: int = predict_body_row(id(data) + BYTES_OFFSET + start, len(data) - start, self._address)
        return label

    def count_row(self) -> None:
        """Count the predicted request; call this when its response is encoded."""
        count_body_row(self._address)


@inlined
def _clock_ns(like):
    """Return the nanoseconds of the clock that `time.perf_counter_ns` uses."""
    reading = stack(like)
    _clock_gettime(MONOTONIC, reading)
    return reading[0] * 1_000_000_000 + reading[1]


@inlined
def _scan_and_predict(start, length, cells, kind):
    if scan_rows(start, length, single_row(cells, kind)) != 1:
        return UNSCANNED
    return predict_single(cells, kind)


@kernel("int64(int64,int64,int64)", unlocked=False)
def predict_body_row(start, length, address):
    """start, length -> label: parse and predict the body at `start`, and record the times in cells (CELLS,)."""
    cells = carray(numbers_at(address, np.int64), CELLS)
    cells[STARTED_NS] = _clock_ns(cells)
    if cells[ITEMSIZE] == 4:
        label = _scan_and_predict(start, length, cells, np.float32)
    else:
        label = _scan_and_predict(start, length, cells, np.float64)
    cells[COMPUTED_NS] = _clock_ns(cells)
    return label


@kernel("void(int64)", unlocked=False)
def count_body_row(address):
    """Cells (CELLS,): count one request of one row, which took from STARTED_NS to now."""
    cells = carray(numbers_at(address, np.int64), CELLS)
    counters = carray(numbers_at(cells[COUNTERS_ADDRESS], np.int64), COUNTERS)
    elapsed = _clock_ns(cells) - cells[STARTED_NS]
    bucket = 0
    while bucket < _BOUNDS.size and _BOUNDS[bucket] < elapsed:
        bucket += 1
    counters[ROWS] += 1
    counters[EXECUTIONS] += 1
    counters[NANOSECONDS] += elapsed
    counters[COMPUTE_NANOSECONDS] += cells[COMPUTED_NS] - cells[STARTED_NS]
    counters[BUCKETS + bucket] += 1
    counters[LAST_MS] = carray(numbers_at(cells[NOW_MS_ADDRESS], np.int64), 1)[0]
    carray(numbers_at(cells[STATUS_ADDRESS], np.int64), 1)[0] += 1
