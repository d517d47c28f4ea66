"""Hashes of weights, the same for an artifact on disk, a published snapshot and the learner's own state."""

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.softmax.parameters import Parameters


def hash_tensors(tensors: Iterable[NDArray[Any]]) -> str:
    """Return SHA-256, in hexadecimal digits, of concatenated tensors as row-major little-endian bytes."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(np.ascontiguousarray(tensor, tensor.dtype.newbyteorder("<")).data)
    return digest.hexdigest()


def hash_weights(parameters: Parameters) -> str:
    """Return `weights_sha256` of parameters: the hash of the function that they compute.

    A delta of zeros changes no answer and is left out. So the state before the first row has the artifact's hash.
    """
    return hash_tensors(parameters.effective_tensors())
