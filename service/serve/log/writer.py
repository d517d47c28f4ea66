"""Feedback on its way to disk: what waits is committed together by one thread, then everybody is answered.

    event loop   submit, submit, …    once a turn ──>  queue ──>  thread (scribe.py): one append, mark, bell
    event loop   tell, tell, …     <── one call a batch ──────────────┘

An event is answered once it is on disk; nobody waits for ever, and nothing that waits is without a bound.

64 submitters on one uvloop and one core, behind 10^6 events, random ids: 38,000 and 40,000 events/s in the two runs
that nothing disturbed, p50 1.3 ms, p99 10 ms; an event takes 1.4 times the processor time of the log's append alone
(medians of turns). With clients that pause 0 to 4 ms a batch has 15 events: waking the thread for each event instead of
once a turn took 8 % more time, and a pause of 50 us before a batch 10 % less, but a lone event would wait for it; a
switch interval of 0.5 ms changed nothing.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from service.errors import LogUnavailableError, QueueFullError
from service.serve.log.writer_thread import (
    FEEDBACK,
    Item,
    LogCall,
    Result,
    Source,
    Submission,
    WriterCallbacks,
    WriterThread,
)
from service.serve.metrics.counters import FEEDBACK_DUPLICATES, FEEDBACK_EVENTS, FEEDBACK_REFUSALS, FEEDBACK_ROWS
from service.serve.wire.feedback_body import PostedEvent
from service.store.log.events import EventLocation, Kind, Outcome
from service.store.log.feedback_log import FeedbackLog

logger = logging.getLogger("softstep.writer")

# A batch is answered in so many events at a time, so that a prediction waits for a few answers and not for all of them.
TOLD_AT_ONCE: Final = 3

T = TypeVar("T")


class Writer:
    """Takes feedback from one event loop's thread; every method is called there.

    Args:
        callbacks: What it works with.
        events_max: Events that may wait.
        bytes_max: Bytes of payload that may wait; a larger post is taken where nothing else does.
    """

    def __init__(self, callbacks: WriterCallbacks, events_max: int, bytes_max: int) -> None:
        self._count_commit = callbacks.count_commit
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._queue: SimpleQueue[list[Item] | None] = SimpleQueue()
        self._gathered: list[Item] = []
        self._told: deque[tuple[Item, Result]] = deque()  # what is to be told next
        self._events = 0
        self._bytes = 0
        self._closing = False
        self._scribe = WriterThread(callbacks, self._queue, self._answer, self._gone)

    @property
    def waiting(self) -> int:
        """The number of events that are not answered yet."""
        return self._events

    def start(self) -> None:
        """Begin; called once, on the running loop, in the process that serves."""
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._thread = threading.Thread(target=self._scribe.run, args=(self._loop,), name="writer", daemon=True)
        self._thread.start()

    def version_of(self, stream: int) -> int:
        """The version whose stream has this number; an outcome has named it."""
        return self._scribe.versions[stream]

    def send_events(
        self,
        source: Source,
        posts: Sequence[PostedEvent],
        on_result: Callable[[Any], None],
        kind: Kind = FEEDBACK,
        if_seq: int | None = None,
    ) -> None:
        """Write events in one transaction.

        Args:
            source: The stream.
            posts: The events, at least one; an admin event is a post with its payload and no rows.
            on_result: Called once, in the loop: with the list of outcomes when they are on disk, or with a
                LogError or RefusedError of all of them.
            kind: What they say.
            if_seq: The last seq that the caller knows, or None.

        Raises:
            QueueFullError: Too much waits already.
            LogUnavailableError: The server stops.
        """
        size = len(posts[0].payload) if len(posts) == 1 else sum([len(post.payload) for post in posts])
        if self._closing:
            raise LogUnavailableError("the server is stopping; send the event again")
        if self._events + len(posts) > self._events_max or (self._events and self._bytes + size > self._bytes_max):
            raise QueueFullError("Feedback arrives faster than it can be written; send it again in a moment.")
        self._events += len(posts)
        self._bytes += size
        self._gather(Submission(source, kind, posts, if_seq, size, on_result))

    def submit_event(
        self, source: Source, post: PostedEvent, kind: Kind = FEEDBACK, if_seq: int | None = None
    ) -> asyncio.Future[EventLocation]:
        """As `send` for one event: the future has its place, or a RefusedError or LogError."""
        future: asyncio.Future[EventLocation] = self._loop.create_future()
        self.send_events(source, (post,), partial(_resolve_with_first, future), kind, if_seq)
        return future

    def submit_events(self, source: Source, posts: Sequence[PostedEvent]) -> asyncio.Future[list[Outcome]]:
        """As `send`: the future has the outcome of each event, or an error of all of them."""
        future: asyncio.Future[list[Outcome]] = self._loop.create_future()
        self.send_events(source, posts, partial(resolve_future, future))
        return future

    def call_with_log(self, do: Callable[[FeedbackLog], T], *, appends: bool = False) -> asyncio.Future[T]:
        """Let the thread do something with the log, after all that was submitted before; what it raises is raised.

        Args:
            do: What; where it appends, it returns the outcomes.
            appends: Whether it does.
        """
        if self._closing:
            raise LogUnavailableError("the server is stopping; send the request again")
        future: asyncio.Future[T] = self._loop.create_future()
        self._gather(LogCall(do, partial(resolve_future, future), appends))
        return future

    async def close(self) -> None:
        """Take nothing more, write what waits, and let go of the log."""
        if not self._closing:
            self._closing = True
            self._hand_over()
            self._queue.put(None)
        await asyncio.shield(self._ended)
        self._thread.join()

    def _gather(self, item: Item) -> None:
        """Add to what this turn of the loop hands over; waking the thread costs more than an event."""
        if not self._gathered:
            self._loop.call_soon(self._hand_over)
        self._gathered.append(item)

    def _hand_over(self) -> None:
        if self._gathered:
            self._queue.put(self._gathered)
            self._gathered = []

    def _answer(self, items: Sequence[Item], results: Sequence[Result], nanoseconds: int) -> None:
        """Give everybody of a batch what became of theirs."""
        if nanoseconds:
            self._count_commit(nanoseconds)
        is_telling = bool(self._told)
        self._told.extend(zip(items, results, strict=True))
        if not is_telling:
            self._tell_some()

    def _tell_some(self) -> None:
        """Tell a few, and the others when the loop has seen to its sockets."""
        told = self._told
        for _ in range(min(TOLD_AT_ONCE, len(told))):
            self._tell(*told.popleft())
        if told:
            self._loop.call_soon(self._tell_some)

    def _tell(self, item: Item, result: Result) -> None:
        if type(item) is Submission:
            self._events -= len(item.posts)
            self._bytes -= item.size
            if type(result) is list and item.kind is FEEDBACK:
                _count(item, result)
        try:
            item.on_result(result)
        except Exception:
            logger.exception("an outcome cannot be told")

    def _gone(self) -> None:
        while self._told:
            self._tell(*self._told.popleft())
        self._ended.set_result(None)


def _count(item: Submission, outcomes: Sequence[Outcome]) -> None:
    """Count what became of feedback."""
    counters = item.source.counters
    for post, outcome in zip(item.posts, outcomes, strict=True):
        if type(outcome) is not EventLocation:
            counters[FEEDBACK_REFUSALS] += 1
        elif outcome.duplicate:
            counters[FEEDBACK_DUPLICATES] += 1
        else:
            counters[FEEDBACK_EVENTS] += 1
            counters[FEEDBACK_ROWS] += post.rows


def resolve_future(future: asyncio.Future[Any], result: Result) -> None:
    """Give a future its result, unless who waited has left."""
    if future.done():
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)


def _resolve_with_first(future: asyncio.Future[Any], result: Result) -> None:
    """The same with the one outcome of a list."""
    resolve_future(future, result[0] if type(result) is list else result)
