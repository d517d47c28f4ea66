"""The columns that occur in sparse rows, and the same rows in the range of these columns.

Hashed rows have 2**18 columns and more, most of which occur in no row. A column that does not occur keeps the weight 0,
because the penalty is its whole part of the objective. So the solver works on the other columns alone, which takes a
fraction of the memory and of the time.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.softmax.arrays import Doubles
from service.softmax.row_blocks import RowBlock, RowBlocks
from service.softmax.sparse_rows import SparseRows, sparse_rows

# The number of a column that does not occur.
ABSENT: Final = -1


class ColumnRange:
    """A compact range of numbers for the columns that occur.

    Args:
        columns: (T,) int32, the columns that occur, ascending.
        n_columns: N, the number of all columns.

    Attributes:
        columns: As given; number t stands for column columns[t].
        numbers: (N,) int32, the number of each column, or ABSENT.
    """

    def __init__(self, columns: NDArray[np.int32], n_columns: int) -> None:
        self.columns: Final = columns
        self.numbers: Final = np.full(n_columns, ABSENT, np.int32)
        self.numbers[columns] = np.arange(len(columns), dtype=np.int32)

    @classmethod
    def from_blocks(cls, blocks: RowBlocks) -> "ColumnRange":
        """Return the range of the columns that occur in sparse rows."""
        occurs = np.zeros(blocks.n_columns, np.bool_)
        for i in range(blocks.n_blocks):
            occurs[sparse_rows(blocks.read_block(i).rows).columns] = True
        return cls(np.flatnonzero(occurs).astype(np.int32), blocks.n_columns)

    @property
    def n_columns(self) -> int:
        """The number N of all columns."""
        return len(self.numbers)

    def compact(self, rows: SparseRows) -> SparseRows:
        """Return sparse rows of N columns as rows of T columns; entries of other columns are left out."""
        numbers = self.numbers[rows.columns]
        known = numbers != ABSENT
        if known.all():
            return SparseRows(rows.ends, numbers, rows.values)
        ends = np.concatenate([[0], np.cumsum(known, dtype=np.int64)])[rows.ends]
        return SparseRows(ends, numbers[known], rows.values[known])

    def spread_weights(self, weights: Doubles) -> Doubles:
        """Return weights (N, K) of all columns from those (T, K) of the columns that occur."""
        spread = np.zeros((self.n_columns, weights.shape[1]), weights.dtype)
        spread[self.columns] = weights
        return spread


class CompactBlocks:
    """Blocks of sparse rows in the range of the columns that occur.

    Args:
        blocks: The rows of N columns.
        columns: The range.
    """

    def __init__(self, blocks: RowBlocks, columns: ColumnRange) -> None:
        self.n_rows: Final = blocks.n_rows
        self.n_columns: Final = len(columns.columns)
        self.n_blocks: Final = blocks.n_blocks
        self._blocks: Final = blocks
        self._columns: Final = columns

    def read_block(self, i: int, /) -> RowBlock:
        """Return block i."""
        rows, labels, weights = self._blocks.read_block(i)
        return RowBlock(self._columns.compact(sparse_rows(rows)), labels, weights)
