"""The columns that a sparse learner has changed, as bits."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

# Rows of the bits: the rows of W that have changed since `clear_changes`, and those that ever have.
SINCE_CLEARED, EVER = range(2)


class TouchedColumns:
    """Which of N columns have changed: since they were last saved as a whole, and ever.

    Args:
        n_columns: N.

    Attributes:
        bits: (2, S) uint8, one bit for each row of W, the bias first, from the lowest bit on; the fold sets them.
        saved_as: The name of what was saved at `clear_changes`, or None before.
    """

    def __init__(self, n_columns: int) -> None:
        self.bits: Final = np.zeros((2, n_columns // 8 + 1), np.uint8)
        self.saved_as: str | None = None
        self._n_columns: Final = n_columns

    def changed(self) -> NDArray[np.int32]:
        """Return the columns that have changed since `clear_changes`, (C,), ascending."""
        return self._columns(SINCE_CLEARED)

    def ever(self) -> NDArray[np.int32]:
        """Return the columns that were ever touched, (C,), ascending."""
        return self._columns(EVER)

    def count_rows(self) -> int:
        """Return how many rows of W were ever touched, the bias among them, which always counts."""
        return max(1, int(np.bitwise_count(self.bits[EVER]).sum(dtype=np.int64)))

    def clear_changes(self, saved_as: str) -> None:
        """Note changes from here on: what there is now was saved under a name."""
        self.bits[SINCE_CLEARED] = 0
        self.saved_as = saved_as

    def set_all_changed(self) -> None:
        """Let every column count as changed, but not as touched."""
        self.bits[SINCE_CLEARED] = 0xFF

    def add(self, columns: NDArray[np.int32]) -> None:
        """Let columns (C,) and the bias count as changed and as touched."""
        flags = np.zeros(self._n_columns + 1, np.bool_)
        flags[0], flags[columns + 1] = True, True
        self.bits[:] |= np.packbits(flags, bitorder="little")

    def _columns(self, kind: int) -> NDArray[np.int32]:
        used = np.flatnonzero(self.bits[kind])  # most bytes of a large model are 0
        flags = np.unpackbits(self.bits[kind, used][:, None], axis=1, bitorder="little")
        rows: NDArray[np.int64] = (8 * used[:, None] + np.arange(8))[flags == 1]
        return (rows[(rows > 0) & (rows <= self._n_columns)] - 1).astype(np.int32)


def are_columns(columns: NDArray[Any], n_columns: int) -> bool:
    """Return whether these are numbers of columns (C,) int32, each from 0 to n_columns - 1, ascending."""
    if columns.dtype != np.int32 or columns.ndim != 1:
        return False
    return bool((np.diff(columns.astype(np.int64), prepend=-1, append=n_columns) > 0).all())
