"""The media types of request bodies: which types each kind of call accepts."""

from typing import Final, NamedTuple

from service.errors import MediaTypeError
from service.serve.models.endpoint import EXPLAIN, FEEDBACK, INFER, INVOKE, PREDICT, VERTEX
from service.serve.responses import BINARY, JSON, RequestHead
from service.serve.wire.invocation_form import CSV, JSON_LINES

FORM: Final = b"application/x-www-form-urlencoded"
TEXT: Final = b"text/plain"
# Gateways that strip unknown headers put the size of the JSON part into the content type.
VENDOR_TYPES: Final = (
    b"application/vnd.sagemaker-triton.binary+json;json-header-size=",
    b"application/vnd.vertex-ai-triton.binary+json;json-header-size=",
)


class MediaTypes(NamedTuple):
    """The media types that a kind of call accepts.

    Attributes:
        names: The types, without parameters; b"" stands for a missing Content-Type.
        requirement: The sentence of a refusal.
    """

    names: frozenset[bytes]
    requirement: str


# Types that are read as JSON, or as JSON followed by tensors if the tensor header says so. `curl -d` sends the form's
# type, and a page's `fetch` with a string sends text/plain.
JSON_TYPES: Final = MediaTypes(
    frozenset((b"", JSON, BINARY, FORM, TEXT)),
    "Content-Type must be application/json, or application/octet-stream for binary tensors.",
)
INVOCATION_TYPES: Final = MediaTypes(
    JSON_TYPES.names | {CSV, JSON_LINES}, "Content-Type must be application/json, text/csv or application/jsonlines."
)
# The types that each kind of endpoint accepts.
ACCEPTED: Final = {
    PREDICT: JSON_TYPES,
    INFER: JSON_TYPES,
    EXPLAIN: JSON_TYPES,
    FEEDBACK: JSON_TYPES,
    INVOKE: INVOCATION_TYPES,
    VERTEX: INVOCATION_TYPES,
}


def check_content_type(head: RequestHead, accepted: MediaTypes) -> RequestHead:
    """Check the type of a request's body, before the body is read.

    Args:
        head: The head of the request.
        accepted: The types that the call accepts.

    Returns:
        The head, with the size of the body's JSON part if the content type has it.

    Raises:
        MediaTypeError: The call does not accept the type.
    """
    if head.content_type is None or head.content_type in accepted.names:
        return head
    value = head.content_type.lower()
    if value.partition(b";")[0].strip() in accepted.names:
        return head
    compact = value.replace(b" ", b"")
    for vendor in VENDOR_TYPES:
        if compact.startswith(vendor):
            return head._replace(tensor_header=compact[len(vendor) :])
    raise MediaTypeError(accepted.requirement)
