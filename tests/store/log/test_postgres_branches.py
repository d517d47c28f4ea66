"""A log in PostgreSQL that is on another branch of history after a failover is read and written as it is there."""

from collections.abc import Iterator

import pytest
from psycopg import sql

from service.chain_errors import LogEndsEarlierError, LogForkedError
from service.errors import StreamGoneError
from service.store.log.events import EventLocation, Kind, Position
from service.store.log.feedback_log import read_event, read_lineage
from service.store.log.postgres import PostgresLog
from service.store.log.postgres_schema import create_schema
from tests.support.feedback_log_contract import (
    GENESIS,
    classes,
    correction,
    feedback,
    forget,
    kinds,
    rollback,
)
from tests.support.postgres_servers import PostgresCluster


class Branches:
    """A database, and a copy of an earlier moment that can take its place."""

    def __init__(self, cluster: PostgresCluster, *, optimistic: bool) -> None:
        self.cluster = cluster
        self.address = cluster.make_database(create_schema)
        self.name = self.address.rpartition("/")[2]
        self.log = PostgresLog(self.address, copies=1, optimistic=optimistic)

    def run(self, statement: str, **names: str) -> None:
        """Run a statement with the names of databases in it, which no session uses."""
        for name in names.values():
            self.cluster.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", name
            )
        identifiers = {key: sql.Identifier(name) for key, name in names.items()}
        self.cluster.execute(sql.SQL(statement).format(**identifiers))

    def keep_copy(self) -> None:
        """Copy the database."""
        self.run("CREATE DATABASE {copy} TEMPLATE {name} OWNER softstep", copy=f"{self.name}_copy", name=self.name)

    def fail_over(self) -> None:
        """Let the copy take the database's place."""
        self.run("DROP DATABASE {name}", name=self.name)
        self.run("ALTER DATABASE {copy} RENAME TO {name}", copy=f"{self.name}_copy", name=self.name)


@pytest.fixture(params=[True, False], ids=["optimistic", "locked"])
def branches(postgres_server: PostgresCluster, request: pytest.FixtureRequest) -> Iterator[Branches]:
    branches = Branches(postgres_server, optimistic=request.param)
    yield branches
    branches.log.close()
    postgres_server.drop_database(branches.address)


def test_appends_continue_on_the_branch_of_now(branches: Branches) -> None:
    """What is in memory of the lost events decides nothing: heads, classes, and what has removed an event."""
    log = branches.log
    stream = log.open_stream("iris", 1, GENESIS, 3)
    log.append([feedback(stream, name) for name in "abc"])
    branches.keep_copy()
    log.append([feedback(stream, "d"), classes(stream, "k", "x"), forget(stream, "f", "a"), rollback(stream, "r", 2)])
    assert log.append([feedback(stream, "a")]) == [EventLocation(stream.number, 1, True, Kind.FORGET)]
    assert log.stream_state(stream.number)[2:] == (7, 3, 1)
    branches.fail_over()
    assert log.append([feedback(stream, "e")]) == [EventLocation(stream.number, 4)]
    places = [EventLocation(stream.number, seq, duplicate=True) for seq in (1, 3)]
    assert log.append([feedback(stream, "a"), feedback(stream, "c")]) == places
    assert log.find_ids("iris", [b"a", b"c", b"d"]) == dict(zip((b"a", b"c"), places, strict=True))
    assert kinds(log.append([correction(stream, "x", 1), feedback(stream, "f"), feedback(stream, "d")])) == [5, 6, 7]
    assert log.stream_state(stream.number)[2:] == (0, 3, 0)
    assert [seq for seq, _ in log.verify_chain(stream.number, Position(0, GENESIS), 99)] == [7]


def test_a_lineage_is_read_again(branches: Branches) -> None:
    """It is that of the branch of now, also if that has become longer than the lost one was."""
    log = branches.log
    stream = log.open_stream("iris", 1, GENESIS, 3)
    log.append([feedback(stream, "a"), rollback(stream, "r", 0), feedback(stream, "b")])
    branches.keep_copy()
    log.append([rollback(stream, "s", 1), classes(stream, "k", "x")])
    lost = log.current_lineage(stream.number).segments(9)
    for drafts in ([], [feedback(stream, name) for name in "cdefgh"], [rollback(stream, "t", 3)]):
        if not drafts:
            branches.fail_over()
        log.append(drafts)
        lineage = log.current_lineage(stream.number)
        assert lineage.segments(9) == read_lineage(log, stream.number).segments(9) != lost


def test_a_reader_knows_another_branch(branches: Branches) -> None:
    log = branches.log
    stream = log.open_stream("iris", 1, GENESIS, 3)
    log.append([feedback(stream, name) for name in "ab"])
    branches.keep_copy()
    log.append([feedback(stream, name) for name in "cd"])
    positions = [Position(event.seq, event.hash) for event in log.read_events(stream.number, 0, 9)]
    assert log.moved_streams() is None
    assert log.moved_streams() == set()
    branches.fail_over()
    assert log.moved_streams() is None
    assert log.moved_streams() == set()
    assert log.read_checked(stream.number, positions[1], 9) == []
    for position in positions[2:]:
        with pytest.raises(LogEndsEarlierError):
            log.read_checked(stream.number, position, 9)
    log.append([feedback(stream, "e")])
    with pytest.raises(LogForkedError):
        log.read_checked(stream.number, positions[2], 9)
    with pytest.raises(LogEndsEarlierError):
        log.read_checked(stream.number, positions[3], 9)
    assert log.read_checked(stream.number, positions[1], 9) == [read_event(log, stream.number, 3)]
    assert log.moved_streams() == {stream.number}


def test_a_number_may_be_that_of_another_stream(branches: Branches) -> None:
    """An append for the stream that is lost writes nothing to the one that has its number now."""
    log = branches.log
    log.open_stream("other", 1, GENESIS, 3)
    branches.keep_copy()
    stream = log.open_stream("iris", 1, GENESIS, 3)
    log.append([feedback(stream, "a")])
    branches.fail_over()
    # The sequence of numbers is where it was when the copy was made.
    taken = PostgresLog(branches.address, copies=1)
    other = taken.open_stream("other", 2, GENESIS, 3)
    assert other.number == stream.number
    taken.append([feedback(other, "b")])
    outcomes = log.append([feedback(stream, "b"), feedback(stream, "c")])
    assert list(map(type, outcomes)) == [StreamGoneError, StreamGoneError]
    assert taken.stream_state(other.number).seq == 1
    taken.close()
    assert log.find_ids("iris", [b"b"]) == {}
    again = log.open_stream("iris", 1, GENESIS, 3)
    assert log.append([feedback(again, "c")]) == [EventLocation(again.number, 1)]
    assert log.open_stream("other", 2, GENESIS, 3) == other
    assert log.append([feedback(other, "b"), feedback(other, "c")]) == [
        EventLocation(other.number, 1, duplicate=True),
        EventLocation(other.number, 2),
    ]


def test_a_stream_may_be_lost_before_its_first_event(branches: Branches) -> None:
    """Nothing was appended to it, and still its number is known to be its own."""
    log = branches.log
    branches.keep_copy()
    stream = log.open_stream("iris", 1, GENESIS, 3)
    branches.fail_over()
    taken = PostgresLog(branches.address, copies=1)
    other = taken.open_stream("other", 2, GENESIS, 3)
    assert other.number == stream.number
    (outcome,) = log.append([feedback(stream, "a")])
    assert isinstance(outcome, StreamGoneError)
    assert taken.stream_state(other.number).seq == 0
    taken.close()
