"""How calls end: the statuses of gRPC, and the trailers of a response.

    grpc-status               the number of the status
    grpc-message              the sentence of an error, with bytes other than visible ASCII as %XX
    softstep-code             the code of an error, as in the body of an HTTP response (error_codes.py)
    grpc-retry-pushback-ms    when to try again, where an HTTP response has Retry-After
    x-request-id              that of the request; of an error also a new one

Source: gRPC over HTTP2; gRPC Core, "Status codes and their use in gRPC"; gRPC Retry Design (A6).
"""

from enum import IntEnum
from typing import Final
from urllib.parse import quote

import orjson

from service.serve.responses import JSON, Header, HttpResponse

OK_STATUS: Final = 200
# The visible characters of ASCII that `quote` would replace, other than the percent sign; a space stays too.
UNQUOTED: Final = " !\"#$&'()*+,/:;<=>?@[\\]^`{|}"

# The code of a compressed message; the client learns how to send it.
COMPRESSED_CODE: Final = "unsupported_encoding"


class GrpcStatus(IntEnum):
    """The statuses of gRPC that a response can have."""

    OK = 0
    CANCELLED = 1
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


STATUS_OF_HTTP: Final = {
    202: GrpcStatus.UNAVAILABLE,
    400: GrpcStatus.INVALID_ARGUMENT,
    401: GrpcStatus.UNAUTHENTICATED,
    403: GrpcStatus.PERMISSION_DENIED,
    404: GrpcStatus.NOT_FOUND,
    405: GrpcStatus.UNIMPLEMENTED,
    408: GrpcStatus.CANCELLED,
    409: GrpcStatus.FAILED_PRECONDITION,
    410: GrpcStatus.FAILED_PRECONDITION,
    413: GrpcStatus.INVALID_ARGUMENT,
    415: GrpcStatus.UNIMPLEMENTED,
    421: GrpcStatus.PERMISSION_DENIED,
    422: GrpcStatus.INVALID_ARGUMENT,
    429: GrpcStatus.RESOURCE_EXHAUSTED,
    431: GrpcStatus.RESOURCE_EXHAUSTED,
    500: GrpcStatus.INTERNAL,
    503: GrpcStatus.UNAVAILABLE,
    504: GrpcStatus.DEADLINE_EXCEEDED,
    507: GrpcStatus.UNAVAILABLE,
}
# The codes whose status is another one than that of their HTTP status.
STATUS_OF_CODE: Final = {
    "body_too_large": GrpcStatus.RESOURCE_EXHAUSTED,
    "not_found": GrpcStatus.UNIMPLEMENTED,
    "not_in_role": GrpcStatus.UNIMPLEMENTED,
}


def grpc_status(response: HttpResponse) -> GrpcStatus:
    """Return the status of the call that a response answers."""
    if response.status == OK_STATUS:
        return GrpcStatus.OK
    return STATUS_OF_CODE.get(response.code) or STATUS_OF_HTTP[response.status]


def error_trailers(response: HttpResponse, request_id: bytes) -> list[Header]:
    """Return the trailers of a call that ends with an error.

    Args:
        response: The HTTP response of that error, with a body of `{"error", "code"}`.
        request_id: The id of the request.
    """
    sentence = orjson.loads(response.body)["error"]
    trailers = [
        (b"grpc-status", b"%d" % grpc_status(response)),
        (b"grpc-message", quote(sentence, safe=UNQUOTED).encode()),
        (b"x-request-id", request_id),
    ]
    if response.code == COMPRESSED_CODE:
        trailers.append((b"grpc-accept-encoding", b"identity"))
    if response.code:
        trailers.append((b"softstep-code", response.code.encode()))
    seconds = dict(response.headers).get(b"retry-after")
    if seconds is not None:
        trailers.append((b"grpc-retry-pushback-ms", seconds + b"000"))
    return trailers


def uncoded_error(status: int, sentence: str) -> HttpResponse:
    """Return the response of an error that gRPC alone has, so that no code of HTTP names it."""
    return HttpResponse(status, orjson.dumps({"error": sentence}), JSON)
