"""Counts of the rows that a learner has scored, in total and over the most recent ones."""

from typing import Final

import numpy as np

from service.softmax.arrays import Doubles
from service.softmax.kernels.fold import PROGRESS

# Rows of the recent window.
RECENT: Final = 1000


class ProgressCounts:
    """The arrays in which fold kernels count rows.

    Attributes:
        totals: (PROGRESS,) float64, in the order of the constants of kernels/fold.py.
        recent: (2, R), the losses and hits of the most recent rows.
        window: (2, R), the confidence and accuracy of the same rows; see `certainty` in kernels/fold.py.
    """

    def __init__(self) -> None:
        self.totals: Final = np.zeros(PROGRESS)
        self.recent: Final = np.zeros((2, RECENT))
        self.window: Final = np.zeros((2, RECENT))

    def with_totals(self) -> "ProgressCounts":
        """Return other counts with the same totals, and without recent rows."""
        other = ProgressCounts()
        other.totals[:] = self.totals
        return other

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
