"""Acknowledgement marks: a file per worker, beside the log, that says how far each stream was acknowledged.

A write-ahead log that is damaged ends for SQLite before the damage, and no chain shows what came after. So each worker
writes the position of its last event after the commit and before the answers, and a start refuses a log that ends
earlier (`truncation.py`). Marks are not synced, so damage together with a loss of power can go unnoticed.

    offset  size  field
    0       8     "SFSTMARK"
    8       8     format version, 1
    64      128   record of one stream: two halves of 64 bytes, written alternately, so that one of them is always whole
    192     128   …

    half    size  field
    0       8     stream, from 1
    8       8     seq
    16      32    hash of that event
    48      16    the first bytes of SHA-256 of the fields above; a half of zeros was never written

All numbers are little-endian. The mark of a stream is the half with the greater seq among those with a valid checksum.

A purge deletes a stream's marks before the stream. So a stream that has a mark and is not in the log was not purged:
the log has lost it.
"""

import hashlib
import mmap
import os
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final, Literal

from service.errors import LogDamagedError
from service.store.filesystem import write_whole_file
from service.store.log.events import Position

MAGIC: Final = b"SFSTMARK" + (1).to_bytes(8, "little")
HEAD_BYTES: Final = 64
HALF: Final = struct.Struct("<QQ32s")
HALF_BYTES: Final = 64
RECORD_BYTES: Final = 2 * HALF_BYTES
RECORDS_MAX: Final = 1024  # four times as many streams as versions can be served
CHECK_BYTES: Final = HALF_BYTES - HALF.size
DAMAGED: Final = "damaged"

Mark = tuple[int, Position]  # the number of a stream, and how far it was acknowledged
Half = Mark | Literal["damaged"] | None


class AckMarks:
    """The marks of one worker, which alone writes them.

    Args:
        path: The worker's file, created if it is missing; its folder exists.
        live: The numbers of the existing streams; marks of others are deleted.

    Raises:
        LogDamagedError: The file is not a mark file.
    """

    def __init__(self, path: Path, live: Collection[int]) -> None:
        if not path.exists():
            # Synced: a loss of power may lose marks, but must not leave a file that is not a mark file.
            empty = MAGIC.ljust(HEAD_BYTES + RECORDS_MAX * RECORD_BYTES, b"\0")
            write_whole_file(path, [empty], durable=True)
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        # Where the next mark of each stream goes; the other half of its record holds the last one.
        self._next: dict[int, int] = {}
        self._free: list[int] = []
        for record, halves in enumerate(_parse_records(self._memory[:])):
            at = HEAD_BYTES + record * RECORD_BYTES
            mark = _newest_mark(halves)
            if mark is not None and mark[0] in live:
                self._next[mark[0]] = at + HALF_BYTES * (halves[0] == mark)
            else:
                self._memory[at : at + RECORD_BYTES] = bytes(RECORD_BYTES)
                self._free.append(at)

    def write_mark(self, stream: int, position: Position) -> None:
        """Record that a stream is committed up to a position; the mark survives the process from here on."""
        at = self._next.get(stream)
        if at is None:
            if not self._free:
                raise LogDamagedError("there are more streams than marks; purge those of deleted models")
            at = self._free.pop()
        fields = HALF.pack(stream, *position)
        self._memory[at : at + HALF_BYTES] = fields + hashlib.sha256(fields).digest()[:CHECK_BYTES]
        is_first_half = (at - HEAD_BYTES) % RECORD_BYTES == 0
        self._next[stream] = at + (HALF_BYTES if is_first_half else -HALF_BYTES)

    def close(self) -> None:
        """Unmap the file."""
        self._memory.close()


def read_marks(path: Path) -> list[Mark]:
    """Return the mark of each stream in a worker's file.

    Raises:
        LogDamagedError: The file is not a mark file, or a mark in it is damaged.
    """
    marks = []
    for halves in _parse_records(path.read_bytes()):
        mark = _newest_mark(halves)
        if mark is not None:
            marks.append(mark)
        elif DAMAGED in halves:
            raise LogDamagedError(
                f"the mark file {path.name} is damaged; without it a truncated log cannot be detected; restore a backup"
            )
    return marks


def delete_mark(path: Path, stream: int) -> None:
    """Delete a stream's mark from a worker's file, and sync the file, so that the stream may be deleted next.

    Raises:
        LogDamagedError: The file is not a mark file.
        OSError: The disk failed.
    """
    with path.open("r+b") as file:
        for record, halves in enumerate(list(_parse_records(file.read()))):
            if any(isinstance(half, tuple) and half[0] == stream for half in halves):
                file.seek(HEAD_BYTES + record * RECORD_BYTES)
                file.write(bytes(RECORD_BYTES))
        file.flush()
        os.fsync(file.fileno())


def _parse_records(content: bytes) -> Iterator[list[Half]]:
    """Yield the two halves of each record."""
    if len(content) != HEAD_BYTES + RECORDS_MAX * RECORD_BYTES or not content.startswith(MAGIC):
        raise LogDamagedError(
            "a file in marks/ is not a mark file; without it a truncated log cannot be detected; restore a backup"
        )
    for at in range(HEAD_BYTES, len(content), RECORD_BYTES):
        yield [_parse_half(content[start : start + HALF_BYTES]) for start in (at, at + HALF_BYTES)]


def _parse_half(content: bytes) -> Half:
    fields, check = content[: HALF.size], content[HALF.size :]
    if not any(content):
        return None
    if hashlib.sha256(fields).digest()[:CHECK_BYTES] != check:
        return DAMAGED
    stream, seq, hash_ = HALF.unpack(fields)
    return stream, Position(seq, hash_)


def _newest_mark(halves: list[Half]) -> Mark | None:
    whole = [half for half in halves if isinstance(half, tuple)]
    return max(whole, key=lambda half: half[1].seq, default=None)
