"""Small shares of the campaigns on PostgreSQL servers, proofs that their checkers can fail, and returning servers."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing

import psycopg
import pytest

from service.chain_errors import LogEndsEarlierError, LogForkedError
from service.errors import LogError, OutcomeUnknownError
from service.store.log import postgres_connection
from service.store.log.events import SEQ_BITS, SEQ_MAX, Draft, EventLocation, Outcome, Position
from service.store.log.postgres import PostgresLog
from service.store.log.postgres_connection import PostgresConnection
from service.store.log.postgres_schema import create_schema
from service.store.log.postgres_values import Statement
from tests.support.memory_log import MemoryLog
from tests.support.postgres_servers import PostgresCluster, require_postgres, running_pair
from tests.support.tcp_relay import TcpRelay
from tests.support.waiting import wait_until
from tests.torture import false_acknowledgements, primary_kills, replicas_under_load, stopped_writers
from tests.torture.false_acknowledgements import cancel_commits, crash, empty_names, run_batch, run_toggles
from tests.torture.log_writers import GENESIS, K, find_violations, make_drafts
from tests.torture.results import Campaign

SMALL_SHARE = 0.01
# About nine of ten find a violation, so all of them miss it once in 100,000 runs.
TRIES = 5


@pytest.fixture(autouse=True)
def _postgres() -> None:
    require_postgres()


@pytest.mark.parametrize(
    "campaign",
    [
        primary_kills.run_campaign,
        false_acknowledgements.run_campaign,
        stopped_writers.run_campaign,
        replicas_under_load.run_campaign,
    ],
    ids=["kills", "acknowledgements", "stops", "replicas"],
)
def test_failing_servers_lose_nothing(tmp_path: object, campaign: Campaign) -> None:
    """Killed primaries, interrupted COMMITs and stopped writers lose, double and move nothing that was acknowledged."""
    rows = list(campaign(tmp_path, SMALL_SHARE))  # type: ignore[arg-type]
    assert [row for row in rows if row.violations or not row.count] == []


class LookingLog(PostgresLog):
    """A log that acknowledges a retry whose event it can see, without a lock and a COMMIT."""

    def __init__(self, address: str, **options: object) -> None:
        super().__init__(address, **options)  # type: ignore[arg-type]
        self._plain_address = address

    def append(self, drafts: Sequence[Draft]) -> list[Outcome]:
        with psycopg.connect(self._plain_address) as session:
            query = "SELECT position FROM events WHERE id = ANY(%s)"
            found = session.execute(query, ([draft.id for draft in drafts],)).fetchall()
        if found:
            return [EventLocation(position >> SEQ_BITS, position & SEQ_MAX, duplicate=True) for (position,) in found]
        return super().append(drafts)


def ignore_warnings(patch: pytest.MonkeyPatch) -> None:
    """Let a COMMIT with a warning count; the method is private, because no setting allows it."""
    patch.setattr(PostgresConnection, "_note_warning", lambda *_: None)


def ignore_names(patch: pytest.MonkeyPatch) -> None:
    """Let a COMMIT count although no standby is named; the method is private, because no setting allows it."""
    patch.setattr(PostgresConnection, "_is_durable", lambda *_: True)


def look_up(patch: pytest.MonkeyPatch) -> None:
    """Answer retries by a plain SELECT."""
    patch.setattr(false_acknowledgements, "PostgresLog", LookingLog)


@pytest.mark.parametrize(
    ("fault", "mistake"),
    [(cancel_commits, ignore_warnings), (empty_names, ignore_names), (crash, look_up)],
    ids=["warnings", "names", "lookups"],
)
def test_the_checker_detects_false_acknowledgements(
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[PostgresCluster], None],
    mistake: Callable[[pytest.MonkeyPatch], None],
) -> None:
    """A log that trusts what looks like success acknowledges events that the promoted standby lacks."""
    mistake(monkeypatch)
    batch = run_batch(fault, 2)
    assert batch.cases == 2
    assert batch.violations


def test_the_checker_detects_names_that_are_set_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that asks for the names alone acknowledges a COMMIT that did not wait, because they are set since.

    Which COMMITs meet that moment is chance, so there are several tries.
    """
    names = b"SELECT current_setting('synchronous_standby_names') <> '', current_setting('synchronous_commit')"
    monkeypatch.setattr(postgres_connection, "ASK_DURABILITY", Statement(names))
    assert any(run_toggles(12).violations for _ in range(TRIES))


def test_lost_moved_and_doubled_events_are_detected() -> None:
    """An acknowledged event that is missing, or that was acknowledged at two seqs, is a violation."""
    log = MemoryLog()
    stream = log.open_stream("iris", 1, GENESIS, K)
    first, second, third = make_drafts(stream.number, 3)
    log.append([first, second])
    acknowledged = {first.id.decode(): {1}, second.id.decode(): {2, 7}, third.id.decode(): {3}}
    found = [text.partition(" ")[2] for text in find_violations(log, stream, acknowledged)]
    assert sorted(found) == ["has moved", "is lost"]


@pytest.fixture
def parted() -> Iterator[tuple[PostgresCluster, PostgresCluster, TcpRelay]]:
    """A primary and a standby that can be cut off from it."""
    with TcpRelay("").running() as relay, running_pair(relay=relay) as (primary, standby):
        yield primary, standby, relay


def test_an_old_primary_acknowledges_nothing_and_is_not_followed(
    parted: tuple[PostgresCluster, PostgresCluster, TcpRelay],
) -> None:
    """A primary that does not know that its standby was promoted is held: it lacks events, or has others."""
    old, new, relay = parted
    address = old.make_database(create_schema)
    name = address.rpartition("/")[2]
    with (
        closing(PostgresLog(address, seconds=1.0)) as at_old,
        closing(PostgresLog(new.address(name), copies=1)) as at_new,
    ):
        stream = at_old.open_stream("iris", 1, GENESIS, K)
        at_old.append(make_drafts(stream.number, 2))
        relay.cut()
        new.configure("synchronous_standby_names", "")
        new.promote()
        at_new.append(make_drafts(stream.number, 2))
        end = Position(4, at_new.read_events(stream.number, 3, 1)[0].hash)
        with pytest.raises(LogEndsEarlierError):
            at_old.read_checked(stream.number, end, 10)
        with pytest.raises(OutcomeUnknownError):
            at_old.append(make_drafts(stream.number, 2))
        with pytest.raises(LogError):  # it waits for the lock of the one before it
            at_old.append(make_drafts(stream.number, 2))
        empty_names(old)
        wait_until(lambda: at_old.stream_state(stream.number).seq == 4)
        with pytest.raises(LogForkedError):
            at_old.read_checked(stream.number, end, 10)


LOGS = 24
OUTAGE_SECONDS = 2.0


def test_logs_that_lose_their_server_come_back_without_a_storm(postgres_server: PostgresCluster) -> None:
    """While a server cannot be reached, each log tries at most once a pause, however often it is called."""
    address = postgres_server.make_database(create_schema)
    with TcpRelay(("127.0.0.1", postgres_server.port)).running() as relay, ExitStack() as opened:
        through = postgres_server.address(address.rpartition("/")[2], port=relay.port)
        logs = [opened.enter_context(closing(PostgresLog(through, copies=1))) for _ in range(LOGS)]
        streams = [log.open_stream(f"model-{number}", 1, GENESIS, K) for number, log in enumerate(logs)]
        relay.cut()
        before, until = relay.connections, time.monotonic() + OUTAGE_SECONDS
        threads = [
            threading.Thread(target=append_until_stored, args=(log, make_drafts(stream.number, 1), until))
            for log, stream in zip(logs, streams, strict=True)
        ]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        time.sleep(OUTAGE_SECONDS)
        tries, seconds = relay.connections - before, time.monotonic() - started
        relay.mend()
        for thread in threads:
            thread.join(20)
        assert [log.stream_state(stream.number).seq for log, stream in zip(logs, streams, strict=True)] == [1] * LOGS
    doublings = 1 + postgres_connection.LONGEST_PAUSE / postgres_connection.FIRST_PAUSE
    assert LOGS <= tries <= LOGS * (doublings + seconds / (postgres_connection.LONGEST_PAUSE / 2))


def append_until_stored(log: PostgresLog, drafts: list[Draft], until: float) -> None:
    """Call append without a pause until an outage is over, and then until it succeeds."""
    while True:
        try:
            log.append(drafts)
        except LogError:
            if time.monotonic() > until:
                time.sleep(0.01)
        else:
            return
