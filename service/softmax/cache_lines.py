"""Arrays that begin at a cache line. A vector across two cache lines is read at half the speed."""

from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

CACHE_LINE: Final = 64  # bytes


def empty_at_cache_line(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return a new array whose numbers are not set."""
    size = prod(shape) * np.dtype(dtype).itemsize
    buffer = np.empty(size + CACHE_LINE, np.uint8)
    start = -buffer.ctypes.data % CACHE_LINE
    return buffer[start : start + size].view(dtype).reshape(shape)


def align_to_cache_line(array: NDArray[Any]) -> NDArray[Any]:
    """Return a copy."""
    copy = empty_at_cache_line(array.shape, array.dtype)
    copy[...] = array
    return copy
