"""Mean and variance of numbers that come in blocks, with the same bits whatever the blocks are.

Numbers are added in chunks of a fixed count, and the sums of a chunk in a fixed order, so neither blocks nor processors
matter. The moments of two chunks are joined as in Chan, Golub and LeVeque (The American Statistician, 1983).
"""

from typing import Final

import numpy as np

from service.softmax.arrays import Doubles

# Numbers of a chunk: 128 KiB, within the second level of a cache.
CHUNK: Final = 16_384
# Sums of single numbers that are kept apart, and added at the end of a chunk.
LANES: Final = 64


class Moments:
    """The count, mean and sum of squared deviations of numbers, or of each component of vectors.

    Args:
        size: S, the numbers of a vector.
    """

    def __init__(self, size: int = 1) -> None:
        self._size: Final = size
        self._count = 0
        self._mean: Doubles = np.zeros(size)
        self._squares: Doubles = np.zeros(size)
        self._waiting: list[Doubles] = []
        self._n_waiting = 0

    def add(self, values: Doubles) -> None:
        """Add vectors (B, S), or numbers (B,) if S is 1; B >= 0."""
        rows = max(CHUNK // self._size, 1)
        self._waiting.append(values.reshape(-1, self._size))
        self._n_waiting += len(values)
        if self._n_waiting >= rows:
            joined = np.concatenate(self._waiting)
            whole = len(joined) - len(joined) % rows
            for first in range(0, whole, rows):
                self._add_chunk(joined[first : first + rows])
            self._waiting, self._n_waiting = [joined[whole:].copy()], len(joined) - whole

    @property
    def mean(self) -> Doubles:
        """The mean (S,); 0 without numbers."""
        self._add_rest()
        return self._mean

    @property
    def is_constant(self) -> bool:
        """Whether all vectors are equal."""
        self._add_rest()
        return not np.any(self._squares)

    @property
    def scale(self) -> Doubles:
        """The population standard deviation (S,); 1 where it is 0."""
        self._add_rest()
        deviation = np.sqrt(self._squares / max(self._count, 1))
        scale: Doubles = np.where(deviation > 0, deviation, 1.0)
        return scale

    def _add_rest(self) -> None:
        """Add the numbers that wait; no others follow."""
        if self._n_waiting:
            self._add_chunk(np.concatenate(self._waiting))
            self._waiting, self._n_waiting = [], 0

    def _add_chunk(self, values: Doubles) -> None:
        count = len(values)
        mean = _sum(values) / count
        deviations = values - mean
        squares = _sum(deviations * deviations)
        total = self._count + count
        difference = mean - self._mean
        self._mean = self._mean + difference * (count / total)
        self._squares = self._squares + squares + difference * difference * (self._count * (count / total))
        self._count = total


def _sum(values: Doubles) -> Doubles:
    """Return the sum (S,) of vectors (B, S); of single numbers in lanes, whose sums are added in order."""
    if values.shape[1] > 1:
        total: Doubles = np.add.reduce(values, axis=0)
        return total
    flat = values.reshape(-1)
    whole = len(flat) - len(flat) % LANES
    lanes = np.add.reduce(flat[:whole].reshape(-1, LANES), axis=0)
    return np.add.accumulate(np.concatenate([lanes, flat[whole:]]))[-1:]
