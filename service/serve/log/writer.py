"""The writer: queues feedback on its way to disk, and reports each result to the event loop.

    event loop   submit, submit, ...     one put in a turn ->  queue  ->  thread (writer_thread.py): append, mark, wake
    event loop   on_result, ...      <-  one call for a batch  <----------------+

The result of an event is reported after its commit. Every submission gets a result, and the queue is bounded by events
and by bytes.

Measured with 64 submitters on one uvloop and one core, 10^6 events in the log and random ids: 38,000 and 40,000
events/s in the two undisturbed runs, p50 1.3 ms, p99 10 ms. An event takes 1.4 times the processor time of the log's
append alone (medians of turns). With clients that pause for 0 to 4 ms, a batch has 15 events. Alternatives:

    waking the thread for each event instead of once in a turn    8 % more time
    a pause of 50 us before a batch                               10 % less time, but a single event would wait for it
    a switch interval of 0.5 ms                                   no difference
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from service.errors import LogUnavailableError, QueueFullError
from service.log_events import logger
from service.serve.log.submissions import FEEDBACK, Item, JointSubmission, LearningVersion, LogCall, Result, Submission
from service.serve.log.writer_thread import WriterCallbacks, WriterThread
from service.serve.metrics.counters import FEEDBACK_DUPLICATES, FEEDBACK_EVENTS, FEEDBACK_REFUSALS, FEEDBACK_ROWS
from service.serve.wire.feedback_body import PostedEvent
from service.store.log.events import EventLocation, Kind, Outcome
from service.store.log.feedback_log import FeedbackLog

# Results that are reported in one turn of the loop, so that a prediction does not wait for all results of a batch.
RESULTS_PER_TURN: Final = 3
# The same for each such time that the turn takes: where turns are long, a batch would wait for many of them.
TURN_SECONDS: Final = 0.0005

T = TypeVar("T")
# Feedback for one version: its source, the events, and the callback for their outcomes.
Part = tuple[LearningVersion, Sequence[PostedEvent], Callable[[Any], None]]


class Writer:
    """Submits feedback to the writer's thread. Call every method on the event loop's thread.

    Args:
        callbacks: The functions that the writer depends on.
        events_max: The limit of waiting events.
        bytes_max: The limit of waiting bytes of payload; a larger submission is accepted if nothing else waits.
    """

    def __init__(self, callbacks: WriterCallbacks, events_max: int, bytes_max: int) -> None:
        self._count_commit = callbacks.count_commit
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._queue: SimpleQueue[list[Item] | None] = SimpleQueue()
        self._next_items: list[Item] = []
        self._unreported: deque[tuple[Item, Result]] = deque()
        self._events = 0
        self._bytes = 0
        self._closing = False
        self._waiting_since = 0.0  # when the first waiting event came, or results were reported since
        self._writer_thread = WriterThread(callbacks, self._queue, self._on_results, self._on_exit)

    @property
    def waiting(self) -> int:
        """The number of events whose results are not reported yet."""
        return self._events

    def stalled_seconds(self, now: float) -> float:
        """Return how long nothing was reported at a time of the monotonic clock, though events wait."""
        return now - self._waiting_since if self._events else 0.0

    def start(self) -> None:
        """Start the thread; call this once, in the serving process, while the loop runs."""
        self._loop = asyncio.get_running_loop()
        self._exited = self._loop.create_future()
        self._thread = threading.Thread(target=self._writer_thread.run, args=(self._loop,), name="writer", daemon=True)
        self._thread.start()

    def version_of(self, stream: int) -> int:
        """Return the version of the stream with this number; an outcome must have named it."""
        return self._writer_thread.versions[stream]

    def send_events(
        self,
        source: LearningVersion,
        posts: Sequence[PostedEvent],
        on_result: Callable[[Any], None],
        kind: Kind = FEEDBACK,
        if_seq: int | None = None,
        *,
        actor: str = "",
    ) -> None:
        """Write events in one transaction.

        Args:
            source: The model version.
            posts: The events, at least one; an admin event has its payload and no rows.
            on_result: Called once, in the loop: with the list of outcomes after the commit, or with a LogError or
                RefusedError for all events.
            kind: The kind of the events.
            if_seq: The last seq of the stream that the events require, or None.
            actor: Who sent the events; empty in an open service.

        Raises:
            QueueFullError: Too many events or bytes wait.
            LogUnavailableError: The server is stopping.
        """
        size = len(posts[0].payload) if len(posts) == 1 else sum([len(post.payload) for post in posts])
        self._reserve(len(posts), size)
        if not self._next_items:  # as `_submit`, without a call for each event
            self._loop.call_soon(self._put_items)
        self._next_items.append(Submission(source, kind, posts, if_seq, size, on_result, actor))

    def send_to_versions(self, parts: Sequence[Part], actor: str = "") -> None:
        """Write feedback for several versions in one transaction; the callback of a part is as for `send_events`.

        Raises:
            QueueFullError: Too many events or bytes wait.
            LogUnavailableError: The server is stopping.
        """
        if len(parts) == 1:  # shares a transaction with other requests
            self.send_events(*parts[0], actor=actor)
            return
        submissions = [
            Submission(source, FEEDBACK, posts, None, sum([len(post.payload) for post in posts]), on_result, actor)
            for source, posts, on_result in parts
        ]
        self._reserve(sum([len(one.posts) for one in submissions]), sum([one.size for one in submissions]))
        self._submit(JointSubmission(submissions))

    def _reserve(self, events: int, size: int) -> None:
        """Take room in the queue, or raise."""
        if self._closing:
            raise LogUnavailableError("The server is stopping; send the event again.")
        if self._events + events > self._events_max or (self._events and self._bytes + size > self._bytes_max):
            raise QueueFullError("Feedback arrives faster than it can be written; send it again in a moment.")
        if not self._events:
            self._waiting_since = time.monotonic()
        self._events += events
        self._bytes += size

    def submit_event(
        self,
        source: LearningVersion,
        post: PostedEvent,
        kind: Kind = FEEDBACK,
        if_seq: int | None = None,
        actor: str = "",
    ) -> asyncio.Future[EventLocation]:
        """Write one event as `send_events` does; the future has its location, or a RefusedError or LogError."""
        future: asyncio.Future[EventLocation] = self._loop.create_future()
        self.send_events(source, (post,), partial(_resolve_with_first, future), kind, if_seq, actor=actor)
        return future

    def call_with_log(self, function: Callable[[FeedbackLog], T], *, appends: bool = False) -> asyncio.Future[T]:
        """Call a function with the log, in the thread, after everything submitted before.

        Args:
            function: The function; its return value or exception becomes the result of the future.
            appends: Whether the function appends events; it then returns their outcomes.

        Raises:
            LogUnavailableError: The server is stopping.
        """
        if self._closing:
            raise LogUnavailableError("The server is stopping; send the request again.")
        future: asyncio.Future[T] = self._loop.create_future()
        self._submit(LogCall(function, partial(resolve_future, future), appends))
        return future

    async def close(self) -> None:
        """Reject further submissions, write those that wait, close the log, and end the thread."""
        if not self._closing:
            self._closing = True
            self._put_items()
            self._queue.put(None)
        await asyncio.shield(self._exited)
        self._thread.join()

    def _submit(self, item: Item) -> None:
        """Add an item to those of this turn of the loop, because waking the thread costs more than an event."""
        if not self._next_items:
            self._loop.call_soon(self._put_items)
        self._next_items.append(item)

    def _put_items(self) -> None:
        if self._next_items:
            self._queue.put(self._next_items)
            self._next_items = []

    def _on_results(self, items: Sequence[Item], results: Sequence[Result], nanoseconds: int) -> None:
        """Report the results of a batch, after those of earlier batches."""
        self._waiting_since = time.monotonic()
        if nanoseconds:
            self._count_commit(nanoseconds)
        is_reporting = bool(self._unreported)
        self._unreported.extend(zip(items, results, strict=True))
        if not is_reporting:
            self._report_some()

    def _report_some(self, count: int = RESULTS_PER_TURN) -> None:
        """Report a few results, and others after the loop has handled its sockets."""
        unreported = self._unreported
        for _ in range(min(count, len(unreported))):
            self._report(*unreported.popleft())
        if unreported:
            self._loop.call_soon(self._report_more, time.perf_counter())

    def _report_more(self, since: float) -> None:
        """Report results after a turn that began at `since`, in seconds of the performance counter."""
        self._report_some(RESULTS_PER_TURN * (1 + int((time.perf_counter() - since) / TURN_SECONDS)))

    def _report(self, item: Item, result: Result) -> None:
        if type(item) is Submission:
            self._events -= len(item.posts)
            self._bytes -= item.size
            if type(result) is list and item.kind is FEEDBACK:
                _count_outcomes(item, result)
        elif isinstance(item, JointSubmission):
            results = result if type(result) is list else [result] * len(item.submissions)
            for submission, own in zip(item.submissions, results, strict=True):
                self._report(submission, own)
            return
        try:
            item.on_result(result)
        except Exception:
            logger.exception("result_not_reported")

    def _on_exit(self) -> None:
        while self._unreported:
            self._report(*self._unreported.popleft())
        self._exited.set_result(None)


def _count_outcomes(submission: Submission, outcomes: Sequence[Outcome]) -> None:
    counters = submission.source.counters
    for post, outcome in zip(submission.posts, outcomes, strict=True):
        if type(outcome) is not EventLocation:
            counters[FEEDBACK_REFUSALS] += 1
        elif outcome.duplicate:
            counters[FEEDBACK_DUPLICATES if outcome.removed_by is None else FEEDBACK_REFUSALS] += 1
        else:
            counters[FEEDBACK_EVENTS] += 1
            counters[FEEDBACK_ROWS] += post.rows


def resolve_future(future: asyncio.Future[Any], result: Result) -> None:
    """Set the result or the exception of a future, unless it is done or cancelled."""
    if future.done():
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)


def _resolve_with_first(future: asyncio.Future[Any], result: Result) -> None:
    """Set the result of a future to the only outcome of a list, or to an exception."""
    resolve_future(future, result[0] if type(result) is list else result)
