"""The weights of the values of a row, to which every column of a symbolic matrix adds its own."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.convert.columns.category_weights import CategoryWeights
from service.convert.columns.raw_inputs import ColumnError, RawInputs
from service.convert.columns.symbolic_blocks import CategoryReading, NumberBlock, TermDraft
from service.softmax.arrays import Doubles

Flags = NDArray[np.bool_]

# Two columns fill the gaps of a number alike if their stand-ins differ by so little, relative to their size.
FILL_TOLERANCE = 1e-9


class TermWeights(NamedTuple):
    """The weights (width, K) of the terms of a text or a bag."""

    draft: TermDraft
    weights: Doubles


class InputWeights:
    """The weights of I values for K outputs.

    A number adds slope * x to the outputs where it is present, and jump + flag where it is missing.

    Args:
        inputs: The values of a row.
        n_outputs: K.

    Attributes:
        bias: (K,) float64.
        slope: (I, K) float64, of x, cut to [low, high].
        jump: (I, K) float64: what a missing number adds through columns of the number.
        flag: (I, K) float64: what it adds through columns that only mark gaps.
        fill: (I,) float64: the number that stands for a missing one in all columns; NaN if there is none.
        fills_differ: (I,) bool: whether two columns fill gaps with different numbers.
        is_flagged: (I,) bool: whether a column marks gaps.
        refuses_missing: (I,) bool: whether a missing number is refused.
        is_sloped: (I,) bool: whether a column is a function of the number itself.
        low: (I,) float64: the interval to which a number is cut; infinite for no cut.
        high: (I,) float64.
        categories: For each value that is a category its weights.
        terms: For each value that is a text or a bag the weights of its fields.
    """

    def __init__(self, inputs: RawInputs, n_outputs: int) -> None:
        n = len(inputs)
        self.inputs = inputs
        self.bias: Doubles = np.zeros(n_outputs)
        self.slope: Doubles = np.zeros((n, n_outputs))
        self.jump: Doubles = np.zeros((n, n_outputs))
        self.flag: Doubles = np.zeros((n, n_outputs))
        self.fill: Doubles = np.full(n, np.nan)
        self.fills_differ: Flags = np.zeros(n, np.bool_)
        self.is_flagged: Flags = np.zeros(n, np.bool_)
        self.refuses_missing: Flags = np.zeros(n, np.bool_)
        self.is_sloped: Flags = np.zeros(n, np.bool_)
        self.low: Doubles = np.full(n, -np.inf)
        self.high: Doubles = np.full(n, np.inf)
        self.categories: dict[int, CategoryWeights] = {}
        self.terms: dict[int, list[TermWeights]] = {}

    def add_bias(self, bias: Doubles) -> None:
        """Add (K,) numbers to the bias."""
        self.bias += bias

    def add_numbers(self, block: NumberBlock, weights: Doubles) -> None:
        """Add the weights (N, K) of functions of numbers.

        Raises:
            ColumnError: One number is cut to two intervals.
        """
        self.add_bias(block.shift @ weights)
        gap = np.where(np.isnan(block.missing), 0, block.missing - block.shift)
        sloped: Flags = np.array(block.factor.astype(np.bool_))
        self._add_intervals(block, sloped)
        self._add_fills(block, sloped)
        np.add.at(self.slope, block.indices, block.factor[:, None] * weights)
        np.add.at(self.jump, block.indices[sloped], gap[sloped, None] * weights[sloped])
        np.add.at(self.flag, block.indices[~sloped], gap[~sloped, None] * weights[~sloped])
        self.is_flagged[block.indices[~sloped & (gap != 0)]] = True
        self.is_sloped[block.indices[sloped]] = True
        self.refuses_missing[block.indices[np.isnan(block.missing)]] = True

    def _add_intervals(self, block: NumberBlock, sloped: Flags) -> None:
        indices, low, high = block.indices[sloped], block.low[sloped], block.high[sloped]
        for index, ends in zip(indices.tolist(), zip(low.tolist(), high.tolist(), strict=True), strict=True):
            if not self.is_sloped[index]:
                self.low[index], self.high[index] = ends
                self.is_sloped[index] = True
            elif (self.low[index], self.high[index]) != ends:
                raise ColumnError("a number is used as it is and cut to an interval, or cut to two intervals")

    def _add_fills(self, block: NumberBlock, sloped: Flags) -> None:
        filled = sloped & ~np.isnan(block.missing)
        fills = (block.missing[filled] - block.shift[filled]) / block.factor[filled]
        for index, fill in zip(block.indices[filled].tolist(), fills.tolist(), strict=True):
            if np.isnan(self.fill[index]):
                self.fill[index] = fill
            elif abs(self.fill[index] - fill) > FILL_TOLERANCE * max(abs(fill), 1.0):
                self.fills_differ[index] = True

    def add_category(self, reading: CategoryReading, weights: Doubles) -> None:
        """Add the weights (V + 2, K) of the listed categories, of another one and of a missing one; NaN is refused.

        Raises:
            ColumnError: The source refuses a category that it lists.
        """
        gaps: Flags = np.asarray(np.isnan(weights).any(axis=1))
        if gaps[:-2].any():
            raise ColumnError("a column of a listed category is missing, which the next step refuses")
        added = CategoryWeights(
            reading.values,
            np.where(gaps[:, None], 0, weights),
            bool(reading.refuses_unknown or gaps[-2]),
            bool(reading.refuses_missing or gaps[-1]),
            reading.fill,
        )
        known = self.categories.get(reading.place)
        self.categories[reading.place] = added if known is None else known.join(added)

    def add_terms(self, index: int, draft: TermDraft, weights: Doubles) -> None:
        """Add the weights (width, K) of the terms of a field; a field that several steps read is one."""
        listed = self.terms.setdefault(index, [])
        for place, known in enumerate(listed):
            if known.draft is draft:
                listed[place] = TermWeights(draft, known.weights + weights)
                return
        listed.append(TermWeights(draft, weights))
