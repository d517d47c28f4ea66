"""Routes that show how a model has learned: its pulse, history, drift and quality, and the trajectory of a row."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.serve.api.dependencies import Served, With, include_for_models, read_json
from service.serve.api.schemas.documented_calls import DOCS
from service.serve.api.scoped_route import ScopedRoute, principal_of
from service.serve.api.validation import BucketQuery, EpochQuery, PastSeqQuery, SinceQuery
from service.serve.asgi import Reply
from service.serve.models.endpoint import DRIFT, HISTORY, PULSE, QUALITY

progress = APIRouter(tags=["history"], route_class=ScopedRoute)
# Calls of one model; the paths begin behind its name or version.
progress_models = APIRouter(route_class=ScopedRoute)


@progress_models.get("/pulse", **DOCS["pulse"])
async def pulse(
    served: Served, context: With, since: SinceQuery = 0, epoch: EpochQuery = None, bucket: BucketQuery = None
) -> Response:
    """Return the live state of a model, its counters, and the buckets of its history that have changed."""
    return Reply(await context.history.answer(PULSE, served, {"since": since, "epoch": epoch, "bucket": bucket}))


@progress_models.get("/history", **DOCS["history"])
async def history(served: Served, context: With) -> Response:
    """Return the history of a model: sums over the rows of each bucket, each answered before it was learned."""
    return Reply(await context.history.answer(HISTORY, served))


@progress_models.get("/drift", **DOCS["drift"])
async def drift(served: Served, context: With) -> Response:
    """Return the statistics of the training rows, and how far the learned rows have moved from them."""
    return Reply(await context.history.answer(DRIFT, served))


@progress_models.get("/quality", **DOCS["quality"])
async def quality(served: Served, context: With, seq: PastSeqQuery = None) -> Response:
    """Return how good the answers were: confusion, calibration and means over the latest rows or those up to a seq."""
    return Reply(await context.history.answer(QUALITY, served, {"seq": seq}))


@progress_models.post(":trajectory", **DOCS["trajectory"])
async def trajectory(served: Served, request: Request, context: With) -> Response:
    """Return the probabilities of one row as they were at the keyframes of the history, and as they are now."""
    body = await read_json(request, context)
    return Reply(await context.trajectory.respond(served, principal_of(request), body))


include_for_models(progress, progress_models, "/v1/models")
