"""The PostgreSQL backend passes the conformance suite in each way to append, also through a pooler of transactions."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from service.errors import LogUnavailableError, StreamGoneError
from service.store.log.events import EventLocation
from service.store.log.feedback_log import FeedbackLog
from service.store.log.postgres import PostgresLog
from service.store.log.postgres_schema import create_schema
from tests.support.feedback_log_contract import GENESIS, FeedbackLogTests, classes, feedback, forget, kinds, rollback
from tests.support.pgbouncer_server import pooled
from tests.support.postgres_servers import OWNER, PostgresCluster


@pytest.fixture(scope="module")
def database(postgres_server: PostgresCluster) -> Iterator[str]:
    """The address of a database that the tests of this file share."""
    address = postgres_server.make_database(create_schema)
    yield address
    postgres_server.drop_database(address)


@pytest.fixture(scope="module")
def pooled_address(postgres_server: PostgresCluster, database: str) -> Iterator[str]:
    """The address of that database behind PgBouncer."""
    with pooled(postgres_server) as port:
        yield postgres_server.address(database.rpartition("/")[2], port=port)


def truncate(cluster: PostgresCluster, address: str) -> None:
    """Remove all streams and events of a database."""
    cluster.execute("TRUNCATE streams, events", database=address.rpartition("/")[2])


@pytest.fixture
def log(postgres_server: PostgresCluster, database: str) -> Iterator[PostgresLog]:
    """An empty log in that database."""
    truncate(postgres_server, database)
    with contextlib.closing(PostgresLog(database, copies=1, seconds=1.0)) as log:
        yield log


class TestPostgresLog(FeedbackLogTests):
    """Every racing thread has a connection of its own."""

    optimistic = True
    prepares = False

    @pytest.fixture(autouse=True)
    def logs(self, postgres_server: PostgresCluster, database: str) -> Iterator[None]:
        """Empty the database, and close all logs of a test at its end."""
        truncate(postgres_server, database)
        self.address = database
        self.logs: list[PostgresLog] = []
        yield
        for log in self.logs:
            log.close()

    def make_log(self, folder: Path) -> FeedbackLog:  # noqa: ARG002  # it keeps no files
        self.logs.append(PostgresLog(self.address, copies=1, optimistic=self.optimistic, prepares=self.prepares))
        return self.logs[-1]

    def reopen(self, log: FeedbackLog, folder: Path) -> FeedbackLog:
        log.close()
        return self.make_log(folder)

    def racer(self, log: FeedbackLog, folder: Path) -> FeedbackLog:  # noqa: ARG002  # it connects again
        return self.make_log(folder)


class TestPostgresLogWithLocks(TestPostgresLog):
    """Every append locks its streams."""

    optimistic = False


class TestPostgresLogWithPreparedStatements(TestPostgresLog):
    """Each session prepares what it runs."""

    prepares = True


class TestPostgresLogThroughAPooler(TestPostgresLog):
    """Each transaction may run in another session."""

    @pytest.fixture(autouse=True)
    def pooled_logs(self, logs: None, pooled_address: str) -> None:  # noqa: ARG002  # after it
        self.address = pooled_address


def test_each_first_call_connects(log: PostgresLog, database: str) -> None:
    """A new object finds what others have written, whichever call is its first."""
    stream = log.open_stream("first", 1, GENESIS, 3)
    log.append([feedback(stream, "a")])
    place = EventLocation(stream.number, 1, duplicate=True)
    for call, expected in (
        (lambda log: log.find_ids("first", [b"a"]), {b"a": place}),
        (lambda log: log.append([feedback(stream, "a")]), [place]),
        (lambda log: log.last_admin_seq(stream.number), 0),
        (lambda log: log.current_lineage(stream.number).changes, []),
        (lambda log: log.moved_streams(), None),
    ):
        with contextlib.closing(PostgresLog(database, copies=1)) as other:
            assert call(other) == expected


def test_a_look_finds_commits_in_any_order(log: PostgresLog, postgres_server: PostgresCluster, database: str) -> None:
    """A transaction that began before others and commits after them is found by the look after its commit."""
    first, second = (log.open_stream("iris", version, GENESIS, 3) for version in (1, 2))
    name = database.rpartition("/")[2]
    holder = f"host={postgres_server.folder} port={postgres_server.port} user={OWNER} dbname={name}"
    with contextlib.closing(psycopg.connect(holder)) as session:
        session.execute("UPDATE streams SET moved = pg_current_xact_id() WHERE number = %s", [first.number])
        assert log.moved_streams() is None
        for n in range(3):
            log.append([feedback(second, str(n))])
            assert log.moved_streams() == {second.number}
            assert log.moved_streams() == set()
        session.commit()
        assert log.moved_streams() == {first.number}
        assert log.moved_streams() == set()
    third = log.open_stream("iris", 3, GENESIS, 3)
    assert log.moved_streams() == {third.number}
    log.purge_stream(second.number)
    log.append([feedback(third, "x")])
    assert third.number in (log.moved_streams() or ())


def test_lineages_of_all_versions_stay_in_memory(log: PostgresLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long one is read once, whichever version the next batch is for."""
    streams = [log.open_stream("iris", version, GENESIS, 3) for version in (1, 2)]
    for stream in streams:
        log.append([classes(stream, f"c{stream.number}", "x"), feedback(stream, f"a{stream.number}")])
    monkeypatch.setattr("service.store.log.postgres_append.extend_lineage", None)
    for stream in [*streams, *streams]:
        assert (
            kinds(log.append([feedback(stream, f"a{stream.number}"), rollback(stream, f"r{stream.number}", 1)]))[0] == 2
        )


def test_an_interrupted_purge_is_finished(
    log: PostgresLog, postgres_server: PostgresCluster, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids of a stream that is marked as purged are free at once, and a start deletes the rest in pieces."""
    monkeypatch.setattr("service.store.log.postgres.PURGE_EVENTS", 3)
    old, kept = (log.open_stream("purged", version, GENESIS, 3) for version in (1, 2))
    log.append([feedback(old, str(n)) for n in range(10)])
    log.append([feedback(kept, "kept")])
    with monkeypatch.context() as patch:
        patch.setattr(PostgresLog, "finish_purges", lambda _: None)
        log.purge_stream(old.number)
    assert log.list_streams() == [kept]
    with pytest.raises(StreamGoneError):
        log.read_events(old.number, 0, 9)
    again = log.open_stream("purged", 1, GENESIS, 3)
    assert kinds(log.append([feedback(again, "3"), feedback(old, "5"), feedback(kept, "7", 2.0)])) == [
        1,
        StreamGoneError,
        2,
    ]

    def count_rows() -> list[tuple[int, int]]:
        query = "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM streams)"
        return postgres_server.execute(query, database=database.rpartition("/")[2])

    assert count_rows() == [(10 - 3 + 3, 3)]
    assert not log.begin()
    assert count_rows() == [(3, 2)]
    for stream in (again, kept):
        log.purge_stream(stream.number)
    assert count_rows() == [(0, 0)]


def test_forgotten_payloads_are_erased_once_nothing_can_read_them(
    log: PostgresLog, postgres_server: PostgresCluster, database: str
) -> None:
    """An older transaction keeps them; afterwards the table's file has none of a row that others follow."""
    stream = log.open_stream("erased", 1, GENESIS, 3)
    payloads = [f"payload {n} of a row".encode() for n in range(20)]
    drafts = [feedback(stream, str(n))._replace(payload=content) for n, content in enumerate(payloads)]
    log.append(drafts)

    def in_files() -> list[bool]:
        postgres_server.execute("CHECKPOINT")
        files = [path for path in (postgres_server.data / "base").rglob("*") if path.is_file()]
        contents = b"".join(path.read_bytes() for path in files)
        return [content in contents for content in payloads]

    name = database.rpartition("/")[2]
    holder = f"host={postgres_server.folder} port={postgres_server.port} user={OWNER} dbname={name}"
    with contextlib.closing(psycopg.connect(holder)) as session:
        session.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        session.execute("SELECT count(*) FROM events")
        log.append([forget(stream, "f", "3", "7")])
        with pytest.raises(LogUnavailableError, match="older transaction"):
            log.erase_forgotten()
        assert all(in_files())
    log.erase_forgotten()
    assert in_files() == [n not in {3, 7} for n in range(20)]
    assert [event.payload for event in log.read_events(stream.number, 0, 20)] == [
        None if n in {3, 7} else content for n, content in enumerate(payloads)
    ]
