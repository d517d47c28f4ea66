"""Scores to probabilities, for who has scores and no model here; thin."""

import asyncio
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.serve.answers import Answer, RequestHead, check_head
from service.serve.conversion import converted, read_scores
from service.serve.endpoints import Reply, With, read_body
from service.serve.schema_mathematics import MATHEMATICS

conversion = APIRouter(tags=["mathematics"])

# More numbers than this take longer than the event loop should (some 0.3 ms).
INLINE_CELLS: Final = 1024


@conversion.post("/v1/convert", **MATHEMATICS["convert"])
async def convert(request: Request, context: With) -> Response:
    """Logits, probabilities, their logarithms, odds: every form of the scores that are given in one of them."""
    refused = check_head(RequestHead.of(dict(request.scope["headers"])))
    if isinstance(refused, Answer):
        return Reply(refused)
    body = await read_body(request, context.settings.body_bytes_max)
    given = read_scores(body, context.settings)
    if given.values.size <= INLINE_CELLS:
        return Reply(Answer(200, converted(given)))
    return Reply(Answer(200, await asyncio.to_thread(converted, given)))
