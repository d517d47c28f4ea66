"""CORS for browsers, with refusals in the common form of errors."""

from typing import Final

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from service.serve.asgi import Reply
from service.serve.responses import error

REFUSED_MESSAGE: Final = (
    "This origin, method or network is not allowed; the origins that are allowed are in SOFTSTEP_CORS_ORIGINS."
)
REPLACED: Final = frozenset((b"content-type", b"content-length"))


class JsonCors(CORSMiddleware):
    """Starlette's middleware, but a refused preflight is an error with a code instead of plain text."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """Return the response to a preflight, which says whether the browser may send its request."""
        response = super().preflight_response(request_headers)
        if response.status_code < 400:  # noqa: PLR2004  # the first status of errors
            return response
        headers = tuple(header for header in response.raw_headers if header[0] not in REPLACED)
        return Reply(error("cors_refused", REFUSED_MESSAGE, headers))
