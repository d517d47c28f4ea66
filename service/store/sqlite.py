"""The log in one SQLite file, the embedded default: `log.sqlite` with its `-wal` and `-shm`, for several processes.

What holds of every object, each of which has one connection:
    Nothing is acknowledged before its COMMIT returned, with the write-ahead log synced.
    A COMMIT that the disk fails is neither acknowledged nor denied: the connection is closed, the generation that all
    processes share moves on, and each of them opens the log again, writes it out anew and checks the chain from the
    last event it knows before it goes on.
    No read leaves a cursor open, so that checkpoints always get through.
    What is in memory (heads, index of ids) is what is committed; another process's commits are taken over first.
"""

import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

import apsw

from service.errors import LogDamagedError, LogFullError, LogUnavailableError, OutcomeUnknownError
from service.store import tables
from service.store.admission import Batch, Head, Row, names_in, placed, salts_for
from service.store.chain import check_chain
from service.store.database import (
    BUSY_MS,
    WAL_BYTES_KEPT,
    WAL_FRAME_BYTES,
    close_quietly,
    open_database,
    transaction,
    translated,
    wal_size,
)
from service.store.feedback import SEQ_BITS, Accepted, Draft, Event, Kind, Outcome, Position, Stream, StreamState
from service.store.filesystem import free_bytes, sync_file, sync_folder
from service.store.idindex import IdIndex, Name
from service.store.lineage import Turn, turn_of

PURGE_EVENTS: Final = 4096
CHAIN_EVENTS: Final = 4096
CHECKPOINT_WAIT_MS: Final = 100


class Generation(Protocol):
    """A whole number that all processes of a service see: how often the disk has failed one of them."""

    def get(self) -> int:
        """The number now."""

    def set(self, value: int) -> None:
        """Makes every process open its log again before it goes on."""


class OneGeneration:
    """The generation of a process that has the log to itself."""

    def __init__(self) -> None:
        self._value = 0

    def get(self) -> int:
        """See Generation."""
        return self._value

    def set(self, value: int) -> None:
        """See Generation."""
        self._value = value


class SqliteLog:
    """A `FeedbackLog` in a file. One thread at a time uses an object; each process makes its own after the fork.

    Args:
        path: The database, made where it is missing; its folder exists.
        generation: Shared by all processes that append.
        reserve_bytes: Free bytes of the disk below which feedback is refused.
        wal_bytes_max: Bytes of the write-ahead log above which feedback is refused.
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
        vfs: str | None = None,
    ) -> None:
        self.path = path
        self._generation = generation or OneGeneration()
        self._opened_in = self._generation.get()
        self._reserve_bytes = reserve_bytes
        self._wal_bytes_max = wal_bytes_max
        self._vfs = vfs
        self._known: dict[int, Position] = {}
        self._database: apsw.Connection | None = None
        self._connect()

    @property
    def wal_bytes(self) -> int:
        """The bytes of write-ahead log that the next write adds to, as of this object's last commit or checkpoint."""
        return self._wal_frames * WAL_FRAME_BYTES

    # Reading

    def streams(self) -> list[Stream]:
        """See FeedbackLog."""
        with self._used() as database:
            return tables.read_streams(database)

    def state(self, stream: int) -> StreamState:
        """See FeedbackLog."""
        with self._used() as database:
            return tables.read_head(database, stream).state()

    def read(self, stream: int, after: int, limit: int) -> list[Event]:
        """See FeedbackLog. Raises LogDamagedError where events are missing."""
        with self._used() as database:
            events = tables.read_events(database, stream, after, limit)
            if not events:
                tables.read_head(database, stream)
            return events

    def admin(self, stream: int) -> list[Event]:
        """See FeedbackLog."""
        with self._used() as database:
            tables.read_head(database, stream)
            return tables.read_admin(database, stream)

    def find(self, model: str, ids: Sequence[bytes]) -> dict[bytes, Accepted]:
        """See FeedbackLog."""
        with self._used() as database, self._written(database):
            self._catch_up(database)
            rows = self._look_up(database, {(model, id_) for id_ in ids})
            return {id_: placed(row) for (_, id_), row in rows.items()}

    def verify(self, stream: int, since: Position, rows: int) -> Iterator[Position]:
        """See FeedbackLog."""
        while True:
            with self._used() as database:
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
        with self._used() as database, self._written(database):
            tables.insert_stream(database, model, version, genesis, n_classes)
            self._heads = None
            return next(stream for stream in tables.read_streams(database) if stream[1:3] == (model, version))

    def append(self, drafts: Sequence[Draft]) -> list[Outcome]:
        """See FeedbackLog."""
        with self._used() as database:
            full = self._fullness(drafts)
            with self._written(database):
                heads = self._catch_up(database)
                batch = Batch(heads, self._look_up(database, names_in(drafts, heads)), self._turns(database))
                salts = salts_for(drafts, secrets.token_bytes)
                outcomes: list[Outcome] = [
                    full if full and draft.kind == Kind.FEEDBACK else batch.admit(draft, salt)
                    for draft, salt in zip(drafts, salts, strict=True)
                ]
                slices = self._write(database, batch)
        self._index.flushed(slices)
        self._index.add([(row[0], (heads[row[0] >> SEQ_BITS].stream.model, row[2])) for row in batch.rows])
        for number in {row[0] >> SEQ_BITS for row in batch.rows}:
            self._known[number] = Position(heads[number].seq, heads[number].hash)
        return outcomes

    def purge(self, stream: int) -> None:
        """See FeedbackLog. One that was interrupted is finished by the next `finish_purges`."""
        with self._used() as database, self._written(database):
            tables.read_head(database, stream)
            tables.mark_purged(database, stream)
        self._known.pop(stream, None)
        self.finish_purges()

    def finish_purges(self) -> None:
        """Deletes what is left of streams whose purge has begun, in short transactions."""
        left = True
        while left:
            with self._used() as database, self._written(database):
                left = tables.purge_some(database, self._index.key, PURGE_EVENTS)
        with self._used() as database:
            self._start_index(database)

    # Files

    def checkpoint(self) -> None:
        """Moves the write-ahead log into the database where it is above 64 MiB; any process may do that at any time."""
        if self.wal_bytes > WAL_BYTES_KEPT:
            with self._used() as database, suppress(apsw.BusyError):
                self._move_wal(database, apsw.SQLITE_CHECKPOINT_PASSIVE)
                if self._wal_frames:
                    # Others have written meanwhile; with them held up for a moment the log can begin anew.
                    database.set_busy_timeout(CHECKPOINT_WAIT_MS)
                    try:
                        self._move_wal(database, apsw.SQLITE_CHECKPOINT_RESTART)
                    finally:
                        database.set_busy_timeout(BUSY_MS)

    def rewrite(self) -> None:
        """Moves all of the write-ahead log into the database and empties it: at start, and to erase what was forgotten.

        Raises:
            LogUnavailableError: Another process reads for too long.
        """
        with self._used() as database:
            self._move_wal(database, apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def backup(self, path: Path) -> None:
        """See FeedbackLog. The copy is a log of its own, synced."""
        if path.exists():
            raise LogUnavailableError("the file for the backup exists already")
        with self._used() as database:
            database.execute("VACUUM INTO ?", (str(path),))
            sync_file(path)
            sync_folder(path.parent)

    def close(self) -> None:
        """See FeedbackLog."""
        if self._database is not None:
            close_quietly(self._database)
            self._database = None

    # The connection

    def _connect(self) -> apsw.Connection:
        opened_in = self._generation.get()
        database = open_database(self.path, tables.SCHEMA, self._vfs)
        try:
            self._wal_frames = wal_size(self.path) // WAL_FRAME_BYTES
            database.set_wal_hook(self._committed)
            if opened_in:
                self._move_wal(database, apsw.SQLITE_CHECKPOINT_TRUNCATE)
            for stream, position in self._known.items():
                self._check_from(database, stream, position)
            self._start_index(database)
        except BaseException:
            close_quietly(database)
            raise
        self._opened_in, self._database = opened_in, database
        return database

    @contextmanager
    def _used(self) -> Iterator[apsw.Connection]:
        """The connection, opened again where the disk has failed since; what the driver raises is translated."""
        with translated():
            if self._generation.get() != self._opened_in:
                self.close()
            database = self._database or self._connect()
            try:
                yield database
            except (apsw.IOError, apsw.FullError):
                self.close()
                raise

    @contextmanager
    def _written(self, database: apsw.Connection) -> Iterator[None]:
        """One transaction. Where the disk fails it, nobody knows whether it is written, and all open the log again."""
        try:
            with transaction(database):
                yield
        except BaseException as error:
            self._heads = None
            if isinstance(error, (apsw.IOError, apsw.FullError)):
                self._generation.set(self._opened_in + 1)
                self.close()
                raise OutcomeUnknownError("the disk failed; send the event again, with the same id") from error
            raise

    def _committed(self, _database: apsw.Connection, _name: str, frames: int) -> int:
        self._wal_frames = frames
        return apsw.SQLITE_OK

    def _move_wal(self, database: apsw.Connection, mode: int) -> None:
        frames, moved = database.wal_checkpoint(mode=mode)
        self._wal_frames = frames - moved

    def _check_from(self, database: apsw.Connection, stream: int, position: Position) -> None:
        """Holds a log that was opened again to what this object acknowledged before."""
        while links := tables.read_links(database, stream, position.seq - 1, CHAIN_EVENTS):
            if links[0].event[::5] != position:
                break
            position = check_chain(position, links[1:])
            if len(links) == 1:
                return
        if stream in tables.read_heads(database, stream):
            raise LogDamagedError("the feedback log has lost events that were acknowledged; restore a backup")

    # What is in memory

    def _start_index(self, database: apsw.Connection) -> None:
        self._index = IdIndex(tables.read_secret(database))
        self._heads: dict[int, Head] | None = None
        self._data_version = 0

    def _catch_up(self, database: apsw.Connection) -> dict[int, Head]:
        """Where every stream stands, and with it the index; within a transaction."""
        version = database.pragma("data_version")
        if self._heads is None or version != self._data_version:
            heads = tables.read_heads(database)
            self._index.catch_up(database, {number: head.stream.model for number, head in heads.items()})
            self._heads, self._data_version = heads, version
        return self._heads

    def _look_up(self, database: apsw.Connection, names: Collection[Name]) -> dict[Name, Row]:
        """The stored events that have these names."""
        heads = self._catch_up(database)
        rows = tables.read_rows(database, self._index.find(database, names))
        found = {(heads[row[0] >> SEQ_BITS].stream.model, row[2]): row for row in rows if row[0] >> SEQ_BITS in heads}
        return {name: row for name, row in found.items() if name in names}

    def _turns(self, database: apsw.Connection) -> Callable[[int], list[Turn]]:
        return lambda stream: list(map(turn_of, tables.read_admin(database, stream)))

    def _write(self, database: apsw.Connection, batch: Batch) -> list[int]:
        """Writes what a batch brought; returns the slices of the index that were written with it."""
        tables.insert_rows(database, batch.rows)
        for position in batch.forgotten:
            tables.forget(database, position)
        for number in batch.turned:
            tables.write_head(database, batch.heads[number])
        return self._index.flush(database)

    def _fullness(self, drafts: Sequence[Draft]) -> LogFullError | None:
        """Why no feedback can be taken, or None."""
        if self.wal_bytes > self._wal_bytes_max:
            self.checkpoint()
            if self.wal_bytes > self._wal_bytes_max:
                return LogFullError("the feedback log waits for a reader and cannot be moved to its place; try again")
        # Everything is written twice, to the write-ahead log and to its place.
        needed = self._reserve_bytes + 2 * sum(len(draft.payload) for draft in drafts)
        if free_bytes(self.path.parent) < needed:
            return LogFullError("the disk is nearly full; feedback is taken again once there is space")
        return None
