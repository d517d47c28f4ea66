"""The hash of weights, the same for an artifact on disk, a published snapshot and the learner's own state."""

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def hash_tensors(tensors: Iterable[NDArray[np.floating[Any]]]) -> str:
    """Return SHA-256, in hexadecimal digits, of concatenated tensors as row-major little-endian bytes."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(np.ascontiguousarray(tensor, tensor.dtype.newbyteorder("<")).data)
    return digest.hexdigest()
