"""The log in PostgreSQL acknowledges only what a standby has, in each way to append, and a retry does not either."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from service.errors import OutcomeUnknownError
from service.store.log.events import EventLocation, Stream
from service.store.log.postgres import PostgresLog
from service.store.log.postgres_schema import create_schema
from tests.support.feedback_log_contract import GENESIS, feedback, kinds
from tests.support.postgres_servers import PostgresCluster, require_postgres, running_pair
from tests.support.waiting import wait_until

SECONDS = 20.0  # of a call that has to wait; a test ends it earlier
WAITING = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' ORDER BY query_start"


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[PostgresCluster, PostgresCluster]]:
    require_postgres()
    with running_pair() as clusters:
        yield clusters


class Rig:
    """A log of a pair of servers, whose standby can be cut off."""

    def __init__(self, primary: PostgresCluster, standby: PostgresCluster, *, optimistic: bool) -> None:
        self.primary, self.standby, self.optimistic = primary, standby, optimistic
        self.address = primary.make_database(create_schema)
        self.logs: list[PostgresLog] = []
        self.log = self.open()
        self.stream: Stream = self.log.open_stream("iris", 1, GENESIS, 3)
        self.log.append([feedback(self.stream, "first")])

    def open(self, *, copies: int | None = 2, seconds: float = SECONDS) -> PostgresLog:
        """Return another log object."""
        self.logs.append(PostgresLog(self.address, copies=copies, seconds=seconds, optimistic=self.optimistic))
        return self.logs[-1]

    def require_standby(self) -> None:
        """Let each COMMIT wait for a standby again, and wait until that counts."""
        if self.primary.execute("SELECT current_setting('synchronous_standby_names')") == [("",)]:
            self.primary.configure("synchronous_standby_names", "ANY 1 (a, b)")
            self.primary.wait_until_settled()

    def waiting(self) -> list[int]:
        """Return the sessions whose COMMIT waits for the standby."""
        return [pid for (pid,) in self.primary.execute(WAITING)]

    def release(self) -> None:
        """Let no session wait any longer, so that the locks of calls that have ended are free."""
        for pid in self.waiting():
            self.primary.execute("SELECT pg_terminate_backend(%s, 5000)", pid)

    def disturb(self, call: Callable[[], object], disturbance: Callable[[int], object]) -> BaseException | None:
        """Begin a call while the standby is cut off, disturb the session once it waits, and return the call's error."""
        errors: list[BaseException | None] = []

        def run() -> None:
            try:
                call()
            except BaseException as error:  # noqa: BLE001  # the result
                errors.append(error)
            else:
                errors.append(None)

        thread = threading.Thread(target=run)
        thread.start()
        wait_until(lambda: bool(self.waiting()))
        disturbance(self.waiting()[-1])
        thread.join()
        return errors[0]


@pytest.fixture
def rig(pair: tuple[PostgresCluster, PostgresCluster], request: pytest.FixtureRequest) -> Iterator[Rig]:
    rig = Rig(*pair, optimistic=getattr(request, "param", True))
    yield rig
    for log in rig.logs:
        log.close()
    rig.require_standby()
    pair[0].wait_for_standby(pair[1].name)
    pair[0].drop_database(rig.address)


def cancel(rig: Rig) -> Callable[[int], object]:
    return lambda pid: rig.primary.execute("SELECT pg_cancel_backend(%s)", pid)


def terminate(rig: Rig) -> Callable[[int], object]:
    return lambda pid: rig.primary.execute("SELECT pg_terminate_backend(%s)", pid)


def empty_names(rig: Rig) -> Callable[[int], object]:
    return lambda _pid: rig.primary.configure("synchronous_standby_names", "")


EACH_WAY = pytest.mark.parametrize("rig", [True, False], ids=["optimistic", "locked"], indirect=True)
DISTURBANCES = pytest.mark.parametrize("disturb", [cancel, terminate, empty_names])


@EACH_WAY
@DISTURBANCES
def test_a_commit_that_stops_waiting_is_not_acknowledged(rig: Rig, disturb: Callable[[Rig], Any]) -> None:
    """Nor is its retry, before the standby has the event: then it is the duplicate."""
    lost = feedback(rig.stream, "lost")
    with rig.standby.paused("walreceiver"):
        assert type(rig.disturb(lambda: rig.log.append([lost]), disturb(rig))) is OutcomeUnknownError
        rig.require_standby()
        for retry in (lambda log: log.append([lost]), lambda log: log.find_ids("iris", [b"lost"])):
            with pytest.raises(OutcomeUnknownError):
                retry(rig.open(seconds=0.5))
            rig.release()
    expected = EventLocation(rig.stream.number, 2, duplicate=True)
    assert rig.log.append([lost]) == [expected]
    assert rig.log.find_ids("iris", [b"lost"]) == {b"lost": expected}


@DISTURBANCES
def test_a_stream_that_may_be_lost_is_not_opened(rig: Rig, disturb: Callable[[Rig], Any]) -> None:
    with rig.standby.paused("walreceiver"):
        error = rig.disturb(lambda: rig.log.open_stream("iris", 2, GENESIS, 3), disturb(rig))
        assert type(error) is OutcomeUnknownError
        rig.require_standby()
        with pytest.raises(OutcomeUnknownError):
            rig.open(seconds=0.5).open_stream("iris", 2, GENESIS, 3)
    assert rig.log.open_stream("iris", 2, GENESIS, 3).version == 2


@DISTURBANCES
def test_a_fact_that_may_be_lost_is_not_changed(rig: Rig, disturb: Callable[[Rig], Any]) -> None:
    """Nor is it said that nothing is to be changed, while no standby has what is there."""
    facts = rig.log.facts
    facts.change("keys", lambda _: b"first")
    with rig.standby.paused("walreceiver"):
        error = rig.disturb(lambda: facts.change("keys", lambda _: b"second", b"note"), disturb(rig))
        assert type(error) is OutcomeUnknownError
        assert "event" not in str(error)
        rig.require_standby()
        with pytest.raises(OutcomeUnknownError):
            rig.open(seconds=0.5).facts.change("keys", lambda before: None if before == b"second" else b"third")
        rig.release()
    assert facts.change("keys", lambda before: None if before == b"second" else b"third") is None
    assert [note.content for note in facts.read_notes(0, 10)] == [b"note"]


@EACH_WAY
def test_a_server_that_waits_for_no_standby_acknowledges_nothing(rig: Rig) -> None:
    """A log that needs one copy, or whose storage replicates by itself, takes what two copies refuse."""
    rig.primary.configure("synchronous_standby_names", "")
    for name in ("a", "b"):
        with pytest.raises(OutcomeUnknownError):
            rig.log.append([feedback(rig.stream, name)])
    assert kinds(rig.open(copies=1).append([feedback(rig.stream, "a"), feedback(rig.stream, "c")])) == [2, 4]
    assert kinds(rig.open(copies=None).append([feedback(rig.stream, "b"), feedback(rig.stream, "d")])) == [3, 5]


@pytest.mark.parametrize(("synced", "copies"), [("off", 1), ("off", 2), ("local", 2), ("remote_write", 2)])
def test_a_session_that_does_not_sync_acknowledges_nothing(rig: Rig, synced: str, copies: int) -> None:
    """Whatever sets it: the role, the database or the server."""
    name = rig.address.rpartition("/")[2]
    rig.primary.execute(f"ALTER ROLE softstep IN DATABASE {name} SET synchronous_commit = '{synced}'")
    log = rig.open(copies=copies)
    for _ in range(2):
        with pytest.raises(OutcomeUnknownError):
            log.append([feedback(rig.stream, "a")])
    assert kinds(rig.log.append([feedback(rig.stream, "a")])) == [2]


def test_one_copy_needs_no_standby(rig: Rig) -> None:
    rig.primary.configure("synchronous_standby_names", "")
    name = rig.address.rpartition("/")[2]
    rig.primary.execute(f"ALTER ROLE softstep IN DATABASE {name} SET synchronous_commit = 'local'")
    with rig.standby.paused("walreceiver"):
        assert kinds(rig.open(copies=1).append([feedback(rig.stream, "a")])) == [2]
