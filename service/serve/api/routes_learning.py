"""What teaches a model, and what turns back what was taught, thin."""

import re
from collections.abc import Callable

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.errors import UnacceptableError
from service.serve.api.dependencies import NAME, Context, LogCall, With, of_model, read_body
from service.serve.api.schemas.requests import DOCS
from service.serve.asgi import Reply
from service.serve.handlers.admin import AdminRequest, read_turn
from service.serve.handlers.feedback import FeedbackHandler
from service.serve.models.served_model import Endpoint, ServedModel
from service.serve.responses import HttpResponse, RequestHead, check_head, learning_off
from service.serve.wire.json_grammar import parse_object
from service.store.log.events import Kind

learning = APIRouter(tags=["learning"])

SEQ = re.compile("[0-9]{1,12}")
WAIT = {"true": True, "1": True, "false": False, "0": False}


def _teaching(context: Context) -> FeedbackHandler:
    if context.teaching is None:
        raise learning_off()
    return context.teaching


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
    teaching = _teaching(context)
    turn = await _read_turn(request, context, kind, served)
    return Reply(await teaching.turn(served, turn.kind, turn.post, turn.if_seq, wait=_waits(request)))


def _declared(method: str, path: str, name: str) -> Callable[[LogCall], LogCall]:
    """An endpoint of a model and of one of its versions."""
    names = (f"{name}_latest", f"{name}_version")
    return of_model(learning, method, f"/v1/models/{NAME}{path}", names, DOCS[name])


@_declared("POST", ":feedback", "feedback")
async def feedback(name: str, version: str | None, request: Request, context: With) -> Response:
    """Teach: rows with their labels, in order, one step each."""
    served = context.now.find(name, version)
    head = RequestHead.of(dict(request.scope["headers"]))
    body = await read_body(request, context.settings.body_bytes_max)
    if _waits(request):
        refused = check_head(head)
        if isinstance(refused, HttpResponse):
            return Reply(refused)
        return Reply(await _teaching(context).feedback_served(served, body))
    answer = context.answers.respond(Endpoint(0, served, teaches=True), head, body)
    return Reply(answer if isinstance(answer, HttpResponse) else await answer)


@_declared("GET", "/weights", "weights")
async def weights(name: str, version: str | None, request: Request, context: With) -> Response:
    """The weights that are served, or those at a seq, as a safetensors file."""
    served = context.now.find(name, version)
    asked = request.query_params.get("seq")
    if asked is not None and not SEQ.fullmatch(asked):
        raise UnacceptableError('"seq" must be the seq of an event, a whole number from 0.')
    return Reply(await context.weights.answer(served, None if asked is None else int(asked)))


@_declared("POST", ":classes", "classes")
async def classes(name: str, version: str | None, request: Request, context: With) -> Response:
    """Add classes behind the others; no other two change their order in any row."""
    return await _turn(request, context, Kind.CLASSES, context.now.find(name, version))


@_declared("POST", ":forget", "forget")
async def forget(name: str, version: str | None, request: Request, context: With) -> Response:
    """Forget events: the model becomes what it would be without them, and their rows are erased.

    Without a version in the path they may lie in any version of the model.
    """
    served = context.now.find(name, version)
    if version is not None:
        return await _turn(request, context, Kind.FORGET, served)
    teaching = _teaching(context)
    turn = await _read_turn(request, context, Kind.FORGET, served)
    return Reply(await teaching.forget(served, turn, wait=_waits(request)))


@_declared("POST", ":rollback", "rollback")
async def rollback(name: str, version: str | None, request: Request, context: With) -> Response:
    """Go back to the state at a seq; what came after it stays in the log."""
    return await _turn(request, context, Kind.ROLLBACK, context.now.find(name, version))


@_declared("POST", ":configure", "configure")
async def configure(name: str, version: str | None, request: Request, context: With) -> Response:
    """Pause learning, learn in the shadow of what is served, or change the learning rule."""
    return await _turn(request, context, Kind.CONFIGURE, context.now.find(name, version))
