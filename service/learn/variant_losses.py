"""Sum the losses of several variants over the rows that all of them share, and along the rows for a plot."""

from typing import Final

import numpy as np

from service.learn.variant_fold import BatchLosses
from service.softmax.arrays import Doubles

# Points of a curve: as many as a plot can show, whatever the number of rows.
POINTS_MAX: Final = 128


class VariantLosses:
    """The sums of the losses of several folds of the same events.

    Args:
        folds: The number of folds.

    Attributes:
        shared_rows: The number of rows that all folds have with the same label.
    """

    def __init__(self, folds: int) -> None:
        self.shared_rows = 0
        self._shared: Final = np.zeros(folds)
        self._rows = 0
        self._width = 1  # rows of a point
        self._sums: Final = np.zeros((folds, POINTS_MAX))
        self._counts: Final = np.zeros((folds, POINTS_MAX))

    def add(self, batch: BatchLosses) -> None:
        """Add the losses of a batch."""
        losses, shared = batch
        self.shared_rows += int(shared.sum())
        self._shared[:] += losses[:, shared].sum(axis=1)
        end = self._rows + losses.shape[1]
        while end > self._width * POINTS_MAX:
            self._merge_points()
        points = np.arange(self._rows, end) // self._width
        for fold, row in enumerate(losses):
            known = ~np.isnan(row)
            self._counts[fold] += np.bincount(points[known], minlength=POINTS_MAX)
            self._sums[fold] += np.bincount(points[known], weights=row[known], minlength=POINTS_MAX)
        self._rows = end

    def shared_loss(self, fold: int) -> float | None:
        """Return the mean loss of a fold over the shared rows, or None without any."""
        return float(self._shared[fold]) / self.shared_rows if self.shared_rows else None

    def curve(self, fold: int) -> tuple[Doubles, Doubles]:
        """Return the points of a fold's curve: the last row of each, and the mean loss of its rows; NaN without any."""
        points = -(-self._rows // self._width)
        counts, means = self._counts[fold, :points], np.full(points, np.nan)
        np.divide(self._sums[fold, :points], counts, out=means, where=counts > 0)
        return np.minimum(np.arange(1.0, points + 1) * self._width, self._rows), means

    def _merge_points(self) -> None:
        for points in (self._sums, self._counts):
            merged = points[:, ::2] + points[:, 1::2]
            points[:, : POINTS_MAX // 2] = merged
            points[:, POINTS_MAX // 2 :] = 0
        self._width *= 2
