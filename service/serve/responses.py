"""HTTP responses and the parts of a request's head they depend on; free of any framework.

Provides `HttpResponse` and `RequestHead`, the responses of errors, and the check of content types. Both the fast path
(`http/`) and the FastAPI routes (`api/`) build their responses here.

The body of an error is `{"error": sentence, "code": code}`; error_codes.py is the table of codes.
"""

from typing import Final, NamedTuple

import orjson

from service.errors import LearningOffError, SoftstepError
from service.serve.error_codes import ERROR_CODES

Header = tuple[bytes, bytes]

# The protocols of predictions, which also number the histograms of their durations (metrics/counters.py).
V1, V2 = range(2)
JSON: Final = b"application/json"
BINARY: Final = b"application/octet-stream"
TENSOR_HEADER: Final = b"inference-header-content-length"
# Types that are read as JSON, or as JSON followed by tensors if the tensor header says so. `curl -d` sends the last.
CONTENT_TYPES: Final = frozenset((b"", JSON, BINARY, b"application/x-www-form-urlencoded"))
# Gateways that strip unknown headers put the size of the JSON part into the content type.
VENDOR_TYPES: Final = (
    b"application/vnd.sagemaker-triton.binary+json;json-header-size=",
    b"application/vnd.vertex-ai-triton.binary+json;json-header-size=",
)
RETRY: Final = ((b"retry-after", b"1"),)
UNACCEPTABLE: Final = 422


class HttpResponse(NamedTuple):
    """A response: status, body, its content type, further headers, and the code if it is an error."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: tuple[Header, ...] = ()
    code: str = ""


class RequestHead(NamedTuple):
    """The headers of a request that its response depends on; None for a missing one."""

    content_type: bytes | None
    content_encoding: bytes | None
    tensor_header: bytes | None
    request_id: bytes | None

    @classmethod
    def of(cls, fields: dict[bytes, bytes]) -> "RequestHead":
        """Return the head with these headers, by name in lower case."""
        get = fields.get
        return cls(get(b"content-type"), get(b"content-encoding"), get(TENSOR_HEADER), get(b"x-request-id"))


def error(code: str, message: str, headers: tuple[Header, ...] = (), status: int | None = None) -> HttpResponse:
    """Return an error response.

    Args:
        code: A code of the table in error_codes.py, which gives the status and Retry-After.
        message: One sentence: the problem, then the remedy.
        headers: Further headers.
        status: A status that replaces that of the table.
    """
    row = ERROR_CODES[code]
    body = orjson.dumps({"error": message, "code": code})
    return HttpResponse(status or row.status, body, JSON, (*headers, *(RETRY if row.retry_after else ())), code)


def refusal(reason: SoftstepError, protocol: int) -> HttpResponse:
    """Return the response to a request that raised an error; v2 has 400 for everything that it cannot accept.

    Raises:
        SoftstepError: `reason`, if no client may see it.
    """
    if not reason.code:
        raise reason
    unacceptable = protocol == V2 and ERROR_CODES[reason.code].status == UNACCEPTABLE
    return error(reason.code, sentence(reason), status=400 if unacceptable else None)


def learning_off() -> LearningOffError:
    """Return the error of a request that needs learning where there is none."""
    return LearningOffError("This service does not learn: SOFTSTEP_LEARN is off, or its data directory is read-only.")


def sentence(reason: SoftstepError) -> str:
    """Return an error's message as a sentence: a command prints the log's messages after a colon, in lower case."""
    text = str(reason)
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


# An unexpected exception; its traceback is in the log.
BROKEN: Final = error("internal_error", "The server failed to answer; the fault is in its log.")


def check_head(head: RequestHead) -> HttpResponse | bytes | None:
    """Check the type and encoding of a request's body.

    Returns:
        A refusal; or the size of the body's JSON part, as the head gives it, if binary data follows; or None.
    """
    if head.content_encoding is not None and head.content_encoding.lower() != b"identity":
        return error("unsupported_encoding", "Content-Encoding is not supported; send the body uncompressed.")
    if head.content_type is None or head.content_type in CONTENT_TYPES:
        return head.tensor_header
    kind = head.content_type.lower().replace(b" ", b"")
    for vendor in VENDOR_TYPES:
        if kind.startswith(vendor):
            return kind[len(vendor) :]
    if kind.partition(b";")[0] in CONTENT_TYPES:
        return head.tensor_header
    return error(
        "unsupported_media_type",
        "Content-Type must be application/json, or application/octet-stream for binary tensors.",
    )
