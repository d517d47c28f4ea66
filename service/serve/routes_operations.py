"""What operators and orchestrators ask: life, readiness, metrics."""

import asyncio

from fastapi import APIRouter
from starlette.responses import Response

from service import __version__
from service.serve.answers import Answer
from service.serve.endpoints import Reply, With, readiness, told
from service.serve.metrics import exposition
from service.serve.schema import DOCS

operations = APIRouter(tags=["operations"])


@operations.get("/healthz", **DOCS["live"])
async def healthz() -> Response:
    """Whether the server runs."""
    return told({"live": True})


@operations.get("/readyz", **DOCS["ready"])
async def readyz(context: With) -> Response:
    """Whether the server takes predictions."""
    return readiness(context)


@operations.get("/ping", **DOCS["ready"])
async def ping(context: With) -> Response:
    """Whether the server takes predictions: SageMaker's health check."""
    return readiness(context)


@operations.get("/metrics", **DOCS["metrics"])
async def metrics(context: With) -> Response:
    """Metrics of all workers together, in Prometheus' text format."""
    text = await asyncio.to_thread(exposition, context.board, __version__)
    return Reply(Answer(200, text, b"text/plain; version=0.0.4; charset=utf-8"))
