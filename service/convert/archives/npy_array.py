"""Read an array in NumPy's format .npy from bytes: numbers, booleans and texts, never objects.

The header is parsed by NumPy as a literal of at most `HEADER_BYTES_MAX` bytes. The sizes are checked before anything
is allocated.
"""

import io
import math
import tokenize
from typing import Any, Final

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from service.errors import ConversionError

# Numbers, booleans and texts; objects would need pickle.
ARRAY_KINDS: Final = "biufU"
HEADER_BYTES_MAX: Final = 4096
DIMENSIONS_MAX: Final = 4
# Attributes are numbers of four or eight bytes. Short ones grow when they become float64, so large ones are refused.
SHORT_ITEM_BYTES: Final = 4
SHORT_ITEMS_MAX: Final = 4 << 20
# NumPy reads headers of Python 2 by tokens.
TOKENS: Final = (tokenize.TokenError,)
READERS: Final = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}


def parse_npy(raw: bytes) -> NDArray[Any]:
    """Return an array of the bytes of a .npy file, read-only.

    Args:
        raw: The whole file.

    Raises:
        ConversionError: It is no such file, holds objects or records, or has another size than its header says.
    """
    stream = io.BytesIO(raw)
    try:
        reader = READERS[npy_format.read_magic(stream)]
        shape, is_fortran, dtype = reader(stream, max_header_size=HEADER_BYTES_MAX)
    except (LookupError, ArithmeticError, ValueError, TypeError, SyntaxError, RecursionError, MemoryError, *TOKENS):
        raise ConversionError("an array has no header that can be read") from None
    if dtype.kind not in ARRAY_KINDS or dtype.hasobject:
        raise ConversionError("an array holds something else than numbers, booleans or texts; objects would run code")
    if len(shape) > DIMENSIONS_MAX or any(size < 0 for size in shape):
        raise ConversionError(f"an array has more than {DIMENSIONS_MAX} dimensions, or a negative size")
    count = math.prod(shape)
    if count * dtype.itemsize != len(raw) - stream.tell():
        raise ConversionError("an array has another size than its header says")
    if dtype.itemsize < SHORT_ITEM_BYTES and count > SHORT_ITEMS_MAX:
        raise ConversionError(f"an array of short numbers has {count} of them, and the limit is {SHORT_ITEMS_MAX}")
    if not count:
        return np.zeros(shape, dtype)
    return np.frombuffer(raw, dtype, count, stream.tell()).reshape(shape, order="F" if is_fortran else "C")
