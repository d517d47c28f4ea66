"""Training rows in blocks: the interface between a source of rows and the solver, and rows in memory behind it.

Sums over rows run in row order within a block, and blocks are added in an order that depends on the data's shape alone.
So the number of threads changes no bit of a result. A block is read whenever it is needed, so rows need not fit into
memory: `read_block` may return views of a mapped file.
"""

from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from service.softmax.arrays import Doubles
from service.softmax.sparse_rows import SparseRows, check_sparse_rows, slice_rows

# Rows of a block: 1.6 MB of 100 float32 columns, within the second level of a cache; read in one call of Python.
BLOCK_ROWS: Final = 4096

DenseRows = NDArray[np.float32]
"""X (b, N) float32, C-contiguous."""
BlockLabels = NDArray[np.int32] | NDArray[np.uint8]
"""(b,) int32, numbers of classes; or (b, K) uint8, 0 or 1, for a multilabel head."""


class RowBlock(NamedTuple):
    """Up to BLOCK_ROWS rows with labels and weights.

    Attributes:
        rows: X (b, N) float32, C-contiguous; or sparse rows of float32 values.
        labels: (b,) int32, numbers of classes; or (b, K) uint8, 0 or 1, for a multilabel head.
        weights: (b,) float64, each at least 0.
    """

    rows: DenseRows | SparseRows
    labels: BlockLabels
    weights: Doubles


class RowBlocks(Protocol):
    """Rows in blocks: block i has the rows from i BLOCK_ROWS to before (i + 1) BLOCK_ROWS."""

    @property
    def n_rows(self) -> int:
        """The number of rows, at least 1."""

    @property
    def n_columns(self) -> int:
        """N."""

    @property
    def n_blocks(self) -> int:
        """The number of blocks; only the last one may have fewer than BLOCK_ROWS rows."""

    def read_block(self, i: int, /) -> RowBlock:
        """Return block i. Several threads may call this at the same time; a block is not changed by its reader."""


def count_blocks(n_rows: int) -> int:
    """Return the number of blocks of `n_rows` rows."""
    return -(-n_rows // BLOCK_ROWS)


class MemoryBlocks:
    """Rows that are in memory, as blocks.

    Args:
        rows: X (B, N) float32, C-contiguous, B >= 1; or sparse rows of float32 values.
        labels: (B,) numbers of classes, or (B, K) of 0 and 1 for a multilabel head, of an integer or boolean dtype.
        weights: (B,) float64, each at least 0; None for 1 each.
        n_columns: N; needed for sparse rows only.

    Raises:
        ValueError: The shapes contradict each other, there are no rows, or a column of a sparse row is out of range.
        TypeError: An array has another dtype or layout.
    """

    def __init__(
        self,
        rows: DenseRows | SparseRows,
        labels: NDArray[Any],
        weights: Doubles | None = None,
        n_columns: int | None = None,
    ) -> None:
        if isinstance(rows, SparseRows):
            if n_columns is None:
                raise ValueError("sparse rows need n_columns")
            check_sparse_rows(rows, n_columns)
            values, self.n_rows, self.n_columns = rows.values, rows.n_rows, n_columns
        else:
            if rows.ndim != 2:  # noqa: PLR2004  # a matrix
                raise ValueError("rows must be (B, N)")
            values, (self.n_rows, self.n_columns) = rows, rows.shape
        if values.dtype != np.float32 or not values.flags.c_contiguous:
            raise TypeError("rows must be float32 and C-contiguous")
        if labels.dtype.kind not in "iub":
            raise TypeError("labels must be integers")
        if not self.n_rows == len(labels) > 0:
            raise ValueError("there must be one label for each row, and at least one row")
        self._rows: Final = rows
        self._labels: Final[BlockLabels] = (
            np.ascontiguousarray(labels, np.int32) if labels.ndim == 1 else np.ascontiguousarray(labels, np.uint8)
        )
        self._weights: Final = np.ones(self.n_rows) if weights is None else weights
        if self._weights.shape != (self.n_rows,):
            raise ValueError("weights must be (B,)")
        self.n_blocks = count_blocks(self.n_rows)

    def read_block(self, i: int, /) -> RowBlock:
        """Return block i; its rows are not copied."""
        first, end = i * BLOCK_ROWS, min((i + 1) * BLOCK_ROWS, self.n_rows)
        return RowBlock(slice_rows(self._rows, first, end), self._labels[first:end], self._weights[first:end])
