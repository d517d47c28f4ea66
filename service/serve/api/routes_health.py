"""Routes for operators and orchestrators: liveness, readiness, metrics."""

import asyncio
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from service import __version__
from service.access.exposure import requires_certificates
from service.serve.api.dependencies import Context, With, readiness
from service.serve.api.routes_console import respond
from service.serve.api.schemas.documented_calls import DOCS
from service.serve.api.scoped_route import ScopedRoute
from service.serve.asgi import Reply
from service.serve.handlers.probes import LIVE, answer_ping, answer_root, asks_for_page
from service.serve.metrics.prometheus import render_metrics
from service.serve.metrics.samples import Learning, MetricSources
from service.serve.responses import HttpResponse

TEXT: Final = b"text/plain; charset=utf-8"

operations = APIRouter(tags=["operations"], route_class=ScopedRoute)


@operations.get("/", **DOCS["alive"])
async def alive(request: Request, context: With) -> Response:
    """Return that the server runs; clients of KServe's v1 protocol call it. A browser gets the console."""
    if context.settings.has_console and asks_for_page(request.headers.get("accept", "").encode()):
        return respond(request)
    return Reply(answer_root(context.health, context.settings.health_route))


@operations.get("/healthz", **DOCS["live"])
async def healthz() -> Response:
    """Return that the server runs."""
    return Reply(LIVE)


@operations.get("/readyz", **DOCS["ready"])
async def readyz(context: With) -> Response:
    """Return whether the server takes predictions."""
    return readiness(context)


@operations.get("/health", **DOCS["ready"])
async def health(context: With) -> Response:
    """Return whether the server takes predictions; clients of MLflow call it."""
    return readiness(context)


@operations.get("/ping", **DOCS["ping"])
async def ping(context: With) -> Response:
    """Return whether the server takes predictions, with an empty body; SageMaker and MLflow call it."""
    return Reply(answer_ping(context.health))


@operations.get("/version", **DOCS["version"])
async def version() -> Response:
    """Return the version of the service as plain text; clients of MLflow call it."""
    return Reply(HttpResponse(200, __version__.encode(), TEXT))


@operations.get("/metrics", **DOCS["metrics"])
async def metrics(context: With) -> Response:
    """Return the metrics of all workers together, in Prometheus' text format."""
    data = None if context.learning is None else context.learning.data
    settings = context.settings
    sources = MetricSources(
        context.shared_memory,
        settings,
        data,
        await _learning(context),
        [served.field_key for served in context.now.served.values() if served.field_key is not None],
        models_readable=context.now.reason is None,
        is_open=settings.open and not requires_certificates(settings) and context.dispatcher.authorizer.is_open,
    )
    text = await asyncio.to_thread(render_metrics, sources)
    return Reply(HttpResponse(200, text, b"text/plain; version=0.0.4; charset=utf-8"))


async def _learning(context: Context) -> Learning:
    """Return the state of learning of each version that has had feedback."""
    if context.learning is None:
        return {}
    status = context.learning.status
    learned = [served for served in context.now.served.values() if status.has_learned(served)]
    standings = await asyncio.gather(*map(status.status_of, learned))
    return {
        (served.name, served.version): {**served.progress(), **standing, **_at(standing)}
        for served, standing in zip(learned, standings, strict=True)
    }


def _at(standing: dict[str, Any]) -> dict[str, Any]:
    learner = standing["learner"]
    state = learner["state"]
    return {"stalled": state == "stalled", "held": state == "held", "refolded": learner.get("refolded")}
