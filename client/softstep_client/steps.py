"""Steps that the core asks of a client, to send a request or to pause, and their outcomes.

A flow is a generator that yields steps. `Softstep` and `AsyncSoftstep` carry them out, each in its way, and send the
outcome into the flow. So all that follows from a call is decided in one place, without input or output.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple, TypeVar


class ApiRequest(NamedTuple):
    """One request; its retries send the same bytes.

    Attributes:
        method: GET or POST.
        path: The path and query, after the URL of the service.
        content: The body, or None.
        headers: Further headers.
        seconds: Time to add to the timeout, because the service may wait so long itself.
        event_id: The id of the call if it writes, else None.
    """

    method: str
    path: str
    content: bytes | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    seconds: float = 0.0
    event_id: str | None = None


class Attempt(NamedTuple):
    """Send a request once; the outcome is a Reply or a Failure.

    Attributes:
        request: The request.
        timeout: The longest time without progress, in seconds.
    """

    request: ApiRequest
    timeout: float


class Pause(NamedTuple):
    """Wait; the outcome is None."""

    seconds: float


class Reply(NamedTuple):
    """An answer, of any status.

    Attributes:
        status: The HTTP status.
        content: The body.
        retry_after: The header `Retry-After`, or None.
        json_bytes: The header `Inference-Header-Content-Length`, or None.
        request_id: The header `X-Request-Id`, or None.
    """

    status: int
    content: bytes
    retry_after: str | None = None
    json_bytes: str | None = None
    request_id: str | None = None


class Failure(NamedTuple):
    """A request without an answer.

    Attributes:
        error: The error of the transport.
        is_timeout: Whether time has run out.
    """

    error: Exception
    is_timeout: bool


T = TypeVar("T")
Step = Attempt | Pause
Outcome = Reply | Failure | None
Flow = Generator[Step, Any, T]
