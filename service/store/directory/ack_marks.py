"""How far each worker has acknowledged: a file beside the log, so that a log whose end was cut off is noticed.

A write-ahead log that is damaged ends for SQLite before the damage, and no chain shows what came after. Each worker
writes the position of its last event after the commit and before the answers; a start refuses a log that ends earlier.
Marks are not synced, so damage and loss of power together can go unnoticed.

    offset  size  field
    0       8     "SFSTMARK"
    8       8     format version, 1
    64      128   record of one stream: two halves of 64 bytes, written in turn, so that one of them is always whole
    192     128   …

    half    size  field
    0       8     stream, from 1
    8       8     seq
    16      32    hash of that event
    48      16    the first bytes of SHA-256 of what stands before; a half of zeros was never written

All little-endian. The mark of a stream is the half with the greater seq among those whose checksum holds.

A purge deletes a stream's marks before the stream. So a stream that has a mark and is not in the log was not purged:
the log has lost it.
"""

import hashlib
import mmap
import os
import struct
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Final, Literal

from service.errors import LogDamagedError
from service.store.filesystem import sync_file
from service.store.log.events import Position
from service.store.log.feedback_log import FeedbackLog, read_event

MAGIC: Final = b"SFSTMARK" + (1).to_bytes(8, "little")
HEAD_BYTES: Final = 64
HALF: Final = struct.Struct("<QQ32s")
HALF_BYTES: Final = 64
RECORD_BYTES: Final = 2 * HALF_BYTES
RECORDS_MAX: Final = 1024  # four times as many streams as versions can be served
CHECK_BYTES: Final = HALF_BYTES - HALF.size
DAMAGED: Final = "damaged"

Half = tuple[int, Position] | Literal["damaged"] | None


class AckMarks:
    """The marks of one worker, which alone writes them.

    Args:
        path: Its file, made where it is missing; its folder exists.
        live: The streams that there are; marks of others are given up.

    Raises:
        LogDamagedError: The file is no file of marks.
    """

    def __init__(self, path: Path, live: Collection[int]) -> None:
        if not path.exists():
            _make(path)
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        # Where the next mark of each stream goes; the other half of its record holds the last one.
        self._next: dict[int, int] = {}
        self._free: list[int] = []
        for record, halves in enumerate(_records(self._memory[:])):
            at = HEAD_BYTES + record * RECORD_BYTES
            mark = _newest(halves)
            if mark is not None and mark[0] in live:
                self._next[mark[0]] = at + HALF_BYTES * (halves[0] == mark)
            else:
                self._memory[at : at + RECORD_BYTES] = bytes(RECORD_BYTES)
                self._free.append(at)

    def write_mark(self, stream: int, position: Position) -> None:
        """Notes that a stream is committed up to a position; that outlives the process from here on."""
        at = self._next.get(stream)
        if at is None:
            if not self._free:
                raise LogDamagedError("there are more streams than marks; purge those of deleted models")
            at = self._free.pop()
        sealed = HALF.pack(stream, *position)
        self._memory[at : at + HALF_BYTES] = sealed + hashlib.sha256(sealed).digest()[:CHECK_BYTES]
        start = at - HEAD_BYTES
        self._next[stream] = at + (HALF_BYTES if start % RECORD_BYTES == 0 else -HALF_BYTES)

    def close(self) -> None:
        """Lets go of the file."""
        self._memory.close()


def read_marks(path: Path) -> list[tuple[int, Position]]:
    """The mark of each stream in a worker's file: the stream's number, and how far it was acknowledged.

    Raises:
        LogDamagedError: The file is no file of marks, or a mark in it is damaged.
    """
    marks = []
    for halves in _records(path.read_bytes()):
        mark = _newest(halves)
        if mark is not None:
            marks.append(mark)
        elif DAMAGED in halves:
            raise LogDamagedError(f"the mark file {path.name} is damaged; without it a cut log cannot be told")
    return marks


def refuse_truncated_log(log: FeedbackLog, reached: Iterable[tuple[int, Position]]) -> None:
    """Refuses a log that does not hold every position that was reached once: those of marks, snapshots, checkpoints.

    Raises:
        LogDamagedError: An event or a stream is missing, or is another one.
    """
    live = {stream.number for stream in log.list_streams()}
    for stream, (seq, hash_) in reached:
        if stream not in live:
            raise LogDamagedError("the feedback log has lost a stream that was acknowledged; restore a backup")
        if seq > 0:
            event = read_event(log, stream, seq)
            if event is None or event.hash != hash_:
                raise LogDamagedError(
                    f"the feedback log ends before event {seq}, which was acknowledged, or holds another one there; "
                    "restore a backup"
                )


def delete_mark(path: Path, stream: int) -> None:
    """Deletes a stream's mark from a worker's file, for good: what comes after may delete the stream.

    Raises:
        LogDamagedError: The file is no file of marks.
        OSError: The disk refuses.
    """
    with path.open("r+b") as file:
        for record, halves in enumerate(list(_records(file.read()))):
            if any(isinstance(half, tuple) and half[0] == stream for half in halves):
                file.seek(HEAD_BYTES + record * RECORD_BYTES)
                file.write(bytes(RECORD_BYTES))
        file.flush()
        os.fsync(file.fileno())


def _make(path: Path) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(MAGIC.ljust(HEAD_BYTES + RECORDS_MAX * RECORD_BYTES, b"\0"))
    sync_file(temporary)  # a loss of power may cost what it says, but must not leave a file that is none
    temporary.replace(path)


def _records(content: bytes) -> Iterator[list[Half]]:
    """The two halves of each record."""
    if len(content) != HEAD_BYTES + RECORDS_MAX * RECORD_BYTES or not content.startswith(MAGIC):
        raise LogDamagedError("a mark file is none; without it a cut log cannot be told")
    for at in range(HEAD_BYTES, len(content), RECORD_BYTES):
        yield [_half(content[start : start + HALF_BYTES]) for start in (at, at + HALF_BYTES)]


def _half(content: bytes) -> Half:
    sealed, check = content[: HALF.size], content[HALF.size :]
    if not any(content):
        return None
    if hashlib.sha256(sealed).digest()[:CHECK_BYTES] != check:
        return DAMAGED
    stream, seq, hash_ = HALF.unpack(sealed)
    return stream, Position(seq, hash_)


def _newest(halves: list[Half]) -> tuple[int, Position] | None:
    whole = [half for half in halves if isinstance(half, tuple)]
    return max(whole, key=lambda half: half[1].seq, default=None)
