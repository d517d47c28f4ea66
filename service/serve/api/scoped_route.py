"""A route that answers only those who may make its call, and documents what that takes."""

from collections.abc import Callable, Coroutine, MutableMapping
from typing import Any, Final

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.routing import Match

from service.access.principal import ANYONE, Principal
from service.access.scopes import Scope
from service.serve.api.dependencies import Context, head_of
from service.serve.api.schemas.access_docs import describe_scope, document_access
from service.serve.asgi import IS_PUBLIC
from service.serve.authorization.authorizer import check_all_models, check_model
from service.serve.authorization.route_scopes import (
    OF_ALL_MODELS,
    OF_ANY_KEY,
    OF_DEFAULT_MODEL,
    ROUTE_SCOPES,
    ROUTE_SETTINGS,
)

# The scopes of calls that another port than the public one has, if there are two.
NOT_PUBLIC: Final = frozenset((Scope.FEEDBACK, Scope.ADMIN))
# Of a setting in `ROUTE_SETTINGS`: everybody may make the call.
OPEN: Final = "open"
# The method of calls that change nothing; `Envelope` turns HEAD into it.
GET: Final = "GET"
# In the scope of a request that has been authorized: its principal.
PRINCIPAL: Final = "softstep.principal"

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class ScopedRoute(APIRoute):
    """A route whose requests are authorized before their bodies are read.

    Args:
        path: Its path.
        endpoint: The function that answers, whose name is in `ROUTE_SCOPES`.
        options: Those of FastAPI's route.

    Raises:
        KeyError: The route has no scope.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:  # noqa: ANN401  # FastAPI's own
        name = endpoint.__name__
        super().__init__(path, endpoint, **document_access(options, name))
        self.description = f"{self.description}\n\n{describe_scope(name)}".strip()

    def matches(self, scope: MutableMapping[str, Any]) -> tuple[Match, MutableMapping[str, Any]]:
        """Match no request for feedback or administration that came by the port without such calls."""
        if scope.get(IS_PUBLIC) and ROUTE_SCOPES[self.endpoint.__name__] in NOT_PUBLIC:
            return Match.NONE, {}
        return super().matches(scope)

    def get_route_handler(self) -> Handler:
        """Return FastAPI's handler of requests, after the check of the sender."""
        handle, name = super().get_route_handler(), self.endpoint.__name__
        if ROUTE_SCOPES[name] is None and name not in ROUTE_SETTINGS and name not in OF_ANY_KEY:
            return handle

        async def handle_authorized(request: Request) -> Response:
            context: Context = request.app.state.context
            principal = request.scope[PRINCIPAL] = _authorize(request, name)
            with context.dispatcher.limiters.hold_request(principal):
                return await handle(request)

        return handle_authorized


def _authorize(request: Request, name: str) -> Principal:
    """Return who sent a request; raise AccessError if they may not make it.

    Args:
        request: The request, whose body is not read.
        name: The name of the function that answers it.
    """
    context: Context = request.app.state.context
    authorizer, settings = context.dispatcher.authorizer, context.settings
    if name in ROUTE_SETTINGS and getattr(settings, ROUTE_SETTINGS[name]) == OPEN:
        return ANYONE
    head, scope = head_of(request), ROUTE_SCOPES[name]
    if scope is None:
        return authorizer.principal_of(head)
    principal = authorizer.authorize(head, scope, request.path_params.get("name"))
    if name in OF_ALL_MODELS:
        check_all_models(principal)
    elif name in OF_DEFAULT_MODEL:  # a sender without the scope does not learn whether there is one
        check_model(principal, context.now.default_name(settings.default_model))
    if request.method != GET:
        context.dispatcher.origins.check_site(head.origin, head.fetch_site, head.host)
    return principal


def principal_of(request: Request) -> Principal:
    """Return who sent a request that has been authorized."""
    principal: Principal = request.scope[PRINCIPAL]
    return principal
