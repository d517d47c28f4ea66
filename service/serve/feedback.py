"""What teaches a model, from its request to its answer.

    feedback   202 {"model_name", "model_version", "id", "seq", "duplicate"} when it is on disk
               with wait=true 200 when it is served too, with "losses": each row's loss before its step
    tokens     202 {"model_name", "model_version", "events": [{"id", "seq", "duplicate"}, …]}, one event for each

Everything is an event in one log, written by the worker's writer thread; what it means is the learner's to find out. An
answer that does not come says nothing: send the event again with its id, and the same seq comes back.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import orjson

from service.errors import BehindError, LogError, NotReachedError, SoftstepError
from service.serve.answers import Answer, refusal
from service.serve.labels import Labels
from service.serve.live import Live
from service.serve.metrics import FAILURES, FEEDBACK, V1
from service.serve.posts import Post, Posts
from service.serve.scribe import Source
from service.serve.served import Floats, Served
from service.serve.tokens import Keys, Tokens
from service.serve.writer import SOURCE_COUNTERS, Writer
from service.settings import Settings
from service.store.data import DataDirectory, StreamFolder
from service.store.feedback import Accepted, FeedbackLog, Kind, Outcome
from service.store.genesis import genesis
from service.store.losses import LossReader
from service.store.status import read_status


class Taught(NamedTuple):
    """What feedback for one served state needs: where it is written, how it is read, and how rows are sealed."""

    source: Source
    posts: Posts
    tokens: Tokens
    start: bytes  # of an answer, up to the id


class Teaching:
    """One worker's side of learning; used on the event loop's thread.

    Args:
        live: The models that are served.
        writer: The thread that writes.
        data: Where streams are kept.
        keys: Of the feedback tokens.
        settings: The limits.
    """

    def __init__(self, live: Live, writer: Writer, data: DataDirectory, keys: Keys, settings: Settings) -> None:
        self.writer: Final = writer
        self._live: Final = live
        self._data: Final = data
        self._keys: Final = keys
        self._settings: Final = settings
        self._taught: WeakKeyDictionary[Served, Taught] = WeakKeyDictionary()
        self._genesis: WeakKeyDictionary[object, bytes] = WeakKeyDictionary()  # of each artifact
        self._losses: dict[tuple[str, str], LossReader] = {}
        self._committed: dict[tuple[str, str], int] = {}  # the last seq of each version that this worker committed

    def taught(self, served: Served) -> Taught:
        """What feedback for a served state needs."""
        known = self._taught.get(served)
        if known is None:
            known = self._taught[served] = self._made(served)
        return known

    def _made(self, served: Served) -> Taught:
        artifact, version = served.artifact, int(served.version)
        bound = self._genesis.get(artifact)
        if bound is None:
            bound = self._genesis[artifact] = genesis(artifact)
        epoch = 0 if served.learned is None else int(served.learned.fields["class_epoch"])
        counters = served.counters[FEEDBACK : FEEDBACK + SOURCE_COUNTERS]
        source = Source(served.name, version, bound, len(artifact.manifest.classes), epoch, counters)
        rows, settings = served.rows, self._settings
        tokens = Tokens(
            self._keys, served.name, version, bound, rows.n_features, rows.dtype, settings.token_seconds, _now_ms
        )
        labels = Labels(served.classes, multilabel=served.thresholds is not None)
        named = orjson.dumps({"model_name": served.name, "model_version": served.version})
        return Taught(source, Posts(rows, labels, tokens.open), tokens, named[:-1] + b',"id":')

    def seal(self, served: Served, X: Floats) -> list[str]:
        """One token for each row of X (B, N)."""
        return self.taught(served).tokens.seal(X)

    def feedback(self, served: Served, body: bytes) -> Answer | asyncio.Future[Answer]:
        """Answer feedback when it is on disk: by a future, or at once where it is refused."""
        taught = self.taught(served)
        try:
            self._check_lag(served)
            post = taught.posts.read(body)
            if type(post) is Post:
                return _then(
                    self.writer.submit(taught.source, post), lambda place: self._told(served, taught, post, place)
                )
            posts: Any = post
            written = self.writer.submit_all(taught.source, posts)
            return _then(written, lambda outcomes: _told_all(served, posts, outcomes))
        except SoftstepError as reason:
            served.counters[FAILURES] += 1
            return refusal(reason, V1)

    def _told(self, served: Served, taught: Taught, post: Post, place: Accepted) -> Answer:
        """The answer to one event that is on disk, whose seq tells how far the served state is behind."""
        if not place.duplicate:
            self._committed[served.name, served.version] = place.seq
        return _told(taught, post, place)

    def _check_lag(self, served: Served) -> None:
        """Refuse feedback while the learner is too far behind: it would be served ever later."""
        lag = self._committed.get((served.name, served.version), 0) - served.seq
        if lag > self._settings.lag_events_max:
            raise BehindError("the model learns slower than feedback comes; send it again later")

    async def feedback_served(self, served: Served, body: bytes) -> Answer:
        """Answer feedback when it is served by this worker, with the losses of its rows."""
        taught = self.taught(served)
        self._check_lag(served)
        post = taught.posts.read(body)
        posts = [post] if isinstance(post, Post) else post
        outcomes = await self.writer.submit_all(taught.source, posts)
        places = [accepted(outcome) for outcome in outcomes]
        await self.served(served, max(place.seq for place in places))
        losses = [self._losses_of(served, place.seq) for place in places]
        if not isinstance(post, Post):
            told = [
                {**_event(one, place), "losses": loss} for one, place, loss in zip(posts, places, losses, strict=True)
            ]
            return Answer(200, orjson.dumps({**_names(served), "events": told}))
        return Answer(200, orjson.dumps({**_names(served), **_event(post, places[0]), "losses": losses[0]}))

    async def turn(self, served: Served, kind: Kind, post: Post, if_seq: int | None, *, wait: bool) -> Answer:
        """Write an admin event and answer, where asked for, when what came of it is served by this worker."""
        place = await self.writer.submit(self.taught(served).source, post, kind, if_seq)
        if wait:
            await self.served(served, place.seq)
        return Answer(200 if wait else 202, orjson.dumps({**_names(served), **_event(post, place)}))

    async def served(self, served: Served, seq: int) -> None:
        """Wait until this worker serves a state that holds an event.

        Raises:
            NotReachedError: It does not in the time that a caller may wait; the event is on disk all the same.
        """
        try:
            async with asyncio.timeout(self._settings.wait_seconds):
                await self._live.reached((served.name, int(served.version)), seq)
        except TimeoutError:
            raise NotReachedError("The event is kept, but not served yet; ask with min_seq in a moment.") from None

    def folder(self, served: Served) -> StreamFolder:
        """Where a version's stream is kept."""
        return self._data.stream(served.name, int(served.version))

    async def standing(self, served: Served) -> dict[str, Any]:
        """How a stream stands: what is committed, how far behind that the served state is, what the learner is at."""
        folder = self.folder(served)
        try:
            kept = await self.writer.call(lambda log: _kept(log, served.name, int(served.version), served.seq))
        except LogError:
            return {"learner": {"state": "unavailable"}}
        status = read_status(folder.path)
        erased = status.pop("erased_epoch", 0)
        lag = 0.0 if kept.since_ms is None else max(0.0, (_now_ms() - kept.since_ms) / 1000)
        return {
            "log_seq": kept.seq,
            "lag_events": max(0, kept.seq - served.seq),
            "lag_seconds": lag,
            "learner": status or {"state": "following"},
            "erased": erased >= kept.epoch,
        }

    def _losses_of(self, served: Served, seq: int) -> list[float] | None:
        """The loss of each row of an event, as the learner told it; None where that is too long ago."""
        key = (served.name, served.version)
        reader = self._losses.get(key)
        if reader is None:
            reader = self._losses[key] = LossReader(self.folder(served).path / "losses")
        return reader.of(seq)


class Kept(NamedTuple):
    """What is committed of a stream: its last seq, its forgets, and when the first event that is not served came."""

    seq: int = 0
    epoch: int = 0
    since_ms: int | None = None


def _kept(log: FeedbackLog, model: str, version: int, served: int) -> Kept:
    """Look at the log; on the writer's thread."""
    for stream in log.streams():
        if stream[1:3] == (model, version):
            state = log.state(stream.number)
            waiting = log.read(stream.number, served, 1)
            return Kept(state.seq, state.epoch, waiting[0].time_ms if waiting else None)
    return Kept()


def accepted(outcome: Outcome) -> Accepted:
    """The place of an event, or what was raised against it."""
    if isinstance(outcome, Accepted):
        return outcome
    raise outcome


def _then(written: asyncio.Future[Any], tell: Any) -> asyncio.Future[Answer]:  # noqa: ANN401  # from a result to an answer
    """The answer to what is being written."""
    answer: asyncio.Future[Answer] = written.get_loop().create_future()

    def done(written: asyncio.Future[Any]) -> None:
        reason = written.exception()
        if answer.done():
            return
        if reason is None:
            answer.set_result(tell(written.result()))
        elif isinstance(reason, SoftstepError):
            answer.set_result(refusal(reason, V1))
        else:
            answer.set_exception(reason)

    written.add_done_callback(done)
    return answer


def _told(taught: Taught, post: Post, place: Accepted) -> Answer:
    """The answer to one event that is on disk."""
    duplicate = b"true" if place.duplicate else b"false"
    forgotten = b',"forgotten":true' if place.forgotten else b""
    body = b'%b%b,"seq":%d,"duplicate":%b%b}' % (
        taught.start,
        orjson.dumps(post.id.decode()),
        place.seq,
        duplicate,
        forgotten,
    )
    return Answer(202, body)


def _told_all(served: Served, posts: Sequence[Post], outcomes: Sequence[Outcome]) -> Answer:
    """The answer to the events of tokens. Where one is refused the answer is its refusal; a retry finds the others."""
    try:
        events = [_event(post, accepted(outcome)) for post, outcome in zip(posts, outcomes, strict=True)]
    except SoftstepError as reason:
        return refusal(reason, V1)
    return Answer(202, orjson.dumps({**_names(served), "events": events}))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _names(served: Served) -> dict[str, Any]:
    return {"model_name": served.name, "model_version": served.version}


def _event(post: Post, place: Accepted) -> dict[str, Any]:
    told: dict[str, Any] = {"id": post.id.decode(), "seq": place.seq, "duplicate": place.duplicate}
    return {**told, "forgotten": True} if place.forgotten else told
