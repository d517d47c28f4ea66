"""A COMMIT that waits for the standby is ended in each way that may look like success.

The standby is cut off. Twenty logs append one event each to a stream of their own, half of them by the optimistic path,
and their COMMITs wait. Then one of these happens:

- cancelled: `pg_cancel_backend`; COMMIT returns with a warning;
- ended: `pg_terminate_backend`;
- emptied: `synchronous_standby_names` becomes empty, so no COMMIT waits;
- crashed: all processes of the primary are killed (-9), and it starts again.

In all four ways the events are stored on the primary, and on no other server. Each event is sent once more, half of
them from a log that is opened for it. Then the primary is killed, and the standby promoted. A case is an event that was
seen on the primary and is missing after the promotion. If it was acknowledged, that is a violation.

In the last row writers append all the time, while the standby is cut off and `synchronous_standby_names` is emptied and
set again. A COMMIT that did not wait may then be asked about when the names are there again.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

from service.errors import LogError
from service.store.log.events import Draft, EventLocation
from service.store.log.feedback_log import FeedbackLog
from service.store.log.postgres import PostgresLog
from service.store.log.postgres_schema import create_schema
from tests.support.postgres_servers import ROLE, PostgresCluster, running_pair
from tests.support.tcp_relay import TcpRelay
from tests.support.waiting import wait_until
from tests.torture.log_writers import GENESIS, K, LogWriter, WriterState, make_drafts
from tests.torture.results import ResultRow

SETTINGS = {"fsync": "on"}
BATCH_CASES = 20
CASES = 120
TARGET_CASES = 100
# The deadline of an append: it must wait for the fault, and a retry that waits for the standby ends there.
APPEND_SECONDS = 2.0
WAIT_SECONDS = 30.0
TOGGLES, TOGGLE_WRITERS, TOGGLE_SECONDS, TOGGLE_PAUSE_SECONDS = 200, 6, 0.3, (0.005, 0.1)
WAITING = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND usename = %s"
CANCEL = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND usename = %s"
END = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND usename = %s"


def cancel_commits(primary: PostgresCluster) -> None:
    """Cancel each COMMIT that waits."""
    primary.execute(CANCEL, ROLE)


def end_sessions(primary: PostgresCluster) -> None:
    """End each session whose COMMIT waits."""
    primary.execute(END, ROLE)


def empty_names(primary: PostgresCluster) -> None:
    """Let no COMMIT wait for a standby."""
    primary.configure("synchronous_standby_names", "")


def crash(primary: PostgresCluster) -> None:
    """Kill the primary, and start it again."""
    primary.kill()
    primary.start()


FAULTS: dict[str, Callable[[PostgresCluster], None]] = {
    "COMMIT cancelled while it waits for the standby": cancel_commits,
    "session ended while COMMIT waits for the standby": end_sessions,
    "synchronous_standby_names emptied while COMMIT waits": empty_names,
    "primary crashed and started again while COMMIT waits": crash,
}


class Attempt(threading.Thread):
    """One append in a thread; `outcome` is a location, an error, or None while it lasts."""

    def __init__(self, log: FeedbackLog, draft: Draft) -> None:
        super().__init__(daemon=True)
        self._log, self._draft = log, draft
        self.outcome: object = None
        self.start()

    def run(self) -> None:
        try:
            (self.outcome,) = self._log.append([self._draft])
        except LogError as error:
            self.outcome = error


class Batch(NamedTuple):
    """The results of one fault that met some COMMITs: events that were in danger, and violations."""

    cases: int
    violations: list[str]


def run_campaign(_folder: Path, share: float) -> Iterator[ResultRow]:
    """Run a share of the campaign; clusters have folders of their own."""
    cases = max(4, round(CASES * share))
    for name, fault in FAULTS.items():
        batches = [run_batch(fault, min(BATCH_CASES, cases - done)) for done in range(0, cases, BATCH_CASES)]
        yield _row(name, batches)
    yield _row(
        "synchronous_standby_names emptied and set again, many times", [run_toggles(max(8, round(TOGGLES * share)))]
    )


def _row(fault: str, batches: list[Batch]) -> ResultRow:
    violations = [text for batch in batches for text in batch.violations]
    cases = sum(batch.cases for batch in batches)
    return ResultRow(fault, cases, TARGET_CASES, len(violations), "; ".join(violations[:3]))


def run_batch(fault: Callable[[PostgresCluster], None], size: int) -> Batch:
    """Let some COMMITs wait for a standby that is cut off, inject a fault, retry, and promote the standby."""
    with (
        TcpRelay("").running() as relay,
        running_pair(SETTINGS, relay=relay) as (primary, standby),
        ExitStack() as opened,
    ):
        address = primary.make_database(create_schema)

        def open_log(number: int) -> FeedbackLog:
            log = PostgresLog(address, seconds=APPEND_SECONDS, optimistic=number % 2 == 0)
            return opened.enter_context(closing(log))

        logs = [open_log(number) for number in range(size)]
        drafts = [_prepare(log, number) for number, log in enumerate(logs)]
        relay.cut()
        first = [Attempt(log, draft) for log, draft in zip(logs, drafts, strict=True)]
        wait_until(lambda: len(primary.execute(WAITING, ROLE)) == size, WAIT_SECONDS)
        fault(primary)
        _join(first)
        again = [logs[number] if number % 4 < 2 else open_log(number) for number in range(size)]
        retries = [Attempt(log, draft) for log, draft in zip(again, drafts, strict=True)]
        _join(retries)
        acknowledged = {
            draft.id
            for attempts in (first, retries)
            for draft, attempt in zip(drafts, attempts, strict=True)
            if isinstance(attempt.outcome, EventLocation)
        }
        return _promote_and_compare(primary, standby, address, acknowledged)


def _prepare(log: FeedbackLog, number: int) -> Draft:
    """Open a stream and append one event, so that the log knows its head; return the draft of another event."""
    stream = log.open_stream(f"model-{number}", 1, GENESIS, K)
    log.append(make_drafts(stream.number, 1))
    return make_drafts(stream.number, 1)[0]


def _join(attempts: list[Attempt]) -> None:
    for attempt in attempts:
        attempt.join(WAIT_SECONDS)
        assert attempt.outcome is not None, "an append outlasts its deadline"


def run_toggles(count: int) -> Batch:
    """Empty and set the names of standbys under writers, with the standby cut off, and promote the standby."""
    rng, state = random.Random(1), WriterState()
    with TcpRelay("").running() as relay, running_pair(SETTINGS, relay=relay) as (primary, standby):
        address = primary.make_database(create_schema)
        open_log = partial(PostgresLog, address, seconds=TOGGLE_SECONDS)
        with closing(open_log()) as log:
            streams = [log.open_stream(f"model-{number}", 1, GENESIS, K).number for number in range(TOGGLE_WRITERS)]
        relay.cut()
        writers = [
            LogWriter(state, partial(open_log, optimistic=number % 2 == 0), stream, number, pause=0.001, tries=2)
            for number, stream in enumerate(streams)
        ]
        try:
            for writer in writers:
                writer.start()
            for _ in range(count):
                for names in ("", "ANY 1 (a, b)"):
                    time.sleep(rng.uniform(*TOGGLE_PAUSE_SECONDS))
                    primary.configure("synchronous_standby_names", names)
        finally:
            state.stop.set()
            for writer in writers:
                writer.join(WAIT_SECONDS)
        acknowledged = {id_.encode() for id_ in state.acknowledged}
        batch = _promote_and_compare(primary, standby, address, acknowledged)
    return batch._replace(violations=batch.violations + state.failures)


def _promote_and_compare(
    primary: PostgresCluster, standby: PostgresCluster, address: str, acknowledged: set[bytes]
) -> Batch:
    """Kill the primary, promote the standby, and compare it with the acknowledged ids."""
    read = partial(PostgresCluster.execute, query="SELECT id FROM events", database=address.rpartition("/")[2])
    seen = {bytes(id_) for (id_,) in read(primary)}
    primary.kill()
    standby.promote()
    kept = {bytes(id_) for (id_,) in read(standby)}
    lost = sorted(acknowledged - kept)
    return Batch(len(seen - kept), [f"{id_.decode()} was acknowledged and is lost" for id_ in lost])
