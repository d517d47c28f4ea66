"""Answer `:feedback`: rows or tokens with their labels become events in the log.

    feedback   202 {"model_name", "model_version", "id", "seq", "duplicate"} when the event is on disk;
               with wait=true 200 when it is served too, with "losses": the loss of each row before its step
    tokens     202 {"model_name", "model_version", "events": [{"id", "seq", "duplicate"}, ...]}, one event per token;
               if some are refused, the status of the first refusal (append_outcomes.py)

A duplicate names the version whose stream holds it. After a deployment that may be another version than the one asked:
seq and losses are that stream's, and wait=true waits for that version.

A missing response says nothing about the event: send it again with its id, and the same seq comes back.
"""

from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter_ns
from typing import Any, Final

import orjson

from service.errors import SoftstepError
from service.serve.handlers.append_outcomes import accepted, refusal_of, refused
from service.serve.handlers.event_responses import EventResponses
from service.serve.handlers.feedback_context import FeedbackContext, FeedbackContexts
from service.serve.log.writer import Writer
from service.serve.metrics.counters import FAILURES, FEEDBACK, count_duration
from service.serve.models.served_model import ServedModel
from service.serve.responses import V1, HttpResponse, learning_off, refusal
from service.serve.wire.feedback_body import PostedEvent
from service.settings import Settings
from service.softmax.arrays import Floats
from service.store.log.events import EventLocation

# Receives the response to feedback, or the exception of a fault.
OnResponse = Callable[[HttpResponse | Exception], None]


class FeedbackHandler:
    """Stores feedback; used on the event loop's thread.

    Args:
        contexts: What feedback for each served state needs.
        writer: The writer of the log.
        responses: Describes stored events.
        settings: The limits.
    """

    def __init__(
        self, contexts: FeedbackContexts, writer: Writer, responses: EventResponses, settings: Settings
    ) -> None:
        self._context_of: Final = contexts.context_of
        self._writer: Final = writer
        self._responses: Final = responses
        self._lag_events_max: Final = settings.lag_events_max

    def seal_rows(self, served: ServedModel, X: Floats) -> list[str]:
        """Return one feedback token for each row of X (B, N)."""
        return self._context_of(served).sealer.seal_rows(X)

    def start(self, served: ServedModel, body: bytes, on_response: OnResponse) -> HttpResponse | None:
        """Store feedback.

        Returns:
            A refusal, or None if `on_response` will be called once the event is on disk or refused.
        """
        started = perf_counter_ns()
        try:
            context = self._context_of(served)
            context.check_lag(served, self._lag_events_max)
            events: Any = context.parser.parse_feedback(body)
            if type(events) is PostedEvent:
                respond = partial(_respond, self._encode_one, on_response, context, events, served.counters, started)
                self._writer.send_events(context.source, (events,), respond)
            else:
                respond = partial(_respond, self._encode_all, on_response, context, events, served.counters, started)
                self._writer.send_events(context.source, events, respond)
        except SoftstepError as reason:
            served.counters[FAILURES] += 1
            return refusal(reason, V1)
        return None

    async def respond_when_served(self, served: ServedModel, body: bytes) -> HttpResponse:
        """Store feedback and respond when this worker serves it, with the losses of its rows."""
        started = perf_counter_ns()
        context = self._context_of(served)
        context.check_lag(served, self._lag_events_max)
        parsed = context.parser.parse_feedback(body)
        events = [parsed] if isinstance(parsed, PostedEvent) else parsed
        outcomes = await self._writer.submit_events(context.source, events)
        response = refusal_of(outcomes)
        if response is not None:
            return response
        places = [accepted(outcome) for outcome in outcomes]
        seqs: dict[int, int] = {}
        for place in places:
            version = self._responses.version_of(place)
            seqs[version] = max(place.seq, seqs.get(version, 0))
        await self._responses.wait_until_served(served.name, seqs)
        bodies = [
            {
                **self._responses.event_body(context, event, place),
                "losses": self._responses.losses_of(served.name, place),
            }
            for event, place in zip(events, places, strict=True)
        ]
        rest = bodies[0] if isinstance(parsed, PostedEvent) else {"events": bodies}
        response = HttpResponse(200, orjson.dumps({**context.names, **rest}))
        count_duration(served.counters, FEEDBACK, perf_counter_ns() - started)
        return response

    def _encode_one(self, context: FeedbackContext, event: PostedEvent, result: Any) -> HttpResponse:  # noqa: ANN401  # see Writer.send
        """Return the response to one event, and note how far the version is committed."""
        place = result[0] if type(result) is list else result
        if type(place) is not EventLocation:
            return refused(place)
        if place.duplicate:
            event_body = self._responses.event_body(context, event, place)
            return HttpResponse(202, orjson.dumps({**context.names, **event_body}))
        context.committed.seq = place.seq
        name = orjson.dumps(event.id.decode())
        return HttpResponse(202, b'%b%b,"seq":%d,"duplicate":false}' % (context.response_start, name, place.seq))

    def _encode_all(self, context: FeedbackContext, events: Sequence[PostedEvent], result: Any) -> HttpResponse:  # noqa: ANN401  # see Writer.send
        """Return the response to the events of tokens."""
        response = refusal_of(result)
        if response is not None:
            return response
        bodies = [
            self._responses.event_body(context, event, place) for event, place in zip(events, result, strict=True)
        ]
        return HttpResponse(202, orjson.dumps({**context.names, "events": bodies}))


class LearningOffHandler:
    """Refuses feedback and tokens in a service that does not learn."""

    def seal_rows(self, _served: ServedModel, _X: Floats) -> list[str]:
        """Raise LearningOffError."""
        raise learning_off()

    def start(self, served: ServedModel, _body: bytes, _on_response: OnResponse) -> HttpResponse | None:
        """Return the refusal."""
        served.counters[FAILURES] += 1
        return refusal(learning_off(), V1)


def _respond(  # noqa: PLR0917  # keywords cost a tenth of a fast request
    encode: Callable[[FeedbackContext, Any, Any], HttpResponse],
    on_response: OnResponse,
    context: FeedbackContext,
    events: Any,  # noqa: ANN401  # one event, or those of tokens
    counters: memoryview,
    started: int,
    result: Any,  # noqa: ANN401  # see Writer.send_events
) -> None:
    """Respond to an append, also if the response cannot be made: no client waits forever."""
    try:
        response = encode(context, events, result)
    except Exception as error:  # noqa: BLE001  # the protocol logs it with the request's id
        on_response(error)
        return
    if not response.code:
        count_duration(counters, FEEDBACK, perf_counter_ns() - started)
    on_response(response)
