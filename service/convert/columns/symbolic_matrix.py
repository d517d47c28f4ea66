"""A symbolic matrix: blocks of columns side by side, and the steps that make another matrix of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from service.convert.columns.raw_inputs import RawInputs
from service.convert.columns.symbolic_blocks import MixedBlock, NumberBlock, SymbolicBlock, WeightSink
from service.softmax.arrays import Doubles, Integers


@dataclass(frozen=True, eq=False)
class SymbolicMatrix:
    """Columns that are functions of the values of a row, immutable.

    Attributes:
        blocks: The blocks of columns, side by side.
    """

    blocks: tuple[SymbolicBlock, ...]

    @classmethod
    def of_inputs(cls, inputs: RawInputs) -> "SymbolicMatrix":
        """Return the matrix whose columns are all values of a row."""
        return cls((NumberBlock.of_inputs(inputs, range(len(inputs))),))

    @classmethod
    def side_by_side(cls, matrices: Sequence["SymbolicMatrix"]) -> "SymbolicMatrix":
        """Return the columns of matrices, one after the other."""
        return cls(tuple(block for matrix in matrices for block in matrix.blocks))

    @property
    def width(self) -> int:
        """The number N of columns."""
        return sum(block.width for block in self.blocks)

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """The first column of each block, and the one after its last."""
        return list(pairwise(np.cumsum([0, *(block.width for block in self.blocks)]).tolist()))

    def select(self, columns: Sequence[int] | Integers) -> "SymbolicMatrix":
        """Return the matrix of some columns, in the given order."""
        chosen = np.asarray(columns, np.int64)
        starts = np.array([start for start, _ in self.bounds], np.int64)
        owners = np.searchsorted(starts, chosen, side="right") - 1
        # Empty blocks share their start with the next one; the last of them has the column.
        edges = np.flatnonzero(np.diff(owners)) + 1
        runs = zip([0, *edges.tolist()], [*edges.tolist(), len(chosen)], strict=True)
        return SymbolicMatrix(
            tuple(
                self.blocks[owners[start]].select(chosen[start:end] - starts[owners[start]])
                for start, end in runs
                if start < end
            )
        )

    def scale(self, factor: Doubles, shift: Doubles) -> "SymbolicMatrix":
        """Return each column times a factor, plus a shift; both (N,) float64."""
        return self._each_block(lambda block, part: block.scale(factor[part], shift[part]))

    def clip(self, low: Doubles, high: Doubles) -> "SymbolicMatrix":
        """Return each column cut to [low, high]; both (N,) float64.

        Raises:
            ColumnError: A column is not a plain number.
        """
        return self._each_block(lambda block, part: block.clip(low[part], high[part]))

    def fill_missing(self, values: Doubles) -> "SymbolicMatrix":
        """Return the matrix with numbers (N,) in place of missing ones."""
        return self._each_block(lambda block, part: block.fill_missing(values[part]))

    def mark_missing(self) -> "SymbolicMatrix":
        """Return the matrix that is 1 where a column is missing, and 0 elsewhere."""
        return self._each_block(lambda block, _: block.mark_missing())

    def mix(self, matrix: Doubles, shift: Doubles) -> "SymbolicMatrix":
        """Return the product with a constant matrix (N, M), plus a shift (M,); both float64."""
        return SymbolicMatrix((MixedBlock(self, matrix, shift),))

    def note_scaling(self, mean: Doubles, scale: Doubles, rows: int | None = None) -> None:
        """Note the mean and scale (N,) of a scaler and its training rows, for the fields of plain numbers."""
        for block, (start, end) in zip(self.blocks, self.bounds, strict=True):
            block.note_scaling(mean[start:end], scale[start:end], rows)

    def add_weights(self, weights: Doubles, sink: WeightSink) -> None:
        """Add the weights (N, K) of the columns to the weights of what they are functions of."""
        for block, (start, end) in zip(self.blocks, self.bounds, strict=True):
            block.add_weights(weights[start:end], sink)

    def _each_block(self, change: Callable[[SymbolicBlock, slice], SymbolicBlock]) -> "SymbolicMatrix":
        return SymbolicMatrix(
            tuple(
                change(block, slice(start, end)) for block, (start, end) in zip(self.blocks, self.bounds, strict=True)
            )
        )
