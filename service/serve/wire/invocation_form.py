"""Read from a head which form the body of `/invocations` has, and which form the client accepts.

    Content-Type                                            the body is
    application/json, and all types that are read as JSON   JSON; invocation_body.py has its forms
    application/json; format=pandas-split                   JSON as MLflow 1 sends a table; also pandas-records
    text/csv; header=present                                CSV; absent: without a header; the parameter is optional
    application/jsonlines                                   JSON Lines

The response is CSV if `Accept` prefers `text/csv` to JSON.
"""

from typing import Final, NamedTuple

from service.errors import MediaTypeError
from service.serve.responses import JSON, RequestHead

CSV: Final = b"text/csv"
JSON_LINES: Final = b"application/jsonlines"
OTHER_MEDIA: Final = frozenset((CSV, JSON_LINES))
CHARSETS: Final = frozenset((b"", b"utf-8", b"utf8", b"us-ascii"))
HEADERS: Final = {b"": None, b"present": True, b"absent": False}
# In `Accept`: all types.
ANY_RANGE: Final = b"*/*"


class InvocationForm(NamedTuple):
    """The form of a body of `/invocations`, and of its response.

    Attributes:
        media: The media type of the body without its parameters.
        format: The parameter `format`, or nothing.
        header: Whether a CSV body has a header; None if the head does not say.
        prefers_csv: Whether the client prefers CSV to JSON.
    """

    media: bytes = b""
    format: bytes = b""
    header: bool | None = None
    prefers_csv: bool = False

    @property
    def is_plain_json(self) -> bool:
        """Whether the body is JSON and has its form in its fields."""
        return self.media not in OTHER_MEDIA and not self.format


def read_invocation_form(head: RequestHead) -> InvocationForm:
    """Return the form that a head names; its media type has been checked.

    Raises:
        MediaTypeError: A parameter of Content-Type has an unknown value.
    """
    media, parameters = parse_media_type(head.content_type or b"")
    header = parameters.get(b"header", b"")
    if media in OTHER_MEDIA and parameters.get(b"charset", b"") not in CHARSETS:  # JSON is UTF-8 whatever is said
        raise MediaTypeError("The charset of Content-Type must be utf-8.")
    if header not in HEADERS:
        raise MediaTypeError('The parameter "header" of Content-Type must be present or absent.')
    return InvocationForm(media, parameters.get(b"format", b""), HEADERS[header], prefers(head.accept or b"", CSV))


def parse_media_type(value: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """Return a media type and its parameters, all in lower case."""
    media, *parameters = value.lower().split(b";")
    pairs = (parameter.partition(b"=") for parameter in parameters)
    return media.strip(), {name.strip(): text.strip().strip(b'"') for name, _, text in pairs}


def prefers(accept: bytes, media: bytes) -> bool:
    """Return whether an `Accept` header gives a media type a higher quality than JSON."""
    qualities = {one: parse_quality(parameters) for one, parameters in map(parse_media_type, accept.split(b","))}
    wanted, json = (next((qualities[one] for one in _ranges(name) if one in qualities), 0.0) for name in (media, JSON))
    return wanted > json


def _ranges(media: bytes) -> tuple[bytes, bytes, bytes]:
    """Return what `Accept` may say of a media type, the most specific first."""
    return media, media.partition(b"/")[0] + b"/*", ANY_RANGE


def parse_quality(parameters: dict[bytes, bytes]) -> float:
    """Return the parameter `q` of a media type, which is 1 if it is missing, and 0 if it is not a number."""
    try:
        return float(parameters.get(b"q", b"1"))
    except ValueError:
        return 0.0
