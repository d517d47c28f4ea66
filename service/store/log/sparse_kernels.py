"""Kernels of payloads with sparse rows: find runs of one layout, decode them, and check their entries.

    data (D,) uint8          the bytes of M payloads, joined; feedback_payload.py has their format
    starts (M + 1,) int64    where each payload starts in data; the last one is D
    first, events            a run: the payloads from `first` to before `first + events`, of one layout

The entries of an event have any length, so no record of NumPy describes a run. `scatter_run` reads what `measure_run`
has checked against the lengths of the payloads, and nothing else.
"""

import numpy as np
from numba import types

from service.compiler import inlined, kernel

# The bytes of a head that are equal in a run; the number of entries follows.
LAYOUT_BYTES = 16
HEAD_BYTES = 20
COLUMN_BYTES = 4

# Kernels that do not write take arrays of tokens and files too.
READ_INT64 = types.Array(types.int64, 1, "C", readonly=True)
READ_INT32 = types.Array(types.int32, 1, "C", readonly=True)


@inlined
def _uint32(data, at):
    """The little-endian number in data[at : at + 4]."""
    low = np.int64(data[at]) | np.int64(data[at + 1]) << 8
    return low | np.int64(data[at + 2]) << 16 | np.int64(data[at + 3]) << 24


@inlined
def _copy(data, start, out, at, size):
    """out[at : at + size] = data[start : start + size]; loops over slices need no check for negative indices."""
    source, target = data[start : start + size], out[at : at + size]
    for i in range(size):
        target[i] = source[i]


@kernel("UniTuple(int64, 2)(uint8[::1],int64[::1],int64,int64,int64,int64)")
def measure_run(data, starts, first, fixed, entry, bytes_max):
    """Return how many payloads from `first` on have its layout and the length that their head says, and their entries.

    fixed is the number of bytes of a payload without entries, at least HEAD_BYTES, entry that of one entry, and
    bytes_max that of the largest payload.
    """
    head, event, entries = starts[first], first, 0
    while event < starts.size - 1:
        start = starts[event]
        size = starts[event + 1] - start
        if size < fixed or size > bytes_max:
            break
        equal = 0
        while equal < LAYOUT_BYTES and data[start + equal] == data[head + equal]:
            equal += 1
        count = _uint32(data, start + LAYOUT_BYTES)
        if equal < LAYOUT_BYTES or size != fixed + count * entry:
            break
        entries += count
        event += 1
    return event - first, entries


@kernel("boolean(uint8[::1],int64[::1],int64,int64,int64,int64[::1],uint8[::1],uint8[::1],uint8[::1],uint8[::1])")
def scatter_run(data, starts, first, events, item, ends, columns, values, weights, targets):
    """Write ends (R,), and the bytes of columns (4 E,), values (item · E,), weights and targets of a run.

    R rows are as many in each event, as are the bytes of weights and targets. Returns whether the last end of each
    event is its number of entries.
    """
    rows, weight_bytes, target_bytes = ends.size // events, weights.size // events, targets.size // events
    row, entries = 0, 0
    for i in range(events):
        start = starts[first + i]
        count = _uint32(data, start + LAYOUT_BYTES)
        at, end = start + HEAD_BYTES, 0
        for _ in range(rows):
            end = _uint32(data, at)
            ends[row] = entries + end
            row += 1
            at += COLUMN_BYTES
        if end != count:
            return False
        _copy(data, at, columns, COLUMN_BYTES * entries, COLUMN_BYTES * count)
        at += COLUMN_BYTES * count
        _copy(data, at, values, item * entries, item * count)
        at += item * count
        _copy(data, at, weights, weight_bytes * i, weight_bytes)
        _copy(data, at + weight_bytes, targets, target_bytes * i, target_bytes)
        entries += count
    return True


@kernel(types.boolean(READ_INT64, READ_INT32, types.int64))
def are_entries_valid(ends, columns, n_columns):
    """ends (R,), columns (E,): return whether ends do not descend up to E, and columns ascend in each row.

    Each column is at least 0 and below n_columns.
    """
    start = 0
    for end in ends:
        if end < start or end > columns.size:
            return False
        last = -1
        for at in range(start, end):
            if columns[at] <= last:
                return False
            last = columns[at]
        if last >= n_columns:
            return False
        start = end
    return start == columns.size
