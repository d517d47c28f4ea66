"""Shared by every endpoint: the worker's context, reading a body, sending an answer."""

from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Annotated, Final, NamedTuple

import orjson
from fastapi import APIRouter, Depends, Path, Request
from fastapi.routing import APIRoute
from starlette.convertors import Convertor, register_url_convertor

from service.errors import SoftstepError
from service.logs import AccessLog
from service.process.shared_memory import SharedMemory
from service.serve.access_log import ACCESS_ENTRY
from service.serve.api.body_decoding import HeldBodies
from service.serve.asgi import CERTIFICATE, COUNTED_BY_MODEL, Reply
from service.serve.handlers.content_types import JSON_TYPES, check_content_type
from service.serve.handlers.dispatcher import Dispatcher
from service.serve.handlers.health import Health
from service.serve.handlers.history_answers import HistoryHandler
from service.serve.handlers.learning import Learning
from service.serve.handlers.long_work import LongWork
from service.serve.handlers.trajectory import TrajectoryHandler
from service.serve.handlers.weights import WeightsHandler
from service.serve.models.endpoint import Endpoint
from service.serve.models.live_models import LiveModels
from service.serve.models.load_unload import LoadUnload
from service.serve.models.registry import ModelRegistry
from service.serve.models.served_model import ServedModel
from service.serve.responses import V1, V2, HttpResponse, RequestHead, body_too_large, refusal
from service.settings import Settings


class ModelName(Convertor[str]):
    """A path segment without a colon, so that `iris:predict` is not the name of a model."""

    regex = "[^/:]+"

    def convert(self, value: str) -> str:
        """Return the segment as it is."""
        return value

    def to_string(self, value: str) -> str:
        """Return the segment as it is."""
        return value


register_url_convertor("name", ModelName())
# A model's name in the path of an endpoint.
NAME: Final = "{name:name}"


@dataclass(frozen=True)
class Context:
    """The objects that the endpoints of one worker use.

    `work` makes long calls, `decoder` decodes bodies, and `bodies` counts the bytes of them.
    """

    settings: Settings
    shared_memory: SharedMemory
    registry: ModelRegistry
    dispatcher: Dispatcher
    load_unload: LoadUnload
    weights: WeightsHandler
    history: HistoryHandler
    trajectory: TrajectoryHandler
    health: Health
    work: LongWork
    decoder: Executor
    bodies: HeldBodies
    learning: Learning | None = None
    access_log: AccessLog | None = None

    @property
    def now(self) -> LiveModels:
        """The models that are served at this moment."""
        return self.registry.now


async def context_of(request: Request) -> Context:
    """Return the worker's context, which the application carries."""
    context: Context = request.app.state.context
    return context


With = Annotated[Context, Depends(context_of)]


def json_reply(value: object, status: int = 200) -> Reply:
    """Return a response with a value as JSON."""
    return Reply(HttpResponse(status, orjson.dumps(value)))


def head_of(request: Request) -> RequestHead:
    """Return the headers that a response depends on, and the certificate of the client."""
    scope = request.scope
    return RequestHead.of(dict(scope["headers"]))._replace(certificate=scope.get(CERTIFICATE))


def declared_size(request: Request) -> int:
    """Return the bytes of the body that the head declares."""
    return int(request.headers.get("content-length", 0))


async def read_json(request: Request, context: Context) -> bytes:
    """Return the whole body of a call that takes JSON, in a turn of its own if it is large.

    The head is checked before a byte is read.

    Raises:
        BodyTooLargeError: It is larger than the limit.
        MediaTypeError: The head declares another type.
        ClientDisconnect: The client left before its end.
    """
    if declared_size(request) > context.settings.body_bytes_max:
        raise body_too_large(context.settings.body_bytes_max)
    check_content_type(head_of(request), JSON_TYPES)
    body = await read_body(request, context)
    await context.dispatcher.turns.wait(body)
    return body


async def read_body(request: Request, context: Context) -> bytes:
    """Return the whole body; raise BodyTooLargeError as soon as it is larger than the limit."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > context.settings.body_bytes_max:
            raise body_too_large(context.settings.body_bytes_max)
        parts.append(part)
    return b"".join(parts)


class ModelPath(NamedTuple):
    """The model that a path names, and the version or None."""

    name: str
    version: str | None


NameInPath = Annotated[str, Path(description="The model's name.", examples=["iris"])]


async def model_path(request: Request, name: NameInPath) -> ModelPath:
    """Return the model and the version that the path names."""
    return ModelPath(name, request.path_params.get("version"))


async def version_in_path(
    version: Annotated[str, Path(description="The version's number.", examples=["1"])],
) -> None:
    """Declare the version of a path that has one; `model_path` reads it."""


NamedModel = Annotated[ModelPath, Depends(model_path)]


async def served_model(request: Request, context: With, path: NamedModel) -> ServedModel:
    """Return the model that the path names, as it is served now.

    Raises:
        ModelNotFoundError: No model or no version has that name.
        ModelNotReadyError: It is known but not served.
    """
    served = context.now.find_served(path.name, path.version)
    note_served(request, served)
    return served


def note_served(request: Request, served: ServedModel) -> None:
    """Note in the access log, if there is one, which state answers a request."""
    entry = request.scope.get(ACCESS_ENTRY)
    if entry is not None:
        entry.served = served


Served = Annotated[ServedModel, Depends(served_model)]


def include_for_models(router: APIRouter, calls: APIRouter, prefix: str) -> None:
    """Include the calls of a model twice: for the version served by default, and for the version in the path.

    Args:
        router: The router that gets them.
        calls: Calls whose paths begin behind the model or its version.
        prefix: The path before the model's name.
    """
    one = f"{prefix}/{NAME}"
    router.include_router(calls, prefix=one, generate_unique_id_function=_latest_id)
    router.include_router(
        calls,
        prefix=f"{one}/versions/{{version:name}}",
        dependencies=[Depends(version_in_path)],
        generate_unique_id_function=_version_id,
    )


def _latest_id(route: APIRoute) -> str:
    return f"{route.name}_latest"


def _version_id(route: APIRoute) -> str:
    return f"{route.name}_version"


async def respond(request: Request, context: Context, kind: int, served: ServedModel) -> Reply:
    """Respond to a request to a model, as the fast path would."""
    request.scope[COUNTED_BY_MODEL] = True
    note_served(request, served)
    # The state of this moment: models may change while a body arrives.
    endpoint = Endpoint(kind, served, any_version="version" not in request.path_params)
    head = context.dispatcher.check(endpoint, head_of(request), declared_size(request))
    if isinstance(head, HttpResponse):
        return Reply(head)
    body = await read_body(request, context)
    response = context.dispatcher.respond(endpoint, head, body)
    return Reply(response if isinstance(response, HttpResponse) else await response)


def refused(request: Request, reason: SoftstepError) -> Reply:
    """Return the response to an error that an endpoint raised."""
    return Reply(refusal(reason, V2 if request.url.path.startswith("/v2") else V1))


def readiness(context: Context) -> Reply:
    """Return the response of every readiness path: whether this worker takes predictions."""
    return Reply(context.health.ready())
