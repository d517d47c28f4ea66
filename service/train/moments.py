"""Mean and variance of numbers that come in blocks.

Sums are taken in the order of the rows, one addition after the other, so each processor gives the same bits. The
moments of two parts are joined as in Chan, Golub and LeVeque (The American Statistician, 1983).
"""

from typing import Any

import numpy as np

from service.softmax.arrays import Doubles


class Moments:
    """The count, mean and sum of squared deviations of numbers, or of each component of vectors.

    Attributes:
        count: How many there are.
        mean: (S,) float64.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean: Any = np.zeros(1)
        self._squares: Any = np.zeros(1)

    def add(self, values: Doubles) -> None:
        """Add vectors (B, S), B >= 0."""
        if not len(values):
            return
        count = len(values)
        mean = _sum(values) / count
        deviations = values - mean
        squares = _sum(deviations * deviations)
        total = self.count + count
        difference = mean - self.mean
        self.mean = self.mean + difference * (count / total)
        self._squares = self._squares + squares + difference * difference * (self.count * (count / total))
        self.count = total

    @property
    def is_constant(self) -> bool:
        """Whether all vectors are equal."""
        return not np.any(self._squares)

    @property
    def scale(self) -> Doubles:
        """The population standard deviation (S,); 1 where it is 0."""
        deviation = np.sqrt(self._squares / max(self.count, 1))
        scale: Doubles = np.where(deviation > 0, deviation, 1.0)
        return scale


def _sum(values: Doubles) -> Doubles:
    """Return the sum (S,) of vectors (B, S), added in order."""
    total: Doubles = np.add.accumulate(values, axis=0)[-1]
    return total
