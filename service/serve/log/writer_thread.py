"""The writer's thread: it alone uses the worker's log, and does everything in the order in which it was asked for.

What waits is written in one transaction, as far as the bounds of a batch allow. Then the streams are marked and the
learner is woken, and only then the loop is told what became of each. The thread outlives whatever breaks in it: what it
was at is answered as "outcome unknown", and the log is opened anew.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple

from service.errors import (
    ArtifactChangedError,
    LogError,
    LogUnavailableError,
    OutcomeUnknownError,
    SoftstepError,
    StreamGoneError,
)
from service.process.wakeup import Wakeup
from service.serve.thread_priority import give_way
from service.serve.wire.feedback_body import PostedEvent
from service.store.log.events import Draft, EventLocation, Kind, Outcome, Position
from service.store.log.feedback_log import FeedbackLog

logger = logging.getLogger("softstep.writer")

# One append: a few milliseconds of other writers' waiting. One post alone may be larger.
BATCH_DRAFTS_MAX: Final = 512
BATCH_BYTES_MAX: Final = 16 << 20
FEEDBACK: Final = Kind.FEEDBACK  # a member costs more to look up than to compare
BROKEN: Final = "the server failed while it wrote the event; send it again, with the same id"


class Source(NamedTuple):
    """A model version that learns, as a request sees it.

    Attributes:
        model: Its name.
        version: Its number.
        geneses: What binds its fold to its artifact, by this release's fold and by each earlier one's.
        n_classes: The artifact's number of classes.
        class_epoch: The class epoch of what is served, which labels were read with.
        counters: FEEDBACK_EVENTS to FEEDBACK_REFUSALS.
    """

    model: str
    version: int
    geneses: tuple[bytes, ...]
    n_classes: int
    class_epoch: int
    counters: memoryview


class Submission(NamedTuple):
    """Events of one request, and who is told of them, in the loop: with a list of their outcomes, or an exception."""

    source: Source
    kind: Kind
    posts: Sequence[PostedEvent]
    if_seq: int | None
    size: int
    on_result: Callable[[Any], None]


class LogCall(NamedTuple):
    """What the thread is asked to do with its log, and who is told what it returned or raised.

    Where it `appends` it returns outcomes, by which streams are marked and the learner is woken.
    """

    do: Callable[[FeedbackLog], Any]
    on_result: Callable[[Any], None]
    appends: bool = False


Item = Submission | LogCall
# A list of outcomes, what a call returned, or the exception of either.
Result = Any


@dataclass(frozen=True)
class WriterCallbacks:
    """What the writer uses, given so that tests and others can bring their own.

    Attributes:
        open_log: Opens the log; called in the thread, and again after a failure.
        bind_artifact: Keeps the artifact of a source; called in the thread before its stream is first opened there.
        mark_committed: Notes how far a stream is committed.
        wakeup: Wakes the learner.
        count_commit: Counts a commit of so many nanoseconds; called in the loop.
    """

    open_log: Callable[[], FeedbackLog]
    bind_artifact: Callable[[Source], None]
    mark_committed: Callable[[int, Position], None]
    wakeup: Wakeup
    count_commit: Callable[[int], None]


class WriterThread:
    """The thread's side of a writer.

    Args:
        callbacks: What it works with.
        queue: What is handed over, in order; None asks for the end.
        answer: Called in the loop with the items of a batch, their results, and the nanoseconds of the commit or 0.
        gone: Called in the loop when the thread is about to end.

    Attributes:
        versions: The version of each stream that an outcome has named, by its number.
    """

    def __init__(
        self,
        callbacks: WriterCallbacks,
        queue: SimpleQueue[list[Item] | None],
        answer: Callable[[Sequence[Item], Sequence[Result], int], None],
        gone: Callable[[], None],
    ) -> None:
        self._callbacks = callbacks
        self._queue = queue
        self._answer = answer
        self._gone = gone
        self._pending: deque[Item] = deque()
        self._stopping = False
        self._log: FeedbackLog | None = None
        self._told = ""
        self._streams: dict[tuple[str, int, tuple[bytes, ...]], int] = {}
        self.versions: dict[int, int] = {}

    def run(self, loop: asyncio.AbstractEventLoop) -> None:
        """Work until nothing waits behind the order to stop."""
        give_way()
        while self._fill():
            items, nanoseconds = self._take(), 0
            try:
                results, nanoseconds = self._work(items)
                self._told = ""
            except LogError as error:
                self._tell(error)
                results = [type(error)(*error.args) for _ in items]  # each is raised on its own
            except BaseException:
                logger.exception("writing feedback broke; the log is opened again")
                results = [OutcomeUnknownError(BROKEN) for _ in items]
                self._let_go()
            with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
                loop.call_soon_threadsafe(self._answer, items, results, nanoseconds)
        self._let_go()
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(self._gone)

    def _fill(self) -> bool:
        """Take what was handed over, and wait where there is nothing to do; False once there never will be."""
        with suppress(Empty):
            while not self._stopping:
                handed = self._queue.get(block=not self._pending)
                if handed is None:
                    self._stopping = True
                else:
                    self._pending.extend(handed)
        return bool(self._pending)

    def _take(self) -> list[Item]:
        """What is done together: one call, or submissions up to the bounds of a batch."""
        pending = self._pending
        items = [pending.popleft()]
        first = items[0]
        if type(first) is Submission:
            drafts, size = len(first.posts), first.size
            while pending and type(item := pending[0]) is Submission:
                drafts += len(item.posts)
                size += item.size
                if drafts > BATCH_DRAFTS_MAX or size > BATCH_BYTES_MAX:
                    break
                items.append(pending.popleft())
        return items

    def _work(self, items: Sequence[Item]) -> tuple[list[Result], int]:
        """What became of each item, and the nanoseconds of a commit."""
        log = self._log = self._log or self._callbacks.open_log()
        first = items[0]
        if not isinstance(first, LogCall):
            return self._append(log, items)
        try:
            result = first.do(log)
            if first.appends:
                self._note(log, result)
        except Exception as error:  # noqa: BLE001  # it belongs to the one who waits
            result = error
        return [result], 0

    def _append(self, log: FeedbackLog, items: Sequence[Any]) -> tuple[list[Result], int]:
        now_ms = time.time_ns() // 1_000_000
        results: list[Result] = []
        drafts: list[Draft] = []
        known: Source | None = None
        number: int | SoftstepError = 0
        for source, kind, posts, if_seq, _, _ in items:
            if source is not known:
                known, number = source, self._stream(log, source)
            if type(number) is int:
                epoch = source.class_epoch if kind is FEEDBACK else None
                results.append(len(posts))
                for id_, payload, _ in posts:
                    drafts.append(Draft(number, kind, id_, payload, now_ms, epoch, if_seq))
            else:
                results.append(number)
        before = time.perf_counter_ns()
        outcomes = log.append(drafts) if drafts else []
        nanoseconds = time.perf_counter_ns() - before
        self._note(log, outcomes)
        at = 0
        for index, result in enumerate(results):
            if type(result) is int:
                results[index] = outcomes[at : at + result]
                at += result
        return results, nanoseconds

    def _stream(self, log: FeedbackLog, source: Source) -> int | SoftstepError:
        """The number of a source's stream, opened where this process has not yet; or why it cannot be written to."""
        number = self._streams.get(source[:3])
        if number is None:
            try:
                self._callbacks.bind_artifact(source)
                stream = log.open_stream(source.model, source.version, source.geneses[0], source.n_classes)
            except SoftstepError as error:
                return error
            except OSError:
                logger.exception("an artifact cannot be kept")
                return LogUnavailableError("the model's files cannot be kept now; send the event again")
            if stream.genesis not in source.geneses:
                return ArtifactChangedError("the model's files are not those that its feedback began with")
            number = self._streams[source[:3]] = stream.number
        return number

    def _note(self, log: FeedbackLog, outcomes: Sequence[Outcome]) -> None:
        """Mark what is committed, before anybody is told, and wake the learner."""
        streams = set()
        for outcome in outcomes:
            if type(outcome) is EventLocation:
                if outcome.stream not in self.versions:
                    self.versions[outcome.stream] = log.position_after_append(outcome.stream)[0].version
                if not outcome.duplicate:
                    streams.add(outcome.stream)
            elif type(outcome) is StreamGoneError:
                self._streams.clear()
        try:
            for stream in streams:
                self._callbacks.mark_committed(stream, log.position_after_append(stream)[1])
        except SoftstepError:
            logger.exception("feedback is on disk, but cannot be marked")
        if streams:
            self._callbacks.wakeup.notify()

    def _tell(self, error: LogError) -> None:
        """Log why nothing can be written, once until something is."""
        if str(error) != self._told:
            self._told = str(error)
            logger.error("feedback is not written: %s", error, exc_info=error)

    def _let_go(self) -> None:
        """Close the log; the next batch opens it again."""
        log, self._log = self._log, None
        self._streams.clear()
        try:
            if log is not None:
                log.close()
        except SoftstepError:
            logger.exception("the feedback log cannot be closed")
