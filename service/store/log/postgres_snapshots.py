"""The snapshots that learners pass on, in PostgreSQL: rows of the table `snapshots`, which is not logged.

    file        part    has
    ''          0       position, epoch and SHA-256 of the snapshot, the name of its base, and its first bytes
    ''          1, …    the further bytes, in parts of PART_BYTES
    <name>      0, …    the bytes of the base

A snapshot is replaced in one transaction, which also deletes what the new one does not need. `due` is when the next may
come, by the server's clock. The table is empty after a crash of the server, and on a standby that is promoted.
"""

import hashlib
from collections.abc import Iterator
from itertools import chain, islice
from typing import Final

from service.store.log.events import Position
from service.store.log.postgres_connection import BEGIN, COMMIT, PostgresConnection
from service.store.log.postgres_files import PART_BYTES, PARTS_AT_ONCE, PostgresFiles
from service.store.log.postgres_values import Statement, pack_integer
from service.store.log.shared_snapshots import ReadBase, SharedSnapshot, rest_seconds

NOWHERE: Final = Position(-1, b"")

SELECT_SNAPSHOTS: Final = Statement(
    b"SELECT stream, seq, hash, epoch, sha256, base FROM snapshots WHERE file = '' AND part = 0 ORDER BY stream"
)
# Whether the snapshot is earlier or lost, and whether the stream's rest is over.
SELECT_STANDING: Final = b"""
SELECT seq < $2::bigint OR (seq = $3::bigint AND hash = $4::bytea), due <= clock_timestamp()
FROM snapshots WHERE stream = $1::bigint AND file = '' AND part = 0
"""
SELECT_BASE: Final = b"SELECT FROM snapshots WHERE stream = $1::bigint AND file = $2::text AND part = 0"
UPSERT: Final = b"""
INSERT INTO snapshots(stream, file, part, seq, hash, epoch, sha256, base, bytes, due)
VALUES($1::bigint, '', 0, $2::bigint, $3::bytea, $4::bigint, $5::bytea, $6::text, $7::bytea,
       clock_timestamp() + $8::bigint * interval '1 microsecond')
ON CONFLICT(stream, file, part) DO UPDATE SET
  seq = excluded.seq, hash = excluded.hash, epoch = excluded.epoch, sha256 = excluded.sha256, base = excluded.base,
  bytes = excluded.bytes, due = excluded.due
WHERE snapshots.due <= clock_timestamp()
  AND (snapshots.seq < excluded.seq OR (snapshots.seq = $9::bigint AND snapshots.hash = $10::bytea))
RETURNING 1
"""
DELETE_OTHERS: Final = b"""
DELETE FROM snapshots WHERE stream = $1::bigint AND (file = '' AND part > 0 OR file <> '' AND file <> $2::text)
"""
INSERT_PART: Final = b"""
INSERT INTO snapshots(stream, file, part, sha256, bytes)
VALUES($1::bigint, $2::text, $3::bigint, $4::bytea, $5::bytea) ON CONFLICT DO NOTHING
"""
SELECT_PARTS: Final = b"""
SELECT bytes FROM snapshots
WHERE stream = $1::bigint AND file = $2::text AND sha256 = $3::bytea AND part >= $4::bigint AND part < $5::bigint
ORDER BY part
"""
DELETE_BEFORE: Final = b"""
DELETE FROM snapshots WHERE stream = $1::bigint AND EXISTS(
  SELECT FROM snapshots AS old WHERE old.stream = $1::bigint AND file = '' AND part = 0 AND epoch < $2::bigint)
"""
DELETE_STREAM: Final = b"DELETE FROM snapshots WHERE stream = $1::bigint"


class PostgresSnapshots:
    """The `SharedSnapshots` of a log in PostgreSQL.

    Args:
        connection: The connection of the log.
        files: The files of the log, which know how long a transfer may take.
    """

    def __init__(self, connection: PostgresConnection, files: PostgresFiles) -> None:
        self._connection: Final = connection
        self._files: Final = files

    def list_snapshots(self) -> list[SharedSnapshot]:
        """See SharedSnapshots."""
        with self._connection.call():
            rows = self._connection.query(SELECT_SNAPSHOTS)
        return [
            SharedSnapshot(stream, Position(seq, hash_), epoch, sha256, base)
            for stream, seq, hash_, epoch, sha256, base in rows
        ]

    def replace(
        self, snapshot: SharedSnapshot, content: bytes, read_base: ReadBase, lost: Position | None = None
    ) -> int:
        """See SharedSnapshots."""
        stream, name, lost = pack_integer(snapshot.stream), snapshot.base.encode(), lost or NOWHERE
        lost_place = pack_integer(lost.seq), lost.hash
        position = pack_integer(snapshot.position.seq), snapshot.position.hash
        with self._connection.call():
            # Of several learners all but one find out here, before they send anything.
            standing = Statement(SELECT_STANDING, (stream, position[0], *lost_place))
            found, based = self._connection.run(standing, Statement(SELECT_BASE, (stream, name)))
            if any(False in answers for answers in self._connection.rows(found)):
                return 0
            base = read_base() if snapshot.base and not self._connection.rows(based) else b""
        size = len(content) + len(base)
        head = (stream, *position, pack_integer(snapshot.epoch), snapshot.sha256, name, content[:PART_BYTES])
        rest = pack_integer(round(1_000_000 * rest_seconds(size)))
        with self._connection.call(self._files.seconds_for([content, base])):
            _, met = self._connection.run(BEGIN, Statement(UPSERT, (*head, rest, *lost_place)))
            if met.command_tuples != 1:
                return 0
            self._connection.run(Statement(DELETE_OTHERS, (stream, name)))
            parts = chain(
                _part_rows(stream, b"", snapshot.sha256, content, first=1), _part_rows(stream, name, b"", base, first=0)
            )
            while some := list(islice(parts, PARTS_AT_ONCE)):
                self._connection.run(*some)
            self._connection.run(COMMIT)
        return size

    def get(self, snapshot: SharedSnapshot) -> bytes | None:
        """See SharedSnapshots."""
        content = b"".join(self._read_parts(snapshot.stream, b"", snapshot.sha256))
        return content if hashlib.sha256(content).digest() == snapshot.sha256 else None

    def get_base(self, stream: int, name: str) -> bytes | None:
        """See SharedSnapshots."""
        return b"".join(self._read_parts(stream, name.encode(), b"")) or None

    def _read_parts(self, stream: int, file: bytes, sha256: bytes) -> Iterator[bytes]:
        first, rows = 0, [(b"",)]
        while rows:
            places = pack_integer(first), pack_integer(first + PARTS_AT_ONCE)
            with self._connection.call(self._files.seconds_for_parts):
                rows = self._connection.query(Statement(SELECT_PARTS, (pack_integer(stream), file, sha256, *places)))
            yield from (part for (part,) in rows)
            first += PARTS_AT_ONCE
            if len(rows) < PARTS_AT_ONCE:
                return

    def drop_before(self, stream: int, epoch: int) -> None:
        """See SharedSnapshots."""
        with self._connection.call():
            deletion = Statement(DELETE_BEFORE, (pack_integer(stream), pack_integer(epoch)))
            self._connection.run(BEGIN, deletion, COMMIT)

    def drop_stream(self, stream: int) -> None:
        """Delete the snapshot of a stream that is purged."""
        with self._connection.call():
            self._connection.run(BEGIN, Statement(DELETE_STREAM, (pack_integer(stream),)), COMMIT)


def _part_rows(stream: bytes, file: bytes, sha256: bytes, content: bytes, first: int) -> Iterator[Statement]:
    """Yield the statements that insert the parts of a file, from a part on."""
    for part in range(first, -(-len(content) // PART_BYTES)):
        some = content[part * PART_BYTES : (part + 1) * PART_BYTES]
        yield Statement(INSERT_PART, (stream, file, pack_integer(part), sha256, some))
