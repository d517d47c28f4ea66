"""Route that converts scores between logits, probabilities, their logarithms and odds."""

from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.serve.api.dependencies import With, read_json
from service.serve.api.schemas.documented_calls import DOCS
from service.serve.api.scoped_route import ScopedRoute
from service.serve.asgi import Reply
from service.serve.responses import HttpResponse
from service.serve.wire.scores_body import convert_scores

conversion = APIRouter(tags=["mathematics"], route_class=ScopedRoute)

# Longer bodies go to a thread: 4 KiB of the shortest numbers take some 0.6 ms to parse and convert.
INLINE_BYTES: Final = 4096


@conversion.post("/v1/convert", **DOCS["convert"])
async def convert(request: Request, context: With) -> Response:
    """Convert scores in one form to all forms: logits, probabilities, their logarithms, odds."""
    body, settings = await read_json(request, context), context.settings
    if len(body) <= INLINE_BYTES:
        return Reply(HttpResponse(200, convert_scores(body, settings)))
    return Reply(HttpResponse(200, await context.work.start(convert_scores, body, settings)))
