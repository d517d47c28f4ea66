"""The FastAPI application: every endpoint, whole under any ASGI server."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import __version__
from service.errors import SoftstepError
from service.serve.api.dependencies import Context, Reply, refused
from service.serve.api.routes_convert import conversion
from service.serve.api.routes_health import operations, readyz
from service.serve.api.routes_learning import learning
from service.serve.api.routes_oip import v2
from service.serve.api.routes_predict import native, predict_default
from service.serve.api.routes_repository import repository
from service.serve.api.swagger_ui import documentation
from service.serve.handlers.predict import RequestHead, error
from service.serve.metrics.counters import WorkerCounters
from service.serve.request_id import request_id

logger = logging.getLogger("softstep.app")

STATUS_TEXTS: Final = {
    404: "Not found: see /docs for the paths of this service.",
    405: "This path does not take this method; the Allow header names those it takes.",
}
# In the scope of a request that the front door has answered while its body came.
LEFT: Final = "softstep.left"
BROKEN: Final = "The server failed to answer; the fault is in its log."

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


class Envelope:
    """What every answer has in common: a request id, a count by status, and JSON also where an endpoint breaks.

    A client that has left before the end of its request gets no answer, and none is counted. The front door ends a
    request so too, once it has answered that the body is too slow or too much.
    """

    def __init__(self, app: ASGIApp, meter: WorkerCounters) -> None:
        self._app = app
        self._meter = meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and complete its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def complete(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                identity = request_id(RequestHead.of(dict(scope["headers"])).request_id)
                message["headers"] = [*message["headers"], (b"x-request-id", identity)]
                if LEFT not in scope:
                    self._meter.answered(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, complete)
        except ClientDisconnect:
            return
        except Exception:
            logger.exception("an endpoint broke")
            if started:
                raise
            await Reply(error(500, BROKEN))(scope, receive, complete)


async def _http_error(_request: Request, reason: Exception) -> Response:
    """Answer what the router refuses in the one form of errors."""
    assert isinstance(reason, HTTPException)  # noqa: S101  # registered for it
    headers = tuple((name.lower().encode(), value.encode()) for name, value in (reason.headers or {}).items())
    return Reply(error(reason.status_code, STATUS_TEXTS.get(reason.status_code, "The request is refused."), headers))


async def _softstep_error(request: Request, reason: Exception) -> Response:
    assert isinstance(reason, SoftstepError)  # noqa: S101  # registered for it
    return refused(request, reason)


async def _invalid(_request: Request, _reason: Exception) -> Response:
    """Answer what FastAPI refuses; its own answer would repeat the input."""
    return Reply(error(422, "The path or query of the request is not valid."))


def make_app(context: Context, meter: WorkerCounters, lifespan: Lifespan | None = None) -> FastAPI:
    """Build the application of one worker.

    Args:
        context: What the endpoints work with.
        meter: Where answers are counted.
        lifespan: What is done before the first and after the last request.
    """

    @asynccontextmanager
    async def nothing(_app: FastAPI) -> AsyncIterator[None]:
        yield

    settings = context.settings
    app = FastAPI(
        title="Softstep",
        summary="Serves softmax models and learns from feedback while it serves",
        version=__version__,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        docs_url=None,  # FastAPI's page loads from another host; service/serve/api/swagger_ui.py has ours
        redoc_url=None,
        openapi_url="/openapi.json" if settings.docs else None,
        lifespan=lifespan or nothing,
        redirect_slashes=False,
        exception_handlers={
            HTTPException: _http_error,
            SoftstepError: _softstep_error,
            RequestValidationError: _invalid,
        },
    )
    app.state.context = context
    for router in (native, learning, conversion, v2, repository, operations):
        app.include_router(router)
    if settings.docs:
        app.include_router(documentation)
    if settings.predict_route is not None:
        app.add_api_route(settings.predict_route, predict_default, methods=["POST"], include_in_schema=False)
    if settings.health_route is not None:
        app.add_api_route(settings.health_route, readyz, methods=["GET"], include_in_schema=False)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.cors_origins, allow_methods=["*"], allow_headers=["*"]
        )
    app.add_middleware(Envelope, meter=meter)
    return app
