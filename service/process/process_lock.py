"""A lock between the processes of one service, which the kernel releases when its holder exits."""

import contextlib
import fcntl
import os
import tempfile
import weakref
from collections.abc import Iterator
from typing import Final


class ProcessLock:
    """A lock on a file without a name, made before the fork. Use it in one thread of each process."""

    def __init__(self) -> None:
        self._fd: Final = _open_unnamed()
        weakref.finalize(self, os.close, self._fd)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the lock, after waiting for the process that has it."""
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)


def _open_unnamed() -> int:
    """Open a file that only this process and its children know; in memory where the system can."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("softstep-lock")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
