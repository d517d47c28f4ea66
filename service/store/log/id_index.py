"""The index of ids, which finds the event that has an id.

It is written late and in slices, because random ids would write a page each.

    key      8 bytes of BLAKE2b(secret ‖ model ‖ 0 ‖ id); the log's secret keeps clients from choosing ids of one key
    ids      (key, position) of the events that a slice covers, one b-tree; its slices are ranges of keys
    slices   for each slice the seq of each stream up to which it is complete: <Q stream> <Q seq> …, checksummed
    tail     in this process's memory: the ids of all events that their slice does not cover yet

An append adds only to the tail. If the tail is full, its largest slice is written in the order of the keys, so that
all events of a b-tree page share the cost of writing it. Events and slices of other processes are read when the
database has changed; a start reads the events after the slices again. Memory is never ahead of what is committed: a
transaction that fails changes nothing here.
"""

import struct
from array import array
from collections.abc import Collection, Iterable, Mapping
from hashlib import blake2b
from typing import Final, cast

import apsw

from service.errors import LogDamagedError
from service.store.log.chain import add_checksum, strip_checksum
from service.store.log.events import SEQ_BITS, SEQ_MAX
from service.store.log.log_rows import Name

SLICES: Final = 64
SLICE_SHIFT: Final = 64 - 6
# Some 12 MB of memory. With half of it, half as many events share the pages of a slice.
TAIL_EVENTS_MAX: Final = 65_536
COVER: Final = struct.Struct("<QQ")
KEY: Final = struct.Struct("<q")
KEY_BYTES: Final = KEY.size
FIND: Final = "SELECT position FROM ids WHERE key IN carray(?)"

Cover = dict[int, int]


class _Prefixes(dict[str, bytes]):
    """For each model the bytes that are hashed before an id."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def __missing__(self, model: str) -> bytes:
        self[model] = self._secret + model.encode() + b"\0"
        return self[model]


class IdIndex:
    """The index as one connection sees it.

    Args:
        secret: 16 random bytes that the log stores.
        tail_max: Events in the tail above which a slice is written.
    """

    def __init__(self, secret: bytes, tail_max: int) -> None:
        self._tail_max = tail_max
        self._prefixes = _Prefixes(secret)
        # The keys of the names that were looked up last: the events that are added next have some of these names.
        self._keys: dict[Name, int] = {}
        # Numbers only, because everything random in memory costs a cache miss: the position of each key, the further
        # positions of the few keys that have several, and for each slice its keys and positions by ascending position.
        self._tail: dict[int, int] = {}
        self._more: dict[int, list[int]] = {}
        self._slices = [(array("q"), array("q")) for _ in range(SLICES)]
        self._covers: list[Cover] = [{} for _ in range(SLICES)]
        # The seq of each stream up to which events are in the tail or in the b-tree.
        self._indexed: Cover = {}

    def catch_up(self, database: apsw.Connection, models: Mapping[int, str]) -> None:
        """Add what other processes have written; for a new object, everything that the slices do not cover.

        Args:
            database: The connection, within a transaction.
            models: The model's name for every existing stream, by the stream's number.
        """
        for number, cover in _read_covers(database):
            if cover != self._covers[number]:
                self._apply_cover(number, cover)
        for stream, model in models.items():
            after = self._indexed.get(stream)
            if after is None:
                after = min(cover.get(stream, 0) for cover in self._covers)
                self._indexed[stream] = after
            rows = database.execute(
                "SELECT position, id FROM events WHERE position BETWEEN ? AND ? ORDER BY position",
                (stream << SEQ_BITS | after + 1, stream << SEQ_BITS | SEQ_MAX),
            )
            events = [(position, (model, id_)) for position, id_ in rows]
            if not all(isinstance(id_, bytes) for _, (_, id_) in events):
                raise LogDamagedError("the id of an event is damaged; restore a backup")
            self.add(events)

    def find_positions(self, database: apsw.Connection, names: Collection[Name]) -> list[int]:
        """Return the positions of the events with these names; positions of other events may be among them."""
        tail, keys = self._tail, self.hash_names(names)
        self._keys = dict(zip(names, keys, strict=True))
        positions = [tail[key] for key in keys if key in tail]
        for key in self._more.keys() & keys:
            positions += self._more[key]
        if keys:
            searched = apsw.carray(array("q", keys))
            positions += [position for (position,) in database.execute(FIND, (searched,))]
        return positions

    def write_slices(self, database: apsw.Connection) -> list[int]:
        """Write the largest slices to the b-tree while the tail is too full.

        Returns:
            The slices, for `drop_slices` once they are committed.
        """
        excess = len(self._tail) - self._tail_max
        slices: list[int] = []
        for number in sorted(range(SLICES), key=lambda number: -len(self._slices[number][0])) if excess > 0 else ():
            if excess <= 0:
                break
            self._write_slice(database, number)
            excess -= len(self._slices[number][0])
            slices.append(number)
        return slices

    def drop_slices(self, slices: Iterable[int]) -> None:
        """Drop slices from the tail that the b-tree contains now; nothing was added since `write_slices`."""
        for number in slices:
            for key, position in zip(*self._slices[number], strict=True):
                self._drop(key, position)
            self._slices[number] = (array("q"), array("q"))
            self._covers[number] = dict(self._indexed)

    def add(self, events: Iterable[tuple[int, Name]]) -> None:
        """Add the positions and names of committed events, each stream's by ascending position."""
        tail, slices, covers, indexed, keys = self._tail, self._slices, self._covers, self._indexed, self._keys
        for position, name in events:
            stream, seq = position >> SEQ_BITS, position & SEQ_MAX
            key = keys[name] if name in keys else self.hash_names([name])[0]
            number = key >> SLICE_SHIFT & SLICES - 1
            if seq > covers[number].get(stream, 0):
                if key in tail:
                    self._more.setdefault(key, []).append(position)
                else:
                    tail[key] = position
                slices[number][0].append(key)
                slices[number][1].append(position)
            indexed[stream] = seq

    def hash_names(self, names: Collection[Name]) -> list[int]:
        """Return the keys of names, signed 64-bit integers."""
        prefixes = self._prefixes
        hashes = [blake2b(prefixes[model] + id_, digest_size=KEY_BYTES).digest() for model, id_ in names]
        return [key for (key,) in KEY.iter_unpack(b"".join(hashes))]

    def _write_slice(self, database: apsw.Connection, number: int) -> None:
        database.executemany("INSERT INTO ids VALUES(?, ?)", sorted(zip(*self._slices[number], strict=True)))
        cover = b"".join(COVER.pack(*item) for item in self._indexed.items())
        database.execute("INSERT OR REPLACE INTO slices VALUES(?, ?)", (number, add_checksum(cover)))

    def _apply_cover(self, number: int, cover: Cover) -> None:
        """Drop from the tail what another process has written to a slice."""
        self._covers[number] = cover
        keys, positions = self._slices[number]
        uncovered = (array("q"), array("q"))
        for key, position in zip(keys, positions, strict=True):
            if position & SEQ_MAX > cover.get(position >> SEQ_BITS, 0):
                uncovered[0].append(key)
                uncovered[1].append(position)
            else:
                self._drop(key, position)
        self._slices[number] = uncovered

    def _drop(self, key: int, position: int) -> None:
        if self._tail.get(key) == position:
            del self._tail[key]
        else:
            self._more[key].remove(position)


def _read_covers(database: apsw.Connection) -> list[tuple[int, Cover]]:
    rows = cast("list[tuple[int, bytes]]", database.execute("SELECT slice, cover FROM slices").fetchall())
    if not all(number in range(SLICES) for number, _ in rows):
        raise LogDamagedError("unknown slice of the index of ids; restore a backup")
    return [(number, dict(COVER.iter_unpack(strip_checksum(cover)))) for number, cover in rows]
