"""Sparse weights: the same numbers as a matrix, a base with changes and a whole; mappings are not copied."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.softmax.parameters import LinearParameters
from service.softmax.sparse_parameters import SparseParameters
from service.softmax.sparse_weights import SPARSE_WEIGHTS_MAX, SparseWeights, build_changes, padded_width
from service.store.artifact.hashing import hash_tensors
from tests.support.sparse_models import normal, random_weights

# The slots of the bias and of the columns 0, 1, 7, 1000 and 2**24 - 1. Files have them, so they never change.
GOLDEN_COLUMNS = [0, 1, 7, 1000, 2**24 - 1]
GOLDEN_SLOTS = [1, 0, 0, 3, 0, 0, 0, 0, 0, 2, 1002, 16777217, 0, 0, 0, 9]


def test_widths_are_whole_parts_of_a_cache_line() -> None:
    """Up to 8 classes a power of two, from there on a multiple of 16."""
    widths = {K: padded_width(K) for K in (1, 2, 3, 4, 5, 8, 9, 16, 17, 32, 33)}
    assert widths == {1: 1, 2: 2, 3: 4, 4: 4, 5: 8, 8: 8, 9: 16, 16: 16, 17: 32, 32: 32, 33: 48}


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 300), st.integers(0, 200), st.integers(0, 2**32))
def test_changes_replace_rows(K: int, N: int, changes: int, seed: int) -> None:
    """A base with changes has the rows of the merged whole, of the matrix, and of a lookup."""
    rng = np.random.default_rng(seed)
    W, b = normal(rng, N, K), normal(rng, K)
    weights = SparseWeights.from_matrix(W, b)
    assert weights.base.ctypes.data % 64 == 0
    assert not weights.base[:, K:].any()
    if changes:
        columns = np.sort(rng.choice(N, min(N, changes), replace=False)).astype(np.int32)
        rows, bias = normal(rng, len(columns), K), normal(rng, K)
        base, weights = weights.base, weights.with_changes(columns, rows, bias)
        assert weights.base is base
        assert weights.n_changed == len(columns) + 1
        W[columns], b = rows, bias
    for found, expected in zip(weights.to_matrix(), (W, b), strict=True):
        assert np.array_equal(found, expected)
    assert np.array_equal(weights.merged()[:, :K], np.vstack([b, W]))
    some = rng.integers(0, N, 20).astype(np.int32)
    assert np.array_equal(weights.rows_of(some), W[some])
    assert np.array_equal(weights.bias(), b)


def test_the_slots_of_a_table_are_a_format() -> None:
    """A table that an earlier release wrote is read by this one."""
    columns = np.array(GOLDEN_COLUMNS, np.int32)
    slots, changed = build_changes(columns, np.arange(5, dtype=np.float32)[:, None], np.full(1, 9, np.float32))
    assert slots.tolist() == GOLDEN_SLOTS
    found = dict(zip(slots.tolist(), changed[:, 0].tolist(), strict=True))
    del found[0]
    assert found == {1: 9.0, **{column + 2: float(i) for i, column in enumerate(GOLDEN_COLUMNS)}}


def test_read_only_mappings_are_not_copied(tmp_path: Path) -> None:
    """A base and a table in files are read where they are."""
    rng = np.random.default_rng(0)
    weights = random_weights(rng, 50, 10, changes=7)
    mapped: dict[str, Any] = {}
    for name, array in SparseParameters("softmax", weights).arrays().items():
        path = tmp_path / name
        path.write_bytes(array.tobytes())
        mapped[name] = np.memmap(path, array.dtype, "r", shape=array.shape)
    again = SparseParameters.from_arrays("softmax", mapped)
    for array, own in ((again.weights.base, mapped["base"]), (again.weights.changed, mapped["changed"])):
        assert np.shares_memory(array, own)
        assert not array.flags.writeable
    columns = np.arange(50, dtype=np.int32)
    assert np.array_equal(again.weights.rows_of(columns), weights.rows_of(columns))


@pytest.mark.parametrize("K", [1, 3, 16, 17])
def test_the_hash_is_that_of_dense_weights(K: int) -> None:
    """A sparse model and a linear one of the same numbers have one hash, also with changes."""
    weights = random_weights(np.random.default_rng(K), 30, K, changes=5)
    sparse = SparseParameters("sigmoid" if K == 1 else "softmax", weights)
    dense = LinearParameters(sparse.head, *weights.to_matrix())
    assert hash_tensors(sparse.tensors()) == hash_tensors(dense.tensors())


@pytest.mark.parametrize(("K", "count"), [(1, 1), (3, 1), (3, 2), (15, 3), (16, 20)])
def test_added_classes_are_those_of_dense_weights(K: int, count: int) -> None:
    """A new class has the same first numbers in a sparse model and in a linear one."""
    weights = random_weights(np.random.default_rng(0), 40, K, changes=9)
    sparse = SparseParameters("softmax", weights).with_classes(count)
    dense = LinearParameters("softmax", *weights.to_matrix()).with_classes(count)
    for found, expected in zip(sparse.tensors(), dense.tensors(), strict=True):
        assert found.tobytes() == expected.tobytes()


def zeros(*shape: int, dtype: type = np.float32) -> Any:
    """Return an array of zeros."""
    return np.zeros(shape, dtype)


BAD_WEIGHTS: dict[str, tuple[tuple[Any, ...], type[Exception], str]] = {
    "a vector": ((zeros(4), 1), ValueError, "base must be"),
    "no columns": ((zeros(1, 4), 3), ValueError, "base must be"),
    "no logits": ((zeros(3, 4), 0), ValueError, "base must be"),
    "another width": ((zeros(3, 3), 3), ValueError, "base must be"),
    "two slots for one row": ((zeros(3, 1), 1, zeros(2, dtype=np.int32), zeros(1, 1)), ValueError, "base must be"),
    "three slots": ((zeros(3, 1), 1, zeros(3, dtype=np.int32), zeros(3, 1)), ValueError, "power of two"),
    "no slots": ((zeros(3, 1), 1, zeros(0, dtype=np.int32), zeros(0, 1)), ValueError, "power of two"),
    "no empty slot": ((zeros(3, 1), 1, np.ones(2, np.int32), zeros(2, 1)), ValueError, "twice"),
    "float64": ((zeros(3, 1, dtype=np.float64), 1), TypeError, "float32"),
    "wide slots": ((zeros(3, 1), 1, zeros(1, dtype=np.int64), zeros(1, 1)), TypeError, "int32"),
    "columns first": ((zeros(4, 3).T, 4), TypeError, "C-contiguous"),
    "another byte order": ((zeros(3, 1).astype(">f4"), 1), TypeError, "float32"),
}


@pytest.mark.parametrize("name", BAD_WEIGHTS)
def test_arrays_that_are_no_weights_are_refused(name: str) -> None:
    """Each fault has a sentence of its own, so that no kernel reads such arrays."""
    arguments, error, reason = BAD_WEIGHTS[name]
    with pytest.raises(error, match=reason):
        SparseWeights(*arguments)


def test_weights_beyond_the_limit_are_refused() -> None:
    """N times the padded number of logits is limited."""
    base = np.broadcast_to(np.zeros(1, np.float32), (SPARSE_WEIGHTS_MAX // 16 + 2, 16))
    with pytest.raises(ValueError, match="at most 67108864 weights"):
        SparseWeights(base, 9)
    weights = random_weights(np.random.default_rng(0), 3, 2)
    with pytest.raises(ValueError, match="at most"):
        weights.with_classes(SPARSE_WEIGHTS_MAX)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(bad: float) -> None:
    """Trained weights are finite."""
    W, b = np.ones((2, 3), np.float32), np.ones(3, np.float32)
    W[1, 2] = bad
    with pytest.raises(ValueError, match="finite"):
        SparseWeights.from_matrix(W, b)
    with pytest.raises(ValueError, match="finite"):
        SparseWeights.from_matrix(np.ones((2, 3), np.float32), W[1])
    with pytest.raises(TypeError, match="float32"):
        SparseWeights.from_matrix(np.ones((2, 3)), np.ones(3))  # type: ignore[arg-type]


def test_columns_out_of_range_are_refused() -> None:
    """A lookup reads no other memory."""
    weights = random_weights(np.random.default_rng(0), 5, 2)
    for column in (-1, 5):
        if column == 5:
            with pytest.raises(ValueError, match="out of range"):
                weights.rows_of(np.array([column], np.int32))
    with pytest.raises(ValueError, match="ascending"):
        build_changes(np.array([3, 3], np.int32), zeros(2, 1), zeros(1))
