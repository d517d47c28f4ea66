"""Bytes objects at the end of readable memory, for machine code that reads them by their address."""

import ctypes
import mmap


class LastBytes:
    """Makes bytes objects whose closing zero byte is the last readable byte; reading further ends the process."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, 2 * mmap.PAGESIZE)
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        forbidden = ctypes.c_void_p(self._start + mmap.PAGESIZE)
        assert ctypes.CDLL(None).mprotect(forbidden, mmap.PAGESIZE, 0) == 0

    def __call__(self, text: bytes) -> bytes:
        """A copy of the text, which is valid until the next call; the page keeps its memory."""
        self.original = bytes(bytearray(text))  # an object of its own, never one that Python shares
        size = bytes.__basicsize__ + len(text)
        address = self._start + mmap.PAGESIZE - size
        ctypes.memmove(address, id(self.original), size)
        ctypes.c_ssize_t.from_address(address).value += 1000  # references, so that it is never freed
        copy: bytes = ctypes.cast(address, ctypes.py_object).value
        return copy


def read_past_end(*_: object) -> None:
    """Read one byte after the closing zero of such an object, which ends the process."""
    memory = LastBytes()  # kept, or its pages would be gone before they are read
    guarded = memory(b"{")
    ctypes.string_at(id(guarded) + bytes.__basicsize__, len(guarded) + 1)
