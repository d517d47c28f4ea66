"""The states that replicas compare, in PostgreSQL: a row of `states` each, and the bytes of the newest in `blobs`."""

import hashlib
from typing import Final

from service.store.log.events import Position
from service.store.log.postgres_connection import BEGIN, COMMIT, PostgresConnection
from service.store.log.postgres_files import NO_WAIT, PostgresFiles
from service.store.log.postgres_values import Statement, pack_integer
from service.store.log.shared_states import ComparedState

# The newest states of a stream whose bytes are kept: a rollback may remove the last one.
STATES_KEPT: Final = 2

SELECT_STATE: Final = b"""
SELECT digest FROM states
WHERE stream = $1::bigint AND seq = $2::bigint AND hash = $3::bytea AND epoch = $4::bigint AND fold = $5::bigint
"""
INSERT_STATE: Final = b"""
INSERT INTO states(stream, seq, hash, epoch, fold, digest)
VALUES($1::bigint, $2::bigint, $3::bytea, $4::bigint, $5::bigint::integer, $6::bytea) ON CONFLICT DO NOTHING
"""
DELETE_OLD_BYTES: Final = b"""
DELETE FROM blobs WHERE hash IN (
  SELECT digest FROM states WHERE stream = $1::bigint ORDER BY seq DESC, epoch DESC OFFSET $2::bigint)
"""
SELECT_NEWEST: Final = b"""
SELECT seq, hash, epoch, fold, digest FROM states
WHERE stream = $1::bigint AND EXISTS(SELECT FROM blobs WHERE blobs.hash = digest AND part = 0)
ORDER BY seq DESC, epoch DESC
"""
DELETE_BYTES_BEFORE: Final = b"""
DELETE FROM blobs WHERE hash IN (SELECT digest FROM states WHERE stream = $1::bigint AND epoch < $2::bigint)
"""
DELETE_STATES_BEFORE: Final = b"DELETE FROM states WHERE stream = $1::bigint AND epoch < $2::bigint"


class PostgresStates:
    """The `SharedStates` of a log in PostgreSQL.

    Args:
        connection: The connection of the log.
        files: The files of the log.
    """

    def __init__(self, connection: PostgresConnection, files: PostgresFiles) -> None:
        self._connection = connection
        self._files = files

    def compare(self, state: ComparedState, content: bytes) -> bool:
        """See SharedStates."""
        sha256 = hashlib.sha256(content).digest()
        stream, epoch, fold = (pack_integer(number) for number in (state.stream, state.epoch, state.fold))
        key = stream, pack_integer(state.position.seq), state.position.hash, epoch, fold
        select = Statement(SELECT_STATE, key)
        with self._connection.call():
            stored = self._connection.query(select)
        if not stored:
            with self._connection.call(self._files.seconds_for([content])):
                self._connection.run(BEGIN, NO_WAIT)
                self._files.insert([content])
                delete = Statement(DELETE_OLD_BYTES, (stream, pack_integer(STATES_KEPT)))
                self._connection.run(Statement(INSERT_STATE, (*key, sha256)), delete, COMMIT)
                stored = self._connection.query(select)
        return stored == [(sha256,)]

    def newest(self, stream: int) -> list[tuple[ComparedState, bytes]]:
        """See SharedStates."""
        with self._connection.call():
            rows = self._connection.query(Statement(SELECT_NEWEST, (pack_integer(stream),)))
        return [
            (ComparedState(stream, Position(seq, hash_), epoch, fold), sha256)
            for seq, hash_, epoch, fold, sha256 in rows
        ]

    def drop_before(self, stream: int, epoch: int) -> None:
        """See SharedStates."""
        values = pack_integer(stream), pack_integer(epoch)
        with self._connection.call():
            deletions = (Statement(sql, values) for sql in (DELETE_BYTES_BEFORE, DELETE_STATES_BEFORE))
            self._connection.commit(BEGIN, *deletions)
