"""Convert append outcomes to HTTP responses: all events stored, some refused, or all refused."""

from typing import Any, Final

import orjson

from service.errors import SoftstepError
from service.serve.error_codes import SOME_REFUSED
from service.serve.responses import V1, HttpResponse, refusal, sentence
from service.store.log.events import EventLocation, Outcome

# So many refused events are listed, which keeps the response below 16 KiB.
REFUSED_LISTED_MAX: Final = 1000


def accepted(outcome: Outcome) -> EventLocation:
    """Return the place of a stored event, or raise the error of a refused one."""
    if isinstance(outcome, EventLocation):
        return outcome
    raise outcome


def refused(reason: Any) -> HttpResponse:  # noqa: ANN401  # any exception of the writer's thread
    """Return the response to feedback that was not stored; raise a fault of the service."""
    if isinstance(reason, SoftstepError):
        return refusal(reason, V1)
    raise reason


def refusal_of(result: Any) -> HttpResponse | None:  # noqa: ANN401  # see Writer.send
    """Return the response if all or some of several events were refused, else None."""
    if type(result) is not list:
        return refused(result)
    places = [index for index, outcome in enumerate(result) if type(outcome) is not EventLocation]
    if not places:
        return None
    reason = result[places[0]]
    response = refused(reason)
    if len(places) == len(result):
        return response
    body = {
        "error": f"Some events were refused; the others are stored: {sentence(reason)}",
        "code": SOME_REFUSED,
        "reason": reason.code,
        "accepted": len(result) - len(places),
        "refused": places[:REFUSED_LISTED_MAX],
    }
    return response._replace(body=orjson.dumps(body))
