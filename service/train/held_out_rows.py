"""Decide which rows are held out: not used for any number of the model, and used for its metrics.

`hash`   a tenth of the rows, by SplitMix64 of the seed and the row's number, so that neither the size of blocks nor
         other rows matter (Steele, Lea and Flood, OOPSLA 2014)
`last`   the last tenth of the rows of the file, for rows in the order of time
"""

from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

HoldOut = Literal["hash", "last"]

HELD_OUT: Final = 0.1
GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
FACTORS: Final = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
SHIFTS: Final = (np.uint64(30), np.uint64(27), np.uint64(31))


class HeldOutRows:
    """Tells which rows are held out.

    Args:
        how: "hash" or "last".
        seed: The seed of the hash, from 0 to 2**63 - 1.
        n_rows: The number of rows of the file; needed for "last".
    """

    def __init__(self, how: HoldOut, seed: int, n_rows: int | None = None) -> None:
        self._how: Final = how
        self._seed: Final = np.uint64(seed)
        self._first_of_last: Final = 0 if n_rows is None else n_rows - round(n_rows * HELD_OUT)

    def mark(self, first: int, n_rows: int) -> NDArray[np.bool_]:
        """Return (B,) whether each of the rows from `first` on is held out."""
        if self._how == "last":
            return np.arange(first, first + n_rows) >= self._first_of_last
        rows = np.arange(first, first + n_rows, dtype=np.uint64)
        hashes = _mix(_mix(np.full(1, self._seed)) + rows)
        return hashes < np.uint64(int(HELD_OUT * 2**64))


def _mix(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the output of SplitMix64 for each state (B,), which wraps around at 2**64."""
    mixed = numbers + GOLDEN
    mixed = (mixed ^ (mixed >> SHIFTS[0])) * FACTORS[0]
    mixed = (mixed ^ (mixed >> SHIFTS[1])) * FACTORS[1]
    return mixed ^ (mixed >> SHIFTS[2])
