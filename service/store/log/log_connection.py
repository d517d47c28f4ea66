"""The connection of one process or thread to the log's database, on a disk that may fail and recover.

state      what follows
open       used for each call; no read leaves a cursor open, so that checkpoints always succeed
failed     a write ended in an I/O error, so it is written or not. The connection is closed, the generation that all
processes share is incremented, and OutcomeUnknownError is raised
outdated   the generation was incremented: the connection is closed, and opened again by the next call
reopened   the write-ahead log is moved into the database again. After a failed sync the system may treat pages as
clean that never reached the disk: syncing again proves nothing, writing again does. Then the owner's
`check` decides whether the log still contains what was acknowledged
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

import apsw

from service.errors import OutcomeUnknownError
from service.store.log.database import (
    BUSY_MS,
    WAL_BYTES_KEPT,
    WAL_FRAME_BYTES,
    close_quietly,
    open_database,
    open_read_only,
    read_transaction,
    transaction,
    translate_errors,
    wal_size,
)

CHECKPOINT_WAIT_MS: Final = 100
# After these errors a write may have happened or not.
DISK_ERRORS: Final = (apsw.IOError, apsw.FullError, apsw.NoMemError)


class Generation(Protocol):
    """A number shared by all processes of a service: how often the disk has failed for one of them."""

    def get(self) -> int:
        """Return the number."""

    def set(self, value: int) -> None:
        """Set the number, so that every process opens its log again before it continues."""


class LocalGeneration:
    """The generation of a log that only one process uses."""

    def __init__(self) -> None:
        self._value = 0

    def get(self) -> int:
        """Return the number."""
        return self._value

    def set(self, value: int) -> None:
        """Set the number."""
        self._value = value


class LogConnection:
    """A connection that is opened again when necessary. One thread at a time uses it.

    Args:
        path: The database, created if it is missing.
        create_tables: Creates the tables of a new database.
        check: Called with each connection that was opened; if it raises, the connection is closed.
        generation: Shared by all processes that write.
        vfs: Name of the VFS, for tests in which the disk fails.
        read_only: Whether to open an existing database for reading only.
    """

    def __init__(
        self,
        path: Path,
        create_tables: Callable[[apsw.Connection], None],
        check: Callable[[apsw.Connection], None],
        generation: Generation | None = None,
        vfs: str | None = None,
        *,
        read_only: bool = False,
    ) -> None:
        self.path = path
        self._create_tables = create_tables
        self._check = check
        self._generation = generation or LocalGeneration()
        self._opened_in = self._generation.get()
        self._vfs = vfs
        self._read_only = read_only
        self._wal_frames = 0
        self._database: apsw.Connection | None = None

    @property
    def wal_bytes(self) -> int:
        """The bytes of write-ahead log that the next write adds to, as of this object's last commit or checkpoint.

        Other processes may have shortened the file since; its content is never longer than the file.
        """
        return min(self._wal_frames * WAL_FRAME_BYTES, wal_size(self.path))

    @contextmanager
    def connection(self) -> Iterator[apsw.Connection]:
        """Provide the connection, opened again if the disk has failed since; the driver's errors are translated."""
        with translate_errors():
            if self._generation.get() != self._opened_in:
                self.close()
            database = self._database or self._connect()
            try:
                yield database
            except DISK_ERRORS:
                self.close()
                raise

    @contextmanager
    def write_transaction(self) -> Iterator[apsw.Connection]:
        """Provide the connection within one write transaction, which is on disk at the end.

        Raises:
            OutcomeUnknownError: The disk failed; every process opens the log again before it continues.
        """
        with self.connection() as database:
            try:
                with transaction(database):
                    yield database
            except DISK_ERRORS as error:
                self._generation.set(self._opened_in + 1)
                self.close()
                raise OutcomeUnknownError("the disk failed; send the event again, with the same id") from error

    @contextmanager
    def snapshot(self) -> Iterator[apsw.Connection]:
        """Provide the connection within one transaction that sees all commits until now; it may write if the log may.

        Raises:
            OutcomeUnknownError: As for `write_transaction`.
        """
        if not self._read_only:
            with self.write_transaction() as database:
                yield database
        else:
            with self.connection() as database, read_transaction(database):
                yield database

    def checkpoint_wal(self) -> None:
        """Move the write-ahead log into the database if its file exceeds 64 MiB, and let it start over.

        Any process may do that at any time. It takes a tenth of a second, in which others read and write; a thread
        with a connection of its own keeps that away from clients that wait for a response.
        """
        if wal_size(self.path) > WAL_BYTES_KEPT:
            with self.connection() as database, suppress(apsw.BusyError):
                self._move_wal(database, apsw.SQLITE_CHECKPOINT_PASSIVE)
                if self._wal_frames:
                    # Others have written meanwhile; if they wait for a moment, the log can start over.
                    database.set_busy_timeout(CHECKPOINT_WAIT_MS)
                    try:
                        self._move_wal(database, apsw.SQLITE_CHECKPOINT_RESTART)
                    finally:
                        database.set_busy_timeout(BUSY_MS)

    def empty_wal(self) -> None:
        """Move all of the write-ahead log into the database: at a start, and to erase forgotten events.

        Raises:
            LogUnavailableError: Another process reads for too long.
        """
        with self.connection() as database:
            self._move_wal(database, apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def close(self) -> None:
        """Close the connection; the next use opens one again."""
        if self._database is not None:
            close_quietly(self._database)
            self._database = None

    def _connect(self) -> apsw.Connection:
        opened_in = self._generation.get()
        if self._read_only:
            database = open_read_only(self.path, self._vfs)
        else:
            database = open_database(self.path, self._create_tables, self._vfs)
        try:
            self._wal_frames = wal_size(self.path) // WAL_FRAME_BYTES
            database.set_wal_hook(self._count_frames)
            if opened_in:
                self._move_wal(database, apsw.SQLITE_CHECKPOINT_TRUNCATE)
            self._check(database)
        except BaseException:
            close_quietly(database)
            raise
        self._opened_in, self._database = opened_in, database
        return database

    def _count_frames(self, _database: apsw.Connection, _name: str, frames: int) -> int:
        self._wal_frames = frames
        return apsw.SQLITE_OK

    def _move_wal(self, database: apsw.Connection, mode: int) -> None:
        frames, moved = database.wal_checkpoint(mode=mode)
        self._wal_frames = frames - moved
