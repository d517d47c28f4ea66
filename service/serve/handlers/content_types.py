"""The media types of request bodies: which types each kind of call accepts, also from web pages of other sites.

A browser sends a body of some types to any site without asking that site first, and the page need not be able to read
the answer. Such a body is accepted only from a program, from a page of an allowed origin, or from a page of the service
itself; otherwise any page that somewhere is open could teach a model, or unload it.
"""

from typing import Final, NamedTuple

from service.errors import CrossSiteError, MediaTypeError
from service.serve.models.endpoint import EXPLAIN, FEEDBACK, INFER, INVOKE, PREDICT, VERTEX
from service.serve.origins import Origins
from service.serve.responses import BINARY, JSON, RequestHead
from service.serve.wire.invocation_form import CSV, JSON_LINES

FORM: Final = b"application/x-www-form-urlencoded"
TEXT: Final = b"text/plain"
# Sent without a preflight request (Fetch standard, "CORS-safelisted request-header"), the type of a form with files
# included. A missing type counts as an empty one.
SENT_UNASKED: Final = frozenset((b"", TEXT, FORM, b"multipart/form-data"))
SAME_ORIGIN: Final = b"same-origin"
# Gateways that strip unknown headers put the size of the JSON part into the content type.
VENDOR_TYPES: Final = (
    b"application/vnd.sagemaker-triton.binary+json;json-header-size=",
    b"application/vnd.vertex-ai-triton.binary+json;json-header-size=",
)
CROSS_SITE: Final = (
    "A page of another site must send its body as application/json, and SOFTSTEP_CORS_ORIGINS must name its origin."
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


def check_content_type(head: RequestHead, accepted: MediaTypes, origins: Origins) -> RequestHead:
    """Check the type of a request's body, before the body is read.

    Args:
        head: The head of the request.
        accepted: The types that the call accepts.
        origins: The origins that are allowed.

    Returns:
        The head, with the size of the body's JSON part if the content type has it.

    Raises:
        MediaTypeError: The call does not accept the type.
        CrossSiteError: A page of another site sends the body, and its browser did not ask.
    """
    origin = head.origin
    if origin is None and (head.content_type is None or head.content_type in accepted.names):
        return head  # the usual request of a program
    value = b"" if head.content_type is None else head.content_type.lower()
    name = value.partition(b";")[0].strip()
    if name not in accepted.names:
        for vendor in VENDOR_TYPES:
            compact = value.replace(b" ", b"")
            if compact.startswith(vendor):
                return head._replace(tensor_header=compact[len(vendor) :])
        raise MediaTypeError(accepted.requirement)
    if origin is not None and name in SENT_UNASKED and not origins.allow(origin) and head.fetch_site != SAME_ORIGIN:
        raise CrossSiteError(CROSS_SITE)
    return head
