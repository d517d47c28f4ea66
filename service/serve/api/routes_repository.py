"""The model repository extension of the Open Inference Protocol v2: what there is, load, unload."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.errors import UnacceptableError
from service.serve.api import model_metadata as describe
from service.serve.api.dependencies import Context, With, json_reply, read_body
from service.serve.api.schemas.requests import DOCS
from service.serve.wire.json_grammar import parse_object

repository = APIRouter(tags=["Open Inference Protocol v2"])


async def _parameters(request: Request, context: Context) -> dict[str, Any]:
    """The JSON object of an administrative request; empty where there is no body."""
    body = await read_body(request, context.settings.body_bytes_max)
    return parse_object(body, context.settings.json_depth_max, context.settings.rows_max) if body.strip() else {}


@repository.post("/v2/repository/index", **DOCS["index"])
async def repository_index(request: Request, context: With) -> Response:
    """Every version found in the models directory, with its state and the reason of a refusal."""
    ready = (await _parameters(request, context)).get("ready", False)
    if type(ready) is not bool:
        raise UnacceptableError('"ready" must be true or false.')
    return json_reply(describe.index(context.now, ready_only=ready))


@repository.post("/v2/repository/models/{name:name}/load", **DOCS["load"])
async def repository_load(name: str, request: Request, context: With) -> Response:
    """Load a model that was unloaded, and look at the models directory again, in every worker."""
    parameters = (await _parameters(request, context)).get("parameters", {})
    if parameters:
        raise UnacceptableError("Models are loaded from the models directory alone; send no parameters.")
    await context.load_unload.load_or_unload("load", name)
    context.now.find_served(name, None)
    return json_reply({"name": name, "load": True})


@repository.post("/v2/repository/models/{name:name}/unload", **DOCS["load"])
async def repository_unload(name: str, request: Request, context: With) -> Response:
    """Stop serving a model in every worker, until it is loaded again."""
    await _parameters(request, context)
    if name not in context.now.list_names():
        context.now.find_served(name, None)
    await context.load_unload.load_or_unload("unload", name)
    return json_reply({"name": name, "unload": True})
