"""What the folds take, linear or not: rows, their targets and their importance, checked before a kernel sees them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.softmax.classifier import LAYOUT
from service.softmax.input_stage import Doubles, Floats

Integers = NDArray[np.int64]


def taken(  # noqa: PLR0917  # what is checked, and against what
    X: Floats, labels: Integers | None, Y: Doubles | None, weights: Doubles | None, n_features: int, n_logits: int,
    dtype: np.dtype[Any],
) -> tuple[Integers, Doubles, Doubles]:  # fmt: skip
    """Labels (B,) or (0,), targets (B, n_logits) or (0, n_logits), and weights (B,) or (0,), as kernels read them.

    Args:
        X: (B, n_features), C-contiguous, of the model's dtype.
        labels: (B,) int64, or None with Y.
        Y: (B, n_logits) float64, or None with labels.
        weights: (B,) float64, or None.
        n_features: N of the model.
        n_logits: K of the model.
        dtype: The model's.

    Raises:
        ValueError: Shapes contradict each other, or not exactly one of labels and Y is given.
        TypeError: X has another dtype or layout.
    """
    B = len(X)
    if X.ndim != 2 or X.shape[1] != n_features:  # noqa: PLR2004  # a matrix
        raise ValueError(f"X must be (B, {n_features}), not {X.shape}")
    if X.dtype != dtype or not X.flags.carray:
        raise TypeError(LAYOUT)
    if (labels is None) == (Y is None):
        raise ValueError("give either labels or Y")
    classes, targets = checked(labels, (B,), np.int64, (0,)), checked(Y, (B, n_logits), np.float64, (0, n_logits))
    return classes, targets, checked(weights, (B,), np.float64, (0,))


def checked(values: NDArray[Any] | None, shape: tuple[int, ...], dtype: type, none: tuple[int, ...]) -> NDArray[Any]:
    """The values as a kernel can read them, or an empty array where there are none."""
    if values is None:
        return np.empty(none, dtype)
    if values.shape != shape or values.dtype != dtype:
        raise ValueError(f"targets and weights must be {np.dtype(dtype)} of shape {shape}")
    return np.require(values, requirements=("C", "A", "W"))
