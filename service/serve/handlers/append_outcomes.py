"""Convert append outcomes to HTTP responses: all events kept, some refused, or all refused.

An event is kept if it is stored and part of the state. A duplicate of an event that was forgotten, skipped or rolled
back is refused.
"""

from collections.abc import Sequence
from typing import Any, Final

import orjson

from service.errors import LogError, SoftstepError
from service.serve.error_codes import INTERNAL_ERROR, SOME_REFUSED
from service.serve.responses import V1, HttpResponse, refusal
from service.store.log.events import EventLocation
from service.store.log.removals import removal_error

# So many refused events are listed by their places.
REFUSED_LISTED_MAX: Final = 1000


def refusal_reason(outcome: Any) -> BaseException | None:  # noqa: ANN401  # see Writer.send_events
    """Return why an event was not kept, or None if it was."""
    if not isinstance(outcome, EventLocation):
        reason: BaseException = outcome
        return reason
    return None if outcome.removed_by is None else removal_error(outcome.removed_by)


def kept(outcome: Any) -> EventLocation:  # noqa: ANN401  # as above
    """Return the location of a kept event, or raise the error of a refused one."""
    reason = refusal_reason(outcome)
    if reason is not None:
        raise reason
    location: EventLocation = outcome
    return location


def refused(reason: Any) -> HttpResponse:  # noqa: ANN401  # any exception of the writer's thread
    """Return the response to feedback that was not kept; raise a fault of the service."""
    if isinstance(reason, SoftstepError):
        return refusal(reason, V1)
    raise reason


def code_of(reason: BaseException | None) -> str:
    """Return the code of an error."""
    return reason.code if isinstance(reason, SoftstepError) else INTERNAL_ERROR


def refusal_of(outcomes: Sequence[Any], events: Sequence[dict[str, Any]]) -> HttpResponse | None:
    """Return the response if not all of several events were kept, else None.

    Args:
        outcomes: The outcome of each event, or the error for which it was refused before it reached the log.
        events: The members that describe each event, of a refused one those that are known; they get its code.
    """
    reasons = [refusal_reason(outcome) for outcome in outcomes]
    places = [place for place, reason in enumerate(reasons) if reason is not None]
    if not places:
        return None
    first = reasons[places[0]]
    response = refused(first)
    if isinstance(first, LogError) and all(reason is first for reason in reasons):
        return response  # the request as a whole was refused
    listed = [
        event if reason is None else {**event, "code": code_of(reason)}
        for event, reason in zip(events, reasons, strict=True)
    ]
    accepted, text, code = len(outcomes) - len(places), orjson.loads(response.body)["error"], code_of(first)
    body = {"error": text, "code": code}
    if accepted:
        body = {
            "error": f"Some events were refused; the others are stored: {text}",
            "code": SOME_REFUSED,
            "reason": code,
        }
    body |= {"accepted": accepted, "refused": places[:REFUSED_LISTED_MAX], "events": listed}
    return response._replace(body=orjson.dumps(body))
