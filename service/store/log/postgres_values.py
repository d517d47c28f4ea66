"""The values of statements in PostgreSQL's binary format, and statements themselves.

    integer    8 bytes, most significant first                                      bigint
    array      number of dimensions (1), whether there are NULLs, type of the elements, number of elements, index of
               the first (1): 4 bytes each; then of each element its number of bytes, or -1 for NULL, and the bytes

All are encoded here, because a driver's conversions cost more than everything else that an append does in Python.
"""

import struct
from collections.abc import Sequence
from itertools import chain
from typing import Final, NamedTuple

BIGINT_TYPE: Final = 20
BYTEA_TYPE: Final = 17
UUID_TYPE: Final = 2950
INTEGER_BYTES: Final = 8
KEY_BYTES: Final = 16
NULL: Final = struct.pack("!i", -1)
KEY_SIZE: Final = struct.pack("!i", KEY_BYTES)

pack_integer: Final = struct.Struct("!q").pack
_pack_size: Final = struct.Struct("!i").pack
_pack_array_head: Final = struct.Struct("!5i").pack


class Statement(NamedTuple):
    """A statement with the values of its parameters.

    Attributes:
        sql: The statement, whose parameters $1, $2, … have casts to their types.
        values: Each parameter in binary format; None is NULL.
    """

    sql: bytes
    values: tuple[bytes | None, ...] = ()


def pack_integers(values: Sequence[int]) -> bytes:
    """Return an array of type bigint[]."""
    sized = chain.from_iterable((INTEGER_BYTES, value) for value in values)
    return struct.pack("!5i" + "iq" * len(values), 1, 0, BIGINT_TYPE, len(values), 1, *sized)


def pack_blobs(values: Sequence[bytes | None]) -> bytes:
    """Return an array of type bytea[]."""
    parts = [_pack_array_head(1, None in values, BYTEA_TYPE, len(values), 1)]
    for value in values:
        if value is None:
            parts.append(NULL)
        else:
            parts += (_pack_size(len(value)), value)
    return b"".join(parts)


def pack_keys(values: Sequence[bytes]) -> bytes:
    """Return an array of type uuid[], from 16 bytes each."""
    head = _pack_array_head(1, 0, UUID_TYPE, len(values), 1)
    return head + b"".join([part for value in values for part in (KEY_SIZE, value)])
