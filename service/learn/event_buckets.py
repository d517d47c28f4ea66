"""Sums over buckets of events: when all buckets are full, neighbors merge and the width doubles.

Bucket i has the events origin + i·width < seq <= origin + (i + 1)·width. So between half and all of the buckets are in
use, however long the stream is.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.softmax.arrays import Integers

Arrays = Mapping[str, NDArray[Any]]


class EventBuckets:
    """Arrays whose first axis are buckets.

    Args:
        origin: The seq after which the first bucket begins.
        arrays: Arrays of zeros by name; their first axis is the most buckets, an even number.
        maxima: The columns of two-dimensional arrays that hold maxima, by the array's name; all others hold sums.

    Attributes:
        origin: The seq after which the first bucket begins.
        width: Events of a bucket, a power of two.
        arrays: The arrays.
    """

    def __init__(self, origin: int, arrays: dict[str, NDArray[Any]], maxima: Mapping[str, int]) -> None:
        self.origin: Final = origin
        self.width = 1
        self.arrays: Final = arrays
        self._maxima: Final = maxima
        (self._most,) = {len(array) for array in arrays.values()}

    @property
    def shift(self) -> int:
        """The width as a power of two: bucket i has the seqs with (seq - (origin + 1)) >> shift = i."""
        return self.width.bit_length() - 1

    def parts(self, seqs: Integers) -> Iterator[slice]:
        """Cut rows where the buckets are full, and merge them there.

        Args:
            seqs: (R,) the seq of each row's event, ascending, none before the rows that were added.

        Yields:
            The rows of a part. Add them before taking the next part.
        """
        start = 0
        while start < len(seqs):
            end = self.origin + self._most * self.width
            stop = len(seqs) if seqs[-1] <= end else int(np.searchsorted(seqs, end, side="right"))
            if stop > start:
                yield slice(start, stop)
                start = stop
            else:
                self._merge()

    def used(self, seq: int) -> int:
        """Return the number of buckets up to the one of an event."""
        return -(-(seq - self.origin) // self.width) if seq > self.origin else 0

    def drop(self, name: str) -> None:
        """Stop counting an array."""
        self.arrays.pop(name, None)

    def trimmed(self, seq: int) -> dict[str, NDArray[Any]]:
        """Return the buckets of each array up to the one of an event, without copying."""
        return {name: array[: self.used(seq)] for name, array in self.arrays.items()}

    def restore(self, width: int, arrays: Arrays) -> None:
        """Continue from trimmed arrays.

        Raises:
            ValueError: The width is no power of two, or an array is missing or has another shape.
        """
        if width < 1 or width & (width - 1):
            raise ValueError("the width of buckets must be a power of two")
        self.width = width
        for name, array in self.arrays.items():
            if name not in arrays or array[: len(arrays[name])].shape != arrays[name].shape:
                raise ValueError("an array of buckets is missing or has another shape")
            array[: len(arrays[name])] = arrays[name]

    def _merge(self) -> None:
        half = self._most // 2
        for name, array in self.arrays.items():
            merged = array[0::2] + array[1::2]
            if name in self._maxima:
                column = self._maxima[name]
                merged[:, column] = np.maximum(array[0::2, column], array[1::2, column])
            array[:half], array[half:] = merged, 0
        self.width *= 2
