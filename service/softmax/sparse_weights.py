"""The weights of a sparse model: one row for each column, and a table of the rows that have changed since.

    base (N + 1, Kp)    float32, W: the bias in row 0, the weights of column j in row j + 1
    slots (T,) int32    T is a power of two and at least twice the number of changed rows, or 1 if there is none. The
                        number of a row of `base` plus 1, so 1 for the bias and j + 2 for column j; 0 if empty
    changed (T, Kp)     float32, the row of each slot, in place of that of `base`

Kp is the number K of logits rounded up to 1, 2, 4, 8 or a multiple of 16, so that no row of up to 16 classes is in two
cache lines; numbers past K are 0. A snapshot of few changes is two files, the base and the table. Neither is copied, so
all processes may share one read-only mapping of each. kernels/changed_rows.py has the search.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.softmax.added_classes import extend_layer
from service.softmax.arrays import Integers
from service.softmax.cache_lines import empty_at_cache_line
from service.softmax.kernels import changed_rows
from service.softmax.kernels.changed_rows import gather_rows, place_rows
from service.softmax.touched_columns import are_columns

Singles = NDArray[np.float32]
"""float32, the dtype of all sparse weights."""

# N Kp of one model: 256 MiB of weights. A learner needs as much again for its sums.
SPARSE_WEIGHTS_MAX: Final = 2**26
# Rows that are converted at once, in 8 MiB of float64 for 16 classes.
ROWS_AT_ONCE: Final = 2**16
NARROW_WIDTHS: Final = (1, 2, 4, 8)
WIDTH_STEP: Final = 16
# Slots of a table for each changed row: so a search looks at two slots on average.
SLOTS_OF_A_ROW: Final = 2


class SparseWeights:
    """Weights of N columns and K logits. Immutable; nothing is copied.

    Args:
        base: (N + 1, Kp) float32, C-contiguous; see the module.
        n_logits: K.
        slots: (T,) int32, or None if nothing has changed.
        changed: (T, Kp) float32, or None.

    Attributes:
        base: As given.
        slots: As given; (1,) zeros for None.
        changed: As given; (1, Kp) zeros for None.
        n_logits: K.
        cells: (CELLS,) int64, the addresses and sizes that kernels take.

    Raises:
        ValueError: The shapes contradict each other, or N Kp is above SPARSE_WEIGHTS_MAX.
        TypeError: An array has another dtype or layout.
    """

    def __init__(
        self,
        base: Singles,
        n_logits: int,
        slots: NDArray[np.int32] | None = None,
        changed: Singles | None = None,
    ) -> None:
        if base.ndim != 2 or len(base) < 2 or n_logits < 1:  # noqa: PLR2004  # a matrix; the bias and a column
            raise ValueError("base must be (N + 1, Kp), with N and K at least 1")
        check_size(len(base) - 1, n_logits)
        width = padded_width(n_logits)
        self.base: Final = base
        self.slots: Final = np.zeros(1, np.int32) if slots is None else slots
        self.changed: Final = np.zeros((1, width), np.float32) if changed is None else changed
        self.n_logits: Final = n_logits
        T = len(self.slots)
        if base.shape[1] != width or self.changed.shape != (T, width) or self.slots.ndim != 1:
            raise ValueError("base must be (N + 1, Kp), slots (T,) and changed (T, Kp)")
        if T < 1 or T & (T - 1) or SLOTS_OF_A_ROW * self.n_changed > T:
            raise ValueError("the slots must be a power of two, and at least twice the number of changed rows")
        if base.dtype != np.float32 or self.slots.dtype != np.int32 or self.changed.dtype != np.float32:
            raise TypeError("base and changed must be float32, slots int32")
        if not all(array.flags.c_contiguous and array.flags.aligned for array in (base, self.slots, self.changed)):
            raise TypeError("base, slots and changed must be aligned and C-contiguous")
        self.cells: Final = self._describe()

    def _describe(self) -> Integers:
        cells = np.zeros(changed_rows.CELLS, np.int64)
        cells[changed_rows.BASE] = self.base.ctypes.data
        cells[changed_rows.SLOTS] = self.slots.ctypes.data
        cells[changed_rows.CHANGED] = self.changed.ctypes.data
        cells[changed_rows.COLUMNS], cells[changed_rows.WIDTH] = self.n_columns, self.width
        cells[changed_rows.SIZE] = len(self.slots)
        return cells

    @classmethod
    def from_matrix(cls, weights: Singles, bias: Singles) -> "SparseWeights":
        """Return the weights of W (N, K) and b (K,), copied.

        Raises:
            ValueError: A number is not finite, the shapes contradict each other, or the model is too large.
            TypeError: Another dtype than float32.
        """
        if weights.ndim != 2 or 0 in weights.shape or bias.shape != weights.shape[1:]:  # noqa: PLR2004  # a matrix
            raise ValueError("weights must be (N, K) and bias (K,), with N and K at least 1")
        if weights.dtype != np.float32 or bias.dtype != np.float32:
            raise TypeError("weights and bias of a sparse model must be float32")
        if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
            raise ValueError("weights and bias must be finite")
        N, K = weights.shape
        base = new_rows(N, K)
        base[0, :K], base[1:, :K] = bias, weights
        return cls(base, K)

    @property
    def n_columns(self) -> int:
        """N."""
        return len(self.base) - 1

    @property
    def width(self) -> int:
        """Kp."""
        return int(self.base.shape[1])

    @property
    def n_changed(self) -> int:
        """The number of rows in the table, of which the bias is one."""
        return int(np.count_nonzero(self.slots))

    def with_changes(self, columns: NDArray[np.int32], rows: Singles, bias: Singles) -> "SparseWeights":
        """Return the same base with a new table, in place of any other.

        Args:
            columns: (C,) the changed columns, ascending.
            rows: (C, K) their weights.
            bias: (K,).
        """
        return SparseWeights(self.base, self.n_logits, *build_changes(columns, rows, bias))

    def with_rows(self, columns: NDArray[np.int32], rows: Singles) -> "SparseWeights":
        """Return whole weights with other rows of the bias and of some columns, copied.

        Args:
            columns: (C,) the columns, ascending.
            rows: (C + 1, K) the bias, and the weights of the columns.

        Raises:
            ValueError: The shapes contradict each other, or a column is out of range.
        """
        if rows.shape != (len(columns) + 1, self.n_logits) or not are_columns(columns, self.n_columns):
            raise ValueError("columns must be (C,) int32, in range and ascending, and rows (C + 1, K)")
        base = self.merged()
        base[row_numbers(columns), : self.n_logits] = rows
        return SparseWeights(base, self.n_logits)

    def differing_columns(self, other: "SparseWeights") -> NDArray[np.int32]:
        """Return the columns (C,), ascending, of which a weight has other bits in weights of the same shape."""
        one, two = (weights.merged() if weights.n_changed else weights.base for weights in (self, other))
        parts = [slice(start, start + ROWS_AT_ONCE) for start in range(0, len(one), ROWS_AT_ONCE)]
        differs = [(one[part].view(np.int32) != two[part].view(np.int32)).any(axis=1) for part in parts]
        return np.flatnonzero(np.concatenate(differs)[1:]).astype(np.int32)

    def rows_of(self, columns: NDArray[np.int32]) -> Singles:
        """Return the weights (C, K) of columns (C,), each from 0 to N - 1."""
        return self._gather(columns.astype(np.int64) + 1)

    def bias(self) -> Singles:
        """Return the bias (K,)."""
        return self._gather(np.zeros(1, np.int64)).reshape(-1)

    def merged(self) -> Singles:
        """Return a copy (N + 1, Kp) of the base with all changes."""
        rows = empty_at_cache_line(self.base.shape, np.float32)
        rows[...] = self.base
        at = np.flatnonzero(self.slots)
        rows[self.slots[at] - 1] = self.changed[at]
        return rows

    def to_matrix(self) -> tuple[Singles, Singles]:
        """Return copies of W (N, K) and b (K,)."""
        K, at = self.n_logits, np.flatnonzero(self.slots)
        weights = np.array(self.base[1:, :K], order="C")
        at = at[self.slots[at] > 1]
        weights[self.slots[at] - 2] = self.changed[at, :K]
        return weights, self.bias()

    def with_classes(self, count: int) -> "SparseWeights":
        """Return whole weights of `count` more classes, at the mean of the others; their biases lower by ln 100.

        Raises:
            ValueError: The model would be too large.
        """
        K = self.n_logits
        check_size(self.n_columns, K + count)
        rows, base = self.merged(), new_rows(self.n_columns, K + count)
        for start in range(0, len(rows), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            base[part, : K + count] = extend_layer(rows[part, :K], count, lower=start == 0)
        return SparseWeights(base, K + count)

    def _gather(self, rows: Integers) -> Singles:
        out = np.empty((len(rows), self.n_logits), np.float32)
        if rows.size and not 0 <= rows.min() <= rows.max() <= self.n_columns:
            raise ValueError("a column is out of range")
        gather_rows(rows, self.cells, out)
        return out


def row_numbers(columns: NDArray[np.int32]) -> Integers:
    """Return the numbers (C + 1,) of the rows of W of the bias and of columns (C,)."""
    return np.concatenate([np.zeros(1, np.int64), columns.astype(np.int64) + 1])


def padded_width(n_logits: int) -> int:
    """Return Kp for K logits."""
    return next((width for width in NARROW_WIDTHS if width >= n_logits), -(-n_logits // WIDTH_STEP) * WIDTH_STEP)


def check_size(n_columns: int, n_logits: int) -> None:
    """Raise ValueError if N Kp is above SPARSE_WEIGHTS_MAX."""
    if n_columns * padded_width(n_logits) > SPARSE_WEIGHTS_MAX:
        raise ValueError(f"a sparse model has at most {SPARSE_WEIGHTS_MAX} weights; use fewer columns or classes")


def new_rows(n_columns: int, n_logits: int) -> Singles:
    """Return zeros (N + 1, Kp) that begin at a cache line.

    Raises:
        ValueError: N Kp is above SPARSE_WEIGHTS_MAX.
    """
    check_size(n_columns, n_logits)
    rows = empty_at_cache_line((n_columns + 1, padded_width(n_logits)), np.float32)
    rows[...] = 0
    return rows


def build_changes(columns: NDArray[np.int32], rows: Singles, bias: Singles) -> tuple[NDArray[np.int32], Singles]:
    """Return a table of changed rows: slots (T,) and changed (T, Kp).

    Args:
        columns: (C,) the changed columns, ascending.
        rows: (C, K) their weights.
        bias: (K,).

    Raises:
        ValueError: The shapes contradict each other, or the columns do not ascend.
    """
    (K,), C = bias.shape, len(columns)
    if rows.shape != (C, K) or (C and columns[0] < 0) or (np.diff(columns) <= 0).any():
        raise ValueError("columns must be (C,), ascending, rows (C, K) and bias (K,)")
    T = 1 << (SLOTS_OF_A_ROW * (C + 1) - 1).bit_length()
    slots, places = np.zeros(T, np.int32), np.empty(C + 1, np.int64)
    place_rows(row_numbers(columns), slots, places)
    changed: NDArray[Any] = empty_at_cache_line((T, padded_width(K)), np.float32)
    changed[...] = 0
    changed[places[0], :K], changed[places[1:], :K] = bias, rows
    return slots, changed
