"""The Open Inference Protocol v2, thin: server, models, inference."""

from collections.abc import Callable

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.serve.api import model_metadata as describe
from service.serve.api.dependencies import NAME, LogCall, With, of_model, predict, readiness, told
from service.serve.api.schemas.requests import DOCS
from service.serve.metrics.counters import sum_counters
from service.serve.responses import V2

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
    return told(describe.statistics(context.now.served.values(), sum_counters(context.board)))


def _declared(method: str, path: str, names: tuple[str, str], docs: str) -> Callable[[LogCall], LogCall]:
    """An endpoint of a model and of one of its versions."""
    return of_model(v2, method, f"/v2/models/{NAME}{path}", names, DOCS[docs])


@_declared("GET", "", ("v2_model", "v2_version"), "tensors")
async def tensors(name: str, version: str | None, context: With) -> Response:
    """The tensors that a model takes and gives."""
    return told(describe.tensors(context.now, context.now.find(name, version)))


@_declared("GET", "/ready", ("v2_model_ready", "v2_version_ready"), "model_ready")
async def model_ready(name: str, version: str | None, context: With) -> Response:
    """Whether a model takes predictions."""
    served = context.now.find(name, version)
    return told({"name": served.name, "ready": True}) if not context.board.draining else readiness(context)


@_declared("GET", "/config", ("v2_config", "v2_version_config"), "config")
async def config(name: str, version: str | None, context: With) -> Response:
    """A model's configuration in Triton's form."""
    return told(describe.config(context.now.find(name, version)))


@_declared("GET", "/stats", ("v2_stats", "v2_version_stats"), "stats")
async def statistics(name: str, version: str | None, context: With) -> Response:
    """Statistics of a model, summed over workers."""
    return told(describe.statistics([context.now.find(name, version)], sum_counters(context.board)))


@_declared("POST", "/infer", ("v2_infer", "v2_version_infer"), "infer")
async def infer(name: str, version: str | None, request: Request, context: With) -> Response:
    """Inference with tensors, as JSON or as binary data."""
    return await predict(request, context, V2, context.now.find(name, version))
