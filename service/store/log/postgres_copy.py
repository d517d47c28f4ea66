"""Both ends of a copy (log_copy.py) in PostgreSQL: a log that is read as of one moment, and one that is written.

While a log is written its events have no streams, so nothing finds them. The fact `migration` says whose they are, and
no service starts with such a database. One transaction inserts the streams and deletes the fact.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import orjson

from service.errors import LogUnavailableError, OutcomeUnknownError
from service.store.log.chain import Link, add_checksum, strip_checksum
from service.store.log.events import SEQ_BITS, SEQ_MAX, Event, Position, Stream
from service.store.log.log_copy import identify_source
from service.store.log.log_rows import Row, StreamHead
from service.store.log.postgres_connection import BEGIN, BEGIN_READ, PostgresConnection
from service.store.log.postgres_reads import checked_admin_events
from service.store.log.postgres_schema import SELECT_MIGRATION, SELECT_SECRET
from service.store.log.postgres_tables import (
    FORGET_PAYLOADS,
    HEADS,
    head_of,
    insert_rows,
    key_of,
    position_range,
    select_admin_links,
    select_copied,
    select_links,
)
from service.store.log.postgres_values import Statement, pack_integer, pack_integers

# The deadline of a whole copy that is read; a server that stops answering ends it by the system's own timeouts before.
READ_SECONDS: Final = 24 * 3600.0
# The deadline of one transaction of a copy that is written.
WRITE_SECONDS: Final = 60.0

# For how long the sessions of a service that has just stopped may still be there, and the pause between two looks.
END_SECONDS: Final = 2.0
END_PAUSE: Final = 0.1

# A reader may take more than a second between two batches.
LIFT_TIMEOUT: Final = Statement(b"SET LOCAL idle_in_transaction_session_timeout = 0")
SELECT_ALL_HEADS: Final = Statement(f"{HEADS} ORDER BY number".encode())
LOCK_STREAMS: Final = Statement(b"LOCK TABLE streams IN SHARE ROW EXCLUSIVE MODE")
SELECT_USED: Final = Statement(b"SELECT FROM streams WHERE seq > 0 LIMIT 1")
CLEAR_EVENTS: Final = Statement(b"TRUNCATE events")
PUT_FACT: Final = (
    b"INSERT INTO facts VALUES($1::text, $2::bytea) ON CONFLICT(name) DO UPDATE SET value = excluded.value"
)
DELETE_MIGRATION: Final = Statement(b"DELETE FROM facts WHERE name = 'migration'")
DELETE_STREAMS: Final = Statement(b"DELETE FROM streams")
SELECT_LAST: Final = b"""
SELECT position, hash FROM events WHERE position BETWEEN $1::bigint AND $2::bigint ORDER BY position DESC LIMIT 1
"""
INSERT_STREAM: Final = b"""
INSERT INTO streams(number, model, version, genesis, first_classes, seq, hash, class_epoch, n_classes, epoch)
OVERRIDING SYSTEM VALUE
VALUES($1::bigint, $2::text, $3::bigint, $4::bytea, $5::bigint, $6::bigint, $7::bytea, $8::bigint, $9::bigint,
       $10::bigint)
"""
# Numbers are not used again, also not those of the streams that were deleted here.
MOVE_NUMBERS: Final = b"""
SELECT setval(pg_get_serial_sequence('streams', 'number'),
              greatest($1::bigint, nextval(pg_get_serial_sequence('streams', 'number'))))
"""
ANALYZE: Final = Statement(b"ANALYZE events")
# Sessions of services, which look at the log at least every second. A pooler keeps sessions for longer than clients.
SELECT_LIVE: Final = Statement(b"""
SELECT FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND datname = current_database() AND application_name = 'softstep'
AND (state <> 'idle' OR state_change > clock_timestamp() - interval '5 s')
UNION ALL SELECT FROM replicas WHERE seen > clock_timestamp() - interval '10 s'
LIMIT 1
""")


class PostgresContents:
    """The contents of a log in PostgreSQL, as of one moment.

    Args:
        connection: A connection within a transaction of BEGIN_READ.
    """

    def __init__(self, connection: PostgresConnection) -> None:
        self._connection = connection
        ((stored,),) = connection.query(SELECT_SECRET)
        self.secret = strip_checksum(stored)

    def read_heads(self) -> list[StreamHead]:
        """See LogContents."""
        return [head_of(row) for row in self._connection.query(SELECT_ALL_HEADS)]

    def read_links(self, stream: int, after: int, limit: int) -> list[Link]:
        """See LogContents."""
        return self._connection.query(select_links(stream, after + 1, limit))

    def read_admin_events(self, stream: Stream) -> list[Event]:
        """See LogContents."""
        return checked_admin_events(stream.genesis, self._connection.query(select_admin_links(stream.number, 1)))


@contextmanager
def read_postgres(connection: PostgresConnection) -> Iterator[PostgresContents]:
    """Provide the contents of a log in PostgreSQL, as of one moment, until the end of the block.

    Raises:
        LogError: The log cannot be read.
    """
    with connection.call(READ_SECONDS):
        connection.run(BEGIN_READ, LIFT_TIMEOUT)
        yield PostgresContents(connection)


def refuse_live_services(connection: PostgresConnection) -> None:
    """Wait a moment for sessions that end, and raise LogUnavailableError if a service uses the log."""
    until = time.monotonic() + END_SECONDS
    while True:
        with connection.call():
            if not connection.run(SELECT_LIVE)[0].ntuples:
                return
        if time.monotonic() > until:
            raise LogUnavailableError("a service uses the log in PostgreSQL; stop all replicas, and wait ten seconds")
        time.sleep(END_PAUSE)


class PostgresTarget:
    """A log in PostgreSQL that is written; `create_schema` has made its tables.

    Args:
        connection: Its connection.
    """

    def __init__(self, connection: PostgresConnection) -> None:
        self._connection = connection
        self._secret = b""

    def begin(self, secret: bytes, streams: Sequence[Stream]) -> dict[int, Position]:
        """See LogTarget; what is there of another unfinished copy is deleted."""
        self._secret = secret
        identity = orjson.dumps(identify_source(secret, streams))
        with self._connection.call(WRITE_SECONDS):
            self._lock_unused()
            if self._connection.query(SELECT_MIGRATION) != [(identity,)]:
                facts = {b"secret": add_checksum(secret), b"migration": identity}
                self._commit(CLEAR_EVENTS, *(Statement(PUT_FACT, fact) for fact in facts.items()))
        with self._connection.call(WRITE_SECONDS):
            ends = [Statement(SELECT_LAST, position_range(stream.number, 0)) for stream in streams]
            lasts = [self._connection.query(end) for end in ends]
        return {rows[0][0] >> SEQ_BITS: Position(rows[0][0] & SEQ_MAX, rows[0][1]) for rows in lasts if rows}

    def clear(self) -> None:
        """See LogTarget."""
        with self._connection.call(WRITE_SECONDS):
            self._lock_unused()
            self._commit(CLEAR_EVENTS, DELETE_MIGRATION)

    def insert(self, stream: Stream, rows: Sequence[Row]) -> None:
        """See LogTarget."""
        keys = [key_of(self._secret, (stream.model, row[2])) for row in rows]
        with self._connection.call(WRITE_SECONDS):
            self._commit(BEGIN, insert_rows(rows, keys))

    def forget(self, positions: Sequence[int]) -> int:
        """See LogTarget."""
        with self._connection.call(WRITE_SECONDS):
            forgotten = self._commit(BEGIN, Statement(FORGET_PAYLOADS, (pack_integers(positions),)))
        return forgotten or 0

    def read_copied(self, stream: int, after: int, limit: int) -> list[Link]:
        """See LogTarget."""
        with self._connection.call(WRITE_SECONDS):
            return self._connection.query(select_copied(stream, after, limit))

    def finish(self, heads: Sequence[StreamHead]) -> None:
        """See LogTarget."""
        last = max((head.stream.number for head in heads), default=1)
        with self._connection.call(WRITE_SECONDS):
            self._lock_unused()
            inserts = [Statement(INSERT_STREAM, _stream_values(head)) for head in heads]
            move = Statement(MOVE_NUMBERS, (pack_integer(last),))
            self._commit(DELETE_STREAMS, *inserts, move, DELETE_MIGRATION, ANALYZE)

    def _lock_unused(self) -> None:
        """Begin a transaction in which no other opens a stream.

        Raises:
            LogUnavailableError: The database has events of its own.
        """
        *_, used = self._connection.run(BEGIN, LOCK_STREAMS, SELECT_USED)
        if used.ntuples:
            raise LogUnavailableError("the database has a log with other events; name an empty database")

    def _commit(self, *statements: Statement) -> int | None:
        """Run statements that end in a COMMIT, and return how many rows the last one changed."""
        try:
            return self._connection.commit(*statements)[-1].command_tuples
        except OutcomeUnknownError:
            raise LogUnavailableError(
                "the database has not confirmed the copy, or no standby has it; run softstep migrate again"
            ) from None


def _stream_values(head: StreamHead) -> tuple[bytes, ...]:
    number, model, version, genesis, first_classes = head.stream
    counts = map(pack_integer, (head.class_epoch, head.n_classes, head.epoch))
    return (
        pack_integer(number), model.encode(), pack_integer(version), genesis, pack_integer(first_classes),
        pack_integer(head.seq), head.hash, *counts,
    )  # fmt: skip
