"""ASGI pieces that `http/` and `api/` share: prepared responses, and the middleware around every response."""

from collections.abc import Callable
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.log_events import REQUEST_ID, logger
from service.serve.request_id import request_id
from service.serve.responses import BROKEN, HttpResponse, RequestHead

# In the scope of a request that the protocol has answered while its body came.
ANSWERED_EARLY: Final = "softstep.answered_early"


class Reply(Response):
    """An answer as a response, with its headers in the order of the fast path."""

    def __init__(self, answer: HttpResponse) -> None:
        self.status_code = answer.status
        self.body = answer.body
        self.background = None
        self.raw_headers = [
            (b"content-type", answer.content_type),
            (b"content-length", b"%d" % len(answer.body)),
            *answer.headers,
        ]


class Envelope:
    """Add to every answer: a request id, a count by status, and JSON even if an endpoint fails.

    A client that leaves before the end of its request gets no answer, and none is counted. The protocol ends a request
    in the same way, once it has answered that the body is too slow or too large.
    """

    def __init__(self, app: ASGIApp, count: Callable[[int], None]) -> None:
        self._app = app
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and complete its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False
        identity = request_id(RequestHead.of(dict(scope["headers"])).request_id)

        async def complete(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], (b"x-request-id", identity)]
                if ANSWERED_EARLY not in scope:
                    self._count(message["status"])
            await send(message)

        token = REQUEST_ID.set(identity.decode())
        try:
            await self._app(scope, receive, complete)
        except ClientDisconnect:
            return
        except Exception:
            logger.exception("request_failed")
            if started:
                raise
            await Reply(BROKEN)(scope, receive, complete)
        finally:
            REQUEST_ID.reset(token)
