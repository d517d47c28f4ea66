"""Routes of the native protocol: models, their metadata, predictions and explanations."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.serve.api import model_metadata as describe
from service.serve.api.dependencies import (
    NamedModel,
    Served,
    With,
    include_for_models,
    json_reply,
    respond,
)
from service.serve.api.schemas.documented_calls import DOCS
from service.serve.models.endpoint import EXPLAIN, PREDICT

native = APIRouter(tags=["native v1"])
# Calls of one model; the paths begin behind its name or version.
native_models = APIRouter()


@native.get("/v1/models", **DOCS["models"])
async def list_models(context: With) -> Response:
    """List the models, each with the version that is served by default."""
    return json_reply(describe.models(context.now))


@native_models.get("", name="metadata", **DOCS["metadata"])
async def metadata(path: NamedModel, context: With) -> Response:
    """Return the metadata and live state of a model, with the state of each of its versions."""
    now, name = context.now, path.name
    if path.version is None and name in now.list_names() and now.find_latest(name) is None:
        return json_reply(describe.unavailable(now, name))
    served = now.find_served(name, path.version)
    standing = {} if context.learning is None else await context.learning.status.status_of(served)
    return json_reply({**describe.model(now, served), **standing})


@native_models.post(":predict", name="predict", **DOCS["predict"])
async def predict_rows(served: Served, request: Request, context: With) -> Response:
    """Return the probabilities of each row, and its label."""
    return await respond(request, context, PREDICT, served)


@native_models.post(":explain", name="explain", **DOCS["explain"])
async def explain_rows(served: Served, request: Request, context: With) -> Response:
    """Explain each row's probabilities: contributions, sensitivities, and the gradient of a given label's loss."""
    return await respond(request, context, EXPLAIN, served)


@native.post("/invocations", **DOCS["invocations"])
async def predict_default(request: Request, context: With) -> Response:
    """Predict with the default model: the path of SageMaker and MLflow, and by AIP_PREDICT_ROUTE of Vertex AI."""
    return await respond(request, context, PREDICT, context.now.find_default(context.settings.default_model))


include_for_models(native, native_models, "/v1/models")
