"""The Open Inference Protocol v2, thin: server, models, inference."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.serve import describe
from service.serve.endpoints import With, predict, readiness, told
from service.serve.metrics import V2, totals
from service.serve.schema import DOCS

v2 = APIRouter(tags=["Open Inference Protocol v2"])


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
    return readiness(context)


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
    return told({"name": served.name, "ready": True}) if not context.board.draining else readiness(context)


@v2.get(_two("/ready")[1], **DOCS["model_ready"])
async def v2_version_ready(name: str, version: str, context: With) -> Response:
    """Whether one version takes predictions."""
    served = context.now.find(name, version)
    return told({"name": served.name, "ready": True}) if not context.board.draining else readiness(context)


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
