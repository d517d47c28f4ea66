"""Random histories are copied from SQLite to PostgreSQL and back, with interruptions, to equal bytes."""

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from service.errors import LogDamagedError, LogUnavailableError, LogUnsafeError
from service.store.log import log_copy, tables
from service.store.log.audit import audit_log
from service.store.log.feedback_log import FeedbackLog
from service.store.log.log_copy import CopyResult, LogContents, LogTarget, copy_log
from service.store.log.postgres import PostgresLog
from service.store.log.postgres_connection import PostgresConnection
from service.store.log.postgres_copy import PostgresTarget, read_postgres
from service.store.log.postgres_schema import create_schema
from service.store.log.postgres_values import Statement
from service.store.log.sqlite import SqliteLog
from service.store.log.sqlite_copy import SqliteTarget, read_sqlite
from tests.support.budgets import examples
from tests.support.feedback_log_contract import GENESIS, feedback, forget
from tests.support.log_machine import LogMachine
from tests.support.postgres_servers import PostgresCluster


def connect(address: str) -> PostgresConnection:
    """Return a connection to a single server."""
    return PostgresConnection(address, copies=1, seconds=30.0)


@contextmanager
def database_contents(address: str) -> Iterator[LogContents]:
    """Provide what is in a database."""
    with closing(connect(address)) as connection, read_postgres(connection) as contents:
        yield contents


def everything(contents: LogContents) -> tuple[object, ...]:
    """Return all bytes of a log."""
    heads = contents.read_heads()
    return contents.secret, heads, [contents.read_links(head.stream.number, 0, 9999) for head in heads]


def copy_all(source: LogContents, target: LogTarget) -> CopyResult:
    """Copy a log, and return the outcome."""
    result = CopyResult()
    list(copy_log(source, target, result))
    return result


def empty_database(cluster: PostgresCluster, address: str) -> None:
    """Delete the log of a database."""
    name = address.rpartition("/")[2]
    cluster.execute("TRUNCATE streams, events RESTART IDENTITY", database=name)
    cluster.execute("DELETE FROM facts WHERE name = 'migration'", database=name)


class CopyMachine(LogMachine):
    """A log in SQLite, a part of which is copied now and then, while its events are added and forgotten."""

    cluster: PostgresCluster
    address: str

    def open_first(self) -> FeedbackLog:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "log.sqlite"
        self.copy = Path(self.folder.name) / "copy.sqlite"
        empty_database(self.cluster, self.address)
        return SqliteLog(self.path)

    @rule(steps=st.integers(1, 6))
    def copy_a_part(self, steps: int) -> None:
        """An interrupted copy is no log, and the next one continues it; one that is finished begins again."""
        with read_sqlite(self.path) as source, closing(connect(self.address)) as connection:
            copying = copy_log(source, PostgresTarget(connection), CopyResult())
            if len(list(islice(copying, steps))) < steps:
                empty_database(self.cluster, self.address)
                return
            with closing(PostgresLog(self.address, copies=1)) as log:
                assert log.list_streams() == []
                with pytest.raises(LogUnsafeError, match="interrupted"):
                    log.begin()
            list(islice(copy_log(source, SqliteTarget(self.copy), CopyResult()), steps - 1))

    def end(self) -> None:
        with read_sqlite(self.path) as source, closing(connect(self.address)) as connection:
            copy_all(source, PostgresTarget(connection))
            wanted = everything(source)
            copy_all(source, SqliteTarget(self.copy))
        with database_contents(self.address) as source:
            assert everything(source) == wanted
            back = SqliteTarget(self.path.with_name("back.sqlite"))
            copy_all(source, back)
            back.close()
        copies: list[FeedbackLog] = [PostgresLog(self.address, copies=1)]
        for path in (self.path.with_name("back.sqlite"), self.copy):
            with read_sqlite(path) as contents:
                assert everything(contents) == wanted
            copies.append(SqliteLog(path))
        for log in copies:
            list(audit_log(log, 7))
            log.close()
        self.folder.cleanup()


def test_copies_are_equal(postgres_server: PostgresCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Payloads, seals, hashes, actors and heads are those of the source, however often the copy was interrupted."""
    monkeypatch.setattr(log_copy, "COPY_EVENTS", 2)
    address = postgres_server.make_database(create_schema)
    parts = {"cluster": postgres_server, "address": address}
    run_state_machine_as_test(
        type("Machine", (CopyMachine,), parts),
        settings=settings(max_examples=examples(60), stateful_step_count=30, deadline=None),
    )
    postgres_server.drop_database(address)


def test_a_database_with_other_events_is_refused(address: str, path: Path) -> None:
    """Its events stay; streams without events are replaced, and numbers are never given twice."""
    with closing(SqliteLog(path)) as log, closing(PostgresLog(address, copies=1)) as other:
        stream = log.open_stream("iris", 1, GENESIS, 3)
        log.append([feedback(stream, "a"), feedback(stream, "b")])
        used = other.open_stream("iris", 1, bytes(32), 3)
        other.open_stream("iris", 2, GENESIS, 3)
        with read_sqlite(path) as source, closing(connect(address)) as connection:
            copy_all(source, PostgresTarget(connection))
            assert other.list_streams() == [stream]
            assert used != stream
            assert other.open_stream("iris", 3, GENESIS, 3).number == 4
            with pytest.raises(LogUnavailableError, match="other events"):
                copy_all(source, PostgresTarget(connection))
        assert [event.id for event in other.read_events(stream.number, 0, 9)] == [b"a", b"b"]
        assert other.find_ids("iris", [b"b"])[b"b"].seq == 2


def test_another_source_begins_again(address: str, path: Path) -> None:
    """A copy that does not continue the source is dropped, also if its streams are the same ones."""
    with closing(SqliteLog(path)) as log, closing(connect(address)) as connection:
        stream = log.open_stream("iris", 1, GENESIS, 3)
        targets = [PostgresTarget(connection), SqliteTarget(path.with_name("copy"))]
        log.append([feedback(stream, "a")])
        with read_sqlite(path) as source:
            for target in targets:
                next(copy_log(source, target, CopyResult()))
            secret = source.secret
        path.unlink()
    with closing(SqliteLog(path)) as log:
        other = log.open_stream("iris", 1, GENESIS, 3)
        log.append([feedback(other, "x")])
        # Only the secret tells the logs apart then; no public method sets it.
        with log._connection.write_transaction() as database:
            tables.write_secret(database, secret)
        with read_sqlite(path) as source:
            for target in targets:
                assert copy_all(source, target).continued == 0
                assert target.read_copied(1, 0, 9) == source.read_links(1, 0, 9)


def test_a_damaged_event_is_not_copied(address: str, path: Path) -> None:
    """Damage of the source, and of what was copied, is found before the copy is a log."""
    with closing(SqliteLog(path)) as log, closing(connect(address)) as connection:
        stream = log.open_stream("iris", 1, GENESIS, 3)
        log.append([feedback(stream, name) for name in "abc"])
        log.append([forget(stream, "f", "b")])
        with read_sqlite(path) as source:
            next(copy_log(source, PostgresTarget(connection), CopyResult()))
            connection.query(Statement(b"UPDATE events SET time_ms = 0 WHERE kind = 1"))
            with pytest.raises(LogDamagedError, match="event 1 "):
                copy_all(source, PostgresTarget(connection))
        # Damage the database through the log's own connection; its public methods cannot.
        with log._connection.write_transaction() as database:
            database.execute("UPDATE events SET id = x'00' WHERE kind = 3")
        with read_sqlite(path) as source, pytest.raises(LogDamagedError, match="event 4 "):
            copy_all(source, SqliteTarget(path.with_name("copy")))
