"""Calls of a log in PostgreSQL end at their deadlines, without cancel requests; broken connections are made again."""

import contextlib
import traceback
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from random import Random
from typing import Any

import psycopg
import pytest

from service.errors import LogError, LogUnavailableError, LogUnsafeError, OutcomeUnknownError
from service.logs import format_exception
from service.store.log import postgres_connection
from service.store.log.postgres import PostgresLog
from service.store.log.postgres_append import PostgresAppender
from service.store.log.postgres_connection import PostgresConnection
from service.store.log.postgres_schema import create_schema
from tests.support.feedback_log_contract import GENESIS, classes, feedback, forget, kinds, rollback
from tests.support.lost_answers import losing_answer
from tests.support.postgres_servers import OWNER, PASSWORD, ROLE, PostgresCluster
from tests.support.set_clock import SetClock
from tests.support.tcp_relay import TcpRelay
from tests.support.waiting import wait_until

SECONDS = 0.5


class Rig:
    """A log behind a relay, and another that reaches the server directly."""

    def __init__(self, cluster: PostgresCluster, relay: TcpRelay, *, optimistic: bool) -> None:
        self.cluster, self.relay = cluster, relay
        self.database = cluster.make_database(create_schema)
        self.name = self.database.rpartition("/")[2]
        address = cluster.address(self.name, port=relay.port)
        self.log = PostgresLog(address, copies=1, seconds=SECONDS, optimistic=optimistic)
        self.direct = PostgresLog(self.database, copies=1, optimistic=optimistic)
        self.stream = self.log.open_stream("iris", 1, GENESIS, 3)
        self.log.append([feedback(self.stream, "first")])

    def ids(self) -> list[bytes]:
        """Return the ids of all events."""
        return [event.id for event in self.direct.read_events(self.stream.number, 0, 99)]

    def sessions(self) -> list[int]:
        """Return the sessions of the role."""
        query = "SELECT pid FROM pg_stat_activity WHERE datname = %s AND usename = %s"
        return [pid for (pid,) in self.cluster.execute(query, self.name, ROLE)]

    def terminate_sessions(self) -> None:
        """End the sessions of the role, and wait until they have ended."""
        for pid in self.sessions():
            self.cluster.execute("SELECT pg_terminate_backend(%s, 5000)", pid)


@pytest.fixture(params=[True, False], ids=["optimistic", "locked"])
def rig(postgres_server: PostgresCluster, request: pytest.FixtureRequest) -> Iterator[Rig]:
    with TcpRelay(("127.0.0.1", postgres_server.port)).running() as relay:
        rig = Rig(postgres_server, relay, optimistic=request.param)
        yield rig
        for log in (rig.log, rig.direct):
            log.close()
        postgres_server.drop_database(rig.database)


def test_a_call_ends_at_its_deadline(rig: Rig) -> None:
    """The socket is closed and no cancel request is sent, which would be a second connection."""
    rig.relay.stall()
    with pytest.raises((OutcomeUnknownError, LogUnavailableError)):
        rig.log.append([feedback(rig.stream, "stalled")])
    assert rig.relay.connections == 1
    rig.relay.resume()
    retry = kinds(rig.log.append([feedback(rig.stream, "stalled")]))
    assert retry == [2]
    assert rig.ids() == [b"first", b"stalled"]
    assert "canceling statement due to user request" not in rig.cluster.log.read_text()


def test_reads_end_at_their_deadline(rig: Rig) -> None:
    calls = [
        rig.log.list_streams,
        lambda: rig.log.stream_state(rig.stream.number),
        lambda: rig.log.read_events(rig.stream.number, 0, 9),
        rig.log.moved_streams,
    ]
    for call in calls:
        call()
        rig.relay.stall()
        with pytest.raises(LogUnavailableError):
            call()
        rig.relay.resume()


def test_a_server_that_stops_is_waited_for_until_the_deadline(rig: Rig) -> None:
    rig.direct.close()
    wait_until(lambda: len(rig.sessions()) == 1)
    with rig.cluster.paused(f"{ROLE} {rig.name}"), pytest.raises((OutcomeUnknownError, LogUnavailableError)):
        rig.log.append([feedback(rig.stream, "stopped")])
    assert kinds(rig.log.append([feedback(rig.stream, "stopped")])) == [2]
    assert rig.ids() == [b"first", b"stopped"]


def test_a_connection_is_made_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between attempts calls fail at once."""
    rig.relay.cut()
    with pytest.raises(LogError):
        rig.log.append([feedback(rig.stream, "cut")])
    # Longer than this test takes.
    monkeypatch.setattr(rig.log._connection, "_pause", 60.0)
    for _ in range(5):
        with pytest.raises(LogUnavailableError):
            rig.log.stream_state(rig.stream.number)
    assert rig.relay.connections == 2
    rig.relay.mend()
    # As if the pause were over.
    monkeypatch.setattr(rig.log._connection, "_retry_at", 0.0)
    assert rig.log.stream_state(rig.stream.number).seq == 1
    assert kinds(rig.log.append([feedback(rig.stream, "cut")])) == [2]


def test_pauses_between_attempts_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """They double, and differ between processes."""
    now, pauses = 1000.0, []
    monkeypatch.setattr(postgres_connection.time, "monotonic", lambda: now)
    log = PostgresLog("postgresql://127.0.0.1:1/none")
    for _ in range(8):
        with pytest.raises(LogUnavailableError):
            log.list_streams()
        # The next attempt would come then; a test that waits for it would depend on the clock.
        pauses.append(log._connection._retry_at - now)
        now = log._connection._retry_at
    limits = [0.05, 0.1, 0.2, 0.4, *[0.5] * 4]
    assert all(limit / 2 - 1e-6 <= pause <= limit + 1e-6 for pause, limit in zip(pauses, limits, strict=True))
    assert len(set(pauses[4:])) == 4


def test_many_logs_do_not_connect_in_one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty logs lose their server at once and are called all the time: their attempts soon spread over the pause.

    All try in the first moment, and learn that the server is away. Later none tries twice within half a pause, and no
    tenth of a second has half of their attempts.
    """
    clock, logs, steps = SetClock(), 50, 400
    monkeypatch.setattr(postgres_connection, "time", clock)
    monkeypatch.setattr(postgres_connection, "_random", Random(7))
    attempts: list[list[float]] = [[] for _ in range(logs)]
    made = [PostgresLog("postgresql://127.0.0.1:1/none") for _ in range(logs)]

    def refuse(connection: PostgresConnection) -> None:
        at = next(number for number, log in enumerate(made) if log._connection is connection)  # whose attempt it is
        attempts[at].append(clock.now)
        raise OSError

    monkeypatch.setattr(PostgresConnection, "_connect", refuse)
    for _ in range(steps):
        for log in made:
            with pytest.raises(LogUnavailableError):
                log.list_streams()
        clock.now += 0.02
    longest, begin = postgres_connection.LONGEST_PAUSE, 100.0
    for times in attempts:
        gaps = [after - before for before, after in pairwise(times) if before > begin + 2]
        assert all(longest / 2 - 0.001 <= gap <= longest + 0.03 for gap in gaps)
    moments = Counter(int((time - begin) / 0.1) for times in attempts for time in times)
    assert all(times[0] == begin for times in attempts)
    assert max(count for moment, count in moments.items() if moment >= 20) <= logs / 2


def test_a_session_that_has_ended_is_noticed(rig: Rig) -> None:
    """A server that was restarted meanwhile costs no call."""
    rig.terminate_sessions()
    assert rig.log.stream_state(rig.stream.number).seq == 1
    rig.terminate_sessions()
    assert kinds(rig.log.append([feedback(rig.stream, "a")])) == [2]
    assert rig.direct.moved_streams() is None


def test_a_transaction_that_has_ended_is_not_continued(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch whose locks are lost is not written in another session."""
    compare = PostgresAppender._compare_streams  # the first step within a transaction

    def interrupted(appender: PostgresAppender, *arguments: Any) -> None:
        rig.terminate_sessions()
        compare(appender, *arguments)

    monkeypatch.setattr(PostgresAppender, "_compare_streams", interrupted)
    drafts = [feedback(rig.stream, "a"), forget(rig.stream, "f", "first")]
    with pytest.raises(LogUnavailableError):
        rig.log.append(drafts)
    monkeypatch.undo()
    assert rig.ids() == [b"first"]
    assert kinds(rig.log.append(drafts)) == [2, 3]


@pytest.mark.parametrize("is_sent", [True, False])
def test_a_batch_whose_commit_was_lost_leaves_nothing_in_memory(rig: Rig, *, is_sent: bool) -> None:
    """The next batch finds the events and classes of the log, whether it was committed or not."""
    rig.log.append([classes(rig.stream, "k", "x")])
    lost = [classes(rig.stream, "l", "y", "z"), rollback(rig.stream, "r", 2)]
    with losing_answer(1, is_sent=is_sent), pytest.raises(OutcomeUnknownError):
        rig.log.append(lost)
    seq = 2 + 2 * is_sent
    assert kinds(rig.log.append([classes(rig.stream, "m", "w")])) == [seq + 1]
    assert rig.direct.stream_state(rig.stream.number)[2:] == (seq + 1, 5, 0)
    assert kinds(rig.log.append([rollback(rig.stream, "s", seq), feedback(rig.stream, "b")])) == [seq + 2, seq + 3]
    assert rig.direct.stream_state(rig.stream.number)[2:] == (seq + 2, 4, 0)
    assert kinds(rig.log.append(lost)) == ([3, 4] if is_sent else [6, 7])


def test_a_session_of_a_call_that_has_ended_ends_too(rig: Rig) -> None:
    """Else calls that wait for a lock in vain would use up the server's connections."""
    holder = f"host={rig.cluster.folder} port={rig.cluster.port} user={OWNER} dbname={rig.name}"
    with contextlib.closing(psycopg.connect(holder)) as session:
        session.execute("SELECT number FROM streams FOR UPDATE")
        for _ in range(3):
            with pytest.raises((OutcomeUnknownError, LogUnavailableError)):
                rig.log.append([feedback(rig.stream, "a")])
        rig.direct.close()
        wait_until(lambda: rig.sessions() == [])
    assert kinds(rig.log.append([feedback(rig.stream, "a")])) == [2]


def test_a_database_that_takes_no_writes_is_not_used(rig: Rig) -> None:
    """So a standby is neither read nor written."""
    rig.cluster.execute(f"ALTER DATABASE {rig.name} SET default_transaction_read_only = on")
    rig.log.close()
    with pytest.raises(LogUnavailableError):
        rig.log.list_streams()


def test_the_first_server_that_takes_connections_is_used(rig: Rig) -> None:
    both = rig.database.replace("127.0.0.1:", f"127.0.0.1:1,127.0.0.1:{rig.relay.port},127.0.0.1:")
    rig.relay.stall()
    log = PostgresLog(both, copies=1, seconds=3 * SECONDS)
    assert log.list_streams() == [rig.stream]
    log.close()


def test_a_database_without_a_log_is_refused(postgres_server: PostgresCluster) -> None:
    """No call but `create_schema` makes tables, and a log of another release is not used."""
    address = postgres_server.make_database()
    log = PostgresLog(address, copies=1)
    for call in (log.begin, log.list_streams, log.moved_streams, lambda: log.open_stream("m", 1, GENESIS, 3)):
        with pytest.raises(LogUnsafeError, match="softstep migrate"):
            call()
    create_schema(address)
    assert not log.begin()
    name = address.rpartition("/")[2]
    postgres_server.execute("UPDATE facts SET value = '2' WHERE name = 'schema'", database=name)
    for call in (log.begin, lambda: create_schema(address)):
        with pytest.raises(LogUnsafeError, match="softstep migrate"):
            call()
    log.close()
    postgres_server.drop_database(address)


@pytest.mark.parametrize(
    "address",
    [
        f"postgresql://softstep:{PASSWORD}@127.0.0.1:1/log",
        f"postgresql://softstep:{PASSWORD}@no-such-host.invalid/log",
        f"postgresql://softstep:{PASSWORD}@[127.0.0.1:1/log",
        f"postgresql://softstep:{PASSWORD}@127.0.0.1:port/log",
        f"postgresql://softstep@127.0.0.1:1/log?pasword={PASSWORD}",
        f"postgresql://softstep:{PASSWORD}%@127.0.0.1:1/log",
        f"postgresql://softstep:{PASSWORD}\0@127.0.0.1:1/log",
        f"{PASSWORD}",
    ],
)
def test_no_error_has_the_password(address: str) -> None:
    with pytest.raises(LogError) as caught:
        PostgresLog(address).list_streams()
    texts = [str(caught.value), repr(caught.value), format_exception(caught.value)]
    assert not [text for text in texts if PASSWORD in text or "127.0.0.1" in text or "no-such-host" in text]
    assert PASSWORD not in "".join(traceback.format_exception(caught.value)).replace(address, "")


def test_no_error_has_a_value(rig: Rig) -> None:
    """The server's own message of a refusal has one."""
    rig.cluster.execute("ALTER TABLE events ADD CHECK(length(id) < 40)", database=rig.name)
    name = "x" * 40
    with pytest.raises(LogUnavailableError) as caught:
        rig.log.append([feedback(rig.stream, name)])
    assert name not in format_exception(caught.value)
    assert "23514" in str(caught.value)
    assert kinds(rig.log.append([feedback(rig.stream, "a")])) == [2]
