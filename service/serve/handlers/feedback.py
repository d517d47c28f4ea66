"""Answer `:feedback`: rows or tokens with their labels become events in the log.

    feedback   202 {"model_name", "model_version", "id", "seq", "duplicate"} when the event is on disk;
               with wait=true 200 when it is served too, with "losses": the loss of each row before its step
    tokens     202 {"model_name", "model_version", "events": [{"id", "seq", "duplicate"}, ...]}, one event per token;
               if some are refused, the status of the first refusal (append_outcomes.py)

A duplicate names the version whose stream holds it. After a deployment that may be another version than the one asked:
seq and losses are that stream's, and wait=true waits for that version. A duplicate of an event that was forgotten,
skipped or rolled back is refused.

A missing response says nothing about the event: send it again with its id, and the same seq comes back.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from time import perf_counter_ns
from typing import Any, Final

import orjson

from service.access.principal import NO_LIMITS, Principal
from service.errors import SoftstepError
from service.serve.handlers.append_outcomes import kept, refusal_of, refusal_reason, refused
from service.serve.handlers.event_responses import EventResponses
from service.serve.handlers.feedback_charge import FeedbackCharge, OnResponse, charge_feedback
from service.serve.handlers.feedback_context import FeedbackContext, FeedbackContexts, learner_behind
from service.serve.handlers.token_feedback import TOKENS_PER_TURN, TokenBatch, TokenFeedback
from service.serve.limits.limiter import Limiters
from service.serve.log.writer import Writer
from service.serve.metrics.counters import FAILURES, FEEDBACK, count_duration
from service.serve.models.endpoint import Endpoint
from service.serve.models.served_model import ServedModel
from service.serve.responses import V1, HttpResponse, learning_off, refusal
from service.serve.wire.feedback_body import PostedEvent, PostedTokens
from service.settings import Settings
from service.softmax.sparse_rows import Rows
from service.store.log.events import EventLocation


class FeedbackHandler:
    """Stores feedback; used on the event loop's thread.

    Args:
        contexts: What feedback for each served state needs.
        tokens: Stores feedback of tokens.
        writer: The writer of the log.
        responses: Describes stored events.
        limiters: The limits of keys.
        settings: The limits of the service.
    """

    def __init__(  # noqa: PLR0917  # the parts of a worker
        self,
        contexts: FeedbackContexts,
        tokens: TokenFeedback,
        writer: Writer,
        responses: EventResponses,
        limiters: Limiters,
        settings: Settings,
    ) -> None:
        self._context_of: Final = contexts.context_of
        self._lag_events_max: Final = settings.lag_events_max
        self._tokens: Final = tokens
        self._tasks: Final[set[asyncio.Future[TokenBatch]]] = set()  # the event loop alone would not keep them
        self._writer: Final = writer
        self._responses: Final = responses
        self._limiters: Final = limiters

    def seal_rows(self, served: ServedModel, X: Rows) -> list[str]:
        """Return one feedback token for each row of X (B, N)."""
        return self._context_of(served).sealer.seal_rows(X)

    def start(
        self, endpoint: Endpoint, principal: Principal, body: bytes, on_response: OnResponse
    ) -> HttpResponse | None:
        """Store feedback; each event names its actor.

        Returns:
            A refusal, or None if `on_response` will be called once the event is on disk or refused.
        """
        started, served = perf_counter_ns(), endpoint.served
        charge = None
        try:
            context = self._context_of(served)
            if context.committed.seq - served.seq > self._lag_events_max:  # as `check_lag`, without a call
                raise learner_behind()
            posted: Any = context.parser.parse_feedback(body)
            if principal.limits is not NO_LIMITS:
                charge = charge_feedback(self._limiters, principal, served.name, posted)
                if charge is not None:
                    on_response = charge.settle_before(on_response)
            if type(posted) is PostedEvent:
                context.parser.count_values()
                respond = partial(self._respond_to_one, on_response, served.counters, started, context, posted)
                self._writer.send_events(context.source, (posted,), respond, actor=principal.actor)
            elif len(posted.tokens) > TOKENS_PER_TURN:
                self._start_large(endpoint, context, principal, posted, on_response)
            else:
                respond = partial(_respond, self._encode_batch, on_response, served.counters, started, context)
                batch = self._tokens.send(endpoint, posted, respond, principal.actor)
                if batch is not None:
                    return _refuse(served, self._encode_batch(context, batch), charge)
        except SoftstepError as reason:
            return _refuse(served, refusal(reason, V1), charge)
        return None

    def _start_large(
        self,
        endpoint: Endpoint,
        context: FeedbackContext,
        principal: Principal,
        posted: PostedTokens,
        on_response: OnResponse,
    ) -> None:
        """Store the feedback of many tokens, which are read in several turns of the event loop."""
        started, served = perf_counter_ns(), endpoint.served

        def finish(task: asyncio.Future[TokenBatch]) -> None:
            self._tasks.discard(task)
            reason = asyncio.CancelledError() if task.cancelled() else task.exception()
            if reason is None:
                _respond(self._encode_batch, on_response, served.counters, started, context, task.result())
            elif isinstance(reason, SoftstepError):
                served.counters[FAILURES] += 1
                on_response(refusal(reason, V1))
            elif isinstance(reason, Exception):
                on_response(reason)

        task = asyncio.ensure_future(self._tokens.submit(endpoint, posted, principal.actor))
        self._tasks.add(task)
        task.add_done_callback(finish)

    async def respond_when_served(self, endpoint: Endpoint, principal: Principal, body: bytes) -> HttpResponse:
        """Store feedback and respond when this worker serves it, with the losses of its rows."""
        started, served = perf_counter_ns(), endpoint.served
        context = self._context_of(served)
        context.check_lag(served, self._lag_events_max)
        posted = context.parser.parse_feedback(body)
        charge = charge_feedback(self._limiters, principal, served.name, posted)
        try:
            if isinstance(posted, PostedEvent):
                context.parser.count_values()
                response = await self._wait_for_event(served.name, context, posted, principal.actor)
            else:
                batch = await self._tokens.submit(endpoint, posted, principal.actor)
                response = await self._wait_for_batch(served.name, context, batch)
        except SoftstepError as reason:
            if charge is not None:
                charge.settle(refusal(reason, V1))
            raise
        if charge is not None:
            charge.settle(response)
        if not response.code:
            count_duration(served.counters, FEEDBACK, perf_counter_ns() - started)
        return response

    async def _wait_for_event(
        self, name: str, context: FeedbackContext, event: PostedEvent, actor: str
    ) -> HttpResponse:
        """Store an event and respond when it is served; raise if it is refused, or removed meanwhile."""
        place = kept(await self._writer.submit_event(context.source, event, actor=actor))
        (place,) = await self._responses.wait_until_served(name, [(event.id, place)])
        served_body = self._responses.served_body(context, event, kept(place))
        return HttpResponse(200, orjson.dumps({**context.names, **served_body}))

    async def _wait_for_batch(self, name: str, context: FeedbackContext, batch: TokenBatch) -> HttpResponse:
        """Respond when the events of tokens are served, or at once if not all were kept."""
        response = refusal_of(batch.outcomes, self._describe(context, batch))
        if response is not None:
            return response
        events = [event for event in batch.events if event is not None]
        placed = [(event.id, kept(outcome)) for event, outcome in zip(events, batch.outcomes, strict=True)]
        batch.outcomes[:] = await self._responses.wait_until_served(name, placed)
        response = refusal_of(batch.outcomes, self._describe(context, batch))
        if response is not None:
            return response
        bodies = [
            self._responses.served_body(context, event, place)
            for event, place in zip(events, batch.outcomes, strict=True)
        ]
        return HttpResponse(200, orjson.dumps({**context.names, "events": bodies}))

    def _encode_one(self, context: FeedbackContext, event: PostedEvent, result: Any) -> HttpResponse:  # noqa: ANN401  # see Writer.send_events
        """Return the response to one event, and note how far the version is committed."""
        place = result[0] if type(result) is list else result
        if type(place) is not EventLocation:
            return refused(place)
        if place.duplicate:
            reason = refusal_reason(place)
            if reason is not None:
                return refused(reason)
            event_body = self._responses.event_body(context, event, place)
            return HttpResponse(202, orjson.dumps({**context.names, **event_body}))
        context.committed.seq = place.seq
        name = orjson.dumps(event.id.decode())
        return HttpResponse(202, b'%b%b,"seq":%d,"duplicate":false}' % (context.response_start, name, place.seq))

    def _respond_to_one(  # noqa: PLR0917  # bound by a partial, without keywords because they cost time
        self,
        on_response: OnResponse,
        counters: memoryview,
        started: int,
        context: FeedbackContext,
        event: PostedEvent,
        result: Any,  # noqa: ANN401  # see Writer.send_events
    ) -> None:
        """Respond to one event as `_respond` does."""
        try:
            response = self._encode_one(context, event, result)
        except Exception as error:  # noqa: BLE001  # the protocol logs it with the request's id
            on_response(error)
            return
        if not response.code:
            count_duration(counters, FEEDBACK, perf_counter_ns() - started)
        on_response(response)

    def _encode_batch(self, context: FeedbackContext, batch: TokenBatch) -> HttpResponse:
        """Return the response to the events of tokens."""
        events = self._describe(context, batch)
        response = refusal_of(batch.outcomes, events)
        return response or HttpResponse(202, orjson.dumps({**context.names, "events": events}))

    def _describe(self, context: FeedbackContext, batch: TokenBatch) -> list[dict[str, Any]]:
        """Return what is known of the event of each token: its place, or of a refused one its id or nothing."""
        return [
            {}
            if event is None
            else {"id": event.id.decode()}
            if refusal_reason(outcome)
            else self._responses.event_body(context, event, outcome)
            for event, outcome in zip(batch.events, batch.outcomes, strict=True)
        ]


class LearningOffHandler:
    """Refuses feedback and tokens in a service that does not learn."""

    def seal_rows(self, _served: ServedModel, _X: Rows) -> list[str]:
        """Raise LearningOffError."""
        raise learning_off()

    def start(
        self, endpoint: Endpoint, _principal: Principal, _body: bytes, _on_response: OnResponse
    ) -> HttpResponse | None:
        """Return the refusal."""
        endpoint.served.counters[FAILURES] += 1
        return refusal(learning_off(), V1)


def _refuse(served: ServedModel, response: HttpResponse, charge: FeedbackCharge | None) -> HttpResponse:
    """Return the response to feedback that was not stored, after its charge was given back."""
    served.counters[FAILURES] += 1
    if charge is not None:
        charge.settle(response)
    return response


def _respond(
    encode: Callable[..., HttpResponse],
    on_response: OnResponse,
    counters: memoryview,
    started: int,
    *arguments: Any,  # noqa: ANN401  # those of `encode`
) -> None:
    """Respond to an append, also if the response cannot be made: no client waits forever."""
    try:
        response = encode(*arguments)
    except Exception as error:  # noqa: BLE001  # the protocol logs it with the request's id
        on_response(error)
        return
    if not response.code:
        count_duration(counters, FEEDBACK, perf_counter_ns() - started)
    on_response(response)
