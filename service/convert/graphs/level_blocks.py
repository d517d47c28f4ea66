"""Blocks of columns that a graph has and a pipeline has not: functions of other columns, and sums of two matrices.

level        a function of each column of a matrix: an activation of a layer, or a step on the way to one
LevelBlock   columns of a level, each times a factor, plus a shift
SumBlock     the sum of two matrices of one width
"""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from service.convert.columns.raw_inputs import ColumnError
from service.convert.columns.symbolic_blocks import SymbolicBlock, WeightSink
from service.convert.columns.symbolic_matrix import SymbolicMatrix
from service.softmax.arrays import Doubles, Integers


@dataclass(frozen=True, eq=False)
class Level:
    """A function of each column of a matrix.

    Attributes:
        function: Its name, such as "relu".
        inner: The matrix.
        negative: The matrix of which `inner` is the negative, if a node of the graph has that one; or None.
        is_optional: Whether the node that applies the function has an option that leaves it out.
    """

    function: str
    inner: SymbolicMatrix
    negative: SymbolicMatrix | None = None
    is_optional: bool = False


class LevelSink(Protocol):
    """The weights of levels, beside those of a row's values."""

    def add_level(self, level: Level, columns: Integers, weights: Doubles) -> None:
        """Add the weights (N, K) of N columns of a level."""


@dataclass(frozen=True, eq=False)
class LevelBlock(SymbolicBlock):
    """Columns of a level, each times a factor, plus a shift.

    Attributes:
        level: The level.
        columns: (N,) int64, its columns.
        factor: (N,) float64.
        shift: (N,) float64.
    """

    level: Level
    columns: Integers
    factor: Doubles
    shift: Doubles

    @property
    def width(self) -> int:
        """The number N of columns."""
        return len(self.columns)

    def select(self, columns: Integers) -> "LevelBlock":
        """Return the block of some columns, in the given order."""
        return LevelBlock(self.level, self.columns[columns], self.factor[columns], self.shift[columns])

    def scale(self, factor: Doubles, shift: Doubles) -> "LevelBlock":
        """Return the block of each column times a factor, plus a shift."""
        return replace(self, factor=self.factor * factor, shift=self.shift * factor + shift)

    def add_weights(self, weights: Doubles, sink: WeightSink) -> None:
        """Add the weights of the columns to those of the level.

        Raises:
            ColumnError: The weights are those of a row's values alone.
        """
        add_level = getattr(sink, "add_level", None)
        if add_level is None:
            raise ColumnError("it is behind an activation")
        sink.add_bias(self.shift @ weights)
        add_level(self.level, self.columns, weights * self.factor[:, None])


@dataclass(frozen=True, eq=False)
class SumBlock(SymbolicBlock):
    """Columns of the sum of two matrices of one width, each times a factor, plus a shift.

    Attributes:
        parts: Both matrices.
        columns: (N,) int64, the columns of the sum.
        factor: (N,) float64.
        shift: (N,) float64.
    """

    parts: tuple[SymbolicMatrix, SymbolicMatrix]
    columns: Integers
    factor: Doubles
    shift: Doubles

    @classmethod
    def of_matrices(cls, one: SymbolicMatrix, other: SymbolicMatrix) -> "SumBlock":
        """Return the sum of two matrices."""
        n = one.width
        return cls((one, other), np.arange(n), np.ones(n), np.zeros(n))

    @property
    def width(self) -> int:
        """The number N of columns."""
        return len(self.columns)

    def select(self, columns: Integers) -> "SumBlock":
        """Return the block of some columns, in the given order."""
        return SumBlock(self.parts, self.columns[columns], self.factor[columns], self.shift[columns])

    def scale(self, factor: Doubles, shift: Doubles) -> "SumBlock":
        """Return the block of each column times a factor, plus a shift."""
        return replace(self, factor=self.factor * factor, shift=self.shift * factor + shift)

    def add_weights(self, weights: Doubles, sink: WeightSink) -> None:
        """Add the weights of the columns to those of both matrices."""
        sink.add_bias(self.shift @ weights)
        spread = np.zeros((self.parts[0].width, weights.shape[1]))
        np.add.at(spread, self.columns, weights * self.factor[:, None])
        for part in self.parts:
            part.add_weights(spread, sink)


def apply_function(
    function: str, matrix: SymbolicMatrix, negative: SymbolicMatrix | None = None, *, is_optional: bool = False
) -> SymbolicMatrix:
    """Return a function of each column of a matrix; the other arguments are those of `Level`."""
    n = matrix.width
    level = Level(function, matrix, negative, is_optional)
    return SymbolicMatrix((LevelBlock(level, np.arange(n), np.ones(n), np.zeros(n)),))


def find_function(
    matrix: SymbolicMatrix, function: str, factor: float = 1.0, shift: float = 0.0
) -> SymbolicMatrix | None:
    """Return the inner matrix if a matrix is factor * function(inner) + shift, column by column; else None."""
    if len(matrix.blocks) != 1 or not isinstance(matrix.blocks[0], LevelBlock):
        return None
    block = matrix.blocks[0]
    is_it = (
        block.level.function == function
        and np.array_equal(block.columns, np.arange(block.level.inner.width))
        and bool((block.factor == factor).all() and (block.shift == shift).all())
    )
    return block.level.inner if is_it else None
