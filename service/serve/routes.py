"""Every endpoint, thin: find the model, read the body, hand both to the room's other modules."""

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Request
from starlette.convertors import Convertor, register_url_convertor
from starlette.responses import Response

from service import __version__
from service.board import Board
from service.errors import SoftstepError, TooLargeError, UnacceptableError
from service.serve import describe
from service.serve.answers import Answer, Answers, RequestHead, refusal
from service.serve.codec import load
from service.serve.live import Endpoint, Live, Now, Served
from service.serve.metrics import V1, V2, exposition, totals
from service.serve.orders import Orders
from service.serve.schema import DOCS
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


@dataclass(frozen=True)
class Context:
    """What the endpoints of one worker work with."""

    settings: Settings
    board: Board
    live: Live
    answers: Answers
    orders: Orders

    @property
    def now(self) -> Now:
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


class Reply(Response):
    """An answer as a response, its headers in the order in which the front door writes them."""

    def __init__(self, answer: Answer) -> None:
        self.status_code = answer.status
        self.body = answer.body
        self.background = None
        self.raw_headers = [
            (b"content-type", answer.content_type),
            (b"content-length", b"%d" % len(answer.body)),
            *answer.headers,
        ]


def told(value: object, status: int = 200) -> Reply:
    """A response that tells a value as JSON."""
    return Reply(Answer(status, orjson.dumps(value)))


async def read_body(request: Request, bytes_max: int) -> bytes:
    """The whole body.

    Raises:
        TooLargeError: It is larger than the limit; a declared size is refused before a byte is read.
        ClientDisconnect: The client left before its end.
    """
    too_large = TooLargeError(f"The body may have at most {bytes_max} bytes.")
    if int(request.headers.get("content-length", 0)) > bytes_max:
        raise too_large
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > bytes_max:
            raise too_large
        parts.append(part)
    return b"".join(parts)


async def predict(request: Request, context: Context, protocol: int, served: Served) -> Reply:
    """Answer a prediction request as the front door would."""
    head = RequestHead.of(dict(request.scope["headers"]))
    endpoint = Endpoint(protocol, served)  # of this moment: models may change while a body comes
    answer = context.answers.respond(endpoint, head, await read_body(request, context.settings.body_bytes_max))
    return Reply(answer if isinstance(answer, Answer) else await answer)


native = APIRouter(tags=["native v1"])
v2 = APIRouter(tags=["Open Inference Protocol v2"])
operations = APIRouter(tags=["operations"])


@native.get("/v1/models", **DOCS["models"])
async def list_models(context: With) -> Response:
    """List the models, each with the version that is served by default."""
    return told(describe.models(context.now))


def _metadata(now: Now, name: str, version: str | None) -> Reply:
    if version is None and name in now.names() and now.latest(name) is None:
        return told(describe.unavailable(now, name))
    return told(describe.model(now, now.find(name, version)))


@native.get("/v1/models/{name:name}", **DOCS["model"])
async def model_metadata(name: str, context: With) -> Response:
    """Metadata and live state of a model, with the state of each of its versions."""
    return _metadata(context.now, name, None)


@native.get("/v1/models/{name:name}/versions/{version:name}", **DOCS["model"])
async def version_metadata(name: str, version: str, context: With) -> Response:
    """Metadata and live state of one version of a model."""
    return _metadata(context.now, name, version)


@native.post("/v1/models/{name:name}:predict", **DOCS["predict"])
async def predict_latest(name: str, request: Request, context: With) -> Response:
    """Probabilities of each row, with its label, from the version that is served by default."""
    return await predict(request, context, V1, context.now.find(name, None))


@native.post("/v1/models/{name:name}/versions/{version:name}:predict", **DOCS["predict"])
async def predict_version(name: str, version: str, request: Request, context: With) -> Response:
    """Probabilities of each row, with its label, from one version."""
    return await predict(request, context, V1, context.now.find(name, version))


@native.post("/invocations", **DOCS["predict"])
async def predict_default(request: Request, context: With) -> Response:
    """Predict with the default model: the path of SageMaker and MLflow, and by AIP_PREDICT_ROUTE of Vertex AI."""
    return await predict(request, context, V1, context.now.default(context.settings.default_model))


@v2.get("/v2", **DOCS["server"])
@v2.get("/v2/", include_in_schema=False)
async def server_metadata() -> Response:
    """Name, version and protocol extensions of the server."""
    return told(describe.server())


@v2.api_route("/v2/health/live", methods=["GET"], **DOCS["live"])
async def v2_live() -> Response:
    """Whether the server runs."""
    return told({"live": True})


@v2.api_route("/v2/health/ready", methods=["GET"], **DOCS["ready"])
async def v2_ready(context: With) -> Response:
    """Whether the server takes predictions."""
    return _readiness(context)


@v2.get("/v2/models/stats", **DOCS["stats"])
async def all_statistics(context: With) -> Response:
    """Statistics of every served version, summed over workers."""
    return told(describe.statistics(context.now.served.values(), totals(context.board)))


def _two(path: str) -> tuple[str, str]:
    """A path of a model and the same path of one of its versions."""
    return f"/v2/models/{{name:name}}{path}", f"/v2/models/{{name:name}}/versions/{{version:name}}{path}"


@v2.get(_two("")[0], **DOCS["tensors"])
async def v2_model(name: str, context: With) -> Response:
    """The tensors that a model takes and gives."""
    return told(describe.tensors(context.now, context.now.find(name, None)))


@v2.get(_two("")[1], **DOCS["tensors"])
async def v2_version(name: str, version: str, context: With) -> Response:
    """The tensors that one version takes and gives."""
    return told(describe.tensors(context.now, context.now.find(name, version)))


@v2.get(_two("/ready")[0], **DOCS["model_ready"])
async def v2_model_ready(name: str, context: With) -> Response:
    """Whether a model takes predictions."""
    served = context.now.find(name, None)
    return told({"name": served.name, "ready": True}) if not context.board.draining else _readiness(context)


@v2.get(_two("/ready")[1], **DOCS["model_ready"])
async def v2_version_ready(name: str, version: str, context: With) -> Response:
    """Whether one version takes predictions."""
    served = context.now.find(name, version)
    return told({"name": served.name, "ready": True}) if not context.board.draining else _readiness(context)


@v2.get(_two("/config")[0], **DOCS["config"])
async def v2_config(name: str, context: With) -> Response:
    """A model's configuration in Triton's form."""
    return told(describe.config(context.now.find(name, None)))


@v2.get(_two("/config")[1], **DOCS["config"])
async def v2_version_config(name: str, version: str, context: With) -> Response:
    """One version's configuration in Triton's form."""
    return told(describe.config(context.now.find(name, version)))


@v2.get(_two("/stats")[0], **DOCS["stats"])
async def v2_stats(name: str, context: With) -> Response:
    """Statistics of a model, summed over workers."""
    return told(describe.statistics([context.now.find(name, None)], totals(context.board)))


@v2.get(_two("/stats")[1], **DOCS["stats"])
async def v2_version_stats(name: str, version: str, context: With) -> Response:
    """Statistics of one version, summed over workers."""
    return told(describe.statistics([context.now.find(name, version)], totals(context.board)))


@v2.post(_two("/infer")[0], **DOCS["infer"])
async def v2_infer(name: str, request: Request, context: With) -> Response:
    """Inference with tensors, as JSON or as binary data."""
    return await predict(request, context, V2, context.now.find(name, None))


@v2.post(_two("/infer")[1], **DOCS["infer"])
async def v2_version_infer(name: str, version: str, request: Request, context: With) -> Response:
    """Inference with tensors, as JSON or as binary data, by one version."""
    return await predict(request, context, V2, context.now.find(name, version))


async def _parameters(request: Request, context: Context) -> dict[str, Any]:
    """The JSON object of an administrative request; empty where there is no body."""
    body = await read_body(request, context.settings.body_bytes_max)
    return load(body, context.settings.json_depth_max) if body.strip() else {}


@v2.post("/v2/repository/index", **DOCS["index"])
async def repository_index(request: Request, context: With) -> Response:
    """Every version found in the models directory, with its state and the reason of a refusal."""
    ready = (await _parameters(request, context)).get("ready", False)
    if type(ready) is not bool:
        raise UnacceptableError('"ready" must be true or false.')
    return told(describe.index(context.now, ready_only=ready))


@v2.post("/v2/repository/models/{name:name}/load", **DOCS["load"])
async def repository_load(name: str, request: Request, context: With) -> Response:
    """Load a model that was unloaded, and look at the models directory again, in every worker."""
    parameters = (await _parameters(request, context)).get("parameters", {})
    if parameters:
        raise UnacceptableError("Models are loaded from the models directory alone; send no parameters.")
    await context.orders.give("load", name)
    context.now.find(name, None)
    return told({"name": name, "load": True})


@v2.post("/v2/repository/models/{name:name}/unload", **DOCS["load"])
async def repository_unload(name: str, request: Request, context: With) -> Response:
    """Stop serving a model in every worker, until it is loaded again."""
    await _parameters(request, context)
    if name not in context.now.names():
        context.now.find(name, None)
    await context.orders.give("unload", name)
    return told({"name": name, "unload": True})


def _readiness(context: Context) -> Reply:
    if context.ready:
        return told({"ready": True})
    return Reply(Answer(503, b'{"ready":false,"error":"Not ready: no model is served, or the server is draining."}'))


@operations.get("/healthz", **DOCS["live"])
async def healthz() -> Response:
    """Whether the server runs."""
    return told({"live": True})


@operations.get("/readyz", **DOCS["ready"])
async def readyz(context: With) -> Response:
    """Whether the server takes predictions."""
    return _readiness(context)


@operations.get("/ping", **DOCS["ready"])
async def ping(context: With) -> Response:
    """Whether the server takes predictions: SageMaker's health check."""
    return _readiness(context)


@operations.get("/metrics", **DOCS["metrics"])
async def metrics(context: With) -> Response:
    """Metrics of all workers together, in Prometheus' text format."""
    text = await asyncio.to_thread(exposition, context.board, __version__)
    return Reply(Answer(200, text, b"text/plain; version=0.0.4; charset=utf-8"))


def refused(request: Request, reason: SoftstepError) -> Reply:
    """The answer to an error that an endpoint raised."""
    return Reply(refusal(reason, V2 if request.url.path.startswith("/v2") else V1))
