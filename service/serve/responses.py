"""HTTP responses and the parts of a request's head they depend on; free of any framework.

Provides `HttpResponse` and `RequestHead`, and the responses of errors. Both the fast path (`http/`) and the FastAPI
routes (`api/`) build their responses here.

The body of an error is `{"error": sentence, "code": code}`; error_codes.py is the table of codes.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

import orjson

from service.access.client_certificate import ClientCertificate
from service.access.principal import ANYONE, Principal
from service.errors import BodyTooLargeError, LearningOffError, OverloadedError, SoftstepError
from service.limit_errors import LimitError
from service.role_errors import NotInRoleError
from service.serve.error_codes import ERROR_CODES

Header = tuple[bytes, bytes]

# The protocols of predictions, which also number the histograms of their durations (metrics/counters.py).
V1, V2 = range(2)
JSON: Final = b"application/json"
BINARY: Final = b"application/octet-stream"
NDJSON: Final = b"application/x-ndjson"
TENSOR_HEADER: Final = b"inference-header-content-length"
# Only HTTP/1.0 needs this header, in the response to a request that has it too.
KEEP_ALIVE: Final = (b"connection", b"keep-alive")
UNACCEPTABLE: Final = 422

# The parameters of a query, all of which are whole numbers; None for a missing one.
Query = Mapping[str, int | None]
NO_QUERY: Final[Query] = MappingProxyType({})


class HttpResponse(NamedTuple):
    """A response: status, body, its content type, further headers, and the code if it is an error."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: tuple[Header, ...] = ()
    code: str = ""


class RequestHead(NamedTuple):
    """The headers of a request that its response depends on; None for a missing one.

    Attributes:
        content_type: Content-Type.
        tensor_header: The size of the body's JSON part, if binary data follows it.
        request_id: X-Request-Id.
        origin: Origin: the web page that a browser sends the request for.
        fetch_site: Sec-Fetch-Site: how a browser relates that page to the service.
        host: Host: the name and the port by which the client knows the service.
        accept: Accept: the media types that the client can read.
        authorization: Authorization.
        api_key: X-API-Key.
        certificate: The verified certificate of the client, which is no header.
        principal: Who sent the request. It is known once the request has been authorized.
        query: The parameters of a call that reads, which are no header either.
    """

    content_type: bytes | None = None
    tensor_header: bytes | None = None
    request_id: bytes | None = None
    origin: bytes | None = None
    fetch_site: bytes | None = None
    host: bytes | None = None
    accept: bytes | None = None
    authorization: bytes | None = None
    api_key: bytes | None = None
    certificate: ClientCertificate | None = None
    principal: Principal = ANYONE
    query: Query = NO_QUERY

    @classmethod
    def of(cls, fields: dict[bytes, bytes]) -> "RequestHead":
        """Return the head with these headers, by name in lower case."""
        get = fields.get
        return cls(
            get(b"content-type"),
            get(TENSOR_HEADER),
            get(b"x-request-id"),
            get(b"origin"),
            get(b"sec-fetch-site"),
            get(b"host"),
            get(b"accept"),
            get(b"authorization"),
            get(b"x-api-key"),
        )


def error(
    code: str, message: str, headers: tuple[Header, ...] = (), status: int | None = None, retry_seconds: int = 1
) -> HttpResponse:
    """Return an error response.

    Args:
        code: A code of the table in error_codes.py, which gives the status and says whether there is a Retry-After.
        message: One sentence: the problem, then the remedy.
        headers: Further headers.
        status: A status that replaces that of the table.
        retry_seconds: The value of Retry-After.
    """
    row = ERROR_CODES[code]
    body = orjson.dumps({"error": message, "code": code})
    more = (*row.headers, *(((b"retry-after", b"%d" % retry_seconds),) if row.retry_after else ()))
    return HttpResponse(status or row.status, body, JSON, (*headers, *more), code)


def refusal(reason: SoftstepError, protocol: int) -> HttpResponse:
    """Return the response to a request that raised an error; v2 has 400 for everything that it cannot accept.

    Raises:
        SoftstepError: `reason`, if no client may see it.
    """
    if not reason.code:
        raise reason
    unacceptable = protocol == V2 and ERROR_CODES[reason.code].status == UNACCEPTABLE
    retry_seconds = reason.retry_seconds if isinstance(reason, LimitError) else 1
    return error(reason.code, sentence(reason), (), 400 if unacceptable else None, retry_seconds)


def learning_off() -> LearningOffError:
    """Return the error of a request that needs learning where there is none."""
    return LearningOffError("This service does not learn: SOFTSTEP_LEARN is off, or its data directory is read-only.")


def body_too_large(bytes_max: int) -> BodyTooLargeError:
    """Return the error of a body above the limit."""
    return BodyTooLargeError(f"The body may have at most {bytes_max} bytes; send several requests.")


def overloaded() -> OverloadedError:
    """Return the error of a request that does not fit beside those in flight."""
    return OverloadedError("The server has more requests than it can answer in time; try again in a moment.")


def sentence(reason: SoftstepError) -> str:
    """Return an error's message as a sentence: a command prints the log's messages after a colon, in lower case."""
    text = str(reason)
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


# A request that is refused because there are too many; the same in every protocol.
OVERLOADED: Final = refusal(overloaded(), V1)
# A call that another role has.
NO_CALL: Final = "This replica has a role without this call; send it to a replica of another role."
NOT_IN_ROLE: Final = refusal(NotInRoleError(NO_CALL), V1)
# An unexpected exception; its traceback is in the log.
BROKEN: Final = error("internal_error", "The server failed to answer; the fault is in its log.")
