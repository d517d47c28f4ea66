"""Shortest path for the most common request, one row in the usual JSON body: two calls of machine code.

    cells   (CELLS,) int64: the plan of softmax/kernels/single.py, then the addresses and numbers below

One kernel parses the body and predicts the row; the other counts the request once its response is encoded. The steps
are those of the general path (wire/row_scanner.py, fields/kernels/object_row.py for a row of names and values,
`classify`, metrics/counters.py). From Python, each call, array
argument and counter costs as much as the arithmetic of a small model. For an unusual request the first kernel returns
a negative label; the general path then computes the same bits, or words the error.
"""

import time
from typing import Final

import numpy as np
from numba import carray, types

from service.compiler import inlined, kernel
from service.fields.kernels import plan_cells
from service.fields.kernels.json_text import BYTES_OFFSET, END, expect
from service.fields.kernels.object_row import encode_object
from service.fields.kernels.plan_cells import array_at
from service.fields.object_plan import ObjectPlan
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
from service.serve.wire.field_tables import CountValues
from service.serve.wire.row_scanner import scan_prefix, scan_rows
from service.softmax.kernels.addresses import numbers_at
from service.softmax.kernels.lane_operations import stack
from service.softmax.kernels.single import CELLS as PLAN_CELLS
from service.softmax.kernels.single import (
    ITEMSIZE,
    SingleRowPlan,
    SparseRowPlan,
    predict_single,
    single_row,
    write_entries,
)

# Cells after the plan: the addresses of the plan of fields, or 0 for rows of numbers, of the model's counters, of the
# counter of status 200 and of the time of day; then two clock readings.
OBJECT_ADDRESS, COUNTERS_ADDRESS, STATUS_ADDRESS, NOW_MS_ADDRESS = range(PLAN_CELLS, PLAN_CELLS + 4)
STARTED_NS, COMPUTED_NS, CELLS = range(PLAN_CELLS + 4, PLAN_CELLS + 7)
# The label of a body that is left to the general path.
UNSCANNED: Final = -2

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
        objects: Encodes rows of names and values, or None if rows are numbers.
        count_values: Counts the missing and unknown values of a row that `objects` has encoded, or None.

    Attributes:
        P: Probabilities (1, K) of the last prediction, in the model's dtype.
    """

    def __init__(
        self,
        single: SingleRowPlan | SparseRowPlan,
        counters: memoryview,
        meter: WorkerCounters,
        objects: ObjectPlan | None = None,
        count_values: CountValues | None = None,
    ) -> None:
        self._owners: Final = (single, counters, meter)  # the kernels use addresses of their memory
        self._objects: Final = objects
        self._count_values: Final = count_values
        self.P: Final = single.P
        self._cells: Final = np.zeros(CELLS, np.int64)
        self._cells[:PLAN_CELLS] = single.cells
        self._cells[[COUNTERS_ADDRESS, STATUS_ADDRESS, NOW_MS_ADDRESS]] = [
            np.frombuffer(memory, np.int64).ctypes.data for memory in (counters, meter.statuses[200:], meter.now_ms)
        ]
        self._cells[OBJECT_ADDRESS] = 0 if objects is None else objects.address
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
        has_counts = count_body_row(self._address)
        if has_counts and self._objects is not None and self._count_values is not None:
            self._count_values(self._objects.missing, self._objects.unknown)


@inlined
def _clock_ns(like):
    """Return the nanoseconds of the clock that `time.perf_counter_ns` uses."""
    reading = stack(like)
    _clock_gettime(MONOTONIC, reading)
    return reading[0] * 1_000_000_000 + reading[1]


@inlined
def _scan_object(start, length, cells, kind):
    """Whether the body has one row of names and values, which is written as the model takes it."""
    at = scan_prefix(start)
    if at < 0:
        return False
    count = encode_object(at, cells[OBJECT_ADDRESS])
    plan = carray(numbers_at(cells[OBJECT_ADDRESS], np.int64), plan_cells.PLAN_CELLS)
    if count < 0 or expect(plan[plan_cells.AFTER], END) != start + length:
        return False
    columns = array_at(plan, plan_cells.ROW_COLUMNS, np.int32)
    return write_entries(cells, columns, array_at(plan, plan_cells.ROW_VALUES, np.float64), count, kind)


@inlined
def _scan_and_predict(start, length, cells, kind):
    if cells[OBJECT_ADDRESS] != 0:
        is_scanned = _scan_object(start, length, cells, kind)
    else:
        is_scanned = scan_rows(start, length, single_row(cells, kind)) == 1
    return predict_single(cells, kind) if is_scanned else UNSCANNED


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


@kernel("int64(int64)", unlocked=False)
def count_body_row(address):
    """Cells (CELLS,): count one request of one row, which took from STARTED_NS to now.

    Returns whether a value of the row was missing or unknown.
    """
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
    if cells[OBJECT_ADDRESS] == 0:
        return 0
    return carray(numbers_at(cells[OBJECT_ADDRESS], np.int64), plan_cells.PLAN_CELLS)[plan_cells.COUNTED]
