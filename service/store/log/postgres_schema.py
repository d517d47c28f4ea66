"""The tables of the feedback log in PostgreSQL. `create_schema` alone makes them; no start of the service does.

    table     contents                                                         key
    streams   each stream: what it began with, its last event, its classes     number, never reused
              and epoch; `moved` is the transaction that changed it last, and
              `artifact` has the SHA-256 of each file of its artifact
    events    every event                                                      position = stream << 40 | seq
    blobs     artifacts and checkpoints, in parts                              SHA-256 of the whole, number of the part
    states    of a state the SHA-256 of its checkpoint, which all replicas     stream, seq, hash, epoch, fold
              compare
    snapshots what learners pass on to replicas that fold nothing, in parts;   stream, file, number of the part
              not logged, so it is empty after a crash or a failover
    replicas  who serves and learns: when it was seen, and what it has         name
              reached
    facts     the secret of `id_key`, checksummed; the version of the schema;  name
              what replicas agree on (postgres_facts.py)
    audit     who changed the API keys and what is served                      number

    seal      of an event the salt of its digest; if it was forgotten, the digest itself, and payload is NULL
    actor     of an event who sent it, or nothing
    id_key    16 bytes of BLAKE2b(secret ‖ model ‖ 0 ‖ id): no id of a model is stored twice, and the index has no ids

Kinds, ids, salts and hashes are those of events.py, so a log that is moved from one backend to the other keeps its
chain. Later schemas only add to this one, and raise its version.
"""

import re
import secrets
from contextlib import suppress
from typing import Final

from service.errors import LogUnsafeError
from service.store.log.chain import add_checksum
from service.store.log.postgres_connection import BEGIN, COMMIT, PostgresConnection
from service.store.log.postgres_values import Statement

SCHEMA_VERSION: Final = b"1"
SECRET_BYTES: Final = 16
# A new index of a long log takes a while.
CREATE_SECONDS: Final = 3600.0
SELECT_VERSION: Final = Statement(b"SELECT value FROM facts WHERE name = 'schema'")
SELECT_SECRET: Final = Statement(b"SELECT value FROM facts WHERE name = 'secret'")
# Exists while a log is copied into the database (postgres_copy.py).
SELECT_MIGRATION: Final = Statement(b"SELECT value FROM facts WHERE name = 'migration'")
INSERT_FACT: Final = b"INSERT INTO facts VALUES($1::text, $2::bytea) ON CONFLICT DO NOTHING"

TABLES: Final = (
    # Half of each page is left for new versions of its rows: each append makes one.
    """
    CREATE TABLE IF NOT EXISTS streams(
      number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, model text NOT NULL, version bigint NOT NULL,
      genesis bytea NOT NULL, first_classes bigint NOT NULL, seq bigint NOT NULL DEFAULT 0, hash bytea NOT NULL,
      class_epoch bigint NOT NULL DEFAULT 0, n_classes bigint NOT NULL, epoch bigint NOT NULL DEFAULT 0,
      moved xid8 NOT NULL DEFAULT pg_current_xact_id(), purged boolean NOT NULL DEFAULT false,
      artifact bytea[] NOT NULL DEFAULT '{}'
    ) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000)
    """,
    "CREATE UNIQUE INDEX IF NOT EXISTS opened_streams ON streams(model, version) WHERE NOT purged",
    "CREATE INDEX IF NOT EXISTS moved_streams ON streams(moved)",
    """
    CREATE TABLE IF NOT EXISTS events(
      position bigint PRIMARY KEY, kind smallint NOT NULL, id bytea NOT NULL, time_ms bigint NOT NULL,
      payload bytea, hash bytea NOT NULL, seal bytea NOT NULL, actor bytea NOT NULL DEFAULT '',
      id_key uuid NOT NULL UNIQUE
    )
    """,
    # Random bytes do not get smaller, and of a large payload the start can be read alone.
    "ALTER TABLE events ALTER COLUMN payload SET STORAGE EXTERNAL",
    "CREATE INDEX IF NOT EXISTS admin_events ON events(position) WHERE kind <> 1",
    """
    CREATE TABLE IF NOT EXISTS blobs(
      hash bytea, part integer, bytes bytea NOT NULL, PRIMARY KEY(hash, part)
    )
    """,
    "ALTER TABLE blobs ALTER COLUMN bytes SET STORAGE EXTERNAL",
    """
    CREATE TABLE IF NOT EXISTS states(
      stream bigint, seq bigint, hash bytea, epoch bigint, fold integer, digest bytea NOT NULL,
      PRIMARY KEY(stream, seq, hash, epoch, fold)
    )
    """,
    # Each snapshot replaces one, and its parts go to a file beside the table.
    """
    CREATE UNLOGGED TABLE IF NOT EXISTS snapshots(
      stream bigint, file text, part integer, seq bigint, hash bytea, epoch bigint, sha256 bytea NOT NULL, base text,
      due timestamptz, bytes bytea NOT NULL, PRIMARY KEY(stream, file, part)
    ) WITH (
      autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
      toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 1000
    )
    """,
    "ALTER TABLE snapshots ALTER COLUMN bytes SET STORAGE EXTERNAL",
    "CREATE INDEX IF NOT EXISTS snapshot_heads ON snapshots(stream) WHERE file = '' AND part = 0",
    """
    CREATE TABLE IF NOT EXISTS replicas(
      name text PRIMARY KEY, seen timestamptz NOT NULL DEFAULT now(), reached jsonb NOT NULL DEFAULT '{}'
    )
    """,
    "CREATE TABLE IF NOT EXISTS facts(name text PRIMARY KEY, value bytea NOT NULL)",
    """
    CREATE TABLE IF NOT EXISTS audit(
      number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, time timestamptz NOT NULL DEFAULT clock_timestamp(),
      entry bytea NOT NULL
    )
    """,
)
# A release adds tables without another version of the schema, because older ones go on without them.
TABLE_NAMES: Final = re.findall(r"TABLE IF NOT EXISTS (\w+)", "".join(TABLES))
HAS_TABLES: Final = Statement(
    f"SELECT {' AND '.join(f'to_regclass({name!r}) IS NOT NULL' for name in TABLE_NAMES)}".encode()
)
# A plan that was made while a table was empty reads all of it later; plans of short statements need no compiler. A
# process that stops within a transaction does not make others wait. A session whose client has closed the socket at its
# deadline ends while it waits for a lock, so that retries do not use up the connections.
ROLE_SETTINGS: Final = {
    "enable_seqscan": "off",
    "jit": "off",
    "idle_in_transaction_session_timeout": "1s",
    "client_connection_check_interval": "1s",
    "synchronous_commit": "on",
}


def create_schema(address: str) -> None:
    """Create the tables of a log that are missing, and the settings of the role that uses them.

    Args:
        address: The URI of the database, with the role of the service, which owns the tables then.

    Raises:
        LogUnsafeError: The database has a log of another release.
        LogError: The database cannot be reached or refuses.
    """
    connection = PostgresConnection(address, copies=None, seconds=CREATE_SECONDS)
    facts = {"secret": add_checksum(secrets.token_bytes(SECRET_BYTES)), "schema": SCHEMA_VERSION}
    settings = [f"ALTER ROLE CURRENT_USER SET {name} = '{value}'" for name, value in ROLE_SETTINGS.items()]
    statements = [Statement(sql.encode()) for sql in (*TABLES, *settings)]
    inserts = [Statement(INSERT_FACT, (name.encode(), value)) for name, value in facts.items()]
    try:
        with connection.call():
            connection.run(BEGIN, *statements, *inserts, COMMIT)
            _check_version(connection)
    finally:
        connection.close()


def has_schema(address: str) -> bool:
    """Return whether a database has the tables of this release already.

    Raises:
        LogError: The database cannot be reached or refuses.
    """
    connection = PostgresConnection(address, copies=None, seconds=CREATE_SECONDS)
    try:
        with connection.call(), suppress(LogUnsafeError):
            _check_version(connection)
            return connection.query(HAS_TABLES) == [(True,)]
    finally:
        connection.close()
    return False


def check_schema(connection: PostgresConnection) -> None:
    """Check that a database has a complete log with the schema of this release.

    Raises:
        LogUnsafeError: It has none, that of another release, or a part of a log that is copied into it.
        LogError: The database cannot be reached or refuses.
    """
    _check_version(connection)
    if connection.query(SELECT_MIGRATION):
        raise LogUnsafeError("a migration into the database was interrupted; run the same `softstep migrate` again")


def _check_version(connection: PostgresConnection) -> None:
    if connection.query(SELECT_VERSION) != [(SCHEMA_VERSION,)]:
        raise LogUnsafeError("the database has a feedback log of another release; run `softstep migrate` of this one")
