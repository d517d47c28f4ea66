"""Answer readiness: whether this worker takes predictions, and whether it learns if it should.

    200  {"ready":true}
    200  {"ready":true,"learning":false}    learning is on, but the data directory was not writable at the start
    503  {"ready":false,"error","code"}     not scanned yet, no model, draining, not learning where that is required, or
                                            a shared log had more at the start than is served, or a state differs
                                            from that of other replicas

Readiness is about the start. A fault of the log that comes later changes nothing here: predictions continue, and a load
balancer that stopped the traffic would also stop the feedback that shows the recovery. Metadata and metrics report it.
"""

from typing import Final

from service.process.shared_memory import SharedMemory
from service.serve.models.registry import ModelRegistry
from service.serve.responses import HttpResponse, error
from service.settings import Settings


def _not_ready(start: bytes, message: str) -> HttpResponse:
    """Return the response of a service that is not ready; its body begins with `start`."""
    response = error("not_ready", message)
    return response._replace(body=start + response.body[1:])


READY: Final = HttpResponse(200, b'{"ready":true}')
READY_WITHOUT_LEARNING: Final = HttpResponse(200, b'{"ready":true,"learning":false}')
NOT_READY: Final = _not_ready(b'{"ready":false,', "Not ready: no model is served, or the server is draining.")
NOT_READY_WITHOUT_LEARNING: Final = _not_ready(
    b'{"ready":false,"learning":false,',
    "Not ready: the data directory cannot be written, so the service does not learn; make it writable and restart.",
)


NOT_CAUGHT_UP: Final = _not_ready(
    b'{"ready":false,', "Not ready: the models have not learned yet what the feedback log had at the start."
)


DIVERGED: Final = _not_ready(
    b'{"ready":false,', "Not ready: a model has learned something else than other replicas, and learns it again."
)


class Health:
    """The health of one worker.

    Args:
        registry: The models that are served.
        memory: The shared memory, which shows whether the service is draining.
        settings: Whether the service should learn, and whether readiness requires that.
        learns: Whether the service learns.
    """

    def __init__(self, registry: ModelRegistry, memory: SharedMemory, settings: Settings, *, learns: bool) -> None:
        self._registry: Final = registry
        self._memory: Final = memory
        self._ready: Final = self._when_ready(settings, learns=learns)

    @staticmethod
    def _when_ready(settings: Settings, *, learns: bool) -> HttpResponse:
        if learns or not settings.learn:
            return READY
        return NOT_READY_WITHOUT_LEARNING if settings.ready_requires_learning else READY_WITHOUT_LEARNING

    def ready(self) -> HttpResponse:
        """Return whether this worker takes predictions: scanned, something to serve, not draining."""
        registry = self._registry
        if registry.scanned and registry.now.served and not self._memory.draining:
            if self._memory.has_diverged:
                return DIVERGED
            return self._ready if registry.is_caught_up else NOT_CAUGHT_UP
        return NOT_READY
