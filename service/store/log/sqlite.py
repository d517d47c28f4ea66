"""The log in one SQLite file, the embedded default: `log.sqlite` with its `-wal` and `-shm`, for several processes.

What holds of every object, each of which has one connection (connection.py says how it lives through a failing disk):
    Nothing is acknowledged before its COMMIT returned, with the write-ahead log synced.
    What is in memory, heads and index of ids, is what is committed; other processes' commits are taken over first.
    A log that was opened again must hold, chain and all, the last event of each stream that this object knows.

An append costs 15 us of one core an event and writes 540 bytes of log (batches of 64 with random ids of 32 bytes behind
10^6 events, measured by loadtest/appends.py). With a page of the index written for each id it is 32 us and 5200 bytes,
with pages of 1024 bytes 1800.
"""

import os
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import apsw

from service.errors import LogDamagedError, LogFullError, LogUnavailableError
from service.store.filesystem import free_bytes, sync_file, sync_folder
from service.store.log import tables
from service.store.log.append_rules import AppendBatch, Row, StreamHead, draw_salts, duplicate_of, find_names
from service.store.log.chain import check_chain
from service.store.log.events import SEQ_BITS, Draft, Event, EventLocation, Kind, Outcome, Position, Stream, StreamState
from service.store.log.id_index import TAIL_EVENTS_MAX, IdIndex, Name
from service.store.log.lineage import LineageChange, lineage_change
from service.store.log.log_connection import Generation, LogConnection

# Long enough to be quick, short enough that other writers do not wait.
PURGE_EVENTS: Final = 4096
CHAIN_EVENTS: Final = 4096


class SqliteLog:
    """A `FeedbackLog` in a file. One thread at a time uses an object; each process makes its own after the fork.

    Args:
        path: The database, made where it is missing; its folder exists.
        generation: Shared by all processes that append.
        reserve_bytes: Free bytes of the disk below which feedback is refused.
        wal_bytes_max: Bytes of the write-ahead log above which feedback is refused.
        tail_events_max: Ids that are held in memory before a slice of the index is written.
        vfs: Name of the VFS, for tests that let the disk fail.

    Raises:
        LogError: As for `open_database`.
    """

    def __init__(
        self,
        path: Path,
        generation: Generation | None = None,
        *,
        reserve_bytes: int = 256 << 20,
        wal_bytes_max: int = 1 << 30,
        tail_events_max: int = TAIL_EVENTS_MAX,
        vfs: str | None = None,
    ) -> None:
        self.path = path
        # Made once: they are looked at for every batch, and making a path costs more than the look.
        self._folder, self._wal = path.parent, f"{path}-wal"
        self._reserve_bytes = reserve_bytes
        self._wal_bytes_max = wal_bytes_max
        self._tail_events_max = tail_events_max
        self._known: dict[int, Position] = {}
        self._heads: dict[int, StreamHead] | None = None
        self._connection = LogConnection(path, tables.create_tables, self._opened, generation, vfs)
        with self._connection.connection():
            pass

    # Reading

    def list_streams(self) -> list[Stream]:
        """See FeedbackLog."""
        with self._connection.connection() as database:
            return tables.read_streams(database)

    def stream_state(self, stream: int) -> StreamState:
        """See FeedbackLog."""
        with self._connection.connection() as database:
            return tables.read_head(database, stream).state()

    def position_after_append(self, stream: int) -> tuple[Stream, Position]:
        """See FeedbackLog."""
        assert self._heads is not None  # noqa: S101  # so after an append
        head = self._heads[stream]
        return head.stream, Position(head.seq, head.hash)

    def read_events(self, stream: int, after: int, limit: int) -> list[Event]:
        """See FeedbackLog. Raises LogDamagedError where events are missing."""
        with self._connection.connection() as database:
            events = tables.read_events(database, stream, after, limit)
            if not events:
                tables.read_head(database, stream)
            return events

    def read_payloads(self, stream: int, since: Position, limit: int) -> tuple[list[bytes | None], Position]:
        """See FeedbackLog."""
        with self._connection.connection() as database:
            links = tables.read_links(database, stream, since.seq, limit)
            if not links:
                tables.read_head(database, stream)
        return [payload for *_, payload, _, _ in links], check_chain(since, links)

    def read_admin_events(self, stream: int) -> list[Event]:
        """See FeedbackLog."""
        with self._connection.connection() as database:
            return tables.read_admin_events(database, tables.read_head(database, stream).stream)

    def find_ids(self, model: str, ids: Sequence[bytes]) -> dict[bytes, EventLocation]:
        """See FeedbackLog."""
        with self._connection.write_transaction() as database:
            rows = self._look_up(database, {(model, id_) for id_ in ids}, self._catch_up(database))
            return {id_: duplicate_of(row) for (_, id_), row in rows.items()}

    def verify_chain(self, stream: int, since: Position, rows: int) -> Iterator[Position]:
        """See FeedbackLog."""
        while True:
            with self._connection.connection() as database:
                head = tables.read_head(database, stream)
                links = tables.read_links(database, stream, since.seq, rows)
            if not links:
                break
            since = check_chain(since, links)
            yield since
        if since.seq < head.seq:
            raise LogDamagedError(f"the feedback log has no event {since.seq + 1} where one was written")

    # Writing

    def open_stream(self, model: str, version: int, genesis: bytes, n_classes: int) -> Stream:
        """See FeedbackLog."""
        with self._connection.write_transaction() as database:
            for stream in tables.read_streams(database):
                if (stream.model, stream.version) == (model, version):
                    return stream
            self._heads = None
            return tables.insert_stream(database, model, version, genesis, n_classes)

    def append(self, drafts: Sequence[Draft]) -> list[Outcome]:
        """See FeedbackLog."""
        with self._connection.connection():
            full = self._fullness(drafts)
        with self._connection.write_transaction() as database:
            # Out of sight until the commit: a batch that fails leaves them half moved.
            heads, self._heads = self._catch_up(database), None
            names = self._look_up(database, find_names(drafts, heads), heads)
            batch = AppendBatch(heads, names, self._turns(database, heads))
            outcomes: list[Outcome] = [
                full if full and draft.kind == Kind.FEEDBACK else batch.admit(draft, salt)
                for draft, salt in zip(drafts, draw_salts(drafts, secrets.token_bytes), strict=True)
            ]
            slices = self._write(database, batch)
        self._heads = heads
        self._index.flushed(slices)
        self._index.add(batch.places)
        for number in {row[0] >> SEQ_BITS for row in batch.rows}:
            self._known[number] = Position(heads[number].seq, heads[number].hash)
        return outcomes

    def purge_stream(self, stream: int) -> None:
        """See FeedbackLog. One that was interrupted is finished by the next `finish_purges`."""
        with self._connection.write_transaction() as database:
            tables.read_head(database, stream)
            tables.mark_purged(database, stream)
        self._known.pop(stream, None)
        self.finish_purges()

    def finish_purges(self) -> None:
        """Deletes what is left of streams whose purge has begun, in short transactions."""
        left = True
        while left:
            with self._connection.write_transaction() as database:
                left = tables.purge_some(database, self._index.keys, PURGE_EVENTS)
        with self._connection.connection() as database:
            self._start_index(database)

    # Files

    @property
    def wal_bytes(self) -> int:
        """The bytes of write-ahead log that the next write adds to, as of this object's last commit or checkpoint."""
        return self._connection.wal_bytes

    def checkpoint_wal(self) -> None:
        """See LogConnection."""
        self._connection.checkpoint_wal()

    def empty_wal(self) -> None:
        """See LogConnection."""
        self._connection.empty_wal()

    def write_copy(self, path: Path) -> None:
        """See FeedbackLog. The copy is a log of its own, synced."""
        if path.exists():
            raise LogUnavailableError("the file for the backup exists already")
        with self._connection.connection() as database:
            database.execute("VACUUM INTO ?", (str(path),))
            sync_file(path)
            sync_folder(path.parent)

    def check_file(self) -> None:
        """Lets SQLite look at every page, which takes a while; raises LogDamagedError where one is not right."""
        with self._connection.connection() as database:
            if database.pragma("integrity_check") != "ok":
                raise LogDamagedError("the feedback log's database is damaged; restore a backup")

    def close(self) -> None:
        """See FeedbackLog."""
        self._connection.close()

    # What is in memory

    def _opened(self, database: apsw.Connection) -> None:
        """Holds a log that was opened again to what this object knows, and begins anew with what is in memory."""
        for stream, position in self._known.items():
            _check_from(database, stream, position)
        self._start_index(database)

    def _start_index(self, database: apsw.Connection) -> None:
        self._index = IdIndex(tables.read_secret(database), self._tail_events_max)
        self._heads = None
        self._data_version = 0

    def _catch_up(self, database: apsw.Connection) -> dict[int, StreamHead]:
        """Where every stream stands, and with it the index; within a transaction."""
        version = database.pragma("data_version")
        if self._heads is None or version != self._data_version:
            heads = tables.read_heads(database)
            self._index.catch_up(database, {number: head.stream.model for number, head in heads.items()})
            self._heads, self._data_version = heads, version
        return self._heads

    def _look_up(
        self, database: apsw.Connection, names: Collection[Name], heads: Mapping[int, StreamHead]
    ) -> dict[Name, Row]:
        """The stored events that have these names."""
        rows = tables.read_rows(database, self._index.find(database, names))
        found = {(heads[row[0] >> SEQ_BITS].stream.model, row[2]): row for row in rows if row[0] >> SEQ_BITS in heads}
        return {name: row for name, row in found.items() if name in names}

    def _turns(
        self, database: apsw.Connection, heads: Mapping[int, StreamHead]
    ) -> Callable[[int], list[LineageChange]]:
        return lambda number: list(map(lineage_change, tables.read_admin_events(database, heads[number].stream)))

    def _write(self, database: apsw.Connection, batch: AppendBatch) -> list[int]:
        """Writes what a batch brought; returns the slices of the index that were written with it."""
        tables.insert_rows(database, batch.rows)
        for position in batch.forgotten:
            tables.forget_payload(database, position)
        for number in batch.turned:
            tables.write_head(database, batch.heads[number])
        return self._index.flush(database)

    def _fullness(self, drafts: Sequence[Draft]) -> LogFullError | None:
        """Why no feedback can be taken, or None."""
        if self._wal_is_long() and self.wal_bytes > self._wal_bytes_max:
            self.checkpoint_wal()
            if self.wal_bytes > self._wal_bytes_max:
                return LogFullError("the feedback log waits for a reader and cannot be moved to its place; try again")
        # Everything is written twice, to the write-ahead log and to its place.
        needed = self._reserve_bytes + 2 * sum(len(draft.payload) for draft in drafts)
        if free_bytes(self._folder) < needed:
            return LogFullError("the disk is nearly full; feedback is taken again once there is space")
        return None

    def _wal_is_long(self) -> bool:
        """Whether the file of the write-ahead log may hold too much: it is never shorter than what it holds."""
        try:
            return os.stat(self._wal).st_size > self._wal_bytes_max  # noqa: PTH116
        except FileNotFoundError:
            return False


def _check_from(database: apsw.Connection, stream: int, known: Position) -> None:
    """Checks that a stream, unless it was purged, still holds an event that is known, and the chain behind it."""
    if stream not in tables.read_heads(database, stream):
        return
    first = tables.read_links(database, stream, known.seq - 1, 1)
    if not first or (first[0][0], first[0][5]) != known:
        raise LogDamagedError("the feedback log has lost events that were acknowledged; restore a backup")
    while links := tables.read_links(database, stream, known.seq, CHAIN_EVENTS):
        known = check_chain(known, links)
