"""Blocks of rows in memory are the rows, and the columns that occur stand for all columns."""

import numpy as np
import pytest

from service.softmax.occurring_columns import ColumnRange, CompactBlocks
from service.softmax.row_blocks import BLOCK_ROWS, MemoryBlocks, count_blocks
from service.softmax.sparse_rows import SparseRows, sparse_rows
from tests.support.training_blocks import sparse_entries

N = 40


def few_columns(seed: int, n_rows: int) -> np.ndarray:
    """Return a matrix in which a third of the columns occurs."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, N)).astype(np.float32) * (rng.random((n_rows, N)) < 0.3)
    X[:, rng.permutation(N)[: 2 * N // 3]] = 0
    return X.astype(np.float32)


@pytest.mark.parametrize("n_rows", [1, BLOCK_ROWS - 1, BLOCK_ROWS, BLOCK_ROWS + 1, 2 * BLOCK_ROWS + 5])
@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_blocks_are_the_rows(n_rows: int, form: str) -> None:
    """In order, each row once, with its label and weight."""
    X, rng = few_columns(1, n_rows), np.random.default_rng(2)
    labels, weights = rng.integers(0, 3, n_rows), rng.random(n_rows)
    blocks = MemoryBlocks(sparse_entries(X) if form == "sparse" else X, labels, weights, N)
    assert (blocks.n_rows, blocks.n_columns, blocks.n_blocks) == (n_rows, N, count_blocks(n_rows))
    read = [blocks.read_block(i) for i in range(blocks.n_blocks)]
    assert all(len(block.labels) == BLOCK_ROWS for block in read[:-1])
    matrices = [block.rows.to_matrix(N) if isinstance(block.rows, SparseRows) else block.rows for block in read]
    assert np.array_equal(np.concatenate(matrices), X)
    assert np.array_equal(np.concatenate([block.labels for block in read]), labels)
    assert np.array_equal(np.concatenate([block.weights for block in read]), weights)


def test_columns_that_occur_stand_for_all() -> None:
    """Compact rows are the columns that occur, in their order; weights of the others are 0."""
    X = few_columns(3, BLOCK_ROWS + 10)
    blocks = MemoryBlocks(sparse_entries(X), np.zeros(len(X), np.int32), n_columns=N)
    columns = ColumnRange.from_blocks(blocks)
    assert np.array_equal(columns.columns, np.flatnonzero(X.any(axis=0)))
    compact = CompactBlocks(blocks, columns)
    assert (compact.n_rows, compact.n_columns, compact.n_blocks) == (len(X), len(columns.columns), 2)
    read = [sparse_rows(compact.read_block(i).rows).to_matrix(compact.n_columns) for i in range(2)]
    assert np.array_equal(np.concatenate(read), X[:, columns.columns])
    weights = columns.spread_weights(np.ones((compact.n_columns, 2)))
    assert np.array_equal(weights[:, 1], X.any(axis=0))


def test_columns_of_other_rows_are_left_out() -> None:
    """Held-out rows may have columns that no training row has; these have no weight."""
    X = few_columns(4, 30)
    columns = ColumnRange.from_blocks(MemoryBlocks(sparse_entries(X), np.zeros(30, np.int32), n_columns=N))
    other = np.random.default_rng(5).normal(size=(7, N)).astype(np.float32)
    assert np.array_equal(
        columns.compact(sparse_entries(other)).to_matrix(len(columns.columns)), other[:, columns.columns]
    )


def test_rows_that_kernels_could_not_read_are_refused() -> None:
    """By dtype, layout and shape."""
    X, labels = np.zeros((4, N), np.float32), np.zeros(4, np.int32)
    with pytest.raises(TypeError, match="float32"):
        MemoryBlocks(X.astype(np.float64), labels)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="C-contiguous"):
        MemoryBlocks(np.asfortranarray(X), labels)
    with pytest.raises(TypeError, match="integers"):
        MemoryBlocks(X, np.zeros(4))
    with pytest.raises(ValueError, match="one label"):
        MemoryBlocks(X, labels[:3])
    with pytest.raises(ValueError, match="weights"):
        MemoryBlocks(X, labels, np.ones(3))
    with pytest.raises(ValueError, match="n_columns"):
        MemoryBlocks(sparse_entries(X), labels)
