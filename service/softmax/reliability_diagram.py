"""Reliability diagrams: how far confidence and accuracy of recent predictions agree."""

from typing import Any, Final

import numpy as np

from service.softmax.arrays import Doubles

BINS: Final = 10


def reliability_diagram(window: Doubles, rows: int) -> dict[str, Any]:
    """Return the bins of a reliability diagram over recent rows, and the expected calibration error.

    Rows are grouped into ten bins of equal width by confidence. The expected calibration error is the mean difference
    of confidence and accuracy, with each bin weighted by its rows (Naeini, Cooper & Hauskrecht, Obtaining well
    calibrated probabilities using Bayesian binning, 2015).

    Args:
        window: (2, R), the confidence and accuracy of the most recent rows.
        rows: How many rows were counted; the first min(rows, R) columns of `window` are used.

    Returns:
        `rows`, `expected_error` (None without rows), and `bins`: of each its `rows`, and over them the mean
        `confidence` and `accuracy` (None without rows).
    """
    confidence, accuracy = window[:, : min(rows, window.shape[1])]
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    sums = [np.bincount(bins, weights=values, minlength=BINS) for values in (confidence, accuracy)]
    return summarize_bins(np.stack([counts, *sums], 1))


def summarize_bins(sums: Doubles) -> dict[str, Any]:
    """Return a reliability diagram, as `reliability_diagram` does.

    Args:
        sums: (10, 3), of each bin its rows, and over them the sums of confidence and of accuracy.
    """
    counts, confidences, accuracies = sums.T
    diagram = [
        {"rows": int(n), "confidence": float(c / n) if n else None, "accuracy": float(a / n) if n else None}
        for n, c, a in zip(counts, confidences, accuracies, strict=True)
    ]
    rows = int(counts.sum())
    error = float(np.abs(confidences - accuracies).sum()) / rows if rows else None
    return {"rows": rows, "expected_error": error, "bins": diagram}
