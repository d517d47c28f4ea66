"""Rows of sparse weights: a whole matrix, and a hash table of the rows that have changed since.

    base (N + 1, Kp)      float32, W with the bias in row 0 and the weights of column j in row j + 1
    slots (T,) int32      T is a power of two; the number of a changed row plus 1, or 0 where the slot is empty
    changed (T, Kp)       float32, the row of each slot
    cells (CELLS,) int64  addresses and sizes of these arrays, in the order of the constants below

A row is in the first slot that holds its number, from `first_slot` on, before an empty one (open addressing with linear
probing: Knuth, The Art of Computer Programming 3, section 6.4). At least one slot is empty, so every search ends. With
one empty slot nothing has changed. Kernels get the arrays as addresses, because they may be read-only mappings.
"""

import numpy as np
from numba import carray, types

from service.compiler import inlined, kernel
from service.softmax.kernels.addresses import numbers_at

# SQUARES is the address of a learner's sums in the layout of `base`; 0 without any.
BASE, SLOTS, CHANGED, COLUMNS, WIDTH, SIZE, SQUARES = range(7)
CELLS = 7
# 2**32 divided by the golden ratio, odd: neighboring numbers get slots far apart (Knuth, section 6.4).
MULTIPLIER = 0x9E3779B1
NUMBER_BYTES = 4


def given(dtype, ndim=1):
    """Return the Numba type of a C-contiguous array that is only read, whether or not it can be written."""
    return types.Array(dtype, ndim, "C", readonly=True)


@inlined
def first_slot(row, size):
    """The slot where the search for a row begins: the highest bits of a product modulo 2**32."""
    return (((row * MULTIPLIER) & 0xFFFFFFFF) * size) >> 32


@inlined
def slots_of(cells):
    """slots (T,) of the cells."""
    return carray(numbers_at(cells[SLOTS], np.int32), cells[SIZE])


@inlined
def row_address(cells, slots, row):
    """The address of a row: in the table if it has changed, else in the base."""
    size, bytes_of_row = cells[SIZE], cells[WIDTH] * NUMBER_BYTES
    at = first_slot(row, size)
    while slots[at] != 0:
        if slots[at] == row + 1:
            return cells[CHANGED] + at * bytes_of_row
        at = (at + 1) & (size - 1)
    return cells[BASE] + row * bytes_of_row


@kernel("void(int64[::1],int32[::1],int64[::1])")
def place_rows(rows, slots, places):
    """rows (C,) all different, slots (T,) of zeros in and out, T > C; places (C,) written: the slot of each row."""
    for c in range(rows.size):
        at = first_slot(rows[c], slots.size)
        while slots[at] != 0:
            at = (at + 1) & (slots.size - 1)
        slots[at] = rows[c] + 1
        places[c] = at


@kernel(types.void(given(types.int64), types.int64[::1], types.float32[:, ::1]))
def gather_rows(rows, cells, out):
    """rows (C,), each from 0 to N; out (C, Kp) written: the rows of W."""
    slots = slots_of(cells)
    for c in range(rows.size):
        row = carray(numbers_at(row_address(cells, slots, rows[c]), np.float32), cells[WIDTH])
        for k in range(out.shape[1]):
            out[c, k] = row[k]
