"""Blocks of columns that are functions of one category."""

from dataclasses import dataclass, replace

import numpy as np

from service.convert.columns.raw_inputs import ColumnError
from service.convert.columns.symbolic_blocks import CategoryReading, SymbolicBlock, WeightSink
from service.softmax.arrays import Doubles, Integers


@dataclass(frozen=True, eq=False)
class TableBlock(SymbolicBlock):
    """Columns of a table with one row for each category.

    Attributes:
        reading: The category.
        table: (V + 2, N) float64, a row for each row of the reading; NaN where a column is missing.
        factor: (N,) float64, by which the table is multiplied.
        shift: (N,) float64, which is added.
    """

    reading: CategoryReading
    table: Doubles
    factor: Doubles
    shift: Doubles

    @classmethod
    def of_table(cls, reading: CategoryReading, table: Doubles) -> "TableBlock":
        """Return the columns of an encoder's table (rows, N) float64."""
        n = table.shape[1]
        return cls(reading, table[reading.rows], np.ones(n), np.zeros(n))

    @property
    def width(self) -> int:
        """The number N of columns."""
        return int(self.table.shape[1])

    @property
    def scaled_table(self) -> Doubles:
        """(V + 2, N) float64, the table with factor and shift."""
        return self.table * self.factor + self.shift

    def select(self, columns: Integers) -> "TableBlock":
        """Return the block of some columns, in the given order."""
        return replace(self, table=self.table[:, columns], factor=self.factor[columns], shift=self.shift[columns])

    def scale(self, factor: Doubles, shift: Doubles) -> "TableBlock":
        """Return the block of each column times a factor, plus a shift."""
        return replace(self, factor=self.factor * factor, shift=self.shift * factor + shift)

    def clip(self, low: Doubles, high: Doubles) -> "TableBlock":
        """Return the block of each column cut to [low, high]."""
        return self._with_table(np.clip(self.scaled_table, low, high))

    def fill_missing(self, values: Doubles) -> "TableBlock":
        """Return the block with numbers in place of missing ones."""
        gaps = np.isnan(self.table)
        return self._with_table(np.where(gaps, values, self.scaled_table)) if gaps.any() else self

    def mark_missing(self) -> "TableBlock":
        """Return the block that is 1 where a column is missing, and 0 elsewhere."""
        return self._with_table(np.isnan(self.table).astype(np.float64))

    def _with_table(self, table: Doubles) -> "TableBlock":
        return replace(self, table=table, factor=np.ones(self.width), shift=np.zeros(self.width))

    def add_weights(self, weights: Doubles, sink: WeightSink) -> None:
        """Add the weights of the columns to those of the categories."""
        sink.add_bias(self.shift @ weights)
        sink.add_category(self.reading, self.table @ (weights * self.factor[:, None]))


@dataclass(frozen=True, eq=False)
class OneHotBlock(SymbolicBlock):
    """Columns of which at most one is 1, times a factor, plus a shift.

    Attributes:
        reading: The category.
        columns: (V + 2,) int64, for each row of the reading the column that is 1, or -1 for none.
        factor: (N,) float64.
        shift: (N,) float64.
    """

    reading: CategoryReading
    columns: Integers
    factor: Doubles
    shift: Doubles

    @classmethod
    def of_columns(cls, reading: CategoryReading, columns: Integers, width: int) -> "OneHotBlock":
        """Return the columns of an encoder whose rows (rows,) have a 1 in one of `width` columns, or in none (-1)."""
        return cls(reading, columns[reading.rows], np.ones(width), np.zeros(width))

    @property
    def width(self) -> int:
        """The number N of columns."""
        return len(self.factor)

    def select(self, columns: Integers) -> "OneHotBlock":
        """Return the block of some columns, in the given order.

        Raises:
            ColumnError: One column is chosen twice.
        """
        if len(np.unique(columns)) < len(columns):
            raise ColumnError("a column of a category is chosen twice")
        places = np.full(self.width + 1, -1)
        places[columns] = np.arange(len(columns))
        return replace(self, columns=places[self.columns], factor=self.factor[columns], shift=self.shift[columns])

    def scale(self, factor: Doubles, shift: Doubles) -> "OneHotBlock":
        """Return the block of each column times a factor, plus a shift."""
        return replace(self, factor=self.factor * factor, shift=self.shift * factor + shift)

    def add_weights(self, weights: Doubles, sink: WeightSink) -> None:
        """Add the weights of the columns to those of the categories."""
        sink.add_bias(self.shift @ weights)
        none = np.zeros((1, weights.shape[1]))
        sink.add_category(self.reading, np.concatenate((weights * self.factor[:, None], none))[self.columns])
