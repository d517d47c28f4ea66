"""The SQLite backend of the log: `log.sqlite` with its `-wal` and `-shm`, used by several processes.

Invariants of every object, each of which has one connection (`log_connection.py` describes how it survives disk
errors):
    Nothing is acknowledged before its COMMIT has returned, with the write-ahead log synced. The heads and the index of
    ids in memory equal what is committed; other processes' commits are read first. A log that was opened again must
    contain, with an intact chain, the last event of each stream that this object knows.

An append costs 15 us of one core an event and writes 540 bytes of log (batches of 64 with random ids of 32 bytes after
10^6 events, measured by loadtest/appends.py). With a page of the index written for each id it is 32 us and 5200 bytes,
with pages of 1024 bytes 1800.
"""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import apsw

from service.errors import LogDamagedError, LogUnavailableError
from service.store.filesystem import sync_file, sync_folder
from service.store.log import tables
from service.store.log.append_rules import AppendBatch, draw_salts, find_names
from service.store.log.chain import PAYLOAD_OF, check_chain
from service.store.log.database import ACTORS_VERSION, USER_VERSION, read_transaction
from service.store.log.disk_limits import DiskLimits
from service.store.log.events import (
    SEQ_BITS,
    Draft,
    Event,
    EventLocation,
    EventPreview,
    Kind,
    Outcome,
    Position,
    Stream,
    StreamState,
)
from service.store.log.id_index import TAIL_EVENTS_MAX
from service.store.log.lineage import Lineage, lineage_change
from service.store.log.log_cache import LogCache
from service.store.log.log_connection import Generation, LogConnection
from service.store.log.log_rows import ReadChanges, StreamHead, duplicate_of

# Enough for speed, few enough that other writers do not wait.
PURGE_EVENTS: Final = 4096
CHAIN_EVENTS: Final = 4096
# What clients send in any number; the other kinds still fit when the disk is nearly full.
LIMITED_KINDS: Final = frozenset((Kind.FEEDBACK, Kind.CORRECT))


class SqliteLog:
    """A `FeedbackLog` in a file. One thread at a time uses an object; each process creates its own after the fork.

    Args:
        path: The database, created if it is missing; its folder exists.
        generation: Shared by all processes that append.
        reserve_bytes: Free bytes of the disk below which feedback is refused.
        wal_bytes_max: Bytes of the write-ahead log above which feedback is refused.
        tail_events_max: Ids in memory above which a slice of the index is written.
        vfs: Name of the VFS, for tests in which the disk fails.
        read_only: Whether to only read an existing database; its folder may be read-only too. Writes then raise
            LogUnavailableError.

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
        read_only: bool = False,
    ) -> None:
        self.path = path
        self._limits = DiskLimits(path, reserve_bytes, wal_bytes_max)
        self._appended: dict[int, Position] = {}
        self._cache = LogCache(tail_events_max)
        self._connection = LogConnection(
            path, tables.create_tables, self._check_reopened, generation, vfs, read_only=read_only
        )
        with self._connection.connection():
            pass

    # Reads

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
        head = self._cache.head_after_append(stream)
        return head.stream, Position(head.seq, head.hash)

    def read_events(self, stream: int, after: int, limit: int) -> list[Event]:
        """See FeedbackLog; raises LogDamagedError if events are missing."""
        with self._connection.connection() as database:
            events = tables.read_events(database, stream, after, limit)
            if not events:
                tables.read_head(database, stream)
            return events

    def read_previews(self, stream: int, before: int, limit: int, *, admin_only: bool = False) -> list[EventPreview]:
        """See FeedbackLog; raises LogDamagedError if events are missing."""
        with self._connection.connection() as database, read_transaction(database):
            tables.read_head(database, stream)
            return tables.read_previews(database, stream, before, limit, admin_only=admin_only)

    def current_lineage(self, stream: int) -> Lineage:
        """See FeedbackLog."""
        with self._connection.connection() as database, read_transaction(database):
            return self._cache.current_lineage(database, stream)

    def read_payloads(self, stream: int, since: Position, limit: int) -> tuple[list[bytes | None], Position]:
        """See FeedbackLog."""
        with self._connection.connection() as database:
            links = tables.read_links(database, stream, since.seq, limit)
            if not links:
                tables.read_head(database, stream)
        return list(map(PAYLOAD_OF, links)), check_chain(since, links)

    def read_admin_events(self, stream: int) -> list[Event]:
        """See FeedbackLog."""
        with self._connection.connection() as database:
            return tables.read_admin_events(database, tables.read_head(database, stream).stream)

    def last_admin_seq(self, stream: int) -> int:
        """See FeedbackLog."""
        with self._connection.connection() as database:
            return tables.read_last_admin_seq(database, stream)

    def find_ids(self, model: str, ids: Sequence[bytes]) -> dict[bytes, EventLocation]:
        """See FeedbackLog."""
        with self._connection.snapshot() as database:
            heads = self._cache.catch_up(database)
            rows = self._cache.find_rows(database, {(model, id_) for id_ in ids}, heads)
            read_changes = _changes_reader(database, heads)
            return {id_: duplicate_of(row, heads[row[0] >> SEQ_BITS], read_changes) for (_, id_), row in rows.items()}

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
            raise LogDamagedError(f"the feedback log has lost event {since.seq + 1}; restore a backup")

    # Writes

    def open_stream(self, model: str, version: int, genesis: bytes, n_classes: int) -> Stream:
        """See FeedbackLog."""
        with self._connection.write_transaction() as database:
            for stream in tables.read_streams(database):
                if (stream.model, stream.version) == (model, version):
                    return stream
            self._cache.drop_heads()
            return tables.insert_stream(database, model, version, genesis, n_classes)

    def append(self, drafts: Sequence[Draft]) -> list[Outcome]:
        """See FeedbackLog."""
        with self._connection.connection():
            full = self._limits.fullness(drafts, self._connection)
        with self._connection.write_transaction() as database:
            heads = self._cache.begin_batch(database)
            if not self._cache.has_actors:
                drafts = [draft._replace(actor=b"") for draft in drafts]
            names = self._cache.find_rows(database, find_names(drafts, heads), heads)
            batch = AppendBatch(heads, names, _changes_reader(database, heads))
            outcomes: list[Outcome] = [
                full if full and draft.kind in LIMITED_KINDS else batch.admit(draft, salt)
                for draft, salt in zip(drafts, draw_salts(drafts, secrets.token_bytes), strict=True)
            ]
            _write_batch(database, batch, with_actors=self._cache.has_actors)
            slices = self._cache.index.write_slices(database)
        self._cache.commit_batch(heads, slices, batch.positions)
        for number in {row[0] >> SEQ_BITS for row in batch.rows}:
            self._appended[number] = Position(heads[number].seq, heads[number].hash)
        return outcomes

    def upgrade(self) -> bool:
        """Let a log of an earlier release take every kind of event, with its actor; return whether it was one.

        That release refuses to open the log afterwards. So only a start of the service does this, with the directory
        locked: a command may read a log that a running service of that release still writes.
        """
        with self._connection.write_transaction() as database:
            version = database.pragma("user_version")
            if version < ACTORS_VERSION:
                tables.add_actors(database)
            if version < USER_VERSION:
                database.pragma("user_version", USER_VERSION)
        self._cache.drop_heads()
        return bool(version < USER_VERSION)

    def purge_stream(self, stream: int) -> None:
        """See FeedbackLog. The next `finish_purges` finishes an interrupted purge."""
        with self._connection.write_transaction() as database:
            tables.read_head(database, stream)
            tables.mark_purged(database, stream)
        self._appended.pop(stream, None)
        self.finish_purges()

    def finish_purges(self) -> None:
        """Delete what is left of streams whose purge has begun, in short transactions."""
        is_unfinished = True
        while is_unfinished:
            with self._connection.write_transaction() as database:
                is_unfinished = tables.purge_some(database, self._cache.index.hash_names, PURGE_EVENTS)
        with self._connection.connection() as database:
            self._cache.reset(database)

    # Files

    @property
    def wal_bytes(self) -> int:
        """See LogConnection."""
        return self._connection.wal_bytes

    def checkpoint_wal(self) -> None:
        """See LogConnection."""
        self._connection.checkpoint_wal()

    def empty_wal(self) -> None:
        """See LogConnection."""
        self._connection.empty_wal()

    def write_copy(self, path: Path) -> None:
        """See FeedbackLog. The copy is a complete log, synced."""
        if path.exists():
            raise LogUnavailableError("the file for the backup exists already; name one that does not")
        with self._connection.connection() as database:
            database.execute("VACUUM INTO ?", (str(path),))
            sync_file(path)
            sync_folder(path.parent)

    def check_file(self) -> None:
        """Let SQLite check every page, which takes a while.

        Raises:
            LogDamagedError: A page is damaged.
        """
        with self._connection.connection() as database:
            if database.pragma("integrity_check") != "ok":
                raise LogDamagedError("the feedback log's database is damaged; restore a backup")

    def close(self) -> None:
        """See FeedbackLog."""
        self._connection.close()

    def _check_reopened(self, database: apsw.Connection) -> None:
        """Check that a log that was opened again contains what this object has appended, and reset the cache."""
        for stream, position in self._appended.items():
            _check_contains(database, stream, position)
        self._cache.reset(database)


def _changes_reader(database: apsw.Connection, heads: Mapping[int, StreamHead]) -> ReadChanges:
    return lambda number, after: map(lineage_change, tables.read_admin_events(database, heads[number].stream, after))


def _write_batch(database: apsw.Connection, batch: AppendBatch, *, with_actors: bool) -> None:
    tables.insert_rows(database, batch.rows, with_actors=with_actors)
    for position in batch.forgotten:
        tables.forget_payload(database, position)
    for number in batch.changed_streams:
        tables.write_head(database, batch.heads[number])


def _check_contains(database: apsw.Connection, stream: int, position: Position) -> None:
    """Check that a stream, unless it was purged, still contains an event, and check the chain after it."""
    if stream not in tables.read_heads(database, stream):
        return
    first = tables.read_links(database, stream, position.seq - 1, 1)
    if not first or (first[0][0], first[0][5]) != position:
        raise LogDamagedError("the feedback log has lost events that were acknowledged; restore a backup")
    while links := tables.read_links(database, stream, position.seq, CHAIN_EVENTS):
        position = check_chain(position, links)
