"""Rows of which most columns are 0: the columns that are present, and their values.

    ends (B,) int64            where the entries of each row end, not descending; a row begins where the one before ends
    columns (E,) int32         the columns that are present, ascending within a row, each once
    values (E,) float32 or 64  their values

A row of no entries is a row of zeros.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from service.softmax.arrays import Floats, Integers

UNSORTED = "the columns of a row must ascend"


class SparseRows(NamedTuple):
    """B rows with E entries.

    Attributes:
        ends: (B,) int64, the end of each row's entries.
        columns: (E,) int32, the columns that are present, ascending within a row.
        values: (E,) float32 or float64, their values.
    """

    ends: Integers
    columns: NDArray[np.int32]
    values: Floats

    @property
    def n_rows(self) -> int:
        """The number B of rows."""
        return len(self.ends)

    def slice_rows(self, first: int, end: int) -> "SparseRows":
        """Return the rows from `first` to before `end`; their entries are not copied."""
        start = int(self.ends[first - 1]) if first else 0
        stop = int(self.ends[end - 1]) if end else 0
        return SparseRows(self.ends[first:end] - start, self.columns[start:stop], self.values[start:stop])

    def take(self, indices: NDArray[np.intp]) -> "SparseRows":
        """Return copies of the rows at these indices (M,), in their order."""
        lengths = np.diff(self.ends, prepend=0)[indices]
        ends = np.cumsum(lengths, dtype=np.int64)
        entries = np.arange(lengths.sum()) + np.repeat(self.ends[indices] - ends, lengths)
        return SparseRows(ends, self.columns[entries], self.values[entries])

    def astype(self, dtype: DTypeLike) -> "SparseRows":
        """Return the same rows with values of a dtype."""
        return SparseRows(self.ends, self.columns, self.values.astype(dtype))

    def to_matrix(self, n_columns: int) -> Floats:
        """Return the same rows as a matrix X (B, n_columns) of the values' dtype."""
        X = np.zeros((self.n_rows, n_columns), self.values.dtype)
        X[np.repeat(np.arange(self.n_rows), np.diff(self.ends, prepend=0)), self.columns] = self.values
        return X

    def pick_columns(self, columns: Integers) -> Floats:
        """Return X (B, T) of the values of columns (T,) int64, T >= 1, ascending; it is 0 where one is absent."""
        X = np.zeros((self.n_rows, len(columns)), self.values.dtype)
        near = np.flatnonzero((self.columns >= columns[0]) & (self.columns <= columns[-1]))
        places = np.searchsorted(columns, self.columns[near])
        found = columns[places] == self.columns[near]
        entries = near[found]
        X[np.searchsorted(self.ends, entries, "right"), places[found]] = self.values[entries]
        return X


Rows = Floats | SparseRows
"""Rows of either form: a matrix X (B, N), or sparse rows."""


def count_rows(rows: Floats | SparseRows) -> int:
    """Return the number B of rows of a matrix X (B, N), or of sparse rows."""
    return rows.n_rows if isinstance(rows, SparseRows) else len(rows)


def dense_rows(rows: Rows) -> Floats:
    """Return X (B, N); raise TypeError if the rows are sparse."""
    if isinstance(rows, SparseRows):
        raise TypeError("sparse rows are no matrix")
    return rows


def sparse_rows(rows: Rows) -> SparseRows:
    """Return sparse rows; raise TypeError if the rows are a matrix."""
    if not isinstance(rows, SparseRows):
        raise TypeError("a matrix is not sparse rows")
    return rows


def take_rows(rows: Rows, indices: NDArray[np.intp]) -> Rows:
    """Return copies of the rows at these indices (M,), in their order."""
    return rows.take(indices) if isinstance(rows, SparseRows) else rows[indices]


def slice_rows(rows: Rows, first: int, end: int) -> Rows:
    """Return the rows from `first` to before `end`; their numbers are not copied."""
    return rows.slice_rows(first, end) if isinstance(rows, SparseRows) else rows[first:end]


def concatenate_rows(parts: Sequence[Rows]) -> Rows:
    """Return the rows of all parts, in order; there is at least one part, and all have one form. One is not copied."""
    if len(parts) == 1:
        return parts[0]
    sparse = [part for part in parts if isinstance(part, SparseRows)]
    return join_rows(sparse) if sparse else np.concatenate([part for part in parts if isinstance(part, np.ndarray)])


def join_rows(parts: Sequence[SparseRows]) -> SparseRows:
    """Return the rows of all parts, in order; there is at least one part."""
    starts = np.cumsum([0, *(len(part.columns) for part in parts[:-1])])
    return SparseRows(
        np.concatenate([part.ends + start for part, start in zip(parts, starts, strict=True)]),
        np.concatenate([part.columns for part in parts]),
        np.concatenate([part.values for part in parts]),
    )


def check_layout(rows: SparseRows, dtype: DTypeLike) -> None:
    """Raise unless the arrays are what kernels of values of `dtype` take; the kernels check the rows in them.

    Raises:
        ValueError: There is not one value for each column.
        TypeError: An array has another dtype or layout. Numba would ignore byte order and alignment.
    """
    ends, columns, values = rows
    if ends.dtype != np.int64 or columns.dtype != np.int32 or values.dtype != dtype:
        raise TypeError(f"ends must be int64, columns int32 and values {np.dtype(dtype)}")
    for array in rows:
        if array.ndim != 1 or not (array.flags.c_contiguous and array.flags.aligned):
            raise TypeError("ends, columns and values must be aligned, one-dimensional and C-contiguous")
    if len(columns) != len(values):
        raise ValueError("there must be one value for each column")


def check_sparse_rows(rows: SparseRows, n_columns: int) -> None:
    """Raise unless these are rows of `n_columns` columns that kernels can read.

    Raises:
        ValueError: Shapes contradict each other, or a column is out of range or out of order.
        TypeError: An array has another dtype.
    """
    ends, columns, values = rows
    if ends.dtype != np.int64 or columns.dtype != np.int32 or values.dtype not in (np.float32, np.float64):
        raise TypeError("ends must be int64, columns int32, and values float32 or float64")
    if any(array.ndim != 1 or not array.flags.c_contiguous for array in rows) or columns.shape != values.shape:
        raise ValueError("ends, columns and values must be one-dimensional and C-contiguous")
    starts = np.concatenate([[0], ends])
    if (np.diff(starts) < 0).any() or starts[-1] != len(columns):
        raise ValueError("ends must not descend, and the last one is the number of entries")
    if not len(columns):
        return
    if columns.min() < 0 or columns.max() >= n_columns:
        raise ValueError("a column is out of range")
    ascends = np.diff(columns) > 0
    ascends[ends[(ends > 0) & (ends < len(columns))] - 1] = True  # from one row to the next
    if not ascends.all():
        raise ValueError(UNSORTED)
