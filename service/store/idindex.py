"""Which event has an id: an index that is filled late and in slices, because random ids would write a page each.

    key      8 bytes of BLAKE2b(model ‖ 0 ‖ id) under the log's secret, so that nobody can choose ids of one key
    ids      (key, position) of the events that a slice covers, one b-tree; its slices are ranges of keys
    slices   for each slice the seq of each stream up to which it is complete: <Q stream> <Q seq> …
    tail     in this process's memory: the ids of all events that their slice does not cover yet

An append adds to the tail alone. When the tail is full, its largest slice is written in the order of the keys, so that
the events that share a page of the b-tree pay for it together. Another process's events and slices are taken over when
the database has changed; a start reads the events behind the slices again. What is kept in memory is never ahead of
what is committed: a transaction that fails changes nothing here.
"""

import hashlib
import struct
from array import array
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import apsw

from service.errors import LogDamagedError

SEQ_BITS: Final = 40
SEQ_MASK: Final = (1 << SEQ_BITS) - 1
SLICES: Final = 64
SLICE_SHIFT: Final = 64 - 6
# Some 20 MB of memory. With half of it a slice's pages are shared by half as many events.
TAIL_EVENTS_MAX: Final = 65_536
COVER: Final = struct.Struct("<QQ")

Name = tuple[str, bytes]
Cover = dict[int, int]


class Entry(NamedTuple):
    """An event that is not in the b-tree yet."""

    key: int
    position: int
    name: Name


class IdIndex:
    """The index as one connection sees it.

    Args:
        secret: The key of the hash, of 16 to 64 bytes.
        tail_max: Events that the tail holds before a slice is written.
    """

    def __init__(self, secret: bytes, tail_max: int = TAIL_EVENTS_MAX) -> None:
        self._secret = secret
        self._tail_max = tail_max
        self._tail: dict[Name, int] = {}
        self._slices: list[list[Entry]] = [[] for _ in range(SLICES)]
        self._covers: list[Cover] = [{} for _ in range(SLICES)]
        # The seq of each stream up to which events are in the tail or in the b-tree.
        self._seen: Cover = {}

    def catch_up(self, database: apsw.Connection, models: Mapping[int, str]) -> None:
        """Takes over what other processes have written, or, on a new object, all that the slices do not cover.

        Args:
            database: The connection, within a transaction.
            models: The model's name for every stream there is, by the stream's number.
        """
        for number, cover in _read_covers(database):
            if cover != self._covers[number]:
                self._cover(number, cover)
        for stream, model in models.items():
            after = self._seen.get(stream)
            if after is None:
                after = min(cover.get(stream, 0) for cover in self._covers)
            rows = database.execute(
                "SELECT position, id FROM events WHERE position BETWEEN ? AND ? ORDER BY position",
                (stream << SEQ_BITS | after + 1, stream << SEQ_BITS | SEQ_MASK),
            )
            self.add(((model, id_), position) for position, id_ in rows)
            self._seen.setdefault(stream, after)

    def find(self, database: apsw.Connection, names: Iterable[Name]) -> list[int]:
        """The positions that events with these names may have: none is missing, but another's may be among them."""
        found, keys = [], array("q")
        for name in names:
            position = self._tail.get(name)
            if position is None:
                keys.append(self.key(name))
            else:
                found.append(position)
        rows = database.execute("SELECT position FROM ids WHERE key IN carray(?)", (apsw.carray(keys),)) if keys else ()
        return [*found, *(position for (position,) in rows)]

    def flush(self, database: apsw.Connection) -> list[int]:
        """Writes the largest slices to the b-tree while the tail is too full.

        Returns:
            The slices, for `flushed` once they are committed.
        """
        excess = len(self._tail) - self._tail_max
        written: list[int] = []
        for number in sorted(range(SLICES), key=lambda number: -len(self._slices[number])) if excess > 0 else ():
            if excess <= 0:
                break
            self._write(database, number)
            excess -= len(self._slices[number])
            written.append(number)
        return written

    def flushed(self, slices: Iterable[int]) -> None:
        """Drops from the tail what the b-tree has now."""
        for number in slices:
            self._cover(number, dict(self._seen))

    def add(self, events: Iterable[tuple[Name, int]]) -> None:
        """Takes events that are committed, each stream's by ascending position."""
        for name, position in events:
            stream, seq = position >> SEQ_BITS, position & SEQ_MASK
            key = self.key(name)
            number = key >> SLICE_SHIFT & SLICES - 1
            if seq > self._covers[number].get(stream, 0):
                self._tail[name] = position
                self._slices[number].append(Entry(key, position, name))
            self._seen[stream] = seq

    def key(self, name: Name) -> int:
        """The key of a name, a signed 64-bit integer."""
        model, id_ = name
        hashed = hashlib.blake2b(b"%b\0%b" % (model.encode(), id_), digest_size=8, key=self._secret)
        return int.from_bytes(hashed.digest(), "little", signed=True)

    def _write(self, database: apsw.Connection, number: int) -> None:
        entries = sorted((entry.key, entry.position) for entry in self._slices[number])
        database.executemany("INSERT INTO ids VALUES(?, ?)", entries)
        cover = b"".join(COVER.pack(*item) for item in self._seen.items())
        database.execute("INSERT OR REPLACE INTO slices VALUES(?, ?)", (number, cover))

    def _cover(self, number: int, cover: Cover) -> None:
        """Drops what a slice has in the b-tree now from the tail."""
        self._covers[number] = cover
        kept = []
        for entry in self._slices[number]:
            if entry.position & SEQ_MASK > cover.get(entry.position >> SEQ_BITS, 0):
                kept.append(entry)
            else:
                self._tail.pop(entry.name, None)
        self._slices[number] = kept


def _read_covers(database: apsw.Connection) -> list[tuple[int, Cover]]:
    covers = []
    for number, packed in database.execute("SELECT slice, cover FROM slices"):
        if not 0 <= number < SLICES or len(packed) % COVER.size:
            raise LogDamagedError("the index of ids in the feedback log is damaged; restore a backup")
        covers.append((number, dict(COVER.iter_unpack(packed))))
    return covers
