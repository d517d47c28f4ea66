"""The tables of the feedback log's database, and every statement on them.

    table    contents                                           key
    streams  each stream, with the effects of its admin events  number, never reused; record is a checksummed JSON list
    events   every event                                        position = stream << 40 | seq: each stream only grows
    ids      of most events the hash of its id                  id_index.py
    slices   which events those are                             id_index.py
    facts    the secret of that hash, checksummed

    seal     of an event the salt of its digest; if it was forgotten, the digest itself, and payload is NULL
    actor    of an event who sent it, or nothing; logs of the schemas 1 and 2 do not have this column

Nothing here begins or ends a transaction.
"""

import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from typing import Final, cast

import apsw
import orjson

from service.errors import LogDamagedError, StreamGoneError
from service.store.log.chain import Link, add_checksum, check_event, strip_checksum
from service.store.log.database import ACTORS_VERSION
from service.store.log.events import (
    PREVIEW_BYTES_MAX,
    PREVIEW_START_BYTES,
    SEQ_BITS,
    SEQ_MAX,
    Event,
    EventPreview,
    Stream,
    hash_payload,
)
from service.store.log.log_rows import Name, Row, StreamHead

SCHEMA: Final = """
CREATE TABLE streams(number INTEGER PRIMARY KEY AUTOINCREMENT, purged INTEGER NOT NULL, record BLOB NOT NULL) STRICT;
CREATE TABLE events(
  position INTEGER PRIMARY KEY, kind INTEGER NOT NULL, id BLOB NOT NULL, time_ms INTEGER NOT NULL, payload BLOB,
  hash BLOB NOT NULL, seal BLOB NOT NULL, actor BLOB NOT NULL DEFAULT x''
) STRICT;
CREATE INDEX admin_events ON events(position) WHERE kind <> 1;
CREATE TABLE ids(key INTEGER NOT NULL, position INTEGER NOT NULL, PRIMARY KEY(key, position)) STRICT, WITHOUT ROWID;
CREATE TABLE slices(slice INTEGER PRIMARY KEY, cover BLOB NOT NULL) STRICT;
CREATE TABLE facts(name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
"""
ADD_ACTORS: Final = "ALTER TABLE events ADD COLUMN actor BLOB NOT NULL DEFAULT x''"
SECRET_BYTES: Final = 16
# The columns of an EventPreview; the payload is None if it is long or was forgotten.
PreviewRow = tuple[int, int, bytes, int, bytes, int | None, bytes | None]
SEQ: Final = f"position & {SEQ_MAX}"
# The columns of a Row, of the logs with and without actors. Each Row has eight values.
INSERT: Final = (
    "INSERT INTO events(position, kind, id, time_ms, payload, hash, actor, seal) VALUES(?, ?, ?, ?, ?, ?, ?, ?)"
)
INSERT_WITHOUT_ACTOR: Final = (
    "INSERT INTO events(position, kind, id, time_ms, payload, hash, seal) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?8)"
)
LAST: Final = f"FROM events WHERE position BETWEEN number << {SEQ_BITS} AND number << {SEQ_BITS} | {SEQ_MAX}"
HEADS: Final = f"""
SELECT number, record,
       (SELECT position {LAST} ORDER BY position DESC LIMIT 1), (SELECT hash {LAST} ORDER BY position DESC LIMIT 1)
FROM streams WHERE NOT purged
"""  # noqa: S608  # made of constants


def create_tables(database: apsw.Connection) -> None:
    """Create the tables of a new database."""
    database.execute(SCHEMA)
    database.execute("INSERT INTO facts VALUES('secret', ?)", (add_checksum(secrets.token_bytes(SECRET_BYTES)),))


def has_actors(database: apsw.Connection) -> bool:
    """Return whether events can have actors: not before a start of the service has upgraded the log."""
    return bool(database.pragma("user_version") >= ACTORS_VERSION)


def add_actors(database: apsw.Connection) -> None:
    """Let the events of an earlier release's log have actors; those that are stored have none."""
    database.execute(ADD_ACTORS)


def read_secret(database: apsw.Connection) -> bytes:
    """Return the secret of the ids' hash."""
    return strip_checksum(database.execute("SELECT value FROM facts WHERE name = 'secret'").get)


def write_secret(database: apsw.Connection, secret: bytes) -> None:
    """Replace the secret of the ids' hash in a log without events."""
    database.execute("UPDATE facts SET value = ? WHERE name = 'secret'", (add_checksum(secret),))


def read_streams(database: apsw.Connection) -> list[Stream]:
    """Return all streams, by number."""
    rows = database.execute("SELECT number, record FROM streams WHERE NOT purged").fetchall()
    return [_parse_record(*row)[0] for row in cast("list[tuple[int, bytes]]", rows)]


def insert_stream(database: apsw.Connection, model: str, version: int, genesis: bytes, n_classes: int) -> Stream:
    """Insert a new stream."""
    database.execute("INSERT INTO streams VALUES(NULL, 0, x'')")
    stream = Stream(database.last_insert_rowid(), model, version, genesis, n_classes)
    write_head(database, StreamHead(stream, 0, genesis, 0, n_classes, 0))
    return stream


def copy_stream(database: apsw.Connection, stream: Stream) -> None:
    """Insert a stream of another log with its number."""
    database.execute("INSERT INTO streams VALUES(?, 0, x'')", (stream.number,))
    write_head(database, StreamHead(stream, 0, stream.genesis, 0, stream.n_classes, 0))


def read_heads(database: apsw.Connection, stream: int | None = None) -> dict[int, StreamHead]:
    """Return the heads of all streams, or of one, by number."""
    where, bindings = ("", ()) if stream is None else (" AND number = ?", (stream,))
    rows = cast("list[tuple[int, bytes, int | None, bytes]]", database.execute(HEADS + where, bindings).fetchall())
    heads = {}
    for number, record, position, last_hash in rows:
        opened, (class_epoch, n_classes, epoch) = _parse_record(number, record)
        seq, hash_ = (0, opened.genesis) if position is None else (position & SEQ_MAX, last_hash)
        heads[number] = StreamHead(opened, seq, hash_, class_epoch, n_classes, epoch)
    return heads


def read_head(database: apsw.Connection, stream: int) -> StreamHead:
    """Return the head of one stream.

    Raises:
        StreamGoneError: There is no such stream.
    """
    head = read_heads(database, stream).get(stream)
    if head is None:
        raise StreamGoneError("the stream does not exist, or was purged")
    return head


def write_head(database: apsw.Connection, head: StreamHead) -> None:
    """Write the record of a stream, with the effects of its admin events."""
    number, model, version, genesis, n_classes_first = head.stream
    changed = [head.class_epoch, head.n_classes, head.epoch]
    record = add_checksum(orjson.dumps([number, model, version, genesis.hex(), n_classes_first, changed]))
    database.execute("UPDATE streams SET record = ? WHERE number = ?", (record, number))


def read_events(database: apsw.Connection, stream: int, after: int, limit: int) -> list[Event]:
    """Return the events of a stream after a seq, without a gap, at most `limit`."""
    bindings = (*_positions_after(stream, after), limit)
    sql = f"SELECT {_event(database)} FROM events WHERE position BETWEEN ? AND ? LIMIT ?"  # noqa: S608
    events = list(map(Event._make, database.execute(sql, bindings)))
    # Rows come by ascending position, each once, so none is missing if the last one's seq matches their number.
    if events and events[-1].seq != after + len(events):
        raise LogDamagedError(f"the feedback log has lost an event after event {after}; restore a backup")
    return events


def read_admin_events(database: apsw.Connection, stream: Stream, after: int = 0) -> list[Event]:
    """Return the events of a stream after a seq that are not FEEDBACK, each checked against the one before it."""
    # Everything later depends on them: a damaged one must not change the lineage.
    previous = "(SELECT hash FROM events AS before WHERE before.position = events.position - 1)"
    where = "position BETWEEN ? AND ? AND kind <> 1 ORDER BY position"
    sql = f"SELECT {previous}, {_event(database)}, seal FROM events WHERE {where}"  # noqa: S608
    events = []
    for hash_, *link in database.execute(sql, _positions_after(stream.number, after)):
        check_event(stream.genesis if hash_ is None else cast("bytes", hash_), cast("Link", tuple(link)))
        events.append(Event._make(link[:-1]))
    return events


def read_last_admin_seq(database: apsw.Connection, stream: int) -> int:
    """Return the seq of the last event of a stream that is not FEEDBACK, or 0 if there is none."""
    sql = "SELECT max(position) FROM events WHERE position BETWEEN ? AND ? AND kind <> 1"
    position = cast("int | None", database.execute(sql, _positions_after(stream, 0)).get)
    return 0 if position is None else position & SEQ_MAX


def read_previews(
    database: apsw.Connection, stream: int, before: int, limit: int, *, admin_only: bool
) -> list[EventPreview]:
    """Return the events of a stream before a seq, newest first and without a gap, at most `limit`."""
    columns = f"{SEQ}, kind, id, time_ms, {_actor(database)}, length(payload), iif(length(payload) <= ?, payload, NULL)"
    where = "position BETWEEN ? AND ?" + (" AND kind <> 1" if admin_only else "")
    sql = f"SELECT {columns} FROM events WHERE {where} ORDER BY position DESC LIMIT ?"  # noqa: S608
    start = stream << SEQ_BITS
    bindings = (PREVIEW_BYTES_MAX, start, start | before - 1, limit)
    rows = cast("list[PreviewRow]", list(database.execute(sql, bindings)))
    if rows and not admin_only and rows[0][0] - rows[-1][0] >= len(rows):
        raise LogDamagedError(f"the feedback log has lost an event after event {rows[-1][0]}; restore a backup")
    previews = []
    for seq, kind, id_, time_ms, actor, size, payload in rows:
        start_only = payload is None and size is not None
        kept = _payload_start(database, start | seq) if start_only else payload or b""
        previews.append(EventPreview(seq, kind, id_, time_ms, actor, size, kept))
    return previews


def _payload_start(database: apsw.Connection, position: int) -> bytes:
    """Return the first bytes of a long payload, without reading the others."""
    with closing(database.blob_open("main", "events", "payload", position, False)) as blob:
        return blob.read(PREVIEW_START_BYTES)


def read_links(database: apsw.Connection, stream: int, after: int, limit: int) -> list[Link]:
    """Return the events of a stream after a seq with their seals, at most `limit`; gaps are not detected."""
    sql = f"SELECT {_event(database)}, seal FROM events WHERE position BETWEEN ? AND ? LIMIT ?"  # noqa: S608
    return cast("list[Link]", database.execute(sql, (*_positions_after(stream, after), limit)).fetchall())


def read_rows(database: apsw.Connection, positions: Sequence[int]) -> list[Row]:
    """Return the rows at these positions that exist."""
    if not positions:
        return []
    sql = f"SELECT {_event(database, 'position')}, seal FROM events WHERE position = ?"  # noqa: S608
    found: list[Row] = []
    for position in positions:
        found += cast("list[Row]", database.execute(sql, (position,)).fetchall())
    return found


def insert_rows(database: apsw.Connection, rows: Iterable[Row], *, with_actors: bool) -> None:
    """Insert new events; the log has actors, or none of the events has one."""
    database.executemany(INSERT if with_actors else INSERT_WITHOUT_ACTOR, rows)


def forget_payload(database: apsw.Connection, position: int) -> bool:
    """Delete the payload and the salt of an event, and store its digest in their place; return whether it had them."""
    rows = database.execute("SELECT seal, payload FROM events WHERE position = ? AND payload NOTNULL", (position,))
    found = cast("list[tuple[bytes, bytes]]", rows.fetchall())
    for salt, payload in found:
        database.execute(
            "UPDATE events SET seal = ?, payload = NULL WHERE position = ?", (hash_payload(salt, payload), position)
        )
    return bool(found)


def mark_purged(database: apsw.Connection, stream: int) -> None:
    """Make a stream unknown; its events are still there."""
    database.execute("UPDATE streams SET purged = 1 WHERE number = ?", (stream,))


def purge_some(database: apsw.Connection, hash_names: Callable[[list[Name]], list[int]], limit: int) -> bool:
    """Delete up to `limit` events of purged streams, with their ids; return whether there may be more.

    Args:
        database: The connection, within a transaction.
        hash_names: Returns the keys of names in the index of ids.
        limit: The number of events.
    """
    rows = database.execute("SELECT number, record FROM streams WHERE purged LIMIT 1").fetchall()
    if not rows:
        return False
    (number, model, *_), _ = _parse_record(*cast("tuple[int, bytes]", rows[0]))
    sql = "SELECT position, id FROM events WHERE position BETWEEN ? AND ? LIMIT ?"
    bindings = (*_positions_after(number, 0), limit)
    events = cast("list[tuple[int, bytes]]", database.execute(sql, bindings).fetchall())
    positions = [position for position, _ in events]
    pairs = zip(hash_names([(model, id_) for _, id_ in events]), positions, strict=True)
    database.executemany("DELETE FROM ids WHERE key = ? AND position = ?", pairs)
    database.executemany("DELETE FROM events WHERE position = ?", [(position,) for position in positions])
    if not events:
        database.execute("DELETE FROM streams WHERE number = ?", (number,))
    return True


def _event(database: apsw.Connection, place: str = SEQ) -> str:
    """Return the columns of an Event, or of a Row without its seal if `place` is the position."""
    return f"{place}, kind, id, time_ms, payload, hash, {_actor(database)}"


def _actor(database: apsw.Connection) -> str:
    """Return the column of the actor, or an empty one in its place."""
    return "actor" if has_actors(database) else "x''"


def _parse_record(number: int, record: bytes) -> tuple[Stream, list[int]]:
    """Return a stream, and its class_epoch, n_classes and epoch."""
    own, model, version, genesis, n_classes_first, changed = orjson.loads(strip_checksum(record))
    if own != number:
        raise LogDamagedError("the record of a stream in the feedback log is damaged; restore a backup")
    return Stream(number, model, version, bytes.fromhex(genesis), n_classes_first), changed


def _positions_after(stream: int, after: int) -> tuple[int, int]:
    """Return the first and the last position that an event of a stream after a seq can have."""
    return stream << SEQ_BITS | after + 1, stream << SEQ_BITS | SEQ_MAX
