"""The log in one SQLite file, the embedded default: `log.sqlite`, its `-wal` and its `-shm`.

    table    holds                                            key
    streams  every stream and what its admin events changed   number, never given again
    events   every event                                      position = stream << 40 | seq, so each stream only grows
    ids      8 bytes of each id's keyed hash, and its place   (key, position); the event itself decides what is equal
    facts    the key of that hash

    seal     the salt of an event's digest, or the digest itself where payload is NULL: it was forgotten
"""

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

import apsw

from service.errors import LogDamagedError, LogFullError, LogUnavailableError, OutcomeUnknownError, StreamGoneError
from service.store.admission import Batch, Head, Known, Names, Row, names_in, salts_for
from service.store.chain import Link, check_chain
from service.store.database import (
    WAL_FRAME_BYTES,
    close_quietly,
    open_database,
    rewrite,
    transaction,
    translated,
)
from service.store.feedback import (
    SEQ_MAX,
    Accepted,
    Draft,
    Event,
    Kind,
    Outcome,
    Position,
    Stream,
    StreamState,
    digest,
)
from service.store.filesystem import free_bytes, sync_folder
from service.store.idindex import IdIndex
from service.store.lineage import Turn, turn_of

SCHEMA: Final = """
CREATE TABLE streams(
  number INTEGER PRIMARY KEY AUTOINCREMENT, model TEXT NOT NULL, version INTEGER NOT NULL, genesis BLOB NOT NULL,
  n_classes_first INTEGER NOT NULL, class_epoch INTEGER NOT NULL, n_classes INTEGER NOT NULL, epoch INTEGER NOT NULL,
  purged INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX names ON streams(model, version) WHERE NOT purged;
CREATE TABLE events(
  position INTEGER PRIMARY KEY, kind INTEGER NOT NULL, id BLOB NOT NULL, time_ms INTEGER NOT NULL, payload BLOB,
  hash BLOB NOT NULL, seal BLOB NOT NULL
) STRICT;
CREATE INDEX admin ON events(position) WHERE kind <> 1;
CREATE TABLE ids(key INTEGER NOT NULL, position INTEGER NOT NULL, PRIMARY KEY(key, position)) STRICT, WITHOUT ROWID;
CREATE TABLE slices(slice INTEGER PRIMARY KEY, cover BLOB NOT NULL) STRICT;
CREATE TABLE facts(name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO facts VALUES('secret', randomblob(16));
"""
SEQ_BITS: Final = 40
EVENT: Final = f"position & {SEQ_MAX}, kind, id, time_ms, payload, hash"


class Generation(Protocol):
    """A whole number that all processes of a service see: how often the disk has failed one of them."""

    def get(self) -> int:
        """The number now."""

    def set(self, value: int) -> None:
        """Makes all processes open their logs again before they go on."""


class SqliteLog:
    """A `FeedbackLog` in a file. One thread at a time uses an object; each process, and each thread, has its own."""

    def __init__(self, path: Path, reserve: int=0, vfs=None) -> None:
        self.path = path
        self._vfs = vfs
        self._db = open_database(path, SCHEMA, vfs)
        self._wal_frames = 0
        self._db.set_wal_hook(self._committed)
        (secret,), = self._db.execute("SELECT value FROM facts WHERE name='secret'")
        self._index = IdIndex(secret)
        self._version = None
        self._hd={}

    def _committed(self, _db, _name, frames):
        self._wal_frames = frames
        return apsw.SQLITE_OK

    def open_stream(self, model, version, genesis, n_classes):
        db = self._db
        with transaction(db):
            db.execute("INSERT INTO streams VALUES(NULL,?,?,?,?,0,?,0,0) ON CONFLICT DO NOTHING", (model, version, genesis, n_classes, n_classes))
        return next(s for s in self.streams() if s[1:3] == (model, version))

    def streams(self):
        return [Stream(*r) for r in self._db.execute("SELECT number, model, version, genesis, n_classes_first FROM streams WHERE NOT purged ORDER BY number")]

    def _heads(self, db):
        if self._version==(v:=db.pragma("data_version")): return self._hd
        heads = {}
        for n in [s.number for s in self.streams()]:
            row = db.execute("SELECT number, model, version, genesis, n_classes_first, class_epoch, n_classes, epoch FROM streams WHERE number=? AND NOT purged", (n,)).fetchone()
            if row:
                s = Stream(*row[:5])
                last = db.execute("SELECT position, hash FROM events WHERE position BETWEEN ? AND ? ORDER BY position DESC LIMIT 1", (n << 40, (n << 40) | SEQ_MAX)).fetchone()
                heads[n] = Head(s, last[0] & SEQ_MAX if last else 0, last[1] if last else s.genesis, *row[5:])
        self._index.catch_up(db, {k:h.stream.model for k,h in heads.items()})
        self._version=v; self._hd=heads
        return heads

    def append(self, drafts):
        db = self._db
        with transaction(db):
            heads = self._heads(db)
            names = names_in(drafts, heads)
            known = {}
            hits = self._index.find(db, names)
            batch = Batch(heads, known, None)
            outcomes = [batch.admit(d, s) for d, s in zip(drafts, salts_for(drafts, secrets.token_bytes))]
            db.executemany("INSERT INTO events VALUES(?,?,?,?,?,?,?)", [(r.stream << 40 | r.seq, r.kind, r.id, r.time_ms, r.payload, r.hash, r.salt) for r in batch.rows])
            f = self._index.flush(db)
        self._index.flushed(f)
        self._index.add(((heads[r.stream].stream.model, r.id), r.stream<<40|r.seq) for r in batch.rows)
        return outcomes
