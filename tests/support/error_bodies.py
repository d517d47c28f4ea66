"""The one form of errors, held to the table of error codes.

An error is any response with a status from 400 on, and the 202 of a state that is still being computed. Its body is a
JSON object with `error`, one sentence, and `code`, a code of the table, which also gives the status and Retry-After.
"""

import json
from collections.abc import Mapping
from typing import Any

import httpx

from service.serve.error_codes import ERROR_CODES, SOME_REFUSED
from tests.support.leaked_secrets import check_text

# The codes of the limits of a key.
LIMITS = frozenset(code for code in ERROR_CODES if code.startswith("too_m") and ERROR_CODES[code].retry_after)
UNACCEPTABLE = 422
UNACCEPTABLE_V2 = 400


def is_error(status: int, body: bytes) -> bool:
    """Whether a response is an error."""
    return status >= 400 or (status == 202 and b'"code":' in body)


def check_error(status: int, headers: Mapping[str, str], body: bytes, target: str | None = None) -> str:
    """Check an error response against the table, and that it has no secret.

    Args:
        status: Its status.
        headers: Its headers, by name in lower case.
        body: Its body.
        target: The target of its request, or None if unknown: then the status of either protocol is valid.

    Returns:
        Its code.
    """
    assert headers["content-type"] == "application/json", (status, body)
    check_text(body.decode(), "an error body")
    document: dict[str, Any] = json.loads(body)
    code, sentence = document["code"], document["error"]
    some_refused = code == SOME_REFUSED
    more = {"accepted", "refused", "events"} if "events" in document else set()
    assert set(document) - {"ready", "learning"} == {"error", "code"} | more | (
        {"reason"} if some_refused else set()
    ), document
    assert some_refused or code in ERROR_CODES, f"the code {code} is not in the table"
    row = ERROR_CODES[document["reason"] if some_refused else code]
    statuses = {row.status}
    if row.status == UNACCEPTABLE and (target is None or target.startswith("/v2")):
        statuses = {UNACCEPTABLE_V2} if target else {UNACCEPTABLE, UNACCEPTABLE_V2}
    assert status in statuses, (status, document)
    # A limit of a key names the time until it permits more.
    retry_after = headers.get("retry-after", "") if code in LIMITS else "1" if row.retry_after else None
    assert headers.get("retry-after") == retry_after, document
    assert code not in LIMITS or int(str(retry_after)) >= 1, document
    assert sentence[0].isupper() or sentence[0] == '"', sentence
    assert sentence.endswith("."), sentence
    assert "\n" not in sentence, sentence
    return str(code)


def check_httpx_response(response: httpx.Response) -> None:
    """Check a response that httpx has read, if it is an error of a service."""
    if response.headers.get("server") == "softstep" and response.request.method != "HEAD":
        status, body = response.status_code, response.content
        if is_error(status, body):
            check_error(status, dict(response.headers), body, response.request.url.path)
