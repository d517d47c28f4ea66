"""Charge the limits of a key with one feedback request, and give back what is not stored.

A limit is charged before anything is stored, so what a model learns never exceeds it. An event that is refused, or was
stored before, is given back: a client that sends an event again after a timeout pays once. If the outcome is unknown,
the charge stays.
"""

from collections.abc import Callable
from typing import Final

import orjson

from service.access.principal import Principal
from service.serve.error_codes import INTERNAL_ERROR
from service.serve.limits.limiter import Limiter, Limiters
from service.serve.responses import HttpResponse
from service.serve.wire.feedback_body import PostedEvent, PostedTokens
from service.store.log.feedback_blocks import decode_rows
from service.store.log.feedback_payload import parse_layout

# Receives the response to feedback, or the exception of a fault.
OnResponse = Callable[[HttpResponse | Exception], None]

# The codes of responses that do not say whether the events are stored, or say that they are.
STORED_OR_UNKNOWN: Final = frozenset(("outcome_unknown", "not_reached_yet", "version_not_served", INTERNAL_ERROR))


class FeedbackCharge:
    """The events of one request, charged to a limiter.

    Args:
        limiter: The limits of the sender.
        model: The model's name.
        importance: The importance of each event.

    Raises:
        LimitError: A limit refuses the events.
        TooLargeError: No hour has room for them.
    """

    def __init__(self, limiter: Limiter, model: str, importance: list[float]) -> None:
        self._limiter: Final = limiter
        self._model: Final = model
        self._importance: Final = importance
        limiter.take_feedback(model, len(importance), sum(importance))

    def settle(self, response: HttpResponse) -> None:
        """Give back the events that the response reports as refused or as stored before."""
        if response.code in STORED_OR_UNKNOWN:
            return
        body = orjson.loads(response.body)
        events = body.get("events", [body] * len(self._importance) if response.code else [body])
        unstored = [
            importance
            for event, importance in zip(events, self._importance, strict=True)
            if event.get("duplicate", True)  # a refused event has no such member
        ]
        self._limiter.give_feedback(self._model, len(unstored), sum(unstored))

    def settle_before(self, on_response: OnResponse) -> OnResponse:
        """Return a callback that settles the charge and then calls another one."""

        def settle(response: HttpResponse | Exception) -> None:
            if isinstance(response, HttpResponse):
                self.settle(response)
            on_response(response)

        return settle


def charge_feedback(
    limiters: Limiters, principal: Principal, model: str, posted: PostedEvent | PostedTokens
) -> FeedbackCharge | None:
    """Charge the limits of a principal with feedback for a model; return None if it has none.

    Raises:
        LimitError: A limit refuses it.
        TooLargeError: No hour has room for it.
        OverloadedError: The table of buckets is full.
    """
    limiter = limiters.limiter_of(principal)
    if limiter is None:
        return None
    if isinstance(posted, PostedEvent):
        limiter.take_rows(posted.rows)
        return FeedbackCharge(limiter, model, [_importance_of(posted)])
    limiter.take_rows(len(posted.tokens))
    return FeedbackCharge(limiter, model, list(posted.weights or [1.0] * len(posted.tokens)))


def _importance_of(event: PostedEvent) -> float:
    """Return the sum of the weights of an event's rows."""
    if not parse_layout(event.payload).weighted:
        return float(event.rows)
    weights = decode_rows(event.payload).weights
    assert weights is not None  # noqa: S101  # the layout says so
    return float(weights.sum(dtype="f8"))
