"""Measure the error of functions, and make arguments at which their range reduction changes."""

import numpy as np

from tests.support.reference import Array


def largest_error(got: Array, exact: Array) -> float:
    """Return the largest error in units of the last place of the exact result."""
    unit = np.spacing(np.abs(exact).astype(got.dtype)).astype(np.longdouble)
    return float(np.max(np.abs(got.astype(np.longdouble) - exact) / unit))


def floats_around(points: Array, steps: int) -> Array:
    """Return every float within `steps` of each of these nonzero points, in order."""
    whole = np.int32 if points.dtype == np.float32 else np.int64
    bits = np.abs(points).view(whole)[:, None] + np.arange(-steps, steps + 1, dtype=whole)
    return np.sort((bits.view(points.dtype) * np.sign(points)[:, None]).ravel())
