"""The native protocol, thin: models, their metadata, predictions and what explains them."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.serve.api import model_metadata as describe
from service.serve.api.dependencies import NAME, With, of_model, predict, told
from service.serve.api.schemas.explanations import MATHEMATICS
from service.serve.api.schemas.requests import DOCS
from service.serve.responses import V1

native = APIRouter(tags=["native v1"])


@native.get("/v1/models", **DOCS["models"])
async def list_models(context: With) -> Response:
    """List the models, each with the version that is served by default."""
    return told(describe.models(context.now))


@of_model(native, "GET", f"/v1/models/{NAME}", ("model_metadata", "version_metadata"), DOCS["model"])
async def metadata(name: str, version: str | None, context: With) -> Response:
    """Metadata and live state of a model, with the state of each of its versions."""
    now = context.now
    if version is None and name in now.names() and now.latest(name) is None:
        return told(describe.unavailable(now, name))
    served = now.find(name, version)
    standing = {} if context.teaching is None else await context.teaching.standing(served)
    return told({**describe.model(now, served), **standing})


@of_model(native, "POST", f"/v1/models/{NAME}:predict", ("predict_latest", "predict_version"), DOCS["predict"])
async def predict_rows(name: str, version: str | None, request: Request, context: With) -> Response:
    """Probabilities of each row, with its label."""
    return await predict(request, context, V1, context.now.find(name, version))


@of_model(native, "POST", f"/v1/models/{NAME}:explain", ("explain_latest", "explain_version"), MATHEMATICS["explain"])
async def explain_rows(name: str, version: str | None, request: Request, context: With) -> Response:
    """Why each row gets its probabilities: contributions, sensitivities, and the gradient of a given label's loss."""
    return await predict(request, context, V1, context.now.find(name, version), explains=True)


@native.post("/invocations", **DOCS["predict"])
async def predict_default(request: Request, context: With) -> Response:
    """Predict with the default model: the path of SageMaker and MLflow, and by AIP_PREDICT_ROUTE of Vertex AI."""
    return await predict(request, context, V1, context.now.default(context.settings.default_model))
