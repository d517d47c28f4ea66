"""Blocks of rows in which all classes have the same weight."""

from typing import Final

import numpy as np

from service.softmax.arrays import Doubles
from service.softmax.row_blocks import RowBlock, RowBlocks


class BalancedBlocks:
    """The same rows with other weights: those of a row with class c are multiplied by factors[c].

    Args:
        blocks: The rows, with one label each.
        factors: (C,), see `balance_factors`.
    """

    def __init__(self, blocks: RowBlocks, factors: Doubles) -> None:
        self.n_rows: Final = blocks.n_rows
        self.n_columns: Final = blocks.n_columns
        self.n_blocks: Final = blocks.n_blocks
        self._blocks: Final = blocks
        self._factors: Final = factors

    def read_block(self, i: int, /) -> RowBlock:
        """Return block i."""
        rows, labels, weights = self._blocks.read_block(i)
        return RowBlock(rows, labels, weights * self._factors[labels])


def balance_factors(class_weights: Doubles) -> Doubles:
    """Return the factors (C,) that give all classes that occur the same weight, and keep the sum of all weights.

    scikit-learn's `class_weight="balanced"` has the same factors.

    Args:
        class_weights: (C,), the weight of the rows of each class, see `sum_labels`.
    """
    occurs = class_weights > 0
    share = np.cumsum(class_weights)[-1] / max(np.count_nonzero(occurs), 1)
    return np.where(occurs, share / np.where(occurs, class_weights, 1.0), 1.0)
