"""The FastAPI application: every endpoint, whole under any ASGI server."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.responses import Response

from service import __version__
from service.errors import SoftstepError
from service.serve.access_log import LoggedApplication
from service.serve.api.body_decoding import BodyDecoding
from service.serve.api.cors import Preflights
from service.serve.api.dependencies import Context, refused
from service.serve.api.openapi_document import DocumentedApi
from service.serve.api.role_gate import RoleGate
from service.serve.api.routes_console import console, console_files
from service.serve.api.routes_convert import conversion
from service.serve.api.routes_health import operations, readyz
from service.serve.api.routes_history import progress
from service.serve.api.routes_key import access
from service.serve.api.routes_learning import learning
from service.serve.api.routes_oip import v2
from service.serve.api.routes_predict import native, predict_vertex
from service.serve.api.routes_repository import repository
from service.serve.api.scoped_route import ScopedRoute
from service.serve.api.swagger_ui import documentation
from service.serve.api.validation import invalid_parameter
from service.serve.asgi import Envelope, Reply
from service.serve.client_address import Proxies
from service.serve.handlers.probes import make_probes
from service.serve.metrics.counters import WorkerCounters
from service.serve.responses import error

# The router's refusals: code and sentence.
ROUTER_ERRORS: Final = {
    404: ("not_found", "Not found: see /docs for the paths of this service."),
    405: ("method_not_allowed", "This path does not take this method; the Allow header names those it takes."),
}

DESCRIPTION: Final = (
    'Every error body is {"error", "code"}; each call lists its codes. A request that is not valid HTTP, or whose head '
    "is too large or too slow, is refused before it reaches a call, with 400, 408 or 431 in the same form. Every GET "
    "has a HEAD beside it."
)

# Every documented call.
CALLS: Final = APIRouter(default_response_class=Response, generate_unique_id_function=lambda route: route.name)
for one in (native, progress, learning, conversion, access, v2, repository, operations):
    CALLS.include_router(one)
# FastAPI analyzes the routes of a router when they are first asked for, which takes 0.13 s. Here that is before the
# workers are forked; else the first request to each of them would stop its event loop for so long.
for _ in iter_route_contexts(CALLS.routes):
    pass

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


async def _http_error(_request: Request, reason: Exception) -> Response:
    """Answer what the router refuses in the one form of errors."""
    assert isinstance(reason, HTTPException)  # noqa: S101  # registered for it
    allowed = (reason.headers or {}).get("Allow", "")
    if allowed == "GET":  # the router does not know that `Envelope` answers HEAD too
        allowed = "GET, HEAD"
    headers = ((b"allow", allowed.encode()),) if allowed else ()
    code, text = ROUTER_ERRORS.get(reason.status_code, ("invalid_request", "The request is refused."))
    return Reply(error(code, text, headers, reason.status_code))


async def _softstep_error(request: Request, reason: Exception) -> Response:
    assert isinstance(reason, SoftstepError)  # noqa: S101  # registered for it
    return refused(request, reason)


async def _invalid(_request: Request, reason: Exception) -> Response:
    """Answer what FastAPI refuses in the path or query."""
    assert isinstance(reason, RequestValidationError)  # noqa: S101  # registered for it
    return Reply(invalid_parameter(reason))


def make_app(context: Context, counters: WorkerCounters, lifespan: Lifespan | None = None) -> FastAPI:
    """Build the application of one worker.

    Args:
        context: What the endpoints work with.
        counters: Where answers are counted.
        lifespan: What is done before the first and after the last request.
    """

    @asynccontextmanager
    async def nothing(_app: FastAPI) -> AsyncIterator[None]:
        yield

    settings = context.settings
    app = DocumentedApi(
        title="Softstep",
        summary="Serves softmax models and learns from feedback while it serves",
        description=DESCRIPTION,
        version=__version__,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        servers=[{"url": "./"}],  # relative to the document, so that a path prefix of a proxy stays
        docs_url=None,  # FastAPI's page loads from another host; service/serve/api/swagger_ui.py has ours
        redoc_url=None,
        openapi_url=None,  # as any other route, the document's has to be authorized
        # `include_router` would have the routes of each application analyzed again.
        routes=[
            *CALLS.routes,
            *(console.routes if settings.has_console else ()),
            *(documentation.routes if settings.docs else ()),
        ],
        lifespan=lifespan or nothing,
        redirect_slashes=False,
        exception_handlers={
            HTTPException: _http_error,
            SoftstepError: _softstep_error,
            RequestValidationError: _invalid,
        },
    )
    app.state.context = context
    if settings.has_console:
        console_files()
    if settings.predict_route is not None:
        vertex = ScopedRoute(settings.predict_route, predict_vertex, methods=["POST"], include_in_schema=False)
        app.router.routes.append(vertex)
    if settings.health_route is not None:
        health = ScopedRoute(settings.health_route, readyz, methods=["GET"], include_in_schema=False)
        app.router.routes.append(health)
    if settings.cors_origins:
        app.add_middleware(Preflights, allow_origins=settings.cors_origins, allow_methods=["*"], allow_headers=["*"])
    app.add_middleware(BodyDecoding, executor=context.decoder, held=context.bodies, settings=settings)
    if not settings.answers_models:
        app.add_middleware(RoleGate, probes=make_probes(context.health, settings.health_route))
    app.add_middleware(
        Envelope, count=counters.count_response, count_route=counters.count_route, origins=context.dispatcher.origins
    )
    if context.access_log is not None:
        app.add_middleware(
            LoggedApplication, log=context.access_log, proxies=Proxies(settings.proxies, settings.proxy_header)
        )
    return app
