"""Sort, add and weigh the entries of rows, and put the entries of all fields together.

    counts   (B,) int64      how many entries each row has
    columns  (E,) int64      their columns; negative ones are left out
    values   (E,) float64    their values

Entries of one column are added in ascending order of their values, so the sum depends neither on the order of an
object's names nor on a sorting algorithm. A norm is summed from the first column of a row to its last.
"""

import numpy as np
from numba import types

from service.compiler import inlined, kernel
from service.fields.kernels.murmur3 import COLUMNS, SPANS, VALUES
from service.softmax.kernels.exp_log import log_64

COUNT, PRESENCE, LOGARITHM = range(3)
NO_NORM, L1_NORM, L2_NORM = range(3)

# Up to so many entries are sorted by insertion, and more by merging; a quicksort would be slow for some rows.
RUN = 16


@inlined
def _precedes(column, value, other_column, other_value):
    """Whether an entry comes before another."""
    return column < other_column or (column == other_column and value < other_value)


@inlined
def _sort_run(columns, values, first, end):
    """Sort the entries from `first` to before `end` by insertion."""
    for e in range(first + 1, end):
        column, value, at = columns[e], values[e], e
        while at > first and _precedes(column, value, columns[at - 1], values[at - 1]):
            columns[at], values[at] = columns[at - 1], values[at - 1]
            at -= 1
        columns[at], values[at] = column, value


@inlined
def _merge_runs(columns, values, first, middle, end, spare_columns, spare_values):
    """Merge two sorted runs into the same place of the spare arrays."""
    left, right = first, middle
    for e in range(first, end):
        if right == end or (
            left < middle and not _precedes(columns[right], values[right], columns[left], values[left])
        ):
            spare_columns[e], spare_values[e] = columns[left], values[left]
            left += 1
        else:
            spare_columns[e], spare_values[e] = columns[right], values[right]
            right += 1


@inlined
def _sort(columns, values, first, end, spare_columns, spare_values):
    """Sort the entries from `first` to before `end` by column and value."""
    for start in range(first, end, RUN):
        _sort_run(columns, values, start, min(start + RUN, end))
    size = RUN
    while size < end - first:
        for start in range(first, end, 2 * size):
            middle, stop = min(start + size, end), min(start + 2 * size, end)
            _merge_runs(columns, values, start, middle, stop, spare_columns, spare_values)
        columns[first:end] = spare_columns[first:end]
        values[first:end] = spare_values[first:end]
        size *= 2


@inlined
def _frequency(total, mode):
    """Return the value of a column from the sum of its entries."""
    if mode == PRESENCE:
        return 1.0
    return 1.0 + log_64(total) if mode == LOGARITHM else total


@inlined
def _add_equal(columns, values, first, end, mode, at):
    """Write the sum of each column of a sorted row from place `at` on; return the next place."""
    e = first
    while e < end:
        column, total = columns[e], values[e]
        e += 1
        while e < end and columns[e] == column:
            total += values[e]
            e += 1
        if column >= 0:
            columns[at], values[at] = column, _frequency(total, mode)
            at += 1
    return at


@inlined
def _divide_by_norm(values, first, end, norm):
    """Divide the values of a row by their norm, unless it is 0."""
    total = 0.0
    for e in range(first, end):
        total += abs(values[e]) if norm == L1_NORM else values[e] * values[e]
    length = total if norm == L1_NORM else np.sqrt(total)
    if length > 0.0:
        for e in range(first, end):
            values[e] /= length


@inlined
def merge_row(columns, values, first, end, mode, idf, norm, spare_columns, spare_values, at):
    """Merge the entries of a row, from `first` to before `end`, into the places from `at` <= first on.

    The row is sorted, and its equal columns are added. A sum becomes a frequency by `mode`, is multiplied by `idf` of
    its column, (W,) or empty, and divided by the norm of the row. Returns the next place.
    """
    _sort(columns, values, first, end, spare_columns, spare_values)
    after = _add_equal(columns, values, first, end, mode, at)
    if len(idf):
        for e in range(at, after):
            values[e] *= idf[columns[e]]
    if norm != NO_NORM:
        _divide_by_norm(values, at, after, norm)
    return after


@kernel(
    types.int64(
        types.int64[::1], COLUMNS, VALUES, types.int64, types.Array(types.float64, 1, "C", readonly=True), types.int64
    )
)
def merge_entries(counts, columns, values, mode, idf, norm):
    """Counts (B,), columns (E,), values (E,), idf (W,) or empty; all but idf are overwritten.

    Each row is merged as `merge_row` says. Returns how many entries are left.
    """
    spare_columns, spare_values = np.empty_like(columns), np.empty_like(values)
    first, at = 0, 0
    for i in range(len(counts)):
        end = first + counts[i]
        after = merge_row(columns, values, first, end, mode, idf, norm, spare_columns, spare_values, at)
        counts[i] = after - at
        first, at = end, after
    return at


@kernel(types.int64(types.int64[:, ::1], COLUMNS, VALUES, SPANS, SPANS, types.int64[::1], types.int32[::1], VALUES))
def join_fields(counts, columns, values, firsts, starts, ends, out_columns, out_values):
    """Counts (F, B), columns (E,), values (E,), firsts (F,), starts (F,); ends (B,) and the outputs (E,) written.

    The entries of field f begin at `firsts[f]`, and its columns at `starts[f]`. A row gets the entries of each field in
    order, without those that are 0. Returns how many there are.
    """
    n_fields, n_rows = counts.shape
    places, at = firsts.copy(), 0
    for i in range(n_rows):
        for f in range(n_fields):
            first = places[f]
            places[f] = first + counts[f, i]
            for e in range(first, places[f]):
                if values[e] != 0.0:
                    out_columns[at], out_values[at] = starts[f] + columns[e], values[e]
                    at += 1
        ends[i] = at
    return at
