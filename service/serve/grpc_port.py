"""The port of gRPC, whose packages are an extra: they are imported only if the settings have the port."""

import ssl
from functools import partial
from typing import Any, Final

from starlette.types import ASGIApp

from service.optional_packages import resolve_optional
from service.serve.api.dependencies import Context
from service.serve.http.server import OtherPort
from service.serve.watched_files import WatchedFiles

# The state that connections share, a connection, and one of a service with an access log.
CLASSES: Final = (
    "service.serve.grpc.grpc_state:GrpcState",
    "service.serve.grpc.grpc_connection:GrpcConnection",
    "service.serve.grpc.logged_connection:LoggedConnection",
)


def resolve_grpc() -> list[Any]:
    """Return the classes of gRPC; raise SoftstepError if its packages are not installed."""
    return [resolve_optional(name, "SOFTSTEP_GRPC_PORT", "grpc") for name in CLASSES]


def make_grpc_port(context: Context, app: ASGIApp, tls: WatchedFiles[ssl.SSLContext] | None) -> OtherPort | None:
    """Return the port of gRPC, or None if the settings have none.

    Args:
        context: The parts of a worker.
        app: The application, which answers the calls that are not for predictions.
        tls: The TLS context of new connections, or None to serve without TLS.
    """
    if context.settings.grpc_port is None:
        return None
    state, connection, logged_connection = resolve_grpc()
    if context.access_log is not None:
        connection = partial(logged_connection, log=context.access_log)
    return OtherPort(partial(connection, state(context.bodies, app, context.health)), tls)
