"""Scores to probabilities, for who has scores and no model here; thin."""

import asyncio
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.serve.api.dependencies import With, read_body
from service.serve.api.schemas.explanations import MATHEMATICS
from service.serve.asgi import Reply
from service.serve.responses import HttpResponse, RequestHead, check_head
from service.serve.wire.scores_body import convert_scores

conversion = APIRouter(tags=["mathematics"])

# A longer body takes longer to read and to convert than the event loop should (some 0.6 ms with the shortest numbers).
INLINE_BYTES: Final = 4096


@conversion.post("/v1/convert", **MATHEMATICS["convert"])
async def convert(request: Request, context: With) -> Response:
    """Logits, probabilities, their logarithms, odds: every form of the scores that are given in one of them."""
    refused = check_head(RequestHead.of(dict(request.scope["headers"])))
    if isinstance(refused, HttpResponse):
        return Reply(refused)
    body, settings = await read_body(request, context.settings.body_bytes_max), context.settings
    if len(body) <= INLINE_BYTES:
        return Reply(HttpResponse(200, convert_scores(body, settings)))
    loop = asyncio.get_running_loop()
    return Reply(HttpResponse(200, await loop.run_in_executor(context.executor, convert_scores, body, settings)))
