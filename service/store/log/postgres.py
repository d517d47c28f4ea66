"""The PostgreSQL backend of the log: one database, to which any number of machines append and which all of them read.

Invariants of every object, each of which has one connection (postgres_connection.py):
    Nothing is acknowledged before COMMIT has returned without a warning, and unless the server, asked in the same round
    trip, still waits for synchronous standbys; `copies` says how many nodes it must be. A duplicate is acknowledged in
    the same way (postgres_append.py). What is in memory, heads and lineages, counts only if the log still has the event
    up to which it was read: after a failover the log may be on another branch.
    Readers see only commits that a standby has, or that no client has got an answer for.

A purge marks the stream first and deletes its events in short transactions afterwards. Ids of a purged stream are free
at once: an append that needs one deletes the event that still has it.
"""

import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from service.errors import LogUnavailableError, LogUnsafeError, StreamGoneError
from service.store.filesystem import sync_file, sync_folder
from service.store.log.events import Draft, EventLocation, Outcome, Position, Stream
from service.store.log.log_copy import CopyResult, copy_log
from service.store.log.postgres_append import ATTEMPTS_MAX, PostgresAppender
from service.store.log.postgres_connection import BEGIN, PostgresConnection
from service.store.log.postgres_copy import read_postgres
from service.store.log.postgres_errors import StatementRefusedError
from service.store.log.postgres_facts import PostgresFacts
from service.store.log.postgres_files import PostgresFiles
from service.store.log.postgres_reads import PostgresReads
from service.store.log.postgres_schema import check_schema
from service.store.log.postgres_snapshots import PostgresSnapshots
from service.store.log.postgres_states import PostgresStates
from service.store.log.postgres_tables import (
    DELETE_FILES,
    DELETE_SOME,
    DELETE_STREAM,
    LOCK_OPENED,
    MARK_PURGED,
    SELECT_NEXT_TRANSACTION,
    SELECT_OLDER_READERS,
    SELECT_PURGED,
    VACUUM_BLOBS,
    VACUUM_EVENTS,
    VACUUM_SNAPSHOTS,
    head_of,
    insert_stream,
    position_range,
)
from service.store.log.postgres_values import Statement, pack_integer
from service.store.log.shared_files import ReadFiles
from service.store.log.sqlite_copy import SqliteTarget

DEFAULT_COPIES: Final = 2
DEFAULT_SECONDS: Final = 5.0
# Enough for speed, few enough that a deadline is far away.
PURGE_EVENTS: Final = 4096
# For how long older transactions may take to end, and the pause between two looks, in seconds.
READERS_SECONDS: Final = 0.2
READERS_PAUSE: Final = 0.02
# A table that was never vacuumed is read as a whole, and another replica may do so just now. No stream waits for that.
VACUUM_SECONDS: Final = 3600.0


class PostgresLog(PostgresReads):
    """A `FeedbackLog` in PostgreSQL. One thread at a time uses an object; each process creates its own after the fork.

    It connects when it is first used, and again when the connection has broken.

    Args:
        address: The URI of the database, which may hold a password. `create_schema` has made the tables.
        copies: Nodes that must have an event on disk before it is acknowledged: 2 or more, or 1 for a single node.
            None: the storage below PostgreSQL replicates by itself.
        seconds: The deadline of each call.
        optimistic: Whether to append without a lock where that is possible.
        prepares: Whether to prepare statements, which a pooler of transactions may not support.

    Raises:
        LogUnsafeError: The address cannot be parsed.
    """

    def __init__(
        self,
        address: str,
        *,
        copies: int | None = DEFAULT_COPIES,
        seconds: float = DEFAULT_SECONDS,
        optimistic: bool = True,
        prepares: bool = False,
    ) -> None:
        super().__init__(PostgresConnection(address, copies, seconds, prepares=prepares))
        self.files: Final = PostgresFiles(self._connection)
        self.states: Final = PostgresStates(self._connection, self.files)
        self.facts: Final = PostgresFacts(self._connection)
        self.snapshots: Final = PostgresSnapshots(self._connection, self.files)
        self._appender = PostgresAppender(self._connection, optimistic=optimistic)

    def begin(self) -> bool:
        """See FeedbackLog. It upgrades nothing, because other releases may use the log."""
        with self._connection.call():
            check_schema(self._connection)
        self.finish_purges()
        return False

    def open_stream(
        self, model: str, version: int, genesis: bytes, n_classes: int, read_files: ReadFiles | None = None
    ) -> Stream:
        """See FeedbackLog."""
        locked = Statement(LOCK_OPENED, (model.encode(), pack_integer(version)))
        files: Sequence[bytes] | None = None if read_files else ()
        for _ in range(ATTEMPTS_MAX):
            with self._connection.call(self.files.seconds_for(files or ())):
                rows = self._connection.rows(self._connection.run(BEGIN, locked)[1])
                if rows:
                    self._connection.commit()
                    return self._appender.note_opened(head_of(rows[0]).stream)
                try:
                    if files is not None:
                        insert = insert_stream(model, version, genesis, n_classes, self.files.insert(files))
                        (row,) = self._connection.rows(self._connection.commit(insert)[0])
                        return self._appender.note_opened(Stream(*row))
                except StatementRefusedError as error:
                    if not error.may_retry:
                        raise
            if files is None and read_files is not None:
                files = read_files()  # no transaction waits for that
        raise LogUnavailableError("the stream cannot be opened now; try again")

    def append(self, drafts: Sequence[Draft]) -> list[Outcome]:
        """See FeedbackLog."""
        if not drafts:
            return []
        with self._connection.call():
            return self._appender.append(drafts)

    def position_after_append(self, stream: int) -> tuple[Stream, Position]:
        """See FeedbackLog."""
        return self._appender.position_after_append(stream)

    def find_ids(self, model: str, ids: Sequence[bytes]) -> dict[bytes, EventLocation]:
        """See FeedbackLog."""
        with self._connection.call():
            return self._appender.find_ids(model, ids)

    def purge_stream(self, stream: int) -> None:
        """See FeedbackLog. The next `finish_purges` finishes an interrupted purge."""
        with self._connection.call():
            _, marked = self._connection.commit(BEGIN, Statement(MARK_PURGED, (pack_integer(stream),)))
            if not self._connection.rows(marked):
                raise StreamGoneError("the stream does not exist, or was purged")
        self.finish_purges()

    def finish_purges(self) -> None:
        """Delete what is left of streams whose purge has begun, in short transactions."""
        with self._connection.call():
            purged = self._connection.query(SELECT_PURGED)
        for (stream,) in purged:
            some = Statement(DELETE_SOME, (*position_range(stream, 0), pack_integer(PURGE_EVENTS)))
            is_unfinished = True
            while is_unfinished:
                with self._connection.call():
                    _, deleted = self._connection.commit(BEGIN, some)
                    is_unfinished = deleted.command_tuples == PURGE_EVENTS
            with self._connection.call():
                deletions = (Statement(sql, (pack_integer(stream),)) for sql in (*DELETE_FILES, DELETE_STREAM))
                self._connection.commit(BEGIN, *deletions)
            with suppress(LogUnsafeError):  # an earlier release made the tables
                self.snapshots.drop_stream(stream)

    def tidy(self) -> None:
        """See FeedbackLog; PostgreSQL keeps its files small itself."""

    def erase_forgotten(self) -> None:
        """See FeedbackLog. PostgreSQL returns the payloads to no reader afterwards.

        Copies may remain where no row is: in the free space of its files and in its write-ahead log, until something
        else is written there, and in archives and backups.
        """
        with self._connection.call():
            ((next_transaction,),) = self._connection.query(SELECT_NEXT_TRANSACTION)
            older = Statement(SELECT_OLDER_READERS, (pack_integer(next_transaction),))
            until = time.monotonic() + READERS_SECONDS
            while self._connection.query(older) == [(True,)]:
                if time.monotonic() > until:
                    raise LogUnavailableError("an older transaction or a replication slot still reads forgotten events")
                time.sleep(READERS_PAUSE)
        with self._connection.call(VACUUM_SECONDS):
            self._connection.run(VACUUM_EVENTS)
        with self._connection.call(VACUUM_SECONDS):
            self._connection.run(VACUUM_BLOBS)
        with suppress(LogUnsafeError), self._connection.call(VACUUM_SECONDS):
            self._connection.run(VACUUM_SNAPSHOTS)

    def check_file(self) -> None:
        """See FeedbackLog; PostgreSQL checks its files with tools of its own."""

    def write_copy(self, path: Path) -> None:
        """See FeedbackLog. The copy is a log in SQLite, synced."""
        if path.exists():
            raise LogUnavailableError("the file for the backup exists already; name one that does not")
        with closing(SqliteTarget(path)) as target, read_postgres(self._connection) as contents:
            check_schema(self._connection)
            for _ in copy_log(contents, target, CopyResult()):
                pass
        sync_file(path)
        sync_folder(path.parent)

    def close(self) -> None:
        """See FeedbackLog."""
        self._connection.close()
