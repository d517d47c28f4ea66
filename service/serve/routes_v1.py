"""The native protocol, thin: models, their metadata, predictions."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.serve import describe
from service.serve.endpoints import Context, Reply, With, predict, told
from service.serve.metrics import V1
from service.serve.schema import DOCS

native = APIRouter(tags=["native v1"])


@native.get("/v1/models", **DOCS["models"])
async def list_models(context: With) -> Response:
    """List the models, each with the version that is served by default."""
    return told(describe.models(context.now))


async def _metadata(context: Context, name: str, version: str | None) -> Reply:
    now = context.now
    if version is None and name in now.names() and now.latest(name) is None:
        return told(describe.unavailable(now, name))
    served = now.find(name, version)
    standing = {} if context.teaching is None else await context.teaching.standing(served)
    return told({**describe.model(now, served), **standing})


@native.get("/v1/models/{name:name}", **DOCS["model"])
async def model_metadata(name: str, context: With) -> Response:
    """Metadata and live state of a model, with the state of each of its versions."""
    return await _metadata(context, name, None)


@native.get("/v1/models/{name:name}/versions/{version:name}", **DOCS["model"])
async def version_metadata(name: str, version: str, context: With) -> Response:
    """Metadata and live state of one version of a model."""
    return await _metadata(context, name, version)


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
