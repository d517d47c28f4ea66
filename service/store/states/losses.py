"""The losses of the latest rows, each before its step: what the learner tells workers whose clients wait for them.

    offset  size  field
    0       8     "SFSTLOSS"
    8       8     rows written so far, R
    16      48    zeros
    64      16·C  ring of C = 65,536 records; row r stands at r mod C: <q seq> <d loss>; zeros where it was forgotten

All little-endian. Rows are written before R grows, and at most half a ring of them at once; so the newer half of the
ring is whole whenever a reader looks, and it takes no others. The file is derived: it is made anew at each start.
"""

import mmap
import os
import struct
from collections.abc import Iterable
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
    """The learner's end: makes the file anew, and is the only one who writes to it.

    Raises:
        OSError: The disk refuses.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}")
        with temporary.open("w+b") as file:
            # A hole for which the disk has no room would kill whoever writes to the mapping.
            file.write(bytes(FILE_BYTES))
            file.flush()
            self._memory = mmap.mmap(file.fileno(), FILE_BYTES)
        self._memory[:8] = MAGIC
        self._ring = np.frombuffer(self._memory, RECORD, CAPACITY, HEAD_BYTES)
        self._count = 0
        temporary.rename(path)

    def write_losses(self, seqs: NDArray[np.int64], losses: NDArray[np.float64]) -> None:
        """Add the seqs (R,) and losses (R,) of rows; of more than fit, the latest."""
        rows = np.empty(len(losses), RECORD)
        rows["seq"], rows["loss"] = seqs, losses
        count = self._count + len(rows)
        rows = rows[-WHOLE:]
        self._ring[np.arange(count - len(rows), count) % CAPACITY] = rows
        self._count = count
        COUNT.pack_into(self._memory, COUNT_AT, count)

    def erase_events(self, seqs: Iterable[int]) -> None:
        """Overwrite the records of events that were forgotten with zeros, on the disk too.

        Raises:
            OSError: The disk refuses.
        """
        gone = np.isin(self._ring["seq"], list(seqs))
        if gone.any():
            self._ring[gone] = 0
            self._memory.flush()


class LossReader:
    """A worker's end."""

    def __init__(self, path: Path) -> None:
        self._path: Final = path
        self._inode = 0
        self._ring: Records = np.empty(0, RECORD)

    def read_losses(self, seq: int) -> list[float] | None:
        """The loss of each row of an event, or None where it is not among the latest rows."""
        if not self._open():
            return None
        (count,) = COUNT.unpack_from(self._memory, COUNT_AT)
        rows = self._ring[np.arange(max(0, count - WHOLE), count) % CAPACITY]
        losses: list[float] = rows["loss"][rows["seq"] == seq].tolist()
        return losses or None

    def _open(self) -> bool:
        """Map the file that the learner writes to now: one that was started again has made another."""
        try:
            with self._path.open("rb") as file:
                inode = os.fstat(file.fileno()).st_ino
                if inode != self._inode:
                    self._memory = mmap.mmap(file.fileno(), FILE_BYTES, access=mmap.ACCESS_READ)
                    self._ring = np.frombuffer(self._memory, RECORD, CAPACITY, HEAD_BYTES)
                    self._inode = inode
        except (OSError, ValueError):
            return False
        return True
