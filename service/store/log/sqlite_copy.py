"""Both ends of a copy (log_copy.py) in SQLite: a log that is read as of one moment, and one that is written."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import apsw

from service.store.log import tables
from service.store.log.chain import Link
from service.store.log.database import read_transaction
from service.store.log.events import Event, Position, Stream
from service.store.log.id_index import TAIL_EVENTS_MAX, IdIndex
from service.store.log.log_connection import LogConnection
from service.store.log.log_rows import Row, StreamHead


class SqliteContents:
    """The contents of a log in a file, as of one moment.

    Args:
        database: A connection within a read transaction.
    """

    def __init__(self, database: apsw.Connection) -> None:
        self._database = database
        self.secret = tables.read_secret(database)

    def read_heads(self) -> list[StreamHead]:
        """See LogContents."""
        heads = tables.read_heads(self._database)
        return [heads[number] for number in sorted(heads)]

    def read_links(self, stream: int, after: int, limit: int) -> list[Link]:
        """See LogContents."""
        return tables.read_links(self._database, stream, after, limit)

    def read_admin_events(self, stream: Stream) -> list[Event]:
        """See LogContents."""
        return tables.read_admin_events(self._database, stream)


@contextmanager
def read_sqlite(path: Path) -> Iterator[SqliteContents]:
    """Provide the contents of a log in an existing file, as of one moment, until the end of the block.

    Raises:
        LogError: As for `open_read_only`.
    """
    connection = LogConnection(path, tables.create_tables, lambda _database: None, read_only=True)
    try:
        with connection.connection() as database, read_transaction(database):
            yield SqliteContents(database)
    finally:
        connection.close()


class SqliteTarget:
    """A log in a file that is written. The file is a log from the start, so its folder must hide it until it is whole.

    Args:
        path: The file, created if it is missing; its folder exists.

    Raises:
        LogError: As for `open_database`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = LogConnection(path, tables.create_tables, lambda _database: None)
        self._index = IdIndex(b"", TAIL_EVENTS_MAX)

    def begin(self, secret: bytes, streams: Sequence[Stream]) -> dict[int, Position]:
        """See LogTarget; what is there of another log is deleted."""
        with self._connection.write_transaction() as database:
            known = tables.read_streams(database)
            is_same = known == [*streams] and (not known or tables.read_secret(database) == secret)
            if not known:
                tables.write_secret(database, secret)
                for stream in streams:
                    tables.copy_stream(database, stream)
            heads = tables.read_heads(database)
        if known and not is_same:
            self.clear()
            return self.begin(secret, streams)
        self._index = IdIndex(secret, TAIL_EVENTS_MAX)
        with self._connection.connection() as database, read_transaction(database):
            self._index.catch_up(database, {number: head.stream.model for number, head in heads.items()})
        return {number: Position(head.seq, head.hash) for number, head in heads.items() if head.seq > 0}

    def clear(self) -> None:
        """See LogTarget."""
        self._connection.close()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)

    def insert(self, stream: Stream, rows: Sequence[Row]) -> None:
        """See LogTarget."""
        with self._connection.write_transaction() as database:
            tables.insert_rows(database, rows, with_actors=True)
            slices = self._index.write_slices(database)
        self._index.drop_slices(slices)
        self._index.add((row[0], (stream.model, row[2])) for row in rows)
        self._connection.checkpoint_wal()

    def forget(self, positions: Sequence[int]) -> int:
        """See LogTarget."""
        with self._connection.write_transaction() as database:
            return sum(tables.forget_payload(database, position) for position in positions)

    def read_copied(self, stream: int, after: int, limit: int) -> list[Link]:
        """See LogTarget."""
        with self._connection.connection() as database:
            return tables.read_links(database, stream, after, limit)

    def finish(self, heads: Sequence[StreamHead]) -> None:
        """See LogTarget; afterwards all of the log is in its one file."""
        with self._connection.write_transaction() as database:
            for head in heads:
                tables.write_head(database, head)
        self._connection.empty_wal()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
