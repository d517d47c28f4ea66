"""Routes of the Open Inference Protocol's model repository extension: index, load, unload."""

from typing import TypeVar

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.access.audit_log import Action
from service.serve.api import model_metadata as describe
from service.serve.api.audited_calls import audited
from service.serve.api.dependencies import Context, NameInPath, With, json_reply, read_json
from service.serve.api.schemas.documented_calls import DOCS
from service.serve.api.schemas.repository_bodies import (
    LoadRequest,
    RepositoryIndexRequest,
    RepositoryRequest,
    UnloadRequest,
)
from service.serve.api.scoped_route import ScopedRoute, principal_of
from service.serve.api.validation import parse_body

repository = APIRouter(tags=["Open Inference Protocol v2"], route_class=ScopedRoute)

Call = TypeVar("Call", bound=RepositoryRequest)


async def _parse(request: Request, context: Context, model: type[Call]) -> Call:
    """Validate a body; a missing one counts as an empty object."""
    body = await read_json(request, context)
    return parse_body(body or b"{}", context.settings, model)


@repository.post("/v2/repository/index", **DOCS["index"])
async def repository_index(request: Request, context: With) -> Response:
    """List every permitted version in the models directory, and other models in it, with state and reason."""
    call = await _parse(request, context, RepositoryIndexRequest)
    return json_reply(describe.index(context.now, principal_of(request), ready_only=bool(call.ready)))


@repository.post("/v2/repository/models/{name:name}/load", **DOCS["load"])
async def repository_load(name: NameInPath, request: Request, context: With) -> Response:
    """Load a model that was unloaded, and read its files again, in every worker."""
    await _parse(request, context, LoadRequest)
    async with audited(request, context, Action.LOAD, name) as entry:
        await context.load_unload.load_or_unload(entry)
        context.now.check_loaded(name)
    return json_reply({"name": name, "load": True})


@repository.post("/v2/repository/models/{name:name}/unload", **DOCS["unload"])
async def repository_unload(name: NameInPath, request: Request, context: With) -> Response:
    """Stop serving a model in every worker, until it is loaded again."""
    await _parse(request, context, UnloadRequest)
    if name not in context.now.list_names():
        context.now.find_served(name, None)
    async with audited(request, context, Action.UNLOAD, name) as entry:
        await context.load_unload.load_or_unload(entry)
    return json_reply({"name": name, "unload": True})
