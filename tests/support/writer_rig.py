"""A feedback writer on a real log in a folder, whose callbacks and appends can be made to fail."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from service.process.wakeup import Wakeup
from service.serve.log.submissions import LearningVersion
from service.serve.log.writer import Writer, resolve_future
from service.serve.log.writer_thread import WriterCallbacks
from service.serve.metrics.counters import FEEDBACK_COUNTERS
from service.serve.wire.feedback_body import PostedEvent
from service.store.log.events import Draft, EventLocation, Outcome, Position
from service.store.log.feedback_payload import Targets, encode_rows
from service.store.log.sqlite import SqliteLog
from tests.support.waiting import is_readable

GENESIS = bytes(range(32))
SECONDS = 20.0


def make_source(**changes: Any) -> LearningVersion:
    """A source of the iris model with new counters."""
    counters = memoryview(bytearray(8 * FEEDBACK_COUNTERS)).cast("q")
    return LearningVersion("iris", 1, (GENESIS,), 3, 0, counters)._replace(**changes)


def make_post(name: str, value: float = 0.0, rows: int = 1) -> PostedEvent:
    """An event of rows that all have the same value."""
    payload = encode_rows(np.full((rows, 4), value, "f4"), np.ones(rows, int), Targets.INDEX, 3)
    return PostedEvent(name.encode(), payload, rows)


def submit_events(
    writer: Writer, source: LearningVersion, posts: Sequence[PostedEvent], actor: str = ""
) -> asyncio.Future[list[Outcome]]:
    """Write the events of one request; the future has their outcomes, or an error for all of them."""
    future: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
    writer.send_events(source, posts, partial(resolve_future, future), actor=actor)
    return future


class FailingLog(SqliteLog):
    """A log that raises the rig's errors before or after a commit, and records its calls in the rig."""

    def __init__(self, path: Path, rig: "WriterRig", **limits: int) -> None:
        super().__init__(path, **limits)
        self.rig = rig

    def append(self, drafts: Sequence[Draft]) -> list[Outcome]:
        self.rig.batches.append(len(drafts))
        self.rig.threads.add(threading.get_ident())
        if self.rig.errors_before_commit:
            raise self.rig.errors_before_commit.pop(0)
        outcomes = super().append(drafts)
        self.rig.committed += sum(type(outcome) is EventLocation for outcome in outcomes)
        if self.rig.errors_after_commit:
            raise self.rig.errors_after_commit.pop(0)
        return outcomes

    def close(self) -> None:
        super().close()
        self.rig.closed += 1


class WriterRig:
    """A writer on a log in a folder, the errors that its callbacks raise next, and a record of its calls."""

    def __init__(self, folder: Path, *, events_max: int = 1000, bytes_max: int = 1 << 20, **limits: int) -> None:
        self.path = folder / "log.sqlite"
        self.batches: list[int] = []
        self.threads: set[int] = set()
        self.errors_before_commit: list[BaseException] = []
        self.errors_after_commit: list[BaseException] = []
        self.open_errors: list[BaseException] = []
        self.bind_errors: list[BaseException] = []
        self.mark_errors: list[BaseException] = []
        self.bound: list[LearningVersion] = []
        self.marks: list[tuple[int, Position]] = []
        self.commits: list[int] = []
        self.committed = self.closed = self.opened = 0
        self.limits = limits
        self.wakeup = Wakeup()
        callbacks = WriterCallbacks(
            self._open_log, self._bind_artifact, self._mark_committed, self.wakeup, self.commits.append
        )
        self.writer = Writer(callbacks, events_max, bytes_max)

    def _open_log(self) -> FailingLog:
        self.opened += 1
        if self.open_errors:
            raise self.open_errors.pop(0)
        return FailingLog(self.path, self, **self.limits)

    def _bind_artifact(self, source: LearningVersion) -> None:
        self.bound.append(source)
        if self.bind_errors:
            raise self.bind_errors.pop(0)

    def _mark_committed(self, stream: int, position: Position) -> None:
        if self.mark_errors:
            raise self.mark_errors.pop(0)
        self.marks.append((stream, position))

    def was_woken(self) -> bool:
        """Whether the learner was woken since the last call."""
        woken = is_readable(self.wakeup.fd)
        self.wakeup.clear()
        return woken

    def run(self, scenario: Callable[[Writer], Awaitable[None]]) -> None:
        """Run a coroutine with the writer, with a time limit, and close the writer."""

        async def run_and_close() -> None:
            self.writer.start()
            try:
                await asyncio.wait_for(scenario(self.writer), SECONDS)  # type: ignore[arg-type]
            finally:
                await asyncio.wait_for(self.writer.close(), SECONDS)

        uvloop.run(run_and_close())

    def stored_ids(self) -> list[bytes]:
        """The ids of all events on disk, by position."""
        log = SqliteLog(self.path)
        events = [event.id for stream in log.list_streams() for event in log.read_events(stream.number, 0, 10**6)]
        log.close()
        return events
