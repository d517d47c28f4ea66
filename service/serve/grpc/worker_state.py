"""The state of a worker that connections of gRPC share with those of HTTP (http/shared_state.py)."""

from typing import Protocol

from service.serve.client_address import Proxies
from service.serve.handlers.dispatcher import Dispatcher
from service.serve.metrics.counters import WorkerCounters
from service.serve.models.registry import ModelRegistry
from service.settings import Settings


class ClientAdmission(Protocol):
    """Decides which clients may connect."""

    def enter(self, peer: str | None) -> bool:
        """Count a client that has connected; return whether it may stay."""

    def leave(self, peer: str | None) -> None:
        """Count a client that is no longer connected."""


class WorkerState(Protocol):
    """The part of that state that gRPC uses.

    Attributes:
        in_flight: The requests that are being answered, without those of the application.
        in_flight_max: How many there may be; 0 while load is shed.
        body_bytes: The bytes of request bodies in memory.
    """

    registry: ModelRegistry
    dispatcher: Dispatcher
    counters: WorkerCounters
    settings: Settings
    proxies: Proxies
    in_flight: int
    in_flight_max: int
    body_bytes: int

    @property
    def admission(self) -> ClientAdmission:
        """The limits of connections."""

    @property
    def is_local(self) -> bool:
        """Whether only requests for this machine are answered."""

    def is_full(self, more_bytes: int, tasks: int) -> bool:
        """Whether one more request with a body of that size would pass a limit, beside the application's `tasks`."""

    def is_draining(self) -> bool:
        """Return whether the service stops."""
