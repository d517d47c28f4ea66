"""The route on which a client learns what its key permits."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.access.scopes import Scope
from service.serve.api.dependencies import With, json_reply
from service.serve.api.schemas.documented_calls import DOCS
from service.serve.api.scoped_route import NOT_PUBLIC, ScopedRoute, principal_of
from service.serve.asgi import IS_PUBLIC

access = APIRouter(tags=["native v1"], route_class=ScopedRoute)


@access.get("/v1/key", **DOCS["key"])
async def key(request: Request, context: With) -> Response:
    """Return whether calls need a key, and the scopes of the sender's one."""
    permitted = principal_of(request).scopes
    if request.scope.get(IS_PUBLIC):
        permitted -= NOT_PUBLIC
    scopes = [scope for scope in Scope if scope in permitted]
    return json_reply({"required": not context.dispatcher.authorizer.is_open, "scopes": scopes})
