"""What teaches a model, and what turns back what was taught, thin."""

import re

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.errors import LogUnavailableError, UnacceptableError
from service.serve.answers import Answer, RequestHead, check_head
from service.serve.endpoints import Context, Reply, With, read_body
from service.serve.feedback import Teaching
from service.serve.grammar import load
from service.serve.schema import DOCS
from service.serve.served import Endpoint, Served
from service.serve.turns import Turn, read_turn
from service.store.feedback import Kind

learning = APIRouter(tags=["learning"])

SEQ = re.compile("[0-9]{1,12}")
WAIT = {"true": True, "1": True, "false": False, "0": False}


def _teaching(context: Context) -> Teaching:
    if context.teaching is None:
        raise LogUnavailableError(
            "This service does not learn: SOFTSTEP_LEARN is off, or its data directory is read-only."
        )
    return context.teaching


def _waits(request: Request) -> bool:
    """Whether the answer shall come when the event is served."""
    waits = WAIT.get(request.query_params.get("wait", "false"))
    if waits is None:
        raise UnacceptableError('"wait" must be true or false.')
    return waits


async def _feedback(request: Request, context: Context, served: Served) -> Response:
    """Take feedback as the front door would; or, where asked for, answer when it is served."""
    head = RequestHead.of(dict(request.scope["headers"]))
    body = await read_body(request, context.settings.body_bytes_max)
    if _waits(request):
        refused = check_head(head)
        if isinstance(refused, Answer):
            return Reply(refused)
        return Reply(await _teaching(context).feedback_served(served, body))
    answer = context.answers.respond(Endpoint(0, served, teaches=True), head, body)
    return Reply(answer if isinstance(answer, Answer) else await answer)


async def _turn(request: Request, context: Context, kind: Kind, served: Served) -> Response:
    """Take a call that becomes an admin event."""
    teaching = _teaching(context)
    turn = await _read_turn(request, context, kind, served)
    return Reply(await teaching.turn(served, turn.kind, turn.post, turn.if_seq, wait=_waits(request)))


async def _read_turn(request: Request, context: Context, kind: Kind, served: Served) -> Turn:
    body = await read_body(request, context.settings.body_bytes_max)
    return read_turn(kind, load(body, context.settings.json_depth_max), served)


@learning.post("/v1/models/{name:name}:feedback", **DOCS["feedback"])
async def feedback_latest(name: str, request: Request, context: With) -> Response:
    """Teach the version that is served by default: rows with their labels, in order, one step each."""
    return await _feedback(request, context, context.now.find(name, None))


@learning.post("/v1/models/{name:name}/versions/{version:name}:feedback", **DOCS["feedback"])
async def feedback_version(name: str, version: str, request: Request, context: With) -> Response:
    """Teach one version."""
    return await _feedback(request, context, context.now.find(name, version))


async def _weights(request: Request, context: Context, served: Served) -> Response:
    asked = request.query_params.get("seq")
    if asked is not None and not SEQ.fullmatch(asked):
        raise UnacceptableError('"seq" must be the seq of an event, a whole number from 0.')
    return Reply(await context.weights.answer(served, None if asked is None else int(asked)))


@learning.get("/v1/models/{name:name}/weights", **DOCS["weights"])
async def weights_latest(name: str, request: Request, context: With) -> Response:
    """The weights that are served, or those at a seq, as a safetensors file."""
    return await _weights(request, context, context.now.find(name, None))


@learning.get("/v1/models/{name:name}/versions/{version:name}/weights", **DOCS["weights"])
async def weights_version(name: str, version: str, request: Request, context: With) -> Response:
    """The weights of one version."""
    return await _weights(request, context, context.now.find(name, version))


@learning.post("/v1/models/{name:name}:classes", **DOCS["classes"])
async def classes_latest(name: str, request: Request, context: With) -> Response:
    """Add classes behind the others; no other two change their order in any row."""
    return await _turn(request, context, Kind.CLASSES, context.now.find(name, None))


@learning.post("/v1/models/{name:name}/versions/{version:name}:classes", **DOCS["classes"])
async def classes_version(name: str, version: str, request: Request, context: With) -> Response:
    """Add classes to one version."""
    return await _turn(request, context, Kind.CLASSES, context.now.find(name, version))


@learning.post("/v1/models/{name:name}:forget", **DOCS["forget"])
async def forget_latest(name: str, request: Request, context: With) -> Response:
    """Forget events of any version: the model becomes what it would be without them, and their rows are erased."""
    teaching, served = _teaching(context), context.now.find(name, None)
    turn = await _read_turn(request, context, Kind.FORGET, served)
    return Reply(await teaching.forget(served, turn, wait=_waits(request)))


@learning.post("/v1/models/{name:name}/versions/{version:name}:forget", **DOCS["forget"])
async def forget_version(name: str, version: str, request: Request, context: With) -> Response:
    """Forget events of one version."""
    return await _turn(request, context, Kind.FORGET, context.now.find(name, version))


@learning.post("/v1/models/{name:name}:rollback", **DOCS["rollback"])
async def rollback_latest(name: str, request: Request, context: With) -> Response:
    """Go back to the state at a seq; what came after it stays in the log."""
    return await _turn(request, context, Kind.ROLLBACK, context.now.find(name, None))


@learning.post("/v1/models/{name:name}/versions/{version:name}:rollback", **DOCS["rollback"])
async def rollback_version(name: str, version: str, request: Request, context: With) -> Response:
    """Go back to the state of one version at a seq."""
    return await _turn(request, context, Kind.ROLLBACK, context.now.find(name, version))


@learning.post("/v1/models/{name:name}:configure", **DOCS["configure"])
async def configure_latest(name: str, request: Request, context: With) -> Response:
    """Pause learning, learn in the shadow of what is served, or change the learning rule."""
    return await _turn(request, context, Kind.CONFIGURE, context.now.find(name, None))


@learning.post("/v1/models/{name:name}/versions/{version:name}:configure", **DOCS["configure"])
async def configure_version(name: str, version: str, request: Request, context: With) -> Response:
    """Configure how one version learns."""
    return await _turn(request, context, Kind.CONFIGURE, context.now.find(name, version))
