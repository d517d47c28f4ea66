"""What became of events, as answers: those that were refused, alone or among others, and what broke."""

import logging
from collections.abc import Callable
from typing import Any, Final, TypeVar

import orjson

from service.errors import SoftstepError
from service.serve.error_codes import SOME_REFUSED
from service.serve.responses import BROKEN, V1, HttpResponse, refusal, sentence
from service.store.log.events import EventLocation, Outcome

logger = logging.getLogger("softstep.feedback")

T = TypeVar("T")

# Of the events that were refused, so many are named: an error answer has 16 KiB at most.
REFUSED_TOLD_MAX: Final = 1000


def accepted(outcome: Outcome) -> EventLocation:
    """The place of an event, or what was raised against it."""
    if isinstance(outcome, EventLocation):
        return outcome
    raise outcome


def made(make: Callable[[T, Any, Any], HttpResponse], taught: T, posts: Any, result: Any) -> HttpResponse:  # noqa: ANN401
    """An answer, or that the server failed to make it: nobody waits for ever."""
    try:
        return make(taught, posts, result)
    except Exception:
        logger.exception("an answer to feedback broke")
        return BROKEN


def refused(reason: Any) -> HttpResponse:  # noqa: ANN401  # whatever came in place of outcomes
    """The answer to feedback that was not written."""
    if isinstance(reason, SoftstepError):
        return refusal(reason, V1)
    logger.error("feedback broke", exc_info=reason)
    return BROKEN


def refused_of(result: Any) -> HttpResponse | None:  # noqa: ANN401  # see Writer.send
    """The answer where all or some of several events were refused, and which; None where none was."""
    if type(result) is not list:
        return refused(result)
    places = [index for index, outcome in enumerate(result) if type(outcome) is not EventLocation]
    if not places:
        return None
    reason = result[places[0]]
    answer = refused(reason)
    if len(places) == len(result):
        return answer
    told = {
        "error": f"Some events were refused; the others are stored: {sentence(reason)}",
        "code": SOME_REFUSED,
        "reason": reason.code,
        "accepted": len(result) - len(places),
        "refused": places[:REFUSED_TOLD_MAX],
    }
    return answer._replace(body=orjson.dumps(told))
