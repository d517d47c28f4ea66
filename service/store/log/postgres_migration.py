"""A database as one end of a migration: its log, its schema, and the keys of feedback tokens."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from service.store.log.events import Stream
from service.store.log.log_copy import LogContents, LogTarget
from service.store.log.log_rows import StreamHead
from service.store.log.postgres import PostgresLog
from service.store.log.postgres_connection import BEGIN, PostgresConnection
from service.store.log.postgres_copy import (
    PUT_FACT,
    PostgresTarget,
    read_postgres,
    refuse_live_services,
)
from service.store.log.postgres_files import PostgresFiles
from service.store.log.postgres_schema import check_schema, create_schema, has_schema
from service.store.log.postgres_values import Statement
from service.store.log.shared_files import SharedFiles

TOKEN_KEYS: Final = b"token_key"
SELECT_TOKEN_KEYS: Final = Statement(b"SELECT value FROM facts WHERE name = 'token_key'")


class PostgresEnd:
    """A database that a log is copied from or to; a `MigrationEnd` of directory/log_migration.py.

    Args:
        address: The URI of the database; it may hold a password.
        copies: As for `PostgresLog`.
        seconds: The deadline of short calls.

    Raises:
        LogUnsafeError: The address cannot be parsed.
    """

    def __init__(self, address: str, copies: int | None, seconds: float) -> None:
        self._address = address
        self._copies = copies
        self._seconds = seconds
        self._connection = PostgresConnection(address, copies, seconds)

    def prepare(self) -> bool:
        """Make the tables that are missing; return whether the schema is new or was upgraded.

        Raises:
            LogError: As for `create_schema`.
        """
        is_new = not has_schema(self._address)
        create_schema(self._address)
        return is_new

    def refuse_services(self) -> None:
        """See MigrationEnd."""
        refuse_live_services(self._connection)

    @contextmanager
    def source(self) -> Iterator[LogContents]:
        """See MigrationEnd."""
        with self._connection.call():
            check_schema(self._connection)
        with read_postgres(self._connection) as contents:
            yield contents

    def target(self) -> LogTarget:
        """See MigrationEnd."""
        return PostgresTarget(self._connection)

    def read_heads(self) -> list[StreamHead]:
        """See MigrationEnd; there are none while a copy is unfinished."""
        with read_postgres(self._connection) as contents:
            return contents.read_heads()

    def shared_files(self) -> SharedFiles:
        """See MigrationEnd."""
        return PostgresFiles(self._connection)

    def install(self, _files: object, _shared: object, _bytes_max: int) -> list[Stream]:
        """See MigrationEnd: `LogTarget.finish` has put the copy in its place."""
        return []

    def read_token_keys(self) -> bytes | None:
        """See MigrationEnd."""
        with self._connection.call():
            rows = self._connection.query(SELECT_TOKEN_KEYS)
        return rows[0][0] if rows else None

    def write_token_keys(self, text: bytes) -> None:
        """See MigrationEnd."""
        with self._connection.call():
            self._connection.commit(BEGIN, Statement(PUT_FACT, (TOKEN_KEYS, text)))

    def erase_forgotten(self) -> None:
        """See MigrationEnd."""
        log = PostgresLog(self._address, copies=self._copies, seconds=self._seconds)
        try:
            log.erase_forgotten()
        finally:
            log.close()

    def close(self) -> None:
        """See MigrationEnd."""
        self._connection.close()
