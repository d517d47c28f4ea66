"""Packed rows: blocks of 4,096 in a file without a name, whatever the pieces are in which they come."""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.softmax.row_blocks import BLOCK_ROWS, RowBlocks
from service.softmax.sparse_rows import SparseRows, slice_rows
from service.train import packed_rows
from service.train.packed_rows import ALIGNMENT, PackedWriter, RowForm

N, K = 7, 3


def make_rows(n: int, *, sparse: bool, multilabel: bool) -> tuple[Any, Any, Any]:
    """Return rows with labels and weights."""
    random = np.random.default_rng(n)
    X = np.where(random.random((n, N)) < 0.5, random.normal(size=(n, N)), 0).astype(np.float32)
    labels = random.integers(2, size=(n, K)).astype(np.uint8) if multilabel else random.integers(K, size=n).astype("i4")
    rows: Any = X
    if sparse:
        counts = (X != 0).sum(axis=1)
        rows = SparseRows(np.cumsum(counts), np.nonzero(X)[1].astype(np.int32), X[X != 0])
    return rows, labels, random.random(n)


@pytest.mark.parametrize("n", [1, BLOCK_ROWS - 1, BLOCK_ROWS, 3 * BLOCK_ROWS + 5])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("multilabel", [False, True])
def test_blocks_are_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int, *, sparse: bool, multilabel: bool
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(packed_rows, "BLOCKS_MAPPED", 2)
    rows, labels, weights = make_rows(n, sparse=sparse, multilabel=multilabel)
    with PackedWriter(RowForm(N, K if multilabel else 0, is_sparse=sparse)) as writer:
        first, size = 0, 1
        while first < n:
            end = min(first + size, n)
            writer.add(slice_rows(rows, first, end), labels[first:end], weights[first:end])
            first, size = end, size * 3
        packed: RowBlocks = writer.finish()
    assert list(tmp_path.iterdir()) == []
    assert (packed.n_rows, packed.n_columns, packed.n_blocks) == (n, N, -(-n // BLOCK_ROWS))
    for _ in range(2):
        for i in range(packed.n_blocks):
            block = packed.read_block(i)
            part = slice(i * BLOCK_ROWS, min((i + 1) * BLOCK_ROWS, n))
            assert np.array_equal(block.labels, labels[part])
            assert np.array_equal(block.weights, weights[part])
            expected = slice_rows(rows, part.start, part.stop)
            for one, other in zip(
                block.rows if sparse else [block.rows], expected if sparse else [expected], strict=True
            ):
                assert one.dtype == other.dtype
                assert np.array_equal(one, other)
                assert one.ctypes.data % ALIGNMENT == 0


def test_the_bytes_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layout that the module describes, in a file that has a name."""
    path = tmp_path / "rows"
    monkeypatch.setattr(tempfile, "TemporaryFile", partial(open, path, "w+b"))
    with PackedWriter(RowForm(2, 0, is_sparse=True)) as writer:
        rows = SparseRows(np.array([1, 1, 3]), np.array([1, 0, 1], np.int32), np.array([2, 3, 4], np.float32))
        writer.add(rows, np.array([5, 6, 7], np.int32), np.array([1.0, 0.5, 2.0]))
        writer.finish()
    arrays = [
        np.array([5, 6, 7], "<i4"),
        np.array([1, 0.5, 2], "<f8"),
        np.array([1, 1, 3], "<i8"),
        np.array([1, 0, 1], "<i4"),
        np.array([2, 3, 4], "<f4"),
    ]
    assert path.read_bytes() == b"".join(array.tobytes().ljust(ALIGNMENT, b"\0") for array in arrays)
