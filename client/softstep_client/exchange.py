"""One call with its retries: a flow that yields attempts and pauses, and returns the answer."""

from __future__ import annotations

import json
import random
import time
from typing import TYPE_CHECKING, Any

from softstep_client.errors import APIConnectionError, APIStatusError, APITimeoutError
from softstep_client.retries import is_retried, parse_retry_after, retry_delay
from softstep_client.steps import ApiRequest, Attempt, Failure, Flow, Pause, Reply

if TYPE_CHECKING:
    from softstep_client.options import Options

# Statuses from here on are errors; 202 acknowledges feedback.
FIRST_REFUSAL = 300
REDIRECTS = range(300, 400)
SOME_REFUSED = "some_refused"

NO_SENTENCE = "The service, or a proxy before it, gave no reason."
REDIRECT = "The service answers with a redirection; use the URL that it redirects to."
OTHER_SERVICE = "The answer is not one of Softstep; check the URL of the service."


def exchange(request: ApiRequest, options: Options) -> Flow[Reply]:
    """Send a request until it succeeds, fails for good, or has no retries left.

    Raises:
        APIConnectionError: There was no answer.
        APIStatusError: The service refused the request.
    """
    for retry in range(options.max_retries + 1):
        outcome = yield Attempt(request, options.timeout + request.seconds)
        if isinstance(outcome, Reply) and outcome.status < FIRST_REFUSAL:
            return outcome
        retry_after, error = None, None
        if isinstance(outcome, Reply):
            error = status_error(outcome, request.event_id)
            code = error.body.get("reason") if error.code == SOME_REFUSED else error.code
            retry_after = parse_retry_after(outcome.retry_after, time.time())
            delay = retry_delay(retry, retry_after, random.random())  # noqa: S311 - no secret
            if retry == options.max_retries or delay is None or not is_retried(error.status, code):
                raise error
        else:
            delay = retry_delay(retry, None, random.random())  # noqa: S311 - as above
            if retry == options.max_retries or delay is None:
                raise connection_error(outcome, request.event_id) from outcome.error
        yield Pause(delay)
    raise AssertionError  # the last try returns or raises


def connection_error(failure: Failure, event_id: str | None) -> APIConnectionError:
    """Return the error of a request without an answer."""
    reason = type(failure.error).__name__
    if failure.is_timeout:
        return APITimeoutError(f"The service did not answer in time ({reason}).", event_id)
    return APIConnectionError(f"The connection to the service failed ({reason}).", event_id)


def status_error(reply: Reply, event_id: str | None) -> APIStatusError:
    """Return the error of an answer that refuses a request."""
    body = _object_in(reply.content)
    sentence, code = body.get("error"), body.get("code")
    if not isinstance(sentence, str):
        sentence = REDIRECT if reply.status in REDIRECTS else NO_SENTENCE
    return APIStatusError(
        sentence,
        status=reply.status,
        code=code if isinstance(code, str) else None,
        body=body,
        event_id=event_id,
        request_id=reply.request_id,
    )


def other_service(reply: Reply, event_id: str | None = None) -> APIStatusError:
    """Return the error of an answer that succeeds, but is not one of Softstep."""
    return APIStatusError(OTHER_SERVICE, status=reply.status, event_id=event_id, request_id=reply.request_id)


def parse_json(content: bytes) -> dict[str, Any]:
    """Return the JSON object of a body; raise ValueError if it is none."""
    document = json.loads(content)
    if not isinstance(document, dict):
        raise ValueError("no JSON object")  # noqa: TRY004 - of JSON, a type is a value
    return document


def _object_in(content: bytes) -> dict[str, Any]:
    try:
        return parse_json(content)
    except (ValueError, RecursionError):
        return {}
