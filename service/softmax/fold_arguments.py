"""Validate the arguments of folds: rows, their targets and their importance."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.softmax.arrays import Doubles, Floats, Integers
from service.softmax.classifier import LAYOUT


class FoldArguments(NamedTuple):
    """Validated arguments of B rows in the form that kernels take.

    Attributes:
        labels: (B,) class indices, or (0,) with targets.
        targets: (B, K), or (0, K) with labels.
        weights: (B,) importance, or (0,) if every one is 1.
    """

    labels: Integers
    targets: Doubles
    weights: Doubles


def check_fold_arguments(
    X: Floats,
    labels: Integers | None,
    Y: Doubles | None,
    weights: Doubles | None,
    *,
    n_features: int,
    n_logits: int,
    dtype: np.dtype[Any],
) -> FoldArguments:
    """Return the arguments of a fold in the form that kernels take.

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
    if X.ndim != 2 or X.shape[1] != n_features:  # noqa: PLR2004  # a matrix
        raise ValueError(f"X must be (B, {n_features}), not {X.shape}")
    if X.dtype != dtype or not X.flags.carray:
        raise TypeError(LAYOUT)
    if (labels is None) == (Y is None):
        raise ValueError("pass either labels or Y, not both")
    return check_targets_and_weights(labels, Y, weights, (len(X), n_logits))


def check_targets_and_weights(
    labels: Integers | None, Y: Doubles | None, weights: Doubles | None, shape: tuple[int, int]
) -> FoldArguments:
    """Return labels, targets and weights of logits of a shape (B, K) in the form that kernels take.

    Raises:
        ValueError: A shape or dtype is wrong.
    """
    B, K = shape
    return FoldArguments(
        _check_array(labels, (B,), np.int64, (0,)),
        _check_array(Y, (B, K), np.float64, (0, K)),
        _check_array(weights, (B,), np.float64, (0,)),
    )


def _check_array(
    values: NDArray[Any] | None, shape: tuple[int, ...], dtype: type, empty_shape: tuple[int, ...]
) -> NDArray[Any]:
    """Return the values as kernels can read them, or an empty array for None."""
    if values is None:
        return np.empty(empty_shape, dtype)
    if values.shape != shape or values.dtype != dtype:
        raise ValueError(f"targets and weights must be {np.dtype(dtype)} of shape {shape}")
    return values if values.flags.carray else np.require(values, requirements=("C", "A", "W"))
