"""Preflight requests of browsers (CORS), with refusals in the common form of errors.

The headers of all other answers are those of origins.py.
"""

from typing import Final

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.serve.asgi import Reply
from service.serve.responses import error

REFUSED_MESSAGE: Final = (
    "This origin, method or network is not allowed; the origins that are allowed are in SOFTSTEP_CORS_ORIGINS."
)
# Headers of Starlette's that every answer of the service has already.
COMMON: Final = frozenset((b"vary", b"access-control-allow-origin"))
REPLACED: Final = frozenset((b"content-type", b"content-length"))


class Preflights(CORSMiddleware):
    """Starlette's middleware for preflight requests; a refusal is an error with a code instead of plain text."""

    async def simple_response(self, scope: Scope, receive: Receive, send: Send, request_headers: Headers) -> None:  # noqa: ARG002  # Starlette's own signature
        """Pass any other request on."""
        await self.app(scope, receive, send)

    def preflight_response(self, request_headers: Headers) -> Response:
        """Return the response to a preflight, which says whether the browser may send its request."""
        response = super().preflight_response(request_headers)
        response.raw_headers = [header for header in response.raw_headers if header[0] not in COMMON]
        if response.status_code < 400:  # noqa: PLR2004  # the first status of errors
            return response
        headers = tuple(header for header in response.raw_headers if header[0] not in REPLACED)
        return Reply(error("cors_refused", REFUSED_MESSAGE, headers))
