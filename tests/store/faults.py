"""A disk that fails on purpose, as a VFS between SQLite and the real one.

The faults it can make, at the N-th operation of the chosen kinds, once or from then on:
    an I/O error, or a full disk, before the operation is done
    a write of which only the first half is done, then an I/O error
    the death of the process by SIGKILL: before the operation, or after half of a write
"""

import os
import signal
from collections.abc import Callable
from enum import Enum
from itertools import count
from typing import Any

import apsw

NAMES = count()
OPERATIONS = frozenset({"write", "sync", "truncate"})


class Fault(Enum):
    """What goes wrong."""

    IO = "io"
    FULL = "full"
    TORN = "torn"
    KILL = "kill"
    KILL_TORN = "kill torn"


class Disk:
    """Counts the operations of every file of one VFS, and fails where it is told to.

    Attributes:
        name: The VFS's name, for SqliteLog.
        done: How many operations there were.
    """

    def __init__(self) -> None:
        self.name = f"disk{next(NAMES)}"
        self.done = 0
        self._at: int | None = None
        self._fault = Fault.IO
        self._forever = False
        self._operations = OPERATIONS
        self._vfs = _VFS(self)

    def fail(self, at: int, fault: Fault, *, forever: bool = False, operations: frozenset[str] = OPERATIONS) -> None:
        """Lets the `at`-th operation of these kinds from now on, counted from 0, fail."""
        self._at, self._fault, self._forever, self._operations = at, fault, forever, operations

    def heal(self) -> None:
        """Lets nothing fail any more."""
        self._at = None

    def do(self, operation: str, whole: Callable[[], None], half: Callable[[], None] | None = None) -> None:
        """One operation, or its failure."""
        self.done += 1
        if self._at is None or operation not in self._operations:
            return whole()
        if self._at > 0:
            self._at -= 1
            return whole()
        if not self._forever:
            self._at = None
        if self._fault in {Fault.TORN, Fault.KILL_TORN} and half is not None:
            half()
        if self._fault in {Fault.KILL, Fault.KILL_TORN}:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._fault == Fault.FULL:
            raise apsw.FullError("the disk is full, on purpose")
        raise apsw.IOError("the disk fails, on purpose")


class _VFS(apsw.VFS):
    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        super().__init__(disk.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> "_File":  # noqa: N802  # apsw's name
        return _File(self.disk, name, flags)


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        self.disk = disk
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802  # apsw's name
        write = super().xWrite
        self.disk.do("write", lambda: write(data, offset), lambda: write(data[: len(data) // 2], offset))

    def xSync(self, flags: int) -> None:  # noqa: N802  # apsw's name
        sync = super().xSync
        self.disk.do("sync", lambda: sync(flags))

    def xTruncate(self, size: int) -> None:  # noqa: N802  # apsw's name
        truncate = super().xTruncate
        self.disk.do("truncate", lambda: truncate(size))
