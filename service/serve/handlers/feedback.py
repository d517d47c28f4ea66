"""What teaches a model, from its request to its answer.

    feedback   202 {"model_name", "model_version", "id", "seq", "duplicate"} when it is on disk
               with wait=true 200 when it is served too, with "losses": each row's loss before its step
    tokens     202 {"model_name", "model_version", "events": [{"id", "seq", "duplicate"}, …]}, one event for each
               where some are refused, the status of the first refusal: {"error", "accepted": n, "refused": [index, …]}

A duplicate names the version whose stream holds it, which is another one where the retry came after a deploy: seq and
losses are that stream's, and what is waited for is that version.

Everything is an event in one log, written by the worker's writer thread; what it means is the learner's to find out. An
answer that does not come says nothing: send the event again with its id, and the same seq comes back.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import orjson

from service.errors import LearnerBehindError, NotReachedError, SoftstepError, VersionNotServedError
from service.serve.handlers.admin import AdminRequest, forget_everywhere, further
from service.serve.handlers.stream_status import standing
from service.serve.log.writer import Writer
from service.serve.log.writer_thread import Source
from service.serve.metrics.counters import FAILURES, FEEDBACK_COUNTERS, FEEDBACK_START
from service.serve.models.registry import ModelRegistry
from service.serve.models.served_model import Floats, ServedModel
from service.serve.outcomes import accepted, made, refused, refused_of
from service.serve.responses import V1, HttpResponse, refusal
from service.serve.wire.feedback_body import FeedbackParser, PostedEvent
from service.serve.wire.feedback_tokens import TokenKeys, TokenSealer
from service.serve.wire.labels import LabelParser
from service.settings import Settings
from service.store.artifact.fingerprint import compute_geneses
from service.store.directory.data_directory import DataDirectory, StreamFolder
from service.store.log.events import EventLocation, Kind
from service.store.states.losses import LossReader


class CommittedSeq:
    """The last seq of one version that this worker has committed."""

    __slots__ = ("seq",)

    def __init__(self) -> None:
        self.seq = 0


class FeedbackContext(NamedTuple):
    """What feedback for a served state needs; the states of a version share it while its classes stay.

    Attributes:
        source: Where it is written.
        classes: The names of the classes.
        posts: How it is read.
        tokens: How rows are sealed.
        start: An answer, up to the id.
        reached: How far the version is committed.
    """

    source: Source
    classes: Sequence[str]
    posts: FeedbackParser
    tokens: TokenSealer
    start: bytes
    reached: CommittedSeq


class FeedbackHandler:
    """One worker's side of learning; used on the event loop's thread.

    Args:
        live: The models that are served.
        writer: The thread that writes.
        data: Where streams are kept.
        keys: Of the feedback tokens.
        settings: The limits.
    """

    def __init__(
        self, live: ModelRegistry, writer: Writer, data: DataDirectory, keys: TokenKeys, settings: Settings
    ) -> None:
        self.writer: Final = writer
        self._live: Final = live
        self._data: Final = data
        self._keys: Final = keys
        self._settings: Final = settings
        self._lag_max: Final = settings.lag_events_max
        self._taught: dict[tuple[str, str], FeedbackContext] = {}
        self._geneses: WeakKeyDictionary[object, tuple[bytes, ...]] = WeakKeyDictionary()  # of each artifact
        self._losses: dict[tuple[str, int], LossReader] = {}

    def taught(self, served: ServedModel) -> FeedbackContext:
        """What feedback for a served state needs."""
        if served.taught is None:
            served.taught = self._taught[served.name, served.version] = self._made(served)
        taught: FeedbackContext = served.taught
        return taught

    def _made(self, served: ServedModel) -> FeedbackContext:
        artifact, version = served.artifact, int(served.version)
        bound = self._geneses.get(artifact)
        if bound is None:
            bound = self._geneses[artifact] = compute_geneses(artifact)
        epoch = 0 if served.learned is None else int(served.learned.fields["class_epoch"])
        counters = served.counters[FEEDBACK_START : FEEDBACK_START + FEEDBACK_COUNTERS]
        source = Source(served.name, version, bound, len(artifact.manifest.classes), epoch, counters)
        last = self._taught.get((served.name, served.version))
        if last is not None and (last.source[:5], last.classes) == (source[:5], served.classes):
            return last
        rows, settings = served.rows, self._settings
        # A token outlives an upgrade: it is bound to the first release's genesis, which no later one changes.
        tokens = TokenSealer(
            self._keys, served.name, version, bound[-1], rows.n_features, rows.dtype, settings.token_seconds, _now_ms
        )
        labels = LabelParser(served.classes, multilabel=served.thresholds is not None)
        start = orjson.dumps({"model_name": served.name, "model_version": served.version})[:-1] + b',"id":'
        reached = CommittedSeq() if last is None else last.reached
        return FeedbackContext(
            source, served.classes, FeedbackParser(rows, labels, tokens.open_token), tokens, start, reached
        )

    def seal(self, served: ServedModel, X: Floats) -> list[str]:
        """One token for each row of X (B, N)."""
        return self.taught(served).tokens.seal_rows(X)

    def feedback(self, served: ServedModel, body: bytes, tell: Callable[[HttpResponse], None]) -> HttpResponse | None:
        """Answer feedback: at once where it is refused, else None, and `tell` is called when it is on disk."""
        try:
            taught: FeedbackContext = served.taught or self.taught(served)
            self._check_lag(served, taught)
            post = taught.posts.parse_feedback(body)
            if type(post) is PostedEvent:
                self.writer.send_events(
                    taught.source, (post,), lambda result: tell(made(self._answer, taught, post, result))
                )
            else:
                posts: Any = post
                self.writer.send_events(
                    taught.source, posts, lambda result: tell(made(self._answer_all, taught, posts, result))
                )
        except SoftstepError as reason:
            served.counters[FAILURES] += 1
            return refusal(reason, V1)
        return None

    def _check_lag(self, served: ServedModel, taught: FeedbackContext) -> None:
        """Refuse feedback while the learner is too far behind: it would be served ever later."""
        if taught.reached.seq - served.seq > self._lag_max:
            raise LearnerBehindError("Feedback arrives faster than the model learns; send it again later.")

    def _answer(self, taught: FeedbackContext, post: PostedEvent, result: Any) -> HttpResponse:  # noqa: ANN401  # see Writer.send
        """The answer to one event that is on disk, whose seq tells how far the served state is behind."""
        place = result[0] if type(result) is list else result
        if type(place) is not EventLocation:
            return refused(place)
        if place.duplicate:
            return HttpResponse(202, orjson.dumps({**_names(taught), **self._event(taught, post, place)}))
        taught.reached.seq = place.seq
        name = orjson.dumps(post.id.decode())
        return HttpResponse(202, b'%b%b,"seq":%d,"duplicate":false}' % (taught.start, name, place.seq))

    def _answer_all(self, taught: FeedbackContext, posts: Sequence[PostedEvent], result: Any) -> HttpResponse:  # noqa: ANN401  # as above
        """The answer to the events of tokens."""
        answer = refused_of(result)
        if answer is not None:
            return answer
        events = [self._event(taught, post, place) for post, place in zip(posts, result, strict=True)]
        return HttpResponse(202, orjson.dumps({**_names(taught), "events": events}))

    async def feedback_served(self, served: ServedModel, body: bytes) -> HttpResponse:
        """Answer feedback when it is served by this worker, with the losses of its rows."""
        taught = self.taught(served)
        self._check_lag(served, taught)
        post = taught.posts.parse_feedback(body)
        posts = [post] if isinstance(post, PostedEvent) else post
        outcomes = await self.writer.submit_events(taught.source, posts)
        answer = refused_of(outcomes)
        if answer is not None:
            return answer
        places = [accepted(outcome) for outcome in outcomes]
        last: dict[int, int] = {}
        for place in places:
            version = self.writer.version_of(place.stream)
            last[version] = max(place.seq, last.get(version, 0))
        await self._all_served(served.name, last)
        events = [self._event(taught, one, place) for one, place in zip(posts, places, strict=True)]
        for event, place in zip(events, places, strict=True):
            version = self.writer.version_of(place.stream)
            event["losses"] = None if place.forgotten else self._losses_of(served.name, version, place.seq)
        told = events[0] if isinstance(post, PostedEvent) else {"events": events}
        return HttpResponse(200, orjson.dumps({**_names(taught), **told}))

    async def turn(
        self, served: ServedModel, kind: Kind, post: PostedEvent, if_seq: int | None, *, wait: bool
    ) -> HttpResponse:
        """Write an admin event and answer, where asked for, when what came of it is served by this worker."""
        taught = self.taught(served)
        place = await self.writer.submit_event(taught.source, post, kind, if_seq)
        if wait:
            await self._all_served(served.name, {self.writer.version_of(place.stream): place.seq})
        event = self._event(taught, post, place)
        return HttpResponse(200 if wait else 202, orjson.dumps({**_names(taught), **event}))

    async def forget(self, served: ServedModel, turn: AdminRequest, *, wait: bool) -> HttpResponse:
        """Forget feedback of a model in whichever versions hold it; answers as `turn`, or with the event of each."""
        taught, name = self.taught(served), served.name
        outcomes = await self.writer.call_with_log(
            lambda log: forget_everywhere(log, name, turn, _now_ms()), appends=True
        )
        answer = refused_of(outcomes)
        if answer is not None:
            return answer
        last = {self.writer.version_of(place.stream): place.seq for place in map(accepted, outcomes)}
        if wait:
            now = self._live.now.served
            await self._all_served(name, {version: seq for version, seq in last.items() if (name, version) in now})
        events = [
            self._event(taught, turn.post if index == 0 else further(turn.post, version), accepted(outcome))
            for index, (version, outcome) in enumerate(zip(last, outcomes, strict=True))
        ]
        told = events[0] if len(events) == 1 else {"events": events}
        return HttpResponse(200 if wait else 202, orjson.dumps({**_names(taught), **told}))

    async def _all_served(self, name: str, last: Mapping[int, int]) -> None:
        """Wait until this worker serves, of each of these versions of a model, a state that holds an event.

        Raises:
            NotReachedError: It does not in the time that a caller may wait; the event is on disk all the same.
        """
        if any((name, version) not in self._live.now.served for version in last):
            raise VersionNotServedError("The event is stored by a version of the model that is not served.")
        try:
            async with asyncio.timeout(self._settings.wait_seconds):
                for version, seq in last.items():
                    await self._live.reached((name, version), seq)
        except TimeoutError:
            raise NotReachedError("The event is stored but not served yet; ask with min_seq in a moment.") from None

    def folder(self, served: ServedModel) -> StreamFolder:
        """Where a version's stream is kept."""
        return self._data.stream_folder(served.name, int(served.version))

    async def standing(self, served: ServedModel) -> dict[str, Any]:
        """How a stream stands (standing.py)."""
        return await standing(self.writer, self.folder(served), served, _now_ms())

    def _losses_of(self, name: str, version: int, seq: int) -> list[float] | None:
        """The loss of each row of an event, as the learner told it; None where that is too long ago."""
        reader = self._losses.get((name, version))
        if reader is None:
            reader = self._losses[name, version] = LossReader(self._data.stream_folder(name, version).path / "losses")
        return reader.read_losses(seq)

    def _event(self, taught: FeedbackContext, post: PostedEvent, place: EventLocation) -> dict[str, Any]:
        """What is told of one event; its version where that is not the one that was asked."""
        told: dict[str, Any] = {"id": post.id.decode(), "seq": place.seq, "duplicate": place.duplicate}
        if place.forgotten:
            told["forgotten"] = True
        version = self.writer.version_of(place.stream)
        if version != taught.source.version:
            told["model_version"] = str(version)
        return told


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _names(taught: FeedbackContext) -> dict[str, Any]:
    return {"model_name": taught.source.model, "model_version": str(taught.source.version)}
