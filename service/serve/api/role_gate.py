"""Middleware of a replica that answers health and metrics alone: it refuses other requests before their bodies."""

from collections.abc import Iterable
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from service.serve.asgi import Reply
from service.serve.responses import NOT_IN_ROLE

METRICS: Final = b"/metrics"


class RoleGate:
    """Passes on requests for health and metrics.

    Args:
        app: The application.
        probes: The paths of liveness and readiness.
    """

    def __init__(self, app: ASGIApp, probes: Iterable[bytes]) -> None:
        self._app = app
        self._paths = {path.decode() for path in (METRICS, *probes)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it without reading its body."""
        if scope["type"] == "http" and scope["path"] not in self._paths:
            await Reply(NOT_IN_ROLE)(scope, receive, send)
        else:
            await self._app(scope, receive, send)
