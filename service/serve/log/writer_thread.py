"""The thread that writes feedback: it alone uses the worker's log, and processes items in the order of submission.

The thread commits waiting submissions together, up to the limits of a batch. It then marks the streams and wakes the
learner, and only then passes the results to the event loop. The thread survives every exception: it reports the items
of the failed batch as "outcome unknown", and opens the log again for the next batch.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Final

from service.errors import (
    ArtifactChangedError,
    LogError,
    LogFullError,
    OutcomeUnknownError,
    SoftstepError,
    StreamGoneError,
)
from service.log_events import logger
from service.process.wakeup import Wakeup
from service.serve.log.refusal_log import RefusalLog
from service.serve.log.submissions import FEEDBACK, Item, JointSubmission, LearningVersion, LogCall, Result, Submission
from service.serve.thread_priority import lower_thread_priority
from service.store.log.events import Draft, EventLocation, Outcome, Position
from service.store.log.feedback_log import FeedbackLog
from service.store.log.shared_files import ReadFiles

# Limits of one append, which makes other writers wait for a few milliseconds. A single submission may be larger.
BATCH_EVENTS_MAX: Final = 512
BATCH_BYTES_MAX: Final = 16 << 20
WRITE_FAILED: Final = "The server failed while it wrote the event; send it again with the same id."


@dataclass(frozen=True)
class WriterCallbacks:
    """The functions that a writer depends on.

    Attributes:
        open_log: Opens the log; called in the thread, and again after a failure.
        bind_artifact: Stores the artifact of a source; called in the thread before its stream is opened. What it
            returns is passed on to `open_stream`.
        mark_committed: Records the last committed position of a stream; called in the thread.
        wakeup: Wakes the learner.
        count_commit: Counts a commit by its nanoseconds; called in the event loop.
    """

    open_log: Callable[[], FeedbackLog]
    bind_artifact: Callable[[LearningVersion], ReadFiles | None]
    mark_committed: Callable[[int, Position], None]
    wakeup: Wakeup
    count_commit: Callable[[int], None]


class WriterThread:
    """The part of a writer that runs in the thread.

    Args:
        callbacks: The functions that it depends on.
        queue: Lists of items in the order of submission; None asks the thread to end.
        on_results: Called in the event loop with the items of a batch, their results, and the nanoseconds of the commit
            or 0.
        on_exit: Called in the event loop when the thread is about to end.

    Attributes:
        versions: The version of each stream that an outcome has named, by the stream's number.
    """

    def __init__(
        self,
        callbacks: WriterCallbacks,
        queue: SimpleQueue[list[Item] | None],
        on_results: Callable[[Sequence[Item], Sequence[Result], int], None],
        on_exit: Callable[[], None],
    ) -> None:
        self._callbacks = callbacks
        self._queue = queue
        self._on_results = on_results
        self._on_exit = on_exit
        self._pending: deque[Item] = deque()
        self._stopping = False
        self._log: FeedbackLog | None = None
        self._refusals = RefusalLog()
        self._streams: dict[tuple[str, int, tuple[bytes, ...]], int] = {}
        self.versions: dict[int, int] = {}

    def run(self, loop: asyncio.AbstractEventLoop) -> None:
        """Process items until the queue has asked the thread to end and none is left."""
        lower_thread_priority()
        while self._receive():
            items, nanoseconds = self._next_batch(), 0
            try:
                results, nanoseconds = self._process(items)
            except LogError as error:
                self._refusals.note_refused(error, sum(map(_feedback_events, items)))
                results = [type(error)(*error.args) for _ in items]  # each item raises an exception of its own
            except BaseException:
                logger.exception("writer_failed")
                results = [OutcomeUnknownError(WRITE_FAILED) for _ in items]
                self._close_log()
            with suppress(RuntimeError):  # the loop is closed, so nothing waits for the results
                loop.call_soon_threadsafe(self._on_results, items, results, nanoseconds)
        self._close_log()
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(self._on_exit)

    def _receive(self) -> bool:
        """Move items from the queue to `_pending`, and wait if there are none; return False at the end."""
        with suppress(Empty):
            while not self._stopping:
                received = self._queue.get(block=not self._pending)
                if received is None:
                    self._stopping = True
                else:
                    self._pending.extend(received)
        return bool(self._pending)

    def _next_batch(self) -> list[Item]:
        """Remove the items to process together: submissions up to the limits of a batch, or one other item."""
        pending = self._pending
        items = [pending.popleft()]
        first = items[0]
        if type(first) is Submission:
            events, size = len(first.posts), first.size
            while pending and type(item := pending[0]) is Submission:
                events += len(item.posts)
                size += item.size
                if events > BATCH_EVENTS_MAX or size > BATCH_BYTES_MAX:
                    break
                items.append(pending.popleft())
        return items

    def _process(self, items: Sequence[Item]) -> tuple[list[Result], int]:
        """Return the result of each item, and the nanoseconds of the commit or 0."""
        log = self._log = self._log or self._callbacks.open_log()
        first = items[0]
        if isinstance(first, JointSubmission):
            results, nanoseconds = self._append(log, first.submissions)
            return [results], nanoseconds
        if not isinstance(first, LogCall):
            return self._append(log, items)
        try:
            result = first.function(log)
            if first.appends:
                self._mark_streams(log, result)
        except Exception as error:  # noqa: BLE001  # the caller receives it as the result
            result = error
        return [result], 0

    def _append(self, log: FeedbackLog, submissions: Sequence[Any]) -> tuple[list[Result], int]:
        now_ms = time.time_ns() // 1_000_000
        results: list[Result] = []
        drafts: list[Draft] = []
        last_source: LearningVersion | None = None
        number: int | SoftstepError = 0
        for source, kind, posts, if_seq, _, _, actor in submissions:
            if source is not last_source:
                last_source, number = source, self._stream_number(log, source)
            if type(number) is int:
                epoch = source.class_epoch if kind is FEEDBACK else None
                name = actor.encode()
                results.append(len(posts))
                for id_, payload, _ in posts:
                    drafts.append(Draft(number, kind, id_, payload, now_ms, epoch, if_seq, name))
            else:
                results.append(number)
        before = time.perf_counter_ns()
        outcomes = log.append(drafts) if drafts else []
        nanoseconds = time.perf_counter_ns() - before
        self._mark_streams(log, outcomes)
        start = 0
        for index, result in enumerate(results):
            if type(result) is int:
                results[index] = outcomes[start : start + result]
                start += result
        if self._refusals.is_open and any(map(_is_written, submissions, results)):
            self._refusals.note_written()
        return results, nanoseconds

    def _stream_number(self, log: FeedbackLog, source: LearningVersion) -> int | SoftstepError:
        """Return the number of a source's stream, which is opened if necessary, or an error if it is not writable."""
        number = self._streams.get(source[:3])
        if number is None:
            try:
                files = self._callbacks.bind_artifact(source)
                stream = log.open_stream(source.model, source.version, source.geneses[0], source.n_classes, files)
            except LogError as error:
                self._refusals.note_refused(error, 1)
                return error
            except SoftstepError as error:
                return error
            if stream.genesis not in source.geneses:
                return ArtifactChangedError(
                    "The model's files differ from those that its feedback began with; serve them as a new version."
                )
            number = stream.number
            # A failover may lose a stream, and another one gets its number then.
            self._streams = {key: known for key, known in self._streams.items() if known != number}
            self._streams[source[:3]] = number
            self.versions.pop(number, None)
        return number

    def _mark_streams(self, log: FeedbackLog, outcomes: Sequence[Outcome]) -> None:
        """Mark the committed positions and wake the learner, before the results are passed to the loop."""
        streams = set()
        for outcome in outcomes:
            if type(outcome) is EventLocation:
                if outcome.stream not in self.versions:
                    self.versions[outcome.stream] = log.position_after_append(outcome.stream)[0].version
                if not outcome.duplicate:
                    streams.add(outcome.stream)
            elif type(outcome) is StreamGoneError:
                self._streams.clear()
            elif type(outcome) is LogFullError:
                self._refusals.note_refused(outcome, 1)
        try:
            for stream in streams:
                self._callbacks.mark_committed(stream, log.position_after_append(stream)[1])
        except SoftstepError:
            logger.exception("mark_not_written")
        if streams:
            self._callbacks.wakeup.notify()

    def _close_log(self) -> None:
        """Close the log; the next batch opens it again."""
        log, self._log = self._log, None
        self._streams.clear()
        try:
            if log is not None:
                log.close()
        except SoftstepError:
            logger.exception("log_not_closed")


def _feedback_events(item: Item) -> int:
    """Return the number of feedback events of an item."""
    return len(item.posts) if isinstance(item, Submission) and item.kind is FEEDBACK else 0


def _is_written(submission: Submission, result: Result) -> bool:
    """Return whether a submission is feedback that was written."""
    return submission.kind is FEEDBACK and type(result) is list and type(result[0]) is EventLocation
