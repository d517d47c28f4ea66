"""The forward pass of sparse rows: logits z = b + x W over the columns that are present.

    ends (B,) int64       where the entries of each row end; columns (E,) int32, values (E,), as in sparse_rows.py
    cells (CELLS,) int64  the weights W (N + 1, Kp), see changed_rows.py; Kp is 1, 2, 4, 8 or a multiple of 16
    Z (B, K)              logits, written, in the dtype of the values; weights are float32 in any case
    places (>= n + 1,)    int64, the addresses of the bias and of the rows of W of a row's n entries

A logit begins at the bias and adds the present columns in their order with one fused multiply-add each. matmul.py does
the same with every column, and one that is absent adds 0. So a sparse row has the logits of its dense row; only the
sign of a logit of 0 may differ.

Each row of W may be anywhere in memory. So while one row is computed, the cache lines of the next one are asked for:
predictions of 100 columns of 2**18 take 0.55 us a row instead of 0.95.
"""

import numpy as np
from numba import types

from service.compiler import inlined, kernel
from service.softmax.kernels.changed_rows import (
    BASE,
    COLUMNS,
    NUMBER_BYTES,
    SIZE,
    SLOTS,
    SQUARES,
    WIDTH,
    first_slot,
    given,
    row_address,
    slots_of,
)
from service.softmax.kernels.heads import BLOCK, NOT_FINITE, head_block
from service.softmax.kernels.lane_operations import fma, spread, store
from service.softmax.kernels.sparse_lanes import load_row, prefetch

# Returned for rows that cannot be read: ends that descend or exceed the entries, columns out of range or out of order.
INVALID_ROWS = -2
# The lanes of a whole vector of float32; a multiple of those of float64.
WHOLE = 16


@inlined
def longest_row(ends, count):
    """The most entries of any row; -1 if the ends do not divide `count` entries into rows."""
    longest, start = 0, 0
    for i in range(ends.size):
        if ends[i] < start:
            return -1
        longest = max(longest, ends[i] - start)
        start = ends[i]
    return longest if start == count else -1


@inlined
def find_rows(columns, start, n, cells, slots, places):
    """places[: n + 1] written for the entries from `start`. Returns whether their columns exist and ascend."""
    places[0] = row_address(cells, slots, 0)
    before = -1
    for e in range(n):
        column = np.int64(columns[start + e])
        if column <= before or column >= cells[COLUMNS]:
            return False
        places[e + 1] = row_address(cells, slots, column + 1)
        before = column
    return True


@inlined
def prefetch_entry(columns, at, cells):
    """Ask for the memory that an entry needs; its column is not checked yet."""
    row = np.int64(columns[at]) + 1
    place = row * cells[WIDTH] * NUMBER_BYTES
    prefetch(cells[BASE] + place)
    if cells[SIZE] > 1:
        prefetch(cells[SLOTS] + NUMBER_BYTES * first_slot(row, cells[SIZE]))
    if cells[SQUARES] != 0:
        prefetch(cells[SQUARES] + place)


@inlined
def prefetch_row(columns, start, n, cells):
    """Ask for the memory that the n entries from `start` need."""
    for e in range(n):
        prefetch_entry(columns, start + e, cells)


def _logits_kernel(count):
    """A function that writes the logits of a row, `count` classes at a time."""

    @inlined
    def run(places, values, start, n, width, Z, r):
        for k in range(0, width, count):
            z = load_row(Z, places[0] + NUMBER_BYTES * k, count)
            for e in range(n):
                z = fma(spread(z, values[start + e]), load_row(Z, places[e + 1] + NUMBER_BYTES * k, count), z)
            store(Z, r, k, z)

    return run


_run_1, _run_2, _run_4, _run_8, _run_16 = (_logits_kernel(count) for count in (1, 2, 4, 8, WHOLE))


@inlined
def sparse_logits(places, values, start, n, width, Z, r):
    """Z[r, :Kp] = the logits of the n entries from `start`, whose rows of W are at `places`; Z (> r, >= Kp)."""
    if width >= WHOLE:
        _run_16(places, values, start, n, width, Z, r)
    elif width == 8:
        _run_8(places, values, start, n, width, Z, r)
    elif width == 4:
        _run_4(places, values, start, n, width, Z, r)
    elif width == 2:
        _run_2(places, values, start, n, width, Z, r)
    else:
        _run_1(places, values, start, n, width, Z, r)


@inlined
def _block(ends, columns, values, i, rows, cells, slots, places, Z):
    """Z[:rows] = the logits of the rows from i on. Returns whether they can be read."""
    start = ends[i - 1] if i > 0 else 0
    for r in range(rows):
        n = ends[i + r] - start
        if i + r + 1 < ends.size:
            prefetch_row(columns, ends[i + r], ends[i + r + 1] - ends[i + r], cells)
        if not find_rows(columns, start, n, cells, slots, places):
            return False
        sparse_logits(places, values, start, n, cells[WIDTH], Z, r)
        start = ends[i + r]
    return True


def _signature(result, t, *others):
    """The types of a kernel for values of one dtype."""
    return result(given(types.int64), given(types.int32), given(t), types.int64[::1], *others)


@kernel(
    *(_signature(types.boolean, t, types.int64, t[:, ::1]) for t in (types.float32, types.float64)),
)
def sparse_logits_forward(ends, columns, values, cells, K, Z):
    """B rows of E entries, cells (CELLS,), Z (B, K) written. Returns whether the rows can be read."""
    B, longest = ends.size, longest_row(ends, columns.size)
    if longest < 0:
        return False
    slots, places = slots_of(cells), np.empty(longest + 1, np.int64)
    own = np.zeros((min(B, BLOCK), max(cells[WIDTH], WHOLE)), Z.dtype)
    for start in range(0, B, BLOCK):
        rows = min(BLOCK, B - start)
        if not _block(ends, columns, values, start, rows, cells, slots, places, own):
            return False
        Z[start : start + rows] = own[:rows, :K]
    return True


@kernel(
    *(
        _signature(types.int64, t, types.int64, types.int64, t[:, ::1], types.int64[::1])
        for t in (types.float32, types.float64)
    ),
)
def sparse_predict_forward(ends, columns, values, cells, head, K, P, labels):
    """B rows of E entries, cells (CELLS,), P (B, n_classes) written; K logits, of which sigmoid has 1.

    labels (B,) is written, or is empty if labels are not needed. Returns the first row's label (for more than one row
    only if labels are needed); NOT_FINITE if any row has a logit that is not finite, and P of that row is unset;
    INVALID_ROWS if the rows cannot be read.
    """
    B, longest = ends.size, longest_row(ends, columns.size)
    if longest < 0:
        return INVALID_ROWS
    slots, places, block = slots_of(cells), np.empty(longest + 1, np.int64), np.empty(BLOCK, np.int64)
    Z = np.zeros((min(B, BLOCK), max(cells[WIDTH], WHOLE)), P.dtype)
    wanted = B == 1 or labels.size > 0
    finite, first = True, 0
    for start in range(0, B, BLOCK):
        rows = min(BLOCK, B - start)
        if not _block(ends, columns, values, start, rows, cells, slots, places, Z):
            return INVALID_ROWS
        finite &= head_block(head, Z, rows, K, P, start, block, wanted)
        if start == 0 and wanted:
            first = block[0]
        if labels.size > 0:
            labels[start : start + rows] = block[:rows]
    return first if finite else NOT_FINITE
