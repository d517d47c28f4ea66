"""The one thread of a worker that writes feedback: what waits is committed together, then everybody is answered.

    event loop   submit, submit, …  ──once a turn──>  queue ──>  thread: one append, mark, bell
    event loop   futures  <──────── one call a batch ───────────┘

The thread owns the worker's log: nothing else may use it, and `call` runs what others ask of it there. Everything is
done in the order in which it was asked for. An event is answered once it is on disk. Nobody waits for ever: whatever
breaks is answered as "outcome unknown", told, and the thread goes on with a log that it opens anew.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple, TypeVar

from service.bell import Bell
from service.errors import (
    ArtifactMovedError,
    BehindError,
    LogError,
    LogUnavailableError,
    OutcomeUnknownError,
    SoftstepError,
    StreamGoneError,
)
from service.serve.posts import Post
from service.store.feedback import Accepted, Draft, FeedbackLog, Kind, Outcome, Position

logger = logging.getLogger("softstep.writer")

# One append: a few milliseconds of other writers' waiting. One post alone may be larger.
BATCH_DRAFTS_MAX: Final = 512
BATCH_BYTES_MAX: Final = 16 << 20

# Counters of one model version, in the order of the cells that a source brings.
EVENTS, ROWS, DUPLICATES, REFUSALS, SOURCE_COUNTERS = range(5)
# Counters of the worker.
BATCHES, COMMIT_NANOSECONDS, WRITER_COUNTERS = range(3)

BROKEN: Final = "the server failed while it wrote the event; send it again, with the same id"

T = TypeVar("T")


class Source(NamedTuple):
    """A model version that learns, as a request sees it.

    Attributes:
        model: Its name.
        version: Its number.
        genesis: What binds its fold to its artifact (learn/step.py).
        n_classes: The artifact's number of classes.
        class_epoch: The class epoch of what is served, which labels were read with.
        counters: EVENTS to REFUSALS.
    """

    model: str
    version: int
    genesis: bytes
    n_classes: int
    class_epoch: int
    counters: memoryview


class _Submission(NamedTuple):
    source: Source
    kind: Kind
    posts: Sequence[Post]
    if_seq: int | None
    size: int
    alone: bool
    future: asyncio.Future[Any]


class _Call(NamedTuple):
    do: Callable[[FeedbackLog], Any]
    future: asyncio.Future[Any]


Item = _Submission | _Call
Result = Any  # a list of outcomes, what a call returned, or the exception of either


@dataclass(frozen=True)
class Ways:
    """What the writer uses, given so that tests and others can bring their own.

    Attributes:
        open_log: Opens the log; called in the thread, and again after a failure.
        bind: Keeps the artifact of a source, before its stream is opened for the first time in this process.
        mark: Notes how far a stream is committed.
        bell: Wakes the learner.
    """

    open_log: Callable[[], FeedbackLog]
    bind: Callable[[Source], None]
    mark: Callable[[int, Position], None]
    bell: Bell


class Writer:
    """Takes feedback from one event loop's thread; every method is called there.

    Args:
        ways: What it works with.
        counters: BATCHES and COMMIT_NANOSECONDS.
        drafts_max: Events that may wait.
        bytes_max: Bytes of payload that may wait; a larger post is taken where nothing else does.
    """

    def __init__(self, ways: Ways, counters: memoryview, drafts_max: int, bytes_max: int) -> None:
        self._counters = counters
        self._drafts_max = drafts_max
        self._bytes_max = bytes_max
        self._queue: SimpleQueue[list[Item] | None] = SimpleQueue()
        self._gathered: list[Item] = []
        self._drafts = 0
        self._bytes = 0
        self._closing = False
        self._scribe = _Scribe(ways, self._queue, self._answer, self._gone)

    @property
    def waiting(self) -> int:
        """The number of events that are not answered yet."""
        return self._drafts

    def start(self) -> None:
        """Begin; called once, on the running loop, in the process that serves."""
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._thread = threading.Thread(target=self._scribe.run, args=(self._loop,), name="writer", daemon=True)
        self._thread.start()

    def submit(
        self, source: Source, post: Post, kind: Kind = Kind.FEEDBACK, if_seq: int | None = None
    ) -> asyncio.Future[Accepted]:
        """Write one event; an admin event is a post with its payload and no rows.

        Returns:
            Its place, once it is on disk, or a RefusedError or LogError.

        Raises:
            BehindError: Too much waits already.
            LogUnavailableError: The server stops.
        """
        return self._submit(source, kind, (post,), if_seq, alone=True)

    def submit_all(self, source: Source, posts: Sequence[Post]) -> asyncio.Future[list[Outcome]]:
        """Write several events of feedback in one transaction; the future has the outcome of each, or a LogError."""
        return self._submit(source, Kind.FEEDBACK, posts, None, alone=False)

    def call(self, do: Callable[[FeedbackLog], T]) -> asyncio.Future[T]:
        """Let the thread do something with the log, after all that was submitted before; what it raises is raised."""
        if self._closing:
            raise LogUnavailableError("the server is stopping; send the request again")
        future: asyncio.Future[T] = self._loop.create_future()
        self._gather(_Call(do, future))
        return future

    async def close(self) -> None:
        """Take nothing more, write what waits, and let go of the log."""
        if not self._closing:
            self._closing = True
            self._hand_over()
            self._queue.put(None)
        await asyncio.shield(self._ended)
        self._thread.join()

    def _submit(
        self, source: Source, kind: Kind, posts: Sequence[Post], if_seq: int | None, *, alone: bool
    ) -> asyncio.Future[Any]:
        size = len(posts[0].payload) if alone else sum(len(post.payload) for post in posts)
        if self._closing:
            raise LogUnavailableError("the server is stopping; send the event again")
        if self._drafts + len(posts) > self._drafts_max or (self._drafts and self._bytes + size > self._bytes_max):
            raise BehindError("feedback comes faster than it can be written; send it again in a moment")
        self._drafts += len(posts)
        self._bytes += size
        future: asyncio.Future[Any] = self._loop.create_future()
        self._gather(_Submission(source, kind, posts, if_seq, size, alone, future))
        return future

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
            self._counters[BATCHES] += 1
            self._counters[COMMIT_NANOSECONDS] += nanoseconds
        for item, result in zip(items, results, strict=True):
            outcome = result
            if isinstance(item, _Submission):
                self._drafts -= len(item.posts)
                self._bytes -= item.size
                if type(result) is list:
                    _count(item, result)
                    outcome = result[0] if item.alone else result
            future = item.future
            if future.done():  # its client has left
                continue
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    def _gone(self) -> None:
        self._ended.set_result(None)


def _count(item: _Submission, outcomes: Sequence[Outcome]) -> None:
    """Count what became of feedback."""
    if item.kind != Kind.FEEDBACK:
        return
    counters = item.source.counters
    for post, outcome in zip(item.posts, outcomes, strict=True):
        if type(outcome) is not Accepted:
            counters[REFUSALS] += 1
        elif outcome.duplicate:
            counters[DUPLICATES] += 1
        else:
            counters[EVENTS] += 1
            counters[ROWS] += post.rows


class _Scribe:
    """The thread's side."""

    def __init__(
        self,
        ways: Ways,
        queue: SimpleQueue[list[Item] | None],
        answer: Callable[[Sequence[Item], Sequence[Result], int], None],
        gone: Callable[[], None],
    ) -> None:
        self._ways = ways
        self._queue = queue
        self._answer = answer
        self._gone = gone
        self._pending: deque[Item] = deque()
        self._stopping = False
        self._log: FeedbackLog | None = None
        self._told = ""
        self._streams: dict[tuple[str, int, bytes], int] = {}

    def run(self, loop: asyncio.AbstractEventLoop) -> None:
        """Work until nothing waits behind the order to stop."""
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
        pending, items = self._pending, [self._pending.popleft()]
        drafts = size = 0
        while isinstance(last := items[-1], _Submission) and pending and isinstance(pending[0], _Submission):
            drafts, size = drafts + len(last.posts), size + last.size
            if drafts + len(pending[0].posts) > BATCH_DRAFTS_MAX or size + pending[0].size > BATCH_BYTES_MAX:
                break
            items.append(pending.popleft())
        return items

    def _work(self, items: Sequence[Item]) -> tuple[list[Result], int]:
        """What became of each item, and the nanoseconds of a commit."""
        log = self._log = self._log or self._ways.open_log()
        first = items[0]
        if not isinstance(first, _Call):
            return self._append(log, items)
        try:
            return [first.do(log)], 0
        except Exception as error:  # noqa: BLE001  # it belongs to the one who waits
            return [error], 0

    def _append(self, log: FeedbackLog, items: Sequence[Any]) -> tuple[list[Result], int]:
        now_ms = time.time_ns() // 1_000_000
        results: list[Result] = []
        drafts: list[Draft] = []
        for source, kind, posts, if_seq, *_ in items:
            number = self._stream(log, source)
            if type(number) is int:
                epoch = source.class_epoch if kind == Kind.FEEDBACK else None
                results.append(slice(len(drafts), len(drafts) + len(posts)))
                drafts += [Draft(number, kind, id_, payload, now_ms, epoch, if_seq) for id_, payload, _ in posts]
            else:
                results.append(number)
        before = time.perf_counter_ns()
        outcomes = log.append(drafts) if drafts else []
        nanoseconds = time.perf_counter_ns() - before
        self._note(log, outcomes)
        return [outcomes[result] if type(result) is slice else result for result in results], nanoseconds

    def _stream(self, log: FeedbackLog, source: Source) -> int | SoftstepError:
        """The number of a source's stream, opened where this process has not yet; or why it cannot be written to."""
        number = self._streams.get(source[:3])
        if number is None:
            try:
                self._ways.bind(source)
                stream = log.open_stream(source.model, source.version, source.genesis, source.n_classes)
            except SoftstepError as error:
                return error
            if stream.genesis != source.genesis:
                return ArtifactMovedError("the model's files are not those that its feedback began with")
            number = self._streams[source[:3]] = stream.number
        return number

    def _note(self, log: FeedbackLog, outcomes: Sequence[Outcome]) -> None:
        """Mark what is committed, before anybody is told, and wake the learner."""
        streams = set()
        for outcome in outcomes:
            if type(outcome) is Accepted:
                if not outcome.duplicate:
                    streams.add(outcome.stream)
            elif type(outcome) is StreamGoneError:
                self._streams.clear()
        try:
            for stream in streams:
                state = log.state(stream)
                self._ways.mark(stream, Position(state.seq, state.hash))
        except SoftstepError:
            logger.exception("feedback is on disk, but cannot be marked")
        if streams:
            self._ways.bell.ring()

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
