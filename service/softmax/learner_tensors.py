"""Validate and restore the tensors of a learner's state."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
