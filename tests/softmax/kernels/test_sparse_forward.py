"""Sparse rows have the bits of their dense rows, with and without changed rows, and read no other memory."""

import ctypes
import mmap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.softmax.sparse_model import SparseModel
from service.softmax.sparse_rows import SparseRows
from service.softmax.sparse_weights import SparseWeights, padded_width
from tests.support.budgets import examples
from tests.support.reference import DTYPES, HEADS, Array
from tests.support.sparse_models import dense_model, normal, random_rows, random_weights


def assert_equal_bits(found: Array, expected: Array) -> None:
    """Assert that two arrays have the same bits, except for the sign of a zero."""
    zero = found.dtype.type(0)  # 0 plus -0 is 0
    assert (found + zero).tobytes() == (expected + zero).tobytes()


@settings(deadline=None, max_examples=examples(600))
@given(st.data(), st.sampled_from(HEADS), st.sampled_from(DTYPES))
def test_sparse_rows_have_the_bits_of_dense_rows(data: st.DataObject, head: str, dtype: type[np.floating]) -> None:
    """Logits, probabilities and labels equal those of the dense kernels, for every width and table."""
    B, N = data.draw(st.integers(1, 140)), data.draw(st.integers(1, 60))
    K = 1 if head == "sigmoid" else data.draw(st.integers(1, 40))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    weights = random_weights(rng, N, K, changes=data.draw(st.sampled_from([0, 1, 20, 60])))
    model = SparseModel(head, weights, None, np.dtype(dtype))  # type: ignore[arg-type]
    rows = random_rows(rng, B, N, data.draw(st.sampled_from([0.0, 0.1, 0.5, 1.0])), dtype)
    dense, X = dense_model(model), rows.to_matrix(N)
    assert_equal_bits(model.logits(rows), dense.logits(X))
    P, labels = model.classify(rows)
    expected, expected_labels = dense.classify(X)
    assert P.tobytes() == expected.tobytes()
    assert labels == expected_labels
    assert model.predict(rows).tobytes() == expected.tobytes()


@settings(deadline=None, max_examples=examples(80))
@given(st.data(), st.sampled_from(HEADS))
def test_bits_in_any_batch(data: st.DataObject, head: str) -> None:
    """A row has the same bits alone and in any batch."""
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    K = 1 if head == "sigmoid" else data.draw(st.integers(1, 40))
    model = SparseModel(head, random_weights(rng, 30, K, changes=9))  # type: ignore[arg-type]
    rows = random_rows(rng, 80, 30)
    P, labels = model.classify(rows)
    for i in range(80):
        alone, label = model.classify(rows.slice_rows(i, i + 1))
        assert alone.tobytes() == P[i : i + 1].tobytes()
        assert label == labels[i : i + 1]


def place_at_end(array: Array) -> tuple[mmap.mmap, Array]:
    """Return a copy of an array whose last byte is the last readable one; reading further ends the process."""
    pages = -(-array.nbytes // mmap.PAGESIZE)
    memory = mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    forbidden = ctypes.c_void_p(start + pages * mmap.PAGESIZE)
    assert ctypes.CDLL(None).mprotect(forbidden, mmap.PAGESIZE, 0) == 0
    copy = np.frombuffer(memory, array.dtype, array.size, pages * mmap.PAGESIZE - array.nbytes).reshape(array.shape)
    copy[...] = array
    return memory, copy


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("K", [1, 2, 3, 5, 9, 17])
def test_no_memory_past_the_last_row_is_read(K: int, dtype: type[np.floating]) -> None:
    """The last column's weights may be the last readable bytes, as in a mapped file."""
    weights = SparseWeights.from_matrix(normal(np.random.default_rng(0), 40, K), np.zeros(K, np.float32))
    memory, base = place_at_end(weights.base)
    rows = SparseRows(np.array([1], np.int64), np.array([39], np.int32), np.ones(1, dtype))
    head = "multilabel"
    expected = SparseModel(head, weights, None, np.dtype(dtype)).logits(rows)
    found = SparseModel(head, SparseWeights(base, K), None, np.dtype(dtype)).logits(rows)
    assert base.shape[1] == padded_width(K)
    assert found.tobytes() == expected.tobytes()
    assert len(memory)


def invalid(ends: list[int], columns: list[int]) -> SparseRows:
    """Return rows of ones."""
    return SparseRows(np.array(ends, np.int64), np.array(columns, np.int32), np.ones(len(columns), np.float32))


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (invalid([1], [9]), "range"),
        (invalid([1], [-1]), "range"),
        (invalid([2], [3, 3]), "ascend"),
        (invalid([2], [3, 2]), "ascend"),
        (invalid([2, 1, 2], [1, 2]), "descend"),
        (invalid([1], [1, 2]), "last one"),
        (invalid([5], [1, 2]), "last one"),
        (invalid([], [1]), "last one"),
        (invalid([1] * 70 + [2], [1, 9]), "range"),
    ],
)
def test_rows_that_cannot_be_read_are_refused(rows: SparseRows, reason: str) -> None:
    """The kernels check what they read, and the model says what is wrong."""
    model = SparseModel("softmax", random_weights(np.random.default_rng(0), 9, 3))
    for method in (model.logits, model.predict, model.classify):
        with pytest.raises(ValueError, match=reason):
            method(rows)


def test_other_dtypes_and_layouts_are_refused() -> None:
    """Kernels are compiled for these alone."""
    model, rows = SparseModel("softmax", random_weights(np.random.default_rng(0), 9, 3)), invalid([2], [1, 2])
    for other in (
        rows._replace(values=rows.values.astype(np.float64)),
        rows._replace(values=rows.values.astype(">f4")),
        rows._replace(columns=rows.columns.astype(np.int64)),
        rows._replace(ends=rows.ends.astype(np.int32)),
        rows._replace(columns=np.array([1, 9, 2, 9], np.int32)[::2]),
        rows._replace(values=np.ones((2, 1), np.float32)),
    ):
        with pytest.raises(TypeError, match="must be"):
            model.predict(other)
    with pytest.raises(ValueError, match="one value"):
        model.predict(rows._replace(values=np.ones(3, np.float32)))


def test_read_only_rows_are_accepted() -> None:
    """Rows may be views of bytes, as in a payload."""
    model, rows = SparseModel("softmax", random_weights(np.random.default_rng(0), 9, 3)), invalid([1, 2], [1, 2])
    frozen = SparseRows(*(np.frombuffer(array.tobytes(), array.dtype) for array in rows))
    assert model.predict(frozen).tobytes() == model.predict(rows).tobytes()
