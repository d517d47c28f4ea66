"""Sparse rows: slices, joins and matrices agree, and what kernels could not read is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.softmax.sparse_rows import SparseRows, check_sparse_rows, join_rows

COLUMNS = 12


@st.composite
def matrices(draw: st.DrawFn) -> np.ndarray:
    """Return a matrix with many zeros."""
    rows = draw(st.integers(1, 6))
    values = draw(st.lists(st.sampled_from([0.0, 0.0, 1.0, -2.5]), min_size=rows * COLUMNS, max_size=rows * COLUMNS))
    return np.array(values, np.float32).reshape(rows, COLUMNS)


def sparse(X: np.ndarray) -> SparseRows:
    """Return the entries of a matrix that are not 0."""
    rows, columns = np.nonzero(X)
    ends = np.cumsum(np.bincount(rows, minlength=len(X)))
    return SparseRows(ends.astype(np.int64), columns.astype(np.int32), X[rows, columns])


@given(matrices(), st.data())
def test_slices_joins_and_matrices_agree(X: np.ndarray, data: st.DataObject) -> None:
    """Rows that are cut and joined again are the rows of the matrix."""
    rows = sparse(X)
    check_sparse_rows(rows, COLUMNS)
    assert np.array_equal(rows.to_matrix(COLUMNS), X)
    first = data.draw(st.integers(0, len(X)))
    end = data.draw(st.integers(first, len(X)))
    part = rows.slice_rows(first, end)
    check_sparse_rows(part, COLUMNS)
    assert np.array_equal(part.to_matrix(COLUMNS), X[first:end])
    joined = join_rows([rows.slice_rows(0, first), part, rows.slice_rows(end, len(X))])
    assert all(np.array_equal(one, other) for one, other in zip(joined, rows, strict=True))


@given(matrices(), st.data())
def test_taken_rows_are_those_of_the_matrix(X: np.ndarray, data: st.DataObject) -> None:
    """Rows may be taken in any order, more than once, and with other values' dtypes."""
    indices = np.array(data.draw(st.lists(st.integers(0, len(X) - 1))), np.intp)
    taken = sparse(X).take(indices)
    check_sparse_rows(taken, COLUMNS)
    assert np.array_equal(taken.to_matrix(COLUMNS), X[indices])
    wide = taken.astype(np.float64)
    assert wide.values.dtype == np.float64
    assert np.array_equal(wide.to_matrix(COLUMNS), X[indices])


@given(matrices(), st.sets(st.integers(0, COLUMNS - 1), min_size=1))
def test_picked_columns_are_those_of_the_matrix(X: np.ndarray, columns: set[int]) -> None:
    """Also those that no row has."""
    picked = np.array(sorted(columns))
    found = sparse(X).pick_columns(picked)
    assert found.dtype == X.dtype
    assert found.flags.c_contiguous
    assert np.array_equal(found, X[:, picked])


@pytest.mark.parametrize(
    ("ends", "columns", "values", "reason"),
    [
        ([2], [1, 1], [1.0, 1.0], "ascend"),
        ([2], [2, 1], [1.0, 1.0], "ascend"),
        ([2, 1, 2], [1, 2], [1.0, 1.0], "descend"),
        ([1], [1, 2], [1.0, 1.0], "last one"),
        ([-1, 2], [1, 2], [1.0, 1.0], "descend"),
        ([2], [1, COLUMNS], [1.0, 1.0], "range"),
        ([2], [-1, 1], [1.0, 1.0], "range"),
        ([2], [1, 2], [1.0], "one-dimensional"),
    ],
)
def test_what_kernels_cannot_read_is_refused(
    ends: list[int], columns: list[int], values: list[float], reason: str
) -> None:
    """Each fault has a sentence of its own."""
    rows = SparseRows(np.array(ends, np.int64), np.array(columns, np.int32), np.array(values, np.float32))
    with pytest.raises(ValueError, match=reason):
        check_sparse_rows(rows, COLUMNS)


def test_other_dtypes_are_refused() -> None:
    """Kernels are compiled for these alone."""
    rows = sparse(np.ones((1, COLUMNS), np.float32))
    with pytest.raises(TypeError, match="int64"):
        check_sparse_rows(rows._replace(columns=rows.columns.astype(np.int64)), COLUMNS)
