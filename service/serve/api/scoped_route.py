"""A route that answers only those who may make its call."""

from collections.abc import Callable, Coroutine, MutableMapping
from typing import Any, Final

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.routing import Match

from service.access.principal import Principal
from service.access.scopes import Scope
from service.serve.api.dependencies import Context, head_of
from service.serve.asgi import IS_PUBLIC
from service.serve.authorization.route_scopes import ROUTE_SCOPES

# The scopes of calls that another port than the public one has, if there are two.
NOT_PUBLIC: Final = frozenset((Scope.FEEDBACK, Scope.ADMIN))
# In the scope of a request that has been authorized: its principal.
PRINCIPAL: Final = "softstep.principal"
# Calls whose paths name no model: they are for the default one.
FOR_DEFAULT_MODEL: Final = frozenset(("predict_default", "predict_vertex"))


class ScopedRoute(APIRoute):
    """A route whose requests are authorized before their bodies are read."""

    def matches(self, scope: MutableMapping[str, Any]) -> tuple[Match, MutableMapping[str, Any]]:
        """Match no request for feedback or administration that came by the port without such calls."""
        if scope.get(IS_PUBLIC) and ROUTE_SCOPES[self.endpoint.__name__] in NOT_PUBLIC:
            return Match.NONE, {}
        return super().matches(scope)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler of requests, behind the check of the caller.

        Raises:
            KeyError: The route has no scope.
        """
        handle = super().get_route_handler()
        name = self.endpoint.__name__
        scope = ROUTE_SCOPES[name]
        if scope is None:
            return handle

        async def handle_authorized(request: Request) -> Response:
            context: Context = request.app.state.context
            model: str | None = request.path_params.get("name")
            if name in FOR_DEFAULT_MODEL:
                model = context.now.find_default(context.settings.default_model).name
            request.scope[PRINCIPAL] = context.dispatcher.authorizer.authorize(head_of(request), scope, model)
            return await handle(request)

        return handle_authorized


def principal_of(request: Request) -> Principal:
    """Return who sent a request that has been authorized."""
    principal: Principal = request.scope[PRINCIPAL]
    return principal
