"""Routes of the Open Inference Protocol v2: server, models, inference."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.serve.api import model_metadata as describe
from service.serve.api.dependencies import Served, With, include_for_models, json_reply, readiness, respond
from service.serve.api.schemas.documented_calls import DOCS
from service.serve.api.scoped_route import ScopedRoute, principal_of
from service.serve.metrics.counters import sum_counters
from service.serve.models.endpoint import INFER

v2 = APIRouter(tags=["Open Inference Protocol v2"], route_class=ScopedRoute)
# Calls of one model; the paths begin behind its name or version.
v2_models = APIRouter(route_class=ScopedRoute)


@v2.get("/v2", **DOCS["server"])
@v2.get("/v2/", include_in_schema=False)
async def v2_server() -> Response:
    """Return the name, version and protocol extensions of the server."""
    return json_reply(describe.server())


@v2.get("/v2/health/live", **DOCS["live"])
async def v2_live() -> Response:
    """Return that the server runs."""
    return json_reply({"live": True})


@v2.get("/v2/health/ready", **DOCS["ready"])
async def v2_ready(context: With) -> Response:
    """Return whether the server takes predictions."""
    return readiness(context)


@v2.get("/v2/models/stats", **DOCS["all_stats"])
async def v2_stats(request: Request, context: With) -> Response:
    """Return the statistics of every permitted version that is served, summed over workers."""
    principal = principal_of(request)
    permitted = [served for served in context.now.served.values() if principal.permits_model(served.name)]
    return json_reply(describe.statistics(permitted, sum_counters(context.shared_memory)))


@v2_models.get("", name="v2_metadata", **DOCS["tensors"])
async def tensors(served: Served, context: With) -> Response:
    """Return the tensors that a model takes and gives."""
    return json_reply(describe.tensors(context.now, served))


@v2_models.get("/ready", name="v2_ready", **DOCS["model_ready"])
async def model_ready(served: Served, context: With) -> Response:
    """Return whether a model takes predictions."""
    return (
        json_reply({"name": served.name, "ready": True}) if not context.shared_memory.draining else readiness(context)
    )


@v2_models.get("/config", name="v2_config", **DOCS["config"])
async def config(served: Served) -> Response:
    """Return a model's configuration in Triton's form."""
    return json_reply(describe.config(served))


@v2_models.get("/stats", name="v2_stats", **DOCS["stats"])
async def statistics(served: Served, context: With) -> Response:
    """Return the statistics of a model, summed over workers."""
    return json_reply(describe.statistics([served], sum_counters(context.shared_memory)))


@v2_models.post("/infer", name="v2_infer", **DOCS["infer"])
async def infer(served: Served, request: Request, context: With) -> Response:
    """Infer with tensors, as JSON or as binary data."""
    return await respond(request, context, INFER, served)


include_for_models(v2, v2_models, "/v2/models")
