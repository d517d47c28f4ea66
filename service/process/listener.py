"""The listening socket: open it, and close it without losing a connection.

The kernel completes connections by itself and queues them for `accept`. When the last process closes the socket, it
resets those that still wait. Without a filter there is always a moment between the last `accept` and the close in which
one more may arrive; a smaller backlog does not help, since the kernel then drops the end of handshakes that it began.
"""

import contextlib
import ctypes
import socket
import struct
import sys
from typing import Final

BACKLOG: Final = 2048
# Linux has this number on every architecture for which the dependencies have wheels; Python has no name for it.
SO_ATTACH_FILTER: Final = 26
# A classic BPF program over the TCP header: load the byte of flags; if it has SYN keep 0 bytes, else the whole packet.
LOAD_BYTE, JUMP_IF_ANY, RETURN = 0x30, 0x45, 0x06
FLAGS_OFFSET, SYN, WHOLE = 13, 0x02, 0xFFFFFFFF
DROP_SYN: Final = (
    (LOAD_BYTE, 0, 0, FLAGS_OFFSET),
    (JUMP_IF_ANY, 0, 1, SYN),
    (RETURN, 0, 0, 0),
    (RETURN, 0, 0, WHOLE),
)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        OSError: The address is in use, or does not belong to this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def ignore_new_clients(listener: socket.socket) -> None:
    """Have the kernel ignore clients that start to connect, in every process that has the socket.

    Handshakes that have begun still end, and queued connections can still be accepted. An ignored client tries again
    after a second, and then finds the port closed or another service. Systems without such filters go on as before.
    """
    if sys.platform == "linux":
        program = b"".join(struct.pack("=HBBI", *instruction) for instruction in DROP_SYN)
        buffer = ctypes.create_string_buffer(program, len(program))
        with contextlib.suppress(OSError):  # some sandboxes have no filters
            pointer = struct.pack("HL", len(DROP_SYN), ctypes.addressof(buffer))
            listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, pointer)
