"""The frames of gRPC messages on a stream.

    flag      1 byte     0: not compressed
    length    4 bytes    big-endian, of the message
    message   length bytes

Source: gRPC over HTTP2, "Length-Prefixed-Message".
"""

import struct
from typing import Final

FRAME_BYTES: Final = 5
_FRAME: Final = struct.Struct(">BI")


def frame_message(message: bytes) -> bytes:
    """Return a message in its frame."""
    return _FRAME.pack(0, len(message)) + message


def read_frame(data: bytes) -> tuple[int, int]:
    """Return the flag and the length of the message whose frame begins the data, at least FRAME_BYTES."""
    flag, length = _FRAME.unpack_from(data)
    return flag, length
