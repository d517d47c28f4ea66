"""Counts of the rows that a learner has scored, in total and over the most recent ones."""

from collections.abc import Callable
from typing import Final

import numpy as np

from service.softmax.arrays import Doubles
from service.softmax.kernels.fold import PROGRESS, ROWS

# Rows of the recent window.
RECENT: Final = 1000
# The rows of an array of outcomes, for each row of a fold: its loss, whether it was a hit, and the confidence and
# accuracy of its answer.
LOSS_OF, HIT_OF, CONFIDENCE_OF, ACCURACY_OF, OUTCOMES = range(5)


class ProgressCounts:
    """The arrays in which fold kernels count rows.

    Args:
        totals: As the attribute; zeros by default.
        recent: As the attribute.
        window: As the attribute.

    Attributes:
        totals: (PROGRESS,) float64, in the order of the constants of kernels/fold.py.
        recent: (2, R), the losses and hits of the most recent rows.
        window: (2, R), the confidence and accuracy of the same rows; see `certainty` in kernels/fold.py.
    """

    def __init__(
        self, totals: Doubles | None = None, recent: Doubles | None = None, window: Doubles | None = None
    ) -> None:
        self.totals: Final = np.zeros(PROGRESS) if totals is None else totals
        self.recent: Final = np.zeros((2, RECENT)) if recent is None else recent
        self.window: Final = np.zeros((2, RECENT)) if window is None else window

    def fold_outcomes(self, fold: Callable[["ProgressCounts"], None], losses: Doubles, outcomes: Doubles) -> None:
        """Call a fold that counts rows, and write what it counted for each row.

        The kernels write these numbers to rings only. So the fold counts into rings that hold all of its rows.

        Args:
            fold: Folds rows with the counts that it is given.
            losses: (B,), written by the fold: the loss of each row, NaN for a row that it skipped.
            outcomes: (OUTCOMES, B), overwritten; NaN for a row that was skipped.
        """
        before = int(self.totals[ROWS])
        self.totals[ROWS] = 0  # so that the rings begin with the first row
        try:
            fold(ProgressCounts(self.totals, outcomes[:2], outcomes[2:]))
        finally:
            counted = int(self.totals[ROWS])
            self.totals[ROWS] = before + counted
        newest = outcomes[:, max(0, counted - RECENT) : counted]
        start = (before + counted - newest.shape[1]) % RECENT
        for ring, values in ((self.recent, newest[:2]), (self.window, newest[2:])):
            until_end = values[:, : RECENT - start]
            ring[:, start : start + until_end.shape[1]] = until_end
            ring[:, : values.shape[1] - until_end.shape[1]] = values[:, RECENT - start :]
        if counted < len(losses):
            skipped = np.isnan(losses)
            outcomes[:, ~skipped] = outcomes[:, :counted].copy()
            outcomes[:, skipped] = np.nan

    def with_totals(self) -> "ProgressCounts":
        """Return other counts with the same totals, and without recent rows."""
        return ProgressCounts(self.totals.copy())

    def summarize(self) -> dict[str, float]:
        """Return the counts by name; see `summarize_progress`."""
        return summarize_progress(self.totals, self.recent)


def summarize_progress(totals: Doubles, recent: Doubles) -> dict[str, float]:
    """Return the counts by name: rows, loss and accuracy in total and recently, skipped rows, and norms of steps.

    Args:
        totals: (PROGRESS,), in the order of the constants of kernels/fold.py.
        recent: (2, R), the losses and hits of the most recent rows.
    """
    rows, loss, hits, skipped, steps, norm, norms, _ = totals.tolist()
    window = min(int(rows), recent.shape[1])
    # Summed again on every call, in the order of the ring buffer, so that rounding errors do not accumulate.
    losses, recent_hits = (np.add.accumulate(values[:window])[-1:] for values in recent)
    return {
        "rows": int(rows),
        "loss": loss / rows if rows else 0.0,
        "accuracy": hits / rows if rows else 0.0,
        "recent_rows": window,
        "recent_loss": float(losses[0]) / window if window else 0.0,
        "recent_accuracy": float(recent_hits[0]) / window if window else 0.0,
        "skipped_rows": int(skipped),
        "steps": int(steps),
        "step_norm": norm,
        "mean_step_norm": norms / steps if steps else 0.0,
    }
