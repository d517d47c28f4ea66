"""A disk that fails on purpose, as a VFS between SQLite and the real one.

The faults it can make, at the N-th operation of the chosen kinds, once or from then on:
    an I/O error, or a full disk, before the operation is done; after a sync that failed so, what was written is in the
    system's memory and taken for clean, but not on the disk
    a write of which only the first half is done, then an I/O error
    the death of the process by SIGKILL: before the operation, or after half of a write
    the loss of power: what each file would hold on a disk that keeps what was synced, and of what was written since any
    part of 512 bytes or not; the run itself goes on
    a lie: syncs are counted as done and keep nothing (the control that shows that the checker sees)
"""

import os
import random
import signal
from collections.abc import Callable
from enum import Enum
from itertools import count
from typing import Any

import apsw

NAMES = count()
SECTOR = 512
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
        cut: After the loss of power, each file's content by its name.
    """

    def __init__(self, *, lying: bool = False) -> None:
        self.cut: dict[str, bytes] | None = None
        self._cut_at: tuple[int, random.Random] | None = None
        self._lying = lying
        # What is on the disk for certain, and what was written since, in order: offset and bytes, or a new length.
        self._synced: dict[str, bytearray] = {}
        self._pending: dict[str, list[tuple[int, bytes | None]]] = {}
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

    def cut_at(self, at: int, seeded: random.Random) -> None:
        """Lets the power go before the `at`-th operation, counted from 0."""
        self._cut_at = (at, seeded)

    def written(self, name: str, offset: int, data: bytes | None) -> None:
        """Notes a write, or with None a truncation to `offset`."""
        self._pending.setdefault(name, []).append((offset, data))

    def synced(self, name: str) -> None:
        """Notes that all writes to a file are on the disk now."""
        if not self._lying:
            for change in self._pending.pop(name, []):
                apply_write(self._synced.setdefault(name, bytearray()), *change)

    def deleted(self, name: str) -> None:
        """Notes that a file is gone; SQLite syncs the folder with it."""
        self._synced.pop(name, None)
        self._pending.pop(name, None)

    def dropped(self, name: str) -> None:
        """Notes a sync that failed: what was written is taken for clean, and is not on the disk."""
        self._pending.pop(name, None)

    def lose_power(self, seeded: random.Random) -> None:
        """Makes `cut`: what the disk holds if the power goes now."""
        self.cut = {}
        for name in self._synced.keys() | self._pending.keys():
            content = bytearray(self._synced.get(name, b""))
            for offset, data in self._pending.get(name, []):
                if data is None:
                    if seeded.random() < 0.5:
                        apply_write(content, offset, None)
                    continue
                for start in range(0, len(data), SECTOR):
                    if seeded.random() < 0.5:
                        apply_write(content, offset + start, data[start : start + SECTOR])
            self.cut[name] = bytes(content)

    def do(self, operation: str, whole: Callable[[], None], half: Callable[[], None] | None = None) -> None:
        """One operation, or its failure."""
        if self._cut_at is not None and self._cut_at[0] == self.done:
            self.lose_power(self._cut_at[1])
        self.done += 1
        if self._at is None or operation not in self._operations:
            return whole()
        if self._at > 0:
            self._at -= 1
            return whole()
        if not self._forever:
            self._at = None
        if half is not None and (self._fault in {Fault.TORN, Fault.KILL_TORN} or operation == "sync"):
            half()
        if self._fault in {Fault.KILL, Fault.KILL_TORN}:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._fault == Fault.FULL:
            raise apsw.FullError("the disk is full, on purpose")
        raise apsw.IOError("the disk fails, on purpose")


def apply_write(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
        return
    content.extend(bytes(max(0, offset + len(data) - len(content))))
    content[offset : offset + len(data)] = data


class _VFS(apsw.VFS):
    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        super().__init__(disk.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> "_File":  # noqa: N802  # apsw's name
        return _File(self.disk, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: FBT001, N802  # apsw's
        super().xDelete(filename, syncdir)
        self.disk.deleted(filename)


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        self.disk = disk
        self.name = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802  # apsw's name
        def write(part: bytes) -> None:
            super(_File, self).xWrite(part, offset)
            self.disk.written(self.name, offset, bytes(part))

        self.disk.do("write", lambda: write(data), lambda: write(data[: len(data) // 2]))

    def xSync(self, flags: int) -> None:  # noqa: N802  # apsw's name
        def sync() -> None:
            super(_File, self).xSync(flags)
            self.disk.synced(self.name)

        self.disk.do("sync", sync, lambda: self.disk.dropped(self.name))

    def xTruncate(self, size: int) -> None:  # noqa: N802  # apsw's name
        def truncate() -> None:
            super(_File, self).xTruncate(size)
            self.disk.written(self.name, size, None)

        self.disk.do("truncate", truncate)
