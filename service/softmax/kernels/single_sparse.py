"""Predict one sparse row at a time, in reused buffers; a part of single.py.

row       (ROW_CELLS,) int64    addresses, in the order of the constants below
ends      (1,) int64            the number of entries
columns   (ENTRIES,) int32      their columns
values    (ENTRIES,)            their values, in the model's dtype
weights   (CELLS,) int64        the weights, see changed_rows.py
"""

from typing import Any

import numpy as np
from numba import carray
from numpy.typing import NDArray

from service.compiler import inlined
from service.softmax.arrays import Integers
from service.softmax.kernels.addresses import numbers_at
from service.softmax.kernels.changed_rows import CELLS
from service.softmax.kernels.sparse_forward import sparse_predict_forward

# The entries of one row; a row of more goes the general way.
ENTRIES = 2048
ENDS, COLUMNS, VALUES, WEIGHTS, ROW_CELLS = range(5)


def describe_row(weights: Integers) -> tuple[NDArray[Any], ...]:
    """Return the cells of a row for some weights, and then the arrays that must live as long as the cells."""
    arrays = np.zeros(1, np.int64), np.zeros(ENTRIES, np.int32), np.zeros(ENTRIES, np.float32), weights
    return np.array([array.ctypes.data for array in arrays], np.int64), *arrays


@inlined
def write_sparse(row, columns, values, count, kind):
    """Write `count` entries, at most ENTRIES, to the row at an address. Returns whether their values are finite."""
    cells, finite = carray(numbers_at(row, np.int64), ROW_CELLS), True
    own_columns = carray(numbers_at(cells[COLUMNS], np.int32), ENTRIES)
    own_values = carray(numbers_at(cells[VALUES], kind), ENTRIES)
    carray(numbers_at(cells[ENDS], np.int64), 1)[0] = count
    for e in range(count):
        own_columns[e], own_values[e] = columns[e], values[e]
        finite &= np.isfinite(own_values[e])
    return finite


@inlined
def predict_sparse(row, head, K, P, kind):
    """P (1, n_classes) written from the row at an address. Returns as `sparse_predict_forward`."""
    cells = carray(numbers_at(row, np.int64), ROW_CELLS)
    ends = carray(numbers_at(cells[ENDS], np.int64), 1)
    columns = carray(numbers_at(cells[COLUMNS], np.int32), ends[0])
    values = carray(numbers_at(cells[VALUES], kind), ends[0])
    weights, labels = carray(numbers_at(cells[WEIGHTS], np.int64), CELLS), carray(numbers_at(row, np.int64), 0)
    return sparse_predict_forward(ends, columns, values, weights, head, K, P, labels)
