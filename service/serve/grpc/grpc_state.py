"""State that the gRPC connections of one worker share."""

from typing import Final

from starlette.types import ASGIApp

from service.serve.grpc.http2_session import make_configuration
from service.serve.grpc.worker_state import WorkerState
from service.serve.handlers.health import Health


class GrpcState:
    """State that the gRPC connections of one worker share.

    Args:
        worker: The state that they share with the connections of HTTP.
        app: The application, which answers the calls that are not for predictions.
        health: Whether the service is ready.

    Attributes:
        worker: As above.
        app: As above.
        health: As above.
        is_public: Whether the calls of feedback and administration are on another port.
        scheme: The scheme of the port, "http" or "https".
        configuration: The limits of libnghttp2.
        generation: The number of the state of models and keys; what was remembered in an earlier one no longer holds.
    """

    def __init__(self, worker: WorkerState, app: ASGIApp, health: Health) -> None:
        self.worker: Final = worker
        self.app: Final = app
        self.health: Final = health
        self.is_public: Final = worker.settings.admin_port is not None
        self.scheme: Final = "http" if worker.settings.tls_certificate is None else "https"
        self.configuration: Final = make_configuration(worker.settings)
        self.generation = 0
        worker.registry.on_change.append(self._forget)
        worker.dispatcher.authorizer.on_change.append(self._forget)
        worker.dispatcher.authorizer.on_expiry.append(lambda _: self._forget())

    def _forget(self) -> None:
        """Let nothing count that was remembered: the models or the keys have changed, or a key has expired."""
        self.generation += 1
