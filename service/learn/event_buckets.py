"""Sums over buckets of events: when all buckets are full, neighbors merge and the width doubles.

Bucket i has the events origin + i·width < seq <= origin + (i + 1)·width. So between half and all of the buckets are in
use, however long the stream is.

Rows come by ascending seq, so those of one bucket are neighbors: a run.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.softmax.arrays import Doubles, Integers

# Rows of up to so many buckets are added bucket by bucket, which is faster if each bucket has many rows.
RUNS_MAX: Final = 16

Arrays = Mapping[str, NDArray[Any]]


class BucketRows:
    """The buckets of some rows.

    Args:
        places: (R,) the bucket of each row, ascending.

    Attributes:
        places: The same.
        starts: The first row of each run.
    """

    def __init__(self, places: Integers) -> None:
        self.places: Final = places
        self.starts: Final = np.flatnonzero(np.concatenate([[True], places[1:] != places[:-1]])[: len(places)])

    def runs(self) -> Iterator[tuple[int, int, int]]:
        """Return the bucket of each run, its first row, and the row after its last."""
        starts = self.starts.tolist()
        return zip(self.places[self.starts].tolist(), starts, [*starts[1:], len(self.places)], strict=False)

    def take(self, rows: NDArray[Any]) -> "BucketRows":
        """Return the buckets of some of the rows: truth values (R,), or ascending indices of rows."""
        return BucketRows(self.places[rows])


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

    def parts(self, seqs: Integers) -> Iterator[tuple[slice, BucketRows]]:
        """Cut rows where the buckets are full, and merge them there.

        Args:
            seqs: (R,) the seq of each row's event, ascending, none before the rows that were added.

        Yields:
            The rows of a part, and their buckets. Add them before taking the next part.
        """
        start = 0
        while start < len(seqs):
            stop = int(np.searchsorted(seqs, self.origin + self._most * self.width, side="right"))
            if stop > start:
                yield slice(start, stop), BucketRows((seqs[start:stop] - (self.origin + 1)) // self.width)
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


def add_in_order(sums: Doubles, rows: BucketRows, values: Doubles) -> None:
    """Add values (R,) to sums (B,): each sum in the order of the rows."""
    if len(rows.starts) > RUNS_MAX:
        np.add.at(sums, rows.places, values)
        return
    for place, start, stop in rows.runs():
        sums[place] = np.add.accumulate(np.concatenate([sums[place : place + 1], values[start:stop]]))[-1]


def add_exactly(sums: NDArray[Any], rows: BucketRows, cells: Integers, values: Doubles | None = None) -> None:
    """Add values (R,), or 1 for each row, to sums (B, C) at the cells (R,).

    The order of the rows does not count; so all sums must be exact.
    """
    width = sums.shape[1]
    if len(rows.starts) > RUNS_MAX:
        np.add.at(sums.reshape(-1), rows.places * width + cells, 1 if values is None else values)
        return
    for place, start, stop in rows.runs():
        weights = None if values is None else values[start:stop]
        sums[place] += np.bincount(cells[start:stop], weights, width).astype(sums.dtype)
