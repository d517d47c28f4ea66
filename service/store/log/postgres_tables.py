"""Every statement on the tables of the log in PostgreSQL, and their rows; postgres_schema.py has the tables.

Rows of events have the columns of a `Row` or of a `Link`. Nothing here begins or ends a transaction.
"""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any, Final

from service.store.log.events import PREVIEW_BYTES_MAX, PREVIEW_START_BYTES, SEQ_BITS, SEQ_MAX, Position, Stream
from service.store.log.log_rows import Name, Row, StreamHead
from service.store.log.postgres_values import (
    KEY_BYTES,
    Statement,
    pack_blobs,
    pack_integer,
    pack_integers,
    pack_keys,
)

HEADS: Final = (
    "SELECT number, model, version, genesis, first_classes, seq, hash, class_epoch, n_classes, epoch "
    "FROM streams WHERE NOT purged"
)
ROW: Final = "position, kind, id, time_ms, payload, hash, actor, seal"
LINK: Final = f"position & {SEQ_MAX}, kind, id, time_ms, payload, hash, actor, seal"
# The columns of a new event, each an array.
NEW_ROWS: Final = (
    "SELECT * FROM unnest(${}::bigint[], ${}::bigint[], ${}::bytea[], ${}::bigint[], ${}::bytea[], ${}::bytea[], "
    "${}::bytea[], ${}::bytea[], ${}::uuid[])"
)
INSERT: Final = f"INSERT INTO events({ROW}, id_key)"

SELECT_STREAMS: Final = Statement(
    b"SELECT number, model, version, genesis, first_classes FROM streams WHERE NOT purged ORDER BY number"
)
SELECT_HEADS: Final = f"{HEADS} AND number = ANY($1::bigint[])".encode()
LOCK_HEADS: Final = f"{HEADS} AND number = ANY($1::bigint[]) ORDER BY number FOR NO KEY UPDATE".encode()
LOCK_OPENED: Final = f"{HEADS} AND model = $1::text AND version = $2::bigint FOR NO KEY UPDATE".encode()
INSERT_STREAM: Final = b"""
INSERT INTO streams(model, version, genesis, first_classes, hash, n_classes, artifact)
VALUES($1::text, $2::bigint, $3::bytea, $4::bigint, $3::bytea, $4::bigint, $5::bytea[])
RETURNING number, model, version, genesis, first_classes
"""
SELECT_HEADS_OF_KEYS: Final = (
    f"{HEADS} AND number IN (SELECT position >> {SEQ_BITS} FROM events WHERE id_key = ANY($1::uuid[]))".encode()
)
LOCK_HEADS_OF_KEYS: Final = SELECT_HEADS_OF_KEYS + b" ORDER BY number FOR NO KEY UPDATE"
SELECT_ROWS: Final = f"SELECT {ROW} FROM events WHERE id_key = ANY($1::uuid[])".encode()
SELECT_POSITIONS: Final = (
    b"SELECT position FROM events JOIN unnest($1::bigint[], $2::bytea[]) AS known(at, hash_there) "
    b"ON position = at WHERE hash = hash_there"
)
SELECT_LINKS: Final = f"""
SELECT {LINK} FROM events WHERE position BETWEEN $1::bigint AND $2::bigint
AND EXISTS(SELECT FROM streams WHERE number = $1::bigint >> {SEQ_BITS} AND NOT purged)
ORDER BY position LIMIT $3::bigint
""".encode()
SELECT_COPIED: Final = f"""
SELECT {LINK} FROM events WHERE position BETWEEN $1::bigint AND $2::bigint ORDER BY position LIMIT $3::bigint
""".encode()
SELECT_ADMIN_LINKS: Final = f"""
SELECT (SELECT hash FROM events AS before WHERE before.position = events.position - 1), {LINK}
FROM events WHERE position BETWEEN $1::bigint AND $2::bigint AND kind <> 1 ORDER BY position LIMIT $3::bigint
""".encode()
SELECT_LAST_ADMIN: Final = b"""
SELECT position FROM events WHERE position BETWEEN $1::bigint AND $2::bigint AND kind <> 1
ORDER BY position DESC LIMIT 1
"""
SELECT_PREVIEWS: Final = f"""
SELECT position & {SEQ_MAX}, kind, id, time_ms, actor, length(payload),
       CASE WHEN length(payload) > {PREVIEW_BYTES_MAX} THEN substring(payload FOR {PREVIEW_START_BYTES})
            ELSE coalesce(payload, '') END
FROM events WHERE position BETWEEN $1::bigint AND $2::bigint %s ORDER BY position DESC LIMIT $3::bigint
"""
# One row at least, with the start of the server, the oldest transaction that may still commit, and a stream that an
# equally old or later transaction has changed.
SELECT_MOVED: Final = b"""
SELECT (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint,
       pg_snapshot_xmin(pg_current_snapshot())::text::bigint, number, moved::text::bigint
FROM (SELECT) AS one LEFT JOIN streams ON moved >= $1::xid8
"""
COMPARE_AND_APPEND: Final = f"""
WITH moved AS (
  UPDATE streams SET seq = $1::bigint, hash = $2::bytea, moved = pg_current_xact_id()
  WHERE number = $3::bigint AND seq = $4::bigint AND hash = $5::bytea AND NOT purged RETURNING 1
)
{INSERT} {NEW_ROWS.format(*range(6, 15))} AS e, moved
""".replace("SELECT *", "SELECT e.*").encode()
INSERT_ROWS: Final = f"{INSERT} {NEW_ROWS.format(*range(1, 10))}".encode()
UPDATE_HEADS: Final = b"""
UPDATE streams SET seq = new.seq, hash = new.hash, class_epoch = new.class_epoch, n_classes = new.n_classes,
                   epoch = new.epoch, moved = pg_current_xact_id()
FROM unnest($1::bigint[], $2::bigint[], $3::bytea[], $4::bigint[], $5::bigint[], $6::bigint[])
     AS new(number, seq, hash, class_epoch, n_classes, epoch)
WHERE streams.number = new.number
"""
FORGET_PAYLOADS: Final = b"""
UPDATE events SET seal = sha256(seal || payload), payload = NULL
WHERE position = ANY($1::bigint[]) AND payload IS NOT NULL
"""
DELETE_POSITIONS: Final = b"DELETE FROM events WHERE position = ANY($1::bigint[])"
MARK_PURGED: Final = b"""
UPDATE streams SET purged = true, moved = pg_current_xact_id() WHERE number = $1::bigint AND NOT purged RETURNING 1
"""
SELECT_PURGED: Final = Statement(b"SELECT number FROM streams WHERE purged ORDER BY number")
DELETE_SOME: Final = b"""
DELETE FROM events WHERE position IN (
  SELECT position FROM events WHERE position BETWEEN $1::bigint AND $2::bigint ORDER BY position LIMIT $3::bigint)
"""
# The files that belong to a stream alone: those of its artifact, and its states.
DELETE_FILES: Final = (
    b"""
    DELETE FROM blobs WHERE hash IN (SELECT unnest(artifact) FROM streams WHERE number = $1::bigint)
    AND hash NOT IN (SELECT unnest(artifact) FROM streams WHERE number <> $1::bigint)
    """,
    b"DELETE FROM blobs WHERE hash IN (SELECT digest FROM states WHERE stream = $1::bigint)",
    b"DELETE FROM states WHERE stream = $1::bigint",
)
DELETE_STREAM: Final = b"DELETE FROM streams WHERE number = $1::bigint AND purged"
SELECT_NEXT_TRANSACTION: Final = Statement(b"SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
# Whether anything may still read what transactions before $1 have replaced: a session, a standby, a slot of
# replication, or a prepared transaction.
SELECT_OLDER_READERS: Final = b"""
SELECT EXISTS(
  SELECT FROM (
    SELECT unnest(ARRAY[backend_xid, backend_xmin]) FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND (datname = current_database() OR datname IS NULL)
    UNION ALL SELECT xmin FROM pg_replication_slots
    UNION ALL SELECT transaction FROM pg_prepared_xacts WHERE database = current_database()
  ) AS readers(oldest) WHERE age(oldest) > age($1::xid8::xid)
)
"""
# The indexes have no payload, and a table that gets shorter makes every reader wait.
VACUUM_EVENTS: Final = Statement(b"VACUUM (INDEX_CLEANUP OFF, TRUNCATE OFF) events")
VACUUM_BLOBS: Final = Statement(b"VACUUM (INDEX_CLEANUP OFF, TRUNCATE OFF) blobs")
VACUUM_SNAPSHOTS: Final = Statement(b"VACUUM (INDEX_CLEANUP OFF, TRUNCATE OFF) snapshots")


def key_of(secret: bytes, name: Name) -> bytes:
    """Return the 16 bytes by which an id of a model is found: BLAKE2b(secret ‖ model ‖ 0 ‖ id)."""
    model, id_ = name
    return blake2b(secret + model.encode() + b"\0" + id_, digest_size=KEY_BYTES).digest()


def position_range(stream: int, first: int, last: int = SEQ_MAX) -> tuple[bytes, bytes]:
    """Return the positions between which the events of a stream from one seq to another are."""
    return pack_integer(stream << SEQ_BITS | first), pack_integer(stream << SEQ_BITS | last)


def head_of(row: Sequence[Any]) -> StreamHead:
    """Return the head of a stream from a row of HEADS."""
    return StreamHead(Stream(*row[:5]), *row[5:])


def select_heads(numbers: Sequence[int], *, lock: bool = False) -> Statement:
    """Return the statement that reads the heads of streams, and locks them in the order of their numbers."""
    return Statement(LOCK_HEADS if lock else SELECT_HEADS, (pack_integers(numbers),))


def select_links(stream: int, first: int, limit: int) -> Statement:
    """Return the statement that reads the events of a stream from a seq on; a purged stream has none."""
    return Statement(SELECT_LINKS, (*position_range(stream, first), pack_integer(limit)))


def select_copied(stream: int, after: int, limit: int) -> Statement:
    """Return the statement that reads events after a seq of a stream that is not there yet."""
    return Statement(SELECT_COPIED, (*position_range(stream, after + 1), pack_integer(limit)))


def select_admin_links(stream: int, first: int, last: int = SEQ_MAX, limit: int = SEQ_MAX) -> Statement:
    """Return the statement that reads events that are not FEEDBACK, each after the hash of the event before it."""
    return Statement(SELECT_ADMIN_LINKS, (*position_range(stream, first, last), pack_integer(limit)))


def select_last_admin(stream: int) -> Statement:
    """Return the statement that reads the position of the last event that is not FEEDBACK."""
    return Statement(SELECT_LAST_ADMIN, position_range(stream, 0))


def select_previews(stream: int, before: int, limit: int, *, admin_only: bool) -> Statement:
    """Return the statement that reads events before a seq, newest first, of a long payload the start alone."""
    sql = SELECT_PREVIEWS % ("AND kind <> 1" if admin_only else "")
    return Statement(sql.encode(), (*position_range(stream, 0, before - 1), pack_integer(limit)))


def select_positions(positions: Iterable[tuple[int, Position]]) -> Statement:
    """Return the statement that reads which streams have an event with this seq and hash."""
    known = [(stream << SEQ_BITS | seq, hash_) for stream, (seq, hash_) in positions]
    return Statement(
        SELECT_POSITIONS, (pack_integers([at for at, _ in known]), pack_blobs([hash_ for _, hash_ in known]))
    )


def insert_stream(model: str, version: int, genesis: bytes, n_classes: int, artifact: Sequence[bytes]) -> Statement:
    """Return the statement that inserts a new stream, given the SHA-256 of each file of its artifact."""
    values = model.encode(), pack_integer(version), genesis, pack_integer(n_classes), pack_blobs(artifact)
    return Statement(INSERT_STREAM, values)


def compare_and_append(old: Position, new: StreamHead, rows: Sequence[Row], keys: Sequence[bytes]) -> Statement:
    """Return the statement that moves a stream's head from one position, and inserts the events after it.

    It inserts nothing if the head is another one.
    """
    moved = (pack_integer(new.seq), new.hash, pack_integer(new.stream.number), pack_integer(old.seq), old.hash)
    return Statement(COMPARE_AND_APPEND, (*moved, *_columns(rows, keys)))


def insert_rows(rows: Sequence[Row], keys: Sequence[bytes]) -> Statement:
    """Return the statement that inserts new events."""
    return Statement(INSERT_ROWS, _columns(rows, keys))


def update_heads(heads: Sequence[StreamHead]) -> Statement:
    """Return the statement that writes the heads of streams."""
    numbers = pack_integers([head.stream.number for head in heads])
    hashes = pack_blobs([head.hash for head in heads])
    seqs, *others = (
        pack_integers([getattr(head, name) for head in heads]) for name in ("seq", "class_epoch", "n_classes", "epoch")
    )
    return Statement(UPDATE_HEADS, (numbers, seqs, hashes, *others))


def _columns(rows: Sequence[Row], keys: Sequence[bytes]) -> tuple[bytes, ...]:
    positions, kinds, ids, times, payloads, hashes, actors, seals = zip(*rows, strict=True)
    blobs = map(pack_blobs, (payloads, hashes, actors, seals))
    return (
        pack_integers(positions), pack_integers(kinds), pack_blobs(ids), pack_integers(times), *blobs, pack_keys(keys),
    )  # fmt: skip
