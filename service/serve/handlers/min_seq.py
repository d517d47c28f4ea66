"""Wait until a version serves the event that a request names by `min_seq`, then answer it."""

import asyncio
from functools import partial
from typing import Final

from service.errors import NotReachedError
from service.serve.handlers.dispatcher import Handler
from service.serve.handlers.turns import Turns
from service.serve.metrics.counters import FAILURES
from service.serve.models.endpoint import Endpoint
from service.serve.models.registry import ModelRegistry
from service.serve.responses import HttpResponse, RequestHead, refusal


class MinSeqWaiter:
    """Delays requests until the served state holds an event.

    Args:
        registry: The models that are served.
        turns: The turns in which they are answered, because many may have waited for the same event.
        seconds_max: How long a request may wait.
    """

    def __init__(self, registry: ModelRegistry, turns: Turns, seconds_max: float) -> None:
        self._registry: Final = registry
        self._turns: Final = turns
        self._seconds_max: Final = seconds_max

    def respond_at(
        self, min_seq: int, handler: Handler, endpoint: Endpoint, head: RequestHead, body: bytes
    ) -> asyncio.Future[HttpResponse]:
        """Give a request to its handler again once the version serves `min_seq`; refuse it with 409 after the limit."""
        return asyncio.ensure_future(self._respond_at(min_seq, handler, endpoint, head, body))

    async def _respond_at(
        self, min_seq: int, handler: Handler, endpoint: Endpoint, head: RequestHead, body: bytes
    ) -> HttpResponse:
        key = endpoint.served.key
        try:
            async with asyncio.timeout(self._seconds_max):
                await self._registry.wait_for_seq(key, min_seq)
        except TimeoutError:
            endpoint.served.counters[FAILURES] += 1
            reason = NotReachedError("The model has not learned as far as min_seq yet; ask again in a moment.")
            return refusal(reason, endpoint.protocol)
        served = self._registry.now.served.get(key, endpoint.served)
        return await self._turns.call(partial(handler, Endpoint(endpoint.kind, served), head, body))
