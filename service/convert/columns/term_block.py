"""A block of columns that are the terms of a text or a bag."""

from dataclasses import dataclass, replace

import numpy as np

from service.convert.columns.symbolic_blocks import SymbolicBlock, TermDraft, WeightSink
from service.softmax.arrays import Doubles, Integers


@dataclass(frozen=True, eq=False)
class TermBlock(SymbolicBlock):
    """Columns of the terms of a text or a bag.

    Attributes:
        index: The value.
        draft: The field.
        columns: (N,) int64, the column of the field for each column of the block; None if all, in order.
        factor: (N,) float64, or None if all are 1.
        shift: (N,) float64, or None if all are 0.
    """

    index: int
    draft: TermDraft
    columns: Integers | None = None
    factor: Doubles | None = None
    shift: Doubles | None = None

    @property
    def width(self) -> int:
        """The number N of columns."""
        return self.draft.width if self.columns is None else len(self.columns)

    @property
    def is_whole(self) -> bool:
        """Whether the block is all columns of the field as they are."""
        return self.columns is None and self.factor is None and self.shift is None

    def select(self, columns: Integers) -> "TermBlock":
        """Return the block of some columns, in the given order."""
        return replace(
            self,
            columns=columns if self.columns is None else self.columns[columns],
            factor=None if self.factor is None else self.factor[columns],
            shift=None if self.shift is None else self.shift[columns],
        )

    def scale(self, factor: Doubles, shift: Doubles) -> "TermBlock":
        """Return the block of each column times a factor, plus a shift."""
        scaled = factor if self.factor is None else self.factor * factor
        shifted = shift if self.shift is None else self.shift * factor + shift
        return replace(self, factor=scaled, shift=shifted if shifted.any() else None)

    def add_weights(self, weights: Doubles, sink: WeightSink) -> None:
        """Add the weights of the columns to those of the field's terms."""
        if self.shift is not None:
            sink.add_bias(self.shift @ weights)
        if self.factor is not None:
            weights = weights * self.factor[:, None]
        if self.columns is not None:
            spread = np.zeros((self.draft.width, weights.shape[1]))
            np.add.at(spread, self.columns, weights)
            weights = spread
        sink.add_terms(self.index, self.draft, weights)
