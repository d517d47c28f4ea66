"""The head of a call: its headers, checked once, and what they mean.

Source: gRPC over HTTP2, "Requests".
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from service.access.client_certificate import ClientCertificate
from service.serve.responses import Header, HttpResponse, RequestHead, error

if TYPE_CHECKING:
    from service.serve.grpc.infer_plan import InferPlans

CONTENT_TYPE: Final = b"application/grpc"
TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
UNIT_SECONDS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
# Headers with which a proxy could check one key, and the service use another one.
KEY_FIELDS: Final = (b"authorization", b"x-api-key")
POST: Final = b"POST"

NOT_POST: Final = error("method_not_allowed", "gRPC calls are POST; send them by a gRPC client.", ((b"allow", POST),))
NOT_GRPC: Final = error("unsupported_media_type", "This port answers gRPC; Content-Type must be application/grpc.")
TWO_KEYS: Final = error(
    "malformed_http", "A call may have one authorization and one x-api-key; send each of them once."
)
INVALID_TIMEOUT: Final = error("malformed_http", "grpc-timeout must be 1 to 8 digits and one of H, M, S, m, u and n.")


class CallHead:
    """The head of a call.

    Attributes:
        path: The path of its method, "/service/method".
        headers: All its headers in their order, with those of HTTP/2.
        request: The headers that an answer depends on.
        seconds: The time that the client waits for the answer, or None.
        is_grpc: Whether the client speaks gRPC; else a refusal has the form of HTTP.
        refusal: Why the call is refused, or None.
        plans: The requests of ModelInfer that are remembered for this head.
    """

    __slots__ = ("headers", "is_grpc", "path", "plans", "refusal", "request", "seconds")

    def __init__(self, headers: Sequence[Header], certificate: ClientCertificate | None) -> None:
        fields = dict(headers)
        self.headers: Final = headers
        self.path: Final = fields.get(b":path", b"")
        host = fields.get(b":authority", fields.get(b"host"))
        self.request: Final = RequestHead.of(fields)._replace(
            content_type=None, tensor_header=None, host=host, certificate=certificate
        )
        self.seconds: float | None = None
        self.plans: InferPlans | None = None
        content_type = fields.get(b"content-type", b"").lower()
        is_typed = content_type.startswith(CONTENT_TYPE) and content_type[len(CONTENT_TYPE) :][:1] in {b"", b"+", b";"}
        is_post = fields.get(b":method") == POST
        self.is_grpc: Final = is_post and is_typed
        self.refusal: HttpResponse | None = None
        names = [name for name, _ in headers]
        if not self.is_grpc:
            self.refusal = NOT_GRPC if is_post else NOT_POST
        elif max(map(names.count, KEY_FIELDS)) > 1:
            self.refusal = TWO_KEYS
        elif b"grpc-timeout" in fields:
            self._read_timeout(fields[b"grpc-timeout"])

    def _read_timeout(self, value: bytes) -> None:
        match = TIMEOUT.fullmatch(value)
        if match is None:
            self.refusal = INVALID_TIMEOUT
        else:
            self.seconds = int(match[1]) * UNIT_SECONDS[match[2]]
