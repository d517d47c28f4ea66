"""The probes of orchestrators and load balancers: the answer to each path of liveness and readiness.

The fast path gives the same answers as FastAPI's routes, but without their turn: an orchestrator restarts a server that
lets its probes wait behind other requests.
"""

from collections.abc import Callable, Mapping
from typing import Final

from service.serve.handlers.health import Health
from service.serve.responses import HttpResponse

Probes = Mapping[bytes, Callable[[], HttpResponse]]

LIVE: Final = HttpResponse(200, b'{"live":true}')
ALIVE: Final = HttpResponse(200, b'{"status":"alive"}')  # KServe's v1 protocol
ROOT: Final = "/"
HTML: Final = b"text/html"
PONG: Final = HttpResponse(200, b"", b"text/plain; charset=utf-8")


def make_probes(health: Health, health_route: str | None) -> Probes:
    """Return the answer to each path; `health_route` is one more path of readiness."""
    live, ready = (b"/healthz", b"/v2/health/live"), [b"/readyz", b"/health", b"/v2/health/ready"]
    if health_route is not None:
        ready.append(health_route.encode())
    return {
        **dict.fromkeys(live, lambda: LIVE),
        **dict.fromkeys(ready, health.ready),
        ROOT.encode(): lambda: answer_root(health, health_route),
        b"/ping": lambda: answer_ping(health),
    }


def answer_ping(health: Health) -> HttpResponse:
    """Return the response of readiness, but with an empty body if the service is ready, as SageMaker has it."""
    response = health.ready()
    return PONG if response.status == PONG.status else response


def answer_root(health: Health, health_route: str | None) -> HttpResponse:
    """Return the response at `/` to all but browsers: that the server runs, or readiness if its path is set to that."""
    return health.ready() if health_route == ROOT else ALIVE


def asks_for_page(accept: bytes) -> bool:
    """Return whether a client is a browser that asks for a page, by its header Accept."""
    return HTML in accept
