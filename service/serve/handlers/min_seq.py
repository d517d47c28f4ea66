"""Wait until a version serves the event that a request names by `min_seq`, then answer it.

After a failover that may have lost events of a shared log, the served state must also have the event that the log has
now at that seq (branch_check.py).
"""

import asyncio
from functools import partial
from typing import Final

from service.errors import NotReachedError
from service.serve.handlers.branch_check import BranchCheck
from service.serve.handlers.dispatcher import Handler
from service.serve.handlers.turns import Turns
from service.serve.metrics.counters import FAILURES
from service.serve.models.endpoint import Endpoint
from service.serve.models.registry import ModelRegistry
from service.serve.models.served_model import ServedModel
from service.serve.responses import HttpResponse, RequestHead, refusal

# Pause before the log is asked again whether the served state has its events; the learner goes back meanwhile.
CHECK_SECONDS: Final = 0.05


class MinSeqWaiter:
    """Delays requests until the served state holds an event.

    Args:
        registry: The models that are served.
        turns: The turns in which they are answered, because many may have waited for the same event.
        seconds_max: How long a request may wait.
        branches: Checks served states against the log, or None if the service does not learn.
    """

    def __init__(self, registry: ModelRegistry, turns: Turns, seconds_max: float, branches: BranchCheck | None) -> None:
        self._registry: Final = registry
        self._turns: Final = turns
        self._seconds_max: Final = seconds_max
        self._branches: Final = branches

    def must_wait(self, served: ServedModel, min_seq: int) -> bool:
        """Return whether a request has to wait, because a served state may lack the event at `min_seq`, 0 for none."""
        return min_seq > served.seq or (min_seq > 0 and self._is_in_doubt(served, min_seq))

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
                await self._wait(endpoint.served, min_seq)
        except TimeoutError:
            endpoint.served.counters[FAILURES] += 1
            reason = NotReachedError("The model has not learned as far as min_seq yet; ask again in a moment.")
            return refusal(reason, endpoint.protocol)
        served = self._registry.now.served.get(key, endpoint.served)
        return await self._turns.call(partial(handler, Endpoint(endpoint.kind, served), head, body))

    async def _wait(self, served: ServedModel, min_seq: int) -> None:
        """Wait until the state that is served now, instead of an earlier one, has the event at a seq."""
        key, pause = served.key, 0.0
        while True:
            await self._registry.wait_for_seq(key, min_seq)
            served = self._registry.now.served.get(key, served)
            if not self._is_in_doubt(served, min_seq):
                return
            await asyncio.sleep(pause)
            pause = CHECK_SECONDS
            if self._branches is not None:
                await self._branches.check(served)

    def _is_in_doubt(self, served: ServedModel, min_seq: int) -> bool:
        return self._branches is not None and self._branches.is_open(served, min_seq)
