"""Return memory that a process has freed to the system."""

import ctypes
from contextlib import suppress
from typing import Final

# Parameters of glibc's mallopt, and the most that it raises them to by itself.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
TRIM_BYTES: Final = 64 << 20
MMAP_BYTES: Final = 32 << 20
# A block that is in a heap, and large enough that freeing it looks at the end of the heap (glibc: 64 KiB).
BLOCK_BYTES: Final = 100_000


def trim_heap() -> None:
    """Return free pages of the C library's heaps to the system, if the library is glibc.

    Of blocks below 32 MiB, such as the arrays that a model was made of, glibc keeps the pages. `malloc_trim` returns
    those in all heaps, but for the end of each heap but the first. A free returns that of its own thread's heap, if it
    is above a threshold. So call this in the thread that has freed much. Once set, thresholds no longer grow by
    themselves; they are at their largest from then on.
    """
    with suppress(AttributeError, OSError):  # of another C library
        library = ctypes.CDLL(None)
        library.malloc.restype, library.free.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
        library.malloc_trim(0)
        library.mallopt(TRIM_THRESHOLD, 0)
        library.free(library.malloc(BLOCK_BYTES))
        library.mallopt(TRIM_THRESHOLD, TRIM_BYTES)
        library.mallopt(MMAP_THRESHOLD, MMAP_BYTES)
