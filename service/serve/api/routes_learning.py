"""Routes for feedback, weights and administration."""

import re

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.errors import UnacceptableError
from service.serve.api.dependencies import Context, NamedModel, Served, With, include_for_models, read_body
from service.serve.api.schemas.requests import DOCS
from service.serve.asgi import Reply
from service.serve.handlers.admin import AdminRequest, read_turn
from service.serve.handlers.learning import Learning
from service.serve.models.endpoint import FEEDBACK, Endpoint
from service.serve.models.served_model import ServedModel
from service.serve.responses import HttpResponse, RequestHead, check_head, learning_off
from service.serve.wire.json_grammar import parse_object
from service.store.log.events import Kind

learning = APIRouter(tags=["learning"])
# Calls of one model; the paths begin behind its name or version.
learning_models = APIRouter()

SEQ = re.compile("[0-9]{1,12}")
WAIT = {"true": True, "1": True, "false": False, "0": False}


def _learning(context: Context) -> Learning:
    if context.learning is None:
        raise learning_off()
    return context.learning


def _waits(request: Request) -> bool:
    """Whether the answer shall come when the event is served."""
    waits = WAIT.get(request.query_params.get("wait", "false"))
    if waits is None:
        raise UnacceptableError('"wait" must be true or false.')
    return waits


async def _read_turn(request: Request, context: Context, kind: Kind, served: ServedModel) -> AdminRequest:
    body = await read_body(request, context.settings.body_bytes_max)
    return read_turn(kind, parse_object(body, context.settings.json_depth_max, context.settings.rows_max), served)


async def _turn(request: Request, context: Context, kind: Kind, served: ServedModel) -> Response:
    """Take a call that becomes an admin event."""
    parts = _learning(context)
    turn = await _read_turn(request, context, kind, served)
    return Reply(await parts.admin.append(served, turn, wait=_waits(request)))


@learning_models.post(":feedback", **DOCS["feedback"])
async def feedback(served: Served, request: Request, context: With) -> Response:
    """Learn from rows with their labels: one step for each row, in order."""
    head = RequestHead.of(dict(request.scope["headers"]))
    body = await read_body(request, context.settings.body_bytes_max)
    if _waits(request):
        refused = check_head(head)
        if isinstance(refused, HttpResponse):
            return Reply(refused)
        return Reply(await _learning(context).feedback.respond_when_served(served, body))
    answer = context.dispatcher.respond(Endpoint(FEEDBACK, served), head, body)
    return Reply(answer if isinstance(answer, HttpResponse) else await answer)


@learning_models.get("/weights", **DOCS["weights"])
async def weights(served: Served, request: Request, context: With) -> Response:
    """Return the served weights, or those at a seq, as a safetensors file."""
    asked = request.query_params.get("seq")
    if asked is not None and not SEQ.fullmatch(asked):
        raise UnacceptableError('"seq" must be the seq of an event, a whole number from 0.')
    return Reply(await context.weights.respond(served, None if asked is None else int(asked)))


@learning_models.post(":classes", **DOCS["classes"])
async def classes(served: Served, request: Request, context: With) -> Response:
    """Add classes after the existing ones; the order of the others does not change in any row."""
    return await _turn(request, context, Kind.CLASSES, served)


@learning_models.post(":forget", **DOCS["forget"])
async def forget(path: NamedModel, served: Served, request: Request, context: With) -> Response:
    """Forget events: the model becomes what it would be without them, and their rows are erased.

    Without a version in the path they may be events of any version of the model.
    """
    if path.version is not None:
        return await _turn(request, context, Kind.FORGET, served)
    parts = _learning(context)
    turn = await _read_turn(request, context, Kind.FORGET, served)
    return Reply(await parts.admin.forget(served, turn, wait=_waits(request)))


@learning_models.post(":rollback", **DOCS["rollback"])
async def rollback(served: Served, request: Request, context: With) -> Response:
    """Go back to the state at a seq; the later events stay in the log."""
    return await _turn(request, context, Kind.ROLLBACK, served)


@learning_models.post(":configure", **DOCS["configure"])
async def configure(served: Served, request: Request, context: With) -> Response:
    """Pause learning, learn without serving the result, or change the learning rule."""
    return await _turn(request, context, Kind.CONFIGURE, served)


include_for_models(learning, learning_models, "/v1/models")
