"""The connection of one process or thread to the log's database, through a disk that fails and comes back.

state      what follows
open       used for each call; no read leaves a cursor open, so that checkpoints always get through
failed     a write ended in an I/O error: what it wrote is there or not. The connection is closed, the generation
that all processes share moves on, and OutcomeUnknownError is raised
outdated   the generation has moved on: closed, and opened again by the next call
reopened   the write-ahead log is moved into the database anew, because after a failed sync the system may take
pages for clean that never reached the disk: syncing again proves nothing, writing again does.
Then the owner's `check` decides whether the log still holds what was acknowledged
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
    transaction,
    translate_errors,
    wal_size,
)

CHECKPOINT_WAIT_MS: Final = 100
# After these a write may have happened or not.
DISK_ERRORS: Final = (apsw.IOError, apsw.FullError, apsw.NoMemError)


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


class LogConnection:
    """One connection that opens itself again where it must. One thread at a time uses it.

    Args:
        path: The database, made where it is missing.
        make: Makes the tables of a new database.
        check: Called with each connection that was opened; what it raises closes the connection again.
        generation: Shared by all processes that write.
        vfs: Name of the VFS, for tests that let the disk fail.
    """

    def __init__(
        self,
        path: Path,
        make: Callable[[apsw.Connection], None],
        check: Callable[[apsw.Connection], None],
        generation: Generation | None = None,
        vfs: str | None = None,
    ) -> None:
        self.path = path
        self._make = make
        self._check = check
        self._generation = generation or OneGeneration()
        self._opened_in = self._generation.get()
        self._vfs = vfs
        self._wal_frames = 0
        self._database: apsw.Connection | None = None

    @property
    def wal_bytes(self) -> int:
        """The bytes of write-ahead log that the next write adds to, as of this object's last commit or checkpoint.

        The file may have been made shorter by others since, and is never shorter than what it holds.
        """
        return min(self._wal_frames * WAL_FRAME_BYTES, wal_size(self.path))

    @contextmanager
    def connection(self) -> Iterator[apsw.Connection]:
        """The connection, opened again where the disk has failed since; what the driver raises is translated."""
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
        """The same within one write transaction, which is on disk at the end.

        Raises:
            OutcomeUnknownError: The disk failed; every process opens the log again before it goes on.
        """
        with self.connection() as database:
            try:
                with transaction(database):
                    yield database
            except DISK_ERRORS as error:
                self._generation.set(self._opened_in + 1)
                self.close()
                raise OutcomeUnknownError("the disk failed; send the event again, with the same id") from error

    def checkpoint_wal(self) -> None:
        """Moves the write-ahead log into the database where its file is above 64 MiB, and lets it begin anew.

        Any process may do that at any time. It takes a tenth of a second, in which others read and write; a thread
        with a connection of its own keeps that from whoever waits for an answer.
        """
        if wal_size(self.path) > WAL_BYTES_KEPT:
            with self.connection() as database, suppress(apsw.BusyError):
                self._move_wal(database, apsw.SQLITE_CHECKPOINT_PASSIVE)
                if self._wal_frames:
                    # Others have written meanwhile; with them held up for a moment the log can begin anew.
                    database.set_busy_timeout(CHECKPOINT_WAIT_MS)
                    try:
                        self._move_wal(database, apsw.SQLITE_CHECKPOINT_RESTART)
                    finally:
                        database.set_busy_timeout(BUSY_MS)

    def empty_wal(self) -> None:
        """Moves all of the write-ahead log into the database and empties it: at start, and to erase what was forgotten.

        Raises:
            LogUnavailableError: Another process reads for too long.
        """
        with self.connection() as database:
            self._move_wal(database, apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def close(self) -> None:
        """Closes the connection; the next use opens one again."""
        if self._database is not None:
            close_quietly(self._database)
            self._database = None

    def _connect(self) -> apsw.Connection:
        opened_in = self._generation.get()
        database = open_database(self.path, self._make, self._vfs)
        try:
            self._wal_frames = wal_size(self.path) // WAL_FRAME_BYTES
            database.set_wal_hook(self._committed)
            if opened_in:
                self._move_wal(database, apsw.SQLITE_CHECKPOINT_TRUNCATE)
            self._check(database)
        except BaseException:
            close_quietly(database)
            raise
        self._opened_in, self._database = opened_in, database
        return database

    def _committed(self, _database: apsw.Connection, _name: str, frames: int) -> int:
        self._wal_frames = frames
        return apsw.SQLITE_OK

    def _move_wal(self, database: apsw.Connection, mode: int) -> None:
        frames, moved = database.wal_checkpoint(mode=mode)
        self._wal_frames = frames - moved
