"""What every endpoint works with: the worker's context, a body to read, an answer to give."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Depends, Request
from starlette.convertors import Convertor, register_url_convertor
from starlette.responses import Response

from service.errors import BodyTooLargeError, SoftstepError
from service.process.shared_memory import SharedMemory
from service.serve.asgi import Reply
from service.serve.handlers.feedback import FeedbackHandler
from service.serve.handlers.predict import PredictHandler
from service.serve.handlers.weights import WeightsHandler
from service.serve.models.load_unload import LoadUnload
from service.serve.models.registry import LiveModels, ModelRegistry
from service.serve.models.served_model import Endpoint, ServedModel
from service.serve.responses import V1, V2, HttpResponse, RequestHead, error, refusal
from service.settings import Settings

LogCall = Callable[..., Awaitable[Response]]


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
    """What the endpoints of one worker work with; `executor` is where long work is done."""

    settings: Settings
    board: SharedMemory
    live: ModelRegistry
    answers: PredictHandler
    orders: LoadUnload
    weights: WeightsHandler
    executor: Executor
    teaching: FeedbackHandler | None = None

    @property
    def now(self) -> LiveModels:
        """What is served at this moment."""
        return self.live.now

    @property
    def ready(self) -> bool:
        """Whether this worker takes predictions: scanned, something to serve, not draining."""
        return self.live.scanned and bool(self.now.served) and not self.board.draining


def context_of(request: Request) -> Context:
    """The worker's context, which the application carries."""
    context: Context = request.app.state.context
    return context


With = Annotated[Context, Depends(context_of)]


def told(value: object, status: int = 200) -> Reply:
    """A response that tells a value as JSON."""
    return Reply(HttpResponse(status, orjson.dumps(value)))


async def read_body(request: Request, bytes_max: int) -> bytes:
    """The whole body.

    Raises:
        BodyTooLargeError: It is larger than the limit; a declared size is refused before a byte is read.
        ClientDisconnect: The client left before its end.
    """
    too_large = BodyTooLargeError(f"The body may have at most {bytes_max} bytes.")
    if int(request.headers.get("content-length", 0)) > bytes_max:
        raise too_large
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > bytes_max:
            raise too_large
        parts.append(part)
    return b"".join(parts)


def of_model(
    router: APIRouter, method: str, path: str, names: tuple[str, str], docs: Mapping[str, Any]
) -> Callable[[LogCall], LogCall]:
    """Declares an endpoint of a model, which means the version that is served by default, and of one of its versions.

    Args:
        router: Where.
        method: The HTTP method.
        path: The path without a version; with one, the version stands behind the model's name.
        names: Of both in the OpenAPI document.
        docs: What the document says of both.

    Returns:
        A decorator for a function that takes `version`, None where the path has none.
    """

    def declare(call: LogCall) -> LogCall:
        signature = inspect.signature(call)

        @wraps(call)
        async def latest(**given: Any) -> Response:  # noqa: ANN401  # the parameters of any endpoint
            return await call(version=None, **given)

        # FastAPI reads the parameters of a path from the signature.
        named = [one.replace(annotation=str) if one.name == "version" else one for one in signature.parameters.values()]
        vars(call)["__signature__"] = signature.replace(parameters=named)
        others = [parameter for parameter in named if parameter.name != "version"]
        vars(latest)["__signature__"] = signature.replace(parameters=others)
        versioned = path.replace(NAME, f"{NAME}/versions/{{version:name}}")
        router.add_api_route(path, latest, methods=[method], name=names[0], **docs)
        router.add_api_route(versioned, call, methods=[method], name=names[1], **docs)
        return call

    return declare


async def predict(
    request: Request, context: Context, protocol: int, served: ServedModel, *, explains: bool = False
) -> Reply:
    """Answer a prediction request, or one that asks why, as the front door would."""
    head = RequestHead.of(dict(request.scope["headers"]))
    endpoint = Endpoint(protocol, served, explains=explains)  # of this moment: models may change while a body comes
    answer = context.answers.respond(endpoint, head, await read_body(request, context.settings.body_bytes_max))
    return Reply(answer if isinstance(answer, HttpResponse) else await answer)


def refused(request: Request, reason: SoftstepError) -> Reply:
    """The answer to an error that an endpoint raised."""
    return Reply(refusal(reason, V2 if request.url.path.startswith("/v2") else V1))


def readiness(context: Context) -> Reply:
    """Whether this worker takes predictions, as every readiness path says it."""
    if context.ready:
        return told({"ready": True})
    response = error("not_ready", "Not ready: no model is served, or the server is draining.")
    return Reply(response._replace(body=b'{"ready":false,' + response.body[1:]))
