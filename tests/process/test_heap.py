"""Freed memory goes back to the system."""

import ctypes
import threading
from pathlib import Path
from typing import Any

import pytest

from service.process.heap import trim_heap

BYTES = 24 << 20


def anonymous_bytes() -> int:
    """Return the bytes of this process that are in no file."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise AssertionError


def test_blocks_that_a_thread_has_freed_are_returned() -> None:
    """Also those at the end of the heap of the thread, which glibc keeps."""
    kept = []

    def allocate_and_free() -> None:
        trim_heap()  # from here on blocks of this size are in the heap of the thread
        before = anonymous_bytes()
        blocks = [bytearray(BYTES // 24) for _ in range(24)]
        for block in blocks:
            block[::4096] = b"1" * len(block[::4096])
        blocks.clear()
        del block
        held = anonymous_bytes()
        trim_heap()
        kept.extend([held - before, anonymous_bytes() - before])

    thread = threading.Thread(target=allocate_and_free)
    thread.start()
    thread.join()
    held, after = kept
    assert held > BYTES // 2
    assert after < held / 4


def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A C library without these functions is no error."""

    def without_functions(_: Any) -> object:
        return object()

    monkeypatch.setattr(ctypes, "CDLL", without_functions)
    trim_heap()
