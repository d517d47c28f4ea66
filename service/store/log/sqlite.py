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
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import apsw

from service.errors import LogDamagedError, LogUnavailableError
from service.store.filesystem import sync_file, sync_folder
from service.store.log import tables
from service.store.log.append_rules import AppendBatch, draw_salts, find_names
from service.store.log.chain import check_chain
from service.store.log.database import ACTORS_VERSION, USER_VERSION
from service.store.log.disk_limits import DiskLimits
from service.store.log.events import SEQ_BITS, Draft, Kind, Outcome, Position, Stream
from service.store.log.id_index import TAIL_EVENTS_MAX
from service.store.log.log_cache import LogCache
from service.store.log.log_connection import Generation, LogConnection
from service.store.log.shared_files import ReadFiles
from service.store.log.sqlite_reads import SqliteReads, changes_reader

# Enough for speed, few enough that other writers do not wait.
PURGE_EVENTS: Final = 4096
CHAIN_EVENTS: Final = 4096
# What clients send in any number; the other kinds still fit when the disk is nearly full.
LIMITED_KINDS: Final = frozenset((Kind.FEEDBACK, Kind.CORRECT))


class SqliteLog(SqliteReads):
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
        connection = LogConnection(
            path, tables.create_tables, self._check_reopened, generation, vfs, read_only=read_only
        )
        super().__init__(connection, LogCache(tail_events_max))
        with self._connection.connection():
            pass

    # Writes

    def open_stream(
        self,
        model: str,
        version: int,
        genesis: bytes,
        n_classes: int,
        read_files: ReadFiles | None = None,  # noqa: ARG002  # the data directory has them
    ) -> Stream:
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
            batch = AppendBatch(heads, names, changes_reader(database, heads))
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

    def begin(self) -> bool:
        """See FeedbackLog."""
        self.empty_wal()  # makes durable what a failed sync has left, or fails the start
        self.finish_purges()
        return self.upgrade()

    def tidy(self) -> None:
        """See FeedbackLog."""
        self.checkpoint_wal()

    def erase_forgotten(self) -> None:
        """See FeedbackLog."""
        self.empty_wal()

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
