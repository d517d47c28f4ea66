"""Facts that replicas agree on, their audit, and the list of replicas, in PostgreSQL: `facts`, `audit`, `replicas`.

The value of a fact that changes begins with its version: 8 random bytes, drawn for each change, a signed integer with
the most significant byte first. A number that grows would not do, nor the number of a transaction: after a failover
that loses a change, the next one can get its number, and a replica that has seen the lost one would keep it. Of a value
that has not changed only the version is read.

A change is a compare-and-set: the new value is made while no transaction is open, and replaces the row if that still
has the version that was read. So no lock waits for Python, whatever the size of a value.
"""

import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import orjson

from service.errors import LogUnavailableError, OutcomeUnknownError
from service.store.log.postgres_connection import BEGIN, COMMIT, PostgresConnection
from service.store.log.postgres_errors import StatementRefusedError
from service.store.log.postgres_files import BYTES_PER_SECOND, NO_WAIT
from service.store.log.postgres_values import Statement, pack_blobs, pack_integer
from service.store.log.shared_facts import FACT_BYTES_MAX, Change, Note, Replica

# All are positive.
VERSION_BITS: Final = 62
# What a call may take beyond its deadline: it may receive a value and send another.
VALUE_SECONDS: Final = 2 * FACT_BYTES_MAX / BYTES_PER_SECOND
# Changes of one fact at the same moment, after which a change is given up.
ATTEMPTS_MAX: Final = 100

# Of a value. One that is too short, which no release has written, has a version all the same.
VERSION: Final = rb"substr(substr(value, 1, 8) || '\xffffffffffffffff'::bytea, 1, 8)"
SELECT_CHANGED: Final = b"""
SELECT facts.name, %(version)b, substr(value, 9, $3::bigint::integer)
FROM unnest($1::bytea[], $2::bytea[]) AS known(name, version)
JOIN facts ON facts.name = convert_from(known.name, 'UTF8') WHERE %(version)b <> version
""" % {b"version": VERSION}
REPLACE_FACT: Final = b"UPDATE facts SET value = $2::bytea WHERE name = $1::text AND %b = $3::bytea" % VERSION
LOCK_FACT: Final = b"SELECT FROM facts WHERE name = $1::text AND %b = $2::bytea FOR NO KEY UPDATE" % VERSION
INSERT_NOTE: Final = b"INSERT INTO audit(entry) VALUES($1::bytea)"
SELECT_NOTES: Final = b"""
SELECT number, (extract(epoch FROM time) * 1000)::bigint, entry FROM audit WHERE number > $1::bigint
ORDER BY number LIMIT $2::bigint
"""
INSERT_FACT: Final = b"INSERT INTO facts VALUES($1::text, $2::bytea) ON CONFLICT DO NOTHING"
SELECT_FACT: Final = b"SELECT value FROM facts WHERE name = $1::text"
REPORT_REPLICA: Final = b"""
INSERT INTO replicas(name, seen, reached) VALUES($1::text, clock_timestamp(), $2::text::jsonb)
ON CONFLICT(name) DO UPDATE SET seen = clock_timestamp(), reached = excluded.reached
"""
DELETE_REPLICAS: Final = Statement(b"DELETE FROM replicas WHERE seen < clock_timestamp() - interval '1 day'")
SELECT_REPLICAS: Final = Statement(
    b"SELECT name, extract(epoch FROM clock_timestamp() - seen)::double precision, reached::text FROM replicas "
    b"ORDER BY name"
)


@contextmanager
def connect_facts(address: str, copies: int | None, seconds: float) -> Iterator["PostgresFacts"]:
    """Open facts with a connection of their own, until the end of the block.

    Args:
        address: The URI of the database; it may hold a password.
        copies: As for `PostgresLog`.
        seconds: The deadline of each call.

    Raises:
        LogUnsafeError: The address cannot be parsed.
    """
    connection = PostgresConnection(address, copies, seconds)
    try:
        yield PostgresFacts(connection)
    finally:
        connection.close()


class PostgresFacts:
    """The `SharedFacts` of a log in PostgreSQL.

    Args:
        connection: The connection of the log.
    """

    def __init__(self, connection: PostgresConnection) -> None:
        self._connection = connection

    def read_or_add(self, name: str, value: bytes) -> bytes:
        """See SharedFacts."""
        select = Statement(SELECT_FACT, (name.encode(),))
        with self._connection.call():
            rows = self._connection.query(select)
            if not rows:
                self._connection.commit(BEGIN, Statement(INSERT_FACT, (name.encode(), value)))
                rows = self._connection.query(select)
        found: bytes = rows[0][0]
        return found

    def read_changed(self, known: Mapping[str, int]) -> dict[str, tuple[int, bytes]]:
        """See SharedFacts."""
        names = pack_blobs([name.encode() for name in known])
        versions = pack_blobs([pack_integer(version) for version in known.values()])
        select = Statement(SELECT_CHANGED, (names, versions, pack_integer(FACT_BYTES_MAX + 1)))
        with self._connection.call(self._connection.seconds + VALUE_SECONDS):
            rows = self._connection.query(select)
        return {name: (int.from_bytes(version, signed=True), value) for name, version, value in rows}

    def change(self, name: str, change: Change, note: bytes | None = None) -> bytes | None:
        """See SharedFacts."""
        notes = [] if note is None else [Statement(INSERT_NOTE, (note,))]
        for _ in range(ATTEMPTS_MAX):
            version, before = self.read_changed({name: 0}).get(name, (0, None))
            after = change(before)
            if after is None and before is None:
                return None
            with self._connection.call(self._connection.seconds + VALUE_SECONDS):
                if self._commit_if_current(self._statement(name, version, after), notes if after is not None else []):
                    return after
        raise LogUnavailableError("others change the same at this moment; try again")

    def _statement(self, name: str, version: int, after: bytes | None) -> Statement:
        """Return the statement that writes or keeps a fact; it meets a row if the fact has this version."""
        key, expected = name.encode(), pack_integer(version)
        if after is None:
            return Statement(LOCK_FACT, (key, expected))
        value = pack_integer(1 + secrets.randbits(VERSION_BITS)) + after
        return Statement(REPLACE_FACT, (key, value, expected)) if version else Statement(INSERT_FACT, (key, value))

    def _commit_if_current(self, statement: Statement, notes: list[Statement]) -> bool:
        """Run and commit a statement with its notes, and return True, or False if it meets no row."""
        try:
            _, met = self._connection.run(BEGIN, statement)
            if met.command_tuples != 1:
                return False
            self._connection.commit(*notes)
        except StatementRefusedError as error:
            if not error.may_retry:
                raise
            return False
        except OutcomeUnknownError:
            raise OutcomeUnknownError(
                "the database did not confirm the change, which may be made or not; look, and try again"
            ) from None
        return True

    def add_note(self, note: bytes) -> None:
        """See SharedFacts."""
        with self._connection.call():
            self._connection.commit(BEGIN, Statement(INSERT_NOTE, (note,)))

    def read_notes(self, after: int, limit: int) -> list[Note]:
        """See SharedFacts."""
        with self._connection.call():
            rows = self._connection.query(Statement(SELECT_NOTES, (pack_integer(after), pack_integer(limit))))
        return [Note(*row) for row in rows]

    def report_replica(
        self, name: str, erased: Mapping[int, int], role: str = "all", halted: Iterable[int] = ()
    ) -> None:
        """See SharedFacts."""
        epochs = {str(stream): epoch for stream, epoch in erased.items()}
        reached = orjson.dumps({"erased": epochs, "role": role, "halted": sorted(halted)})
        with self._connection.call():
            report = Statement(REPORT_REPLICA, (name.encode(), reached))
            self._connection.run(BEGIN, NO_WAIT, report, DELETE_REPLICAS, COMMIT)

    def list_replicas(self) -> list[Replica]:
        """See SharedFacts."""
        with self._connection.call():
            rows = self._connection.query(SELECT_REPLICAS)
        found = []
        for name, seconds, reached in rows:
            fields = orjson.loads(reached)
            erased = {int(stream): epoch for stream, epoch in fields.get("erased", {}).items()}
            # Those of an earlier release have no role: they fold.
            role, halted = fields.get("role", "all"), frozenset(fields.get("halted", ()))
            found.append(Replica(name, seconds, erased, role, halted))
        return found
