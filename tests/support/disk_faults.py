"""A disk that fails on purpose, as a VFS between SQLite and the real one.

Its faults, at the N-th operation of the chosen kinds, once or from then on:
    an I/O error, or a full disk, before the operation; after such a failed sync, the written data are in memory and
    treated as clean, but not on the disk
    a write of which only the first half is done, then an I/O error
    SIGKILL of the process: before the operation, or after half of a write
    a loss of power: the content of each file on a disk that has everything synced, and any of the 512-byte parts that
    were written since; the run itself continues
    lying syncs: they are counted as done and store nothing (the control that shows that the checker detects losses)
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
    """The kind of a fault."""

    IO = "io"
    FULL = "full"
    TORN = "torn"
    KILL = "kill"
    KILL_TORN = "kill torn"


class Disk:
    """A VFS that counts the operations on all its files, and fails on request.

    Attributes:
        name: The VFS's name, for SqliteLog.
        done: The number of operations so far.
        cut: After a loss of power, each file's content by its name.
    """

    def __init__(self, *, lying: bool = False) -> None:
        self.cut: dict[str, bytes] | None = None
        self._cut_at: tuple[int, random.Random] | None = None
        self._lying = lying
        # The synced content, and the writes since, in order: offset and bytes, or a new length.
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
        """Let the `at`-th operation of these kinds from now on, counted from 0, fail."""
        self._at, self._fault, self._forever, self._operations = at, fault, forever, operations

    def heal(self) -> None:
        """Let no further operation fail."""
        self._at = None

    def cut_at(self, at: int, seeded: random.Random) -> None:
        """Simulate a loss of power before the `at`-th operation, counted from 0."""
        self._cut_at = (at, seeded)

    def written(self, name: str, offset: int, data: bytes | None) -> None:
        """Record a write, or with None a truncation to `offset`."""
        self._pending.setdefault(name, []).append((offset, data))

    def synced(self, name: str) -> None:
        """Record that all writes to a file are on the disk now."""
        if not self._lying:
            for change in self._pending.pop(name, []):
                apply_write(self._synced.setdefault(name, bytearray()), *change)

    def deleted(self, name: str) -> None:
        """Record that a file was deleted; SQLite syncs the folder with it."""
        self._synced.pop(name, None)
        self._pending.pop(name, None)

    def dropped(self, name: str) -> None:
        """Record a failed sync: the written data are treated as clean, and are not on the disk."""
        self._pending.pop(name, None)

    def lose_power(self, seeded: random.Random) -> None:
        """Fill `cut` with the content of the disk after a loss of power now."""
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
        """Do one operation, or fail."""
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
