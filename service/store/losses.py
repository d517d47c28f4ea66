"""The losses of the latest rows, each before its step: what the learner tells workers whose clients wait for them.

    offset  size  field
    0       8     "SFSTLOSS"
    8       8     rows written so far, R
    16      48    zeros
    64      16·C  ring of C = 65,536 records; row r stands at r mod C: <q seq> <d loss>

All little-endian. Rows are written before R grows, and at most half a ring of them at once; so the newer half of the
ring is whole whenever a reader looks, and it takes no others. The file is derived: it is made anew at each start.
"""

import mmap
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MAGIC: Final = b"SFSTLOSS"
HEAD_BYTES: Final = 64
CAPACITY: Final = 1 << 16
RECORD: Final = np.dtype([("seq", "<i8"), ("loss", "<f8")])
COUNT: Final = struct.Struct("<q")
COUNT_AT: Final = 8
WHOLE: Final = CAPACITY // 2
FILE_BYTES: Final = HEAD_BYTES + CAPACITY * RECORD.itemsize

Records = NDArray[Any]


class LossWriter:
    """The learner's end: makes the file anew, and is the only one who writes to it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}")
        with temporary.open("w+b") as file:
            file.truncate(FILE_BYTES)
            self._memory = mmap.mmap(file.fileno(), FILE_BYTES)
        self._memory[:8] = MAGIC
        self._ring = np.frombuffer(self._memory, RECORD, CAPACITY, HEAD_BYTES)
        self._count = 0
        temporary.rename(path)

    def write(self, seqs: Sequence[int], losses: Sequence[NDArray[np.float64]]) -> None:
        """Add the losses of events, a row each; of more than fit, the latest."""
        rows = np.empty(sum(map(len, losses)), RECORD)
        rows["seq"] = np.repeat(seqs, [len(each) for each in losses])
        rows["loss"] = np.concatenate(losses) if losses else 0.0
        count = self._count + len(rows)
        rows = rows[-WHOLE:]
        self._ring[np.arange(count - len(rows), count) % CAPACITY] = rows
        self._count = count
        COUNT.pack_into(self._memory, COUNT_AT, count)


class LossReader:
    """A worker's end: reads on from where it was."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._inode = os.fstat(file.fileno()).st_ino
            self._memory = mmap.mmap(file.fileno(), FILE_BYTES, access=mmap.ACCESS_READ)
        self._path = path
        self._ring = np.frombuffer(self._memory, RECORD, CAPACITY, HEAD_BYTES)
        self._read = max(0, self._written() - WHOLE)

    def is_current(self) -> bool:
        """Whether the learner still writes to this file; a learner that was started again has made another."""
        try:
            return self._path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    def new(self) -> Records:
        """The records (seq, loss) since the last call, in order, without those that were overwritten meanwhile."""
        count = self._written()
        start = max(self._read, count - WHOLE)
        rows = self._ring[np.arange(start, count) % CAPACITY]
        self._read = count
        return rows[max(0, self._written() - WHOLE - start) :]

    def _written(self) -> int:
        (count,) = COUNT.unpack_from(self._memory, COUNT_AT)
        return int(count)
