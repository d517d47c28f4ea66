"""Validate and restore the tensors of a learner's state."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.softmax.arrays import Floats
from service.softmax.kernels.rules import SQUARES_MAX

Tensors = Mapping[str, NDArray[np.floating[Any]]]


def check_same_tensors(expected: Tensors, tensors: Tensors) -> None:
    """Raise ValueError unless both have the same names, shapes and dtypes."""
    shapes, expected_shapes = (
        {name: (tensor.shape, tensor.dtype) for name, tensor in each.items()} for each in (tensors, expected)
    )
    if shapes != expected_shapes:
        raise ValueError("the names, shapes or dtypes of the tensors are not those of this state")


def copy_tensors(destination: Tensors, tensors: Tensors) -> None:
    """Copy tensors into the arrays of the same names.

    Raises:
        ValueError: The names, shapes or dtypes differ.
    """
    check_same_tensors(destination, tensors)
    for name, tensor in tensors.items():
        destination[name][...] = tensor


def tensors_below(tensors: Tensors, prefix: str) -> dict[str, NDArray[np.floating[Any]]]:
    """Return the tensors whose names start with a prefix, named without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def check_squares(squares: Floats | None, n_features: int, dtype: np.dtype[Any]) -> Floats | None:
    """Return the first sums G (N + 1,) of the bias and of each feature, in a dtype; None for None.

    Raises:
        ValueError: The shape is wrong, or a number is negative.
    """
    if squares is None:
        return None
    if squares.shape != (n_features + 1,) or not (squares >= 0).all():
        raise ValueError("first_squares must be (N + 1,) numbers of at least 0")
    return np.minimum(squares, SQUARES_MAX).astype(dtype)
