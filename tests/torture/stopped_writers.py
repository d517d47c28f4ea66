"""A writer is stopped during an append, while it holds the lock of a stream.

A process appends by the locked path and is stopped (SIGSTOP) after it has locked the stream's row. Other processes'
appends to the stream wait until the database ends the idle transaction (`idle_in_transaction_session_timeout`). Then
the stopped process continues: its append must not be acknowledged, and a retry of its id must be stored once.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from service.errors import LogError, OutcomeUnknownError
from service.store.log.append_rules import AppendBatch
from service.store.log.events import Draft, EventLocation, Outcome, Stream
from service.store.log.feedback_log import FeedbackLog
from service.store.log.postgres import PostgresLog
from service.store.log.postgres_schema import create_schema
from tests.support.postgres_servers import running_pair
from tests.torture.log_writers import GENESIS, K, find_violations, make_drafts
from tests.torture.results import ResultRow

SETTINGS = {"fsync": "on"}
CASES = TARGET_CASES = 20
# The longest wait of another writer, of which 1 s is the setting of the database role.
TARGET_WAIT_SECONDS = 1.5


class Case(NamedTuple):
    """How long another writer waited, and what was wrong afterwards."""

    seconds: float
    violations: list[str]


def run_campaign(_folder: Path, share: float) -> Iterator[ResultRow]:
    """Run a share of the campaign; clusters have folders of their own."""
    count = max(2, round(CASES * share))
    with running_pair(SETTINGS) as (primary, _):
        open_log = partial(PostgresLog, primary.make_database(create_schema))
        with closing(open_log()) as log:
            cases = [run_case(open_log, log, number) for number in range(count)]
    waits = sorted(case.seconds for case in cases)
    violations = [text for case in cases for text in case.violations]
    note = (
        f"others waited {waits[len(waits) // 2]:.2f} s (median), at most {waits[-1]:.2f} s; "
        f"the target is {TARGET_WAIT_SECONDS} s"
    )
    yield ResultRow(
        "writer stopped within an append", count, TARGET_CASES, len(violations), "; ".join([note, *violations[:3]])
    )


def run_case(open_log: partial[PostgresLog], log: FeedbackLog, number: int) -> Case:
    """Stop a writer within an append; append by the other path in even cases, and by the locked one in odd ones."""
    stream = log.open_stream(f"model-{number}", 1, GENESIS, K)
    append_until_known(log, make_drafts(stream.number, 1))
    draft, *others = make_drafts(stream.number, 3)
    reading, writing = os.pipe()
    writer = os.fork()
    if writer == 0:
        os.close(reading)
        _append_and_stop(open_log, draft, writing)
    os.close(writing)
    os.waitpid(writer, os.WUNTRACED)
    with closing(open_log(optimistic=number % 2 == 0)) as other:
        started = time.monotonic()
        outcomes = append_until_known(other, others)
        seconds = time.monotonic() - started
    os.kill(writer, signal.SIGCONT)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    os.waitpid(writer, 0)
    violations = [] if answer == "refused" else [f"the stopped writer's append was {answer or 'a crash'}"]
    return Case(
        seconds, violations + _check(log, stream, [*others, draft], [*outcomes, *append_until_known(log, [draft])])
    )


def append_until_known(log: FeedbackLog, drafts: list[Draft]) -> list[Outcome]:
    """Append drafts, again as long as it is unknown whether they are stored."""
    while True:
        with suppress(OutcomeUnknownError):
            return log.append(drafts)


def _append_and_stop(open_log: partial[PostgresLog], draft: Draft, writing: int) -> None:
    """Append in a process of its own, which stops once the row is locked; write whether it was acknowledged."""
    answer = b""
    admit = AppendBatch.admit

    def stop_and_admit(batch: AppendBatch, *arguments: object) -> Outcome:
        AppendBatch.admit = admit  # type: ignore[method-assign]  # stops once
        os.kill(os.getpid(), signal.SIGSTOP)
        return admit(batch, *arguments)  # type: ignore[arg-type]

    try:
        with closing(open_log(optimistic=False)) as log:
            AppendBatch.admit = stop_and_admit  # type: ignore[method-assign,assignment]
            try:
                log.append([draft])
                answer = b"acknowledged"
            except LogError:
                answer = b"refused"
    finally:
        os.write(writing, answer)
        os._exit(0)


def _check(log: FeedbackLog, stream: Stream, drafts: list[Draft], outcomes: list[Outcome]) -> list[str]:
    """Compare the stream with the outcomes of all appends that were not stopped."""
    acknowledged = {
        draft.id.decode(): {outcome.seq}
        for draft, outcome in zip(drafts, outcomes, strict=True)
        if isinstance(outcome, EventLocation)
    }
    refused = [f"an append was refused: {one!r}" for one in outcomes if not isinstance(one, EventLocation)]
    return refused + find_violations(log, stream, acknowledged)
