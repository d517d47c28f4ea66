"""The files that replicas share, in PostgreSQL: a row of `blobs` for each part of a file.

The parts of a file are numbered from 0, and all but the last have PART_BYTES bytes. They are written in one
transaction, and are found by the SHA-256 of the whole file.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

from service.errors import LogDamagedError
from service.store.log.postgres_connection import BEGIN, COMMIT, PostgresConnection
from service.store.log.postgres_values import Statement, pack_blobs, pack_integer

PART_BYTES: Final = 1 << 20
# Parts in one round trip, so that the memory for them is bounded.
PARTS_AT_ONCE: Final = 16
# What a call may take beyond its deadline: the slowest network for which large files are sent in time.
BYTES_PER_SECOND: Final = 10_000_000
# Other replicas have these files too, or can make them again. So nothing waits for a standby but the transaction that
# opens a stream.
NO_WAIT: Final = Statement(b"SET LOCAL synchronous_commit = off")

INSERT_PART: Final = b"INSERT INTO blobs VALUES($1::bytea, $2::bigint::integer, $3::bytea) ON CONFLICT DO NOTHING"
SELECT_PARTS: Final = b"""
SELECT bytes FROM blobs WHERE hash = $1::bytea AND part >= $2::bigint AND part < $3::bigint ORDER BY part
"""
SELECT_BLOB: Final = b"SELECT FROM blobs WHERE hash = $1::bytea AND part = 0"
SELECT_ARTIFACT: Final = b"""
SELECT file FROM streams, unnest(artifact) WITH ORDINALITY AS files(file, place)
WHERE number = $1::bigint AND NOT purged ORDER BY place
"""
BIND_ARTIFACT: Final = b"UPDATE streams SET artifact = $2::bytea[] WHERE number = $1::bigint AND artifact = '{}'"


class PostgresFiles:
    """The `SharedFiles` of a log in PostgreSQL.

    Args:
        connection: The connection of the log.
    """

    def __init__(self, connection: PostgresConnection) -> None:
        self._connection = connection

    def put(self, content: bytes) -> bytes:
        """See SharedFiles."""
        sha256 = hashlib.sha256(content).digest()
        if not self.has(sha256):
            with self._connection.call(self.seconds_for([content])):
                self._connection.run(BEGIN, NO_WAIT)
                self.insert([content])
                self._connection.run(COMMIT)
        return sha256

    def get(self, sha256: bytes) -> bytes | None:
        """See SharedFiles."""
        parts = list(self._read_parts(sha256))
        if not parts:
            return None
        content = b"".join(parts)
        if hashlib.sha256(content).digest() != sha256:
            raise LogDamagedError("a file in the log's database is not the one that its hash says; restore a backup")
        return content

    def has(self, sha256: bytes) -> bool:
        """See SharedFiles."""
        with self._connection.call():
            return bool(self._connection.query(Statement(SELECT_BLOB, (sha256,))))

    def artifact_of(self, stream: int) -> list[bytes]:
        """See SharedFiles."""
        with self._connection.call():
            rows: list[Any] = self._connection.query(Statement(SELECT_ARTIFACT, (pack_integer(stream),)))
        return [sha256 for (sha256,) in rows]

    def bind_artifact(self, stream: int, files: Sequence[bytes]) -> None:
        """See SharedFiles."""
        with self._connection.call(self.seconds_for(files)):
            self._connection.run(BEGIN, NO_WAIT)
            hashes = self.insert(files)
            self._connection.run(Statement(BIND_ARTIFACT, (pack_integer(stream), pack_blobs(hashes))), COMMIT)

    def insert(self, files: Sequence[bytes]) -> list[bytes]:
        """Insert files in the transaction that is open, which stays open, and return the SHA-256 of each."""
        hashes = [hashlib.sha256(content).digest() for content in files]
        rows = (
            Statement(INSERT_PART, (sha256, pack_integer(part), content[start : start + PART_BYTES]))
            for sha256, content in zip(hashes, files, strict=True)
            for part, start in enumerate(range(0, max(1, len(content)), PART_BYTES))
        )
        while some := list(islice(rows, PARTS_AT_ONCE)):
            self._connection.run(*some)
        return hashes

    def seconds_for(self, files: Sequence[bytes]) -> float:
        """Return the deadline of a call that sends files."""
        return self._connection.seconds + sum(map(len, files)) / BYTES_PER_SECOND

    @property
    def seconds_for_parts(self) -> float:
        """The deadline of a call that receives PARTS_AT_ONCE parts."""
        return self._connection.seconds + PARTS_AT_ONCE * PART_BYTES / BYTES_PER_SECOND

    def _read_parts(self, sha256: bytes) -> Iterator[bytes]:
        first, rows = 0, [(b"",)]
        while rows:
            places = pack_integer(first), pack_integer(first + PARTS_AT_ONCE)
            with self._connection.call(self.seconds_for_parts):
                rows = self._connection.query(Statement(SELECT_PARTS, (sha256, *places)))
            yield from (part for (part,) in rows)
            first += PARTS_AT_ONCE
