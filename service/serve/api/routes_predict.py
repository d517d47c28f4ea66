"""Routes of the native protocol: models, their metadata, predictions and explanations."""

import asyncio

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
from service.serve.api.row_schema import make_row_schema
from service.serve.api.schemas.documented_calls import DOCS
from service.serve.api.scoped_route import ScopedRoute, principal_of
from service.serve.api.tensorflow_metadata import describe_signature
from service.serve.models.endpoint import EXPLAIN, INVOKE, PREDICT, VERTEX

native = APIRouter(tags=["native v1"], route_class=ScopedRoute)
# Calls of one model; the paths begin behind its name or version.
native_models = APIRouter(route_class=ScopedRoute)


@native.get("/v1/models", **DOCS["models"])
async def list_models(request: Request, context: With) -> Response:
    """List the permitted models, each with the version that is served by default."""
    return json_reply(describe.models(context.now, principal_of(request)))


@native_models.get("", name="metadata", **DOCS["metadata"])
async def metadata(path: NamedModel, context: With) -> Response:
    """Return the metadata and live state of a model, with the state of each of its versions."""
    now, name = context.now, path.name
    if path.version is None and name in now.list_names() and now.find_latest(name) is None:
        return json_reply(describe.unavailable(now, name))
    served = now.find_served(name, path.version)
    await asyncio.to_thread(lambda: served.weights_sha256)  # hashing the weights of a sparse model takes long
    standing = {} if context.learning is None else await context.learning.status.status_of(served)
    return json_reply({**describe.model(now, served, alone=path.version is not None), **standing})


@native_models.get("/schema", name="row_schema", **DOCS["row_schema"])
async def row_schema(served: Served) -> Response:
    """Return the JSON Schema of a row of a model, with an example."""
    return json_reply(make_row_schema(served))


@native_models.get("/metadata", name="signature", **DOCS["signature"])
async def signature(served: Served) -> Response:
    """Return the tensors that a model takes and gives, in the form of TensorFlow Serving."""
    return json_reply(describe_signature(served))


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
    """Predict with the default model, in any form of SageMaker's and MLflow's clients."""
    return await respond(request, context, INVOKE, context.now.find_default(context.settings.default_model))


async def predict_vertex(request: Request, context: With) -> Response:
    """Predict with the default model at the path of AIP_PREDICT_ROUTE, for clients of Vertex AI."""
    return await respond(request, context, VERTEX, context.now.find_default(context.settings.default_model))


include_for_models(native, native_models, "/v1/models")
