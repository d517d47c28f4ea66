"""The losses and answers of the latest rows, each before its step: from the learner to the workers.

Clients that wait for their feedback get the losses; lists of events show both.

    offset  size  field
    0       8     "SFSTLOSS"
    8       8     rows written so far, R
    16      48    zeros
    64      24·C  ring of C = 65,536 records; row r is at r mod C: <q seq> <d loss> <i label> <i answer>, the indices of
                  the class that was wanted and of the one that was answered, -1 if there is no single one; zeros if
                  the event was forgotten

All numbers are little-endian. Rows are written before R grows, and at most half a ring at once. So the newer half of
the ring is always whole, and readers use no other rows. The file is derived: each start of the learner creates a new
one.
"""

import mmap
import os
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.store.filesystem import write_whole_file

MAGIC: Final = b"SFSTLOSS"
HEAD_BYTES: Final = 64
CAPACITY: Final = 1 << 16
RECORD: Final = np.dtype([("seq", "<i8"), ("loss", "<f8"), ("label", "<i4"), ("answer", "<i4")])
NO_CLASS: Final = -1
COUNT: Final = struct.Struct("<q")
COUNT_AT: Final = 8
READABLE_ROWS: Final = CAPACITY // 2
FILE_BYTES: Final = HEAD_BYTES + CAPACITY * RECORD.itemsize

Records = NDArray[Any]
Classes = NDArray[np.int64]


class RowRecord(NamedTuple):
    """A row: its loss, and the indices of the class that was wanted and of the one that was answered, or -1."""

    loss: float
    label: int
    answer: int


class LossWriter:
    """The learner's side: creates a new file, and alone writes to it.

    Args:
        path: The file; its folder is created if it is missing.

    Raises:
        OSError: The disk failed.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # All bytes are written: a process that writes to a mapped hole is killed if the disk is full.
        write_whole_file(path, [MAGIC, bytes(FILE_BYTES - len(MAGIC))], durable=False)
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), FILE_BYTES)
        self._ring = np.frombuffer(self._memory, RECORD, CAPACITY, HEAD_BYTES)
        self._count = 0

    def write_losses(
        self,
        seqs: NDArray[np.int64],
        losses: NDArray[np.float64],
        labels: Classes | None = None,
        answers: Classes | None = None,
    ) -> None:
        """Add the seqs, losses, labels and answers (R,) of rows; if there are too many, the latest."""
        rows = np.empty(len(losses), RECORD)
        rows["seq"], rows["loss"] = seqs, losses
        rows["label"], rows["answer"] = (NO_CLASS if values is None else values for values in (labels, answers))
        count = self._count + len(rows)
        rows = rows[-READABLE_ROWS:]
        self._ring[np.arange(count - len(rows), count) % CAPACITY] = rows
        self._count = count
        COUNT.pack_into(self._memory, COUNT_AT, count)

    def erase_events(self, seqs: Iterable[int]) -> None:
        """Overwrite the records of forgotten events with zeros, on the disk too.

        Raises:
            OSError: The disk failed.
        """
        is_forgotten = np.isin(self._ring["seq"], list(seqs))
        if is_forgotten.any():
            self._ring[is_forgotten] = 0
            self._memory.flush()


class LossReader:
    """A worker's side.

    Args:
        path: The file, which may be missing.
    """

    def __init__(self, path: Path) -> None:
        self._path: Final = path
        self._inode = 0
        self._ring: Records = np.empty(0, RECORD)

    def read_losses(self, seq: int) -> list[float] | None:
        """Return the loss of each row of an event, or None if it is not among the latest rows."""
        rows = self._latest_rows()
        losses: list[float] = rows["loss"][rows["seq"] == seq].tolist()
        return losses or None

    def read_rows(self, seqs: Sequence[int]) -> dict[int, list[RowRecord]]:
        """Return the rows of each event that is among the latest rows, by its seq."""
        rows, found = self._latest_rows(), dict[int, list[RowRecord]]()
        for seq, *record in rows[np.isin(rows["seq"], seqs)].tolist():
            found.setdefault(seq, []).append(RowRecord(*record))
        return found

    def _latest_rows(self) -> Records:
        """Return a copy of the newer half of the ring, in order; no rows if there is no file."""
        if not self._map_current_file():
            return self._ring[:0]
        (count,) = COUNT.unpack_from(self._memory, COUNT_AT)
        rows: Records = self._ring[np.arange(max(0, count - READABLE_ROWS), count) % CAPACITY]
        return rows

    def _map_current_file(self) -> bool:
        """Map the file that the learner writes now, since each start of the learner creates a new one."""
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
