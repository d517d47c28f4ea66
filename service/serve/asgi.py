"""ASGI pieces that `http/` and `api/` share: prepared responses, and the middleware around every response."""

from collections.abc import Callable
from time import perf_counter_ns
from typing import Any, Final

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.log_events import REQUEST_ID, logger
from service.serve.access_log import ACCESS_ENTRY, ANSWERED_EARLY
from service.serve.origins import Origins
from service.serve.request_id import request_id
from service.serve.responses import BROKEN, KEEP_ALIVE, HttpResponse, RequestHead

# In the scope of a request whose duration its model version counts.
COUNTED_BY_MODEL: Final = "softstep.counted_by_model"
# In the scope of a request that is answered with an error: its code.
ERROR_CODE: Final = "softstep.error_code"
# In the scope of a request whose client has a verified certificate: the certificate.
CERTIFICATE: Final = "softstep.certificate"
# In the scope of a request: whether it came by a port that has no calls of feedback and administration.
IS_PUBLIC: Final = "softstep.is_public"
# The first status of errors.
ERRORS: Final = 400
# In the scope of an HTTP/1.0 request that asks to keep its connection: the cycle, whose `keep_alive` is the answer.
KEEP_ALIVE_ASKED: Final = "softstep.keep_alive_asked"


class Reply(Response):
    """An answer as a response, with its headers in the order of the fast path."""

    def __init__(self, answer: HttpResponse) -> None:
        self._code = answer.code
        self.status_code = answer.status
        self.body = answer.body
        self.background = None
        self.raw_headers = [
            (b"content-type", answer.content_type),
            (b"content-length", b"%d" % len(answer.body)),
            *answer.headers,
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer; the scope notes the code of an error, which `Envelope` counts."""
        scope[ERROR_CODE] = self._code
        await super().__call__(scope, receive, send)


class Envelope:
    """Add to every answer: a request id, counts by status, code and route, and JSON even if an endpoint fails.

    CORS headers are added too. HEAD is answered as GET without a body, for every path.

    A client that leaves before the end of its request gets no answer, and none is counted. The protocol ends a request
    in the same way, once it has answered that the body is too slow or too large.

    Args:
        app: The application.
        count: Counts a response, by its status and the code of its error.
        count_route: Counts the duration of a request that succeeded, by its route and in nanoseconds.
        origins: The origins whose pages may read the answers.
    """

    def __init__(
        self,
        app: ASGIApp,
        count: Callable[[int, str], None],
        count_route: Callable[[str, int], None],
        origins: Origins,
    ) -> None:
        self._app = app
        self._count = count
        self._count_route = count_route
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and complete its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, is_head = False, scope["method"] == "HEAD"
        asked = {**scope, "method": "GET"} if is_head else scope
        head = RequestHead.of(dict(scope["headers"]))
        identity = request_id(head.request_id)
        began = perf_counter_ns()

        async def complete(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                kept = scope.get(KEEP_ALIVE_ASKED)
                message["headers"] = [
                    *self._origins.headers(head.origin),
                    *([KEEP_ALIVE] if kept is not None and kept.keep_alive else []),
                    *message["headers"],
                    (b"x-request-id", identity),
                ]
                _note_route(asked)
                if ANSWERED_EARLY not in scope:
                    self._count(message["status"], asked.get(ERROR_CODE, ""))
                    if message["status"] < ERRORS and "endpoint" in asked and COUNTED_BY_MODEL not in asked:
                        self._count_route(route_template(asked), perf_counter_ns() - began)
            elif is_head:
                message = {**message, "body": b""}
            await send(message)

        token = REQUEST_ID.set(identity.decode())
        try:
            await self._app(asked, receive, complete)
        except ClientDisconnect:
            return
        except Exception:
            logger.exception("request_failed")
            if started:
                raise
            await Reply(BROKEN)(scope, receive, complete)
        finally:
            REQUEST_ID.reset(token)


def _note_route(scope: Scope) -> None:
    """Note in the access log, if there is one, which route answers a request."""
    if ACCESS_ENTRY in scope and "endpoint" in scope:
        scope[ACCESS_ENTRY].route = route_template(scope)


def route_template(scope: Scope) -> str:
    """Return the path of a request that has an endpoint, with names of parameters for values and without a version."""
    path: str = scope["path"]
    parameters: dict[str, Any] = scope["path_params"]
    if "version" in parameters:
        path = path.replace(f"/versions/{parameters['version']}", "", 1)
    return path.replace(f"/models/{parameters['name']}", "/models/{name}", 1) if "name" in parameters else path
