"""Refuse requests early while this worker is overloaded, by the time that they wait.

The event loop works in turns: it finds all requests that have arrived, and answers one after the other. What arrives
meanwhile waits for the next turn. A large request also waits for its own turn (turns.py). Ten times a second the worker
measures the length of a turn and the age of the oldest large request. A burst may wait longer than `queue_seconds`. If
every measurement of a second is above it, the worker sheds load: what is read so late in its turn is refused with 503.

    feedback        is refused after a quarter of `queue_seconds`
    explanations    after half of it
    predictions     after all of it
    GET             never: few clients ask how a model has learned, and those want to know it now

So predictions are answered in the time that refused feedback and explanations leave. A turn takes `queue_seconds` and
the time of its refusals. Predictions are answered in about two turns; feedback also waits for its commit. Shedding ends
when nothing was refused for some seconds. Until it begins, a request pays nothing for it.
"""

import asyncio
import time
from typing import Final

from service.log_events import logger
from service.serve.handlers.turns import Turns
from service.serve.log.writer import Writer
from service.serve.metrics.counters import SHED, SHED_EXPLANATIONS, SHED_FEEDBACK, SHED_PREDICTIONS
from service.serve.models.endpoint import EXPLAIN, FEEDBACK, KINDS, READS, Endpoint

# Load is shed after so long a time above the limit; a burst that is answered within it is none.
BEGIN_SECONDS: Final = 1.0
# Shedding ends after so long a time without a refusal.
END_SECONDS: Final = 5.0
# The loop of an overloaded worker never waits, and the writer's thread has a lower priority. On one core, a batch that
# needs 10 ms of processor time took 100 to 200 ms, such as one with a slice of the index of ids (measured by hand). So
# the loop sleeps for YIELD_SECONDS in each turn while events wait and nothing was reported for STALLED_SECONDS.
STALLED_SECONDS: Final = 0.01
YIELD_SECONDS: Final = 0.002
COUNTERS_OF_KINDS: Final = {EXPLAIN: SHED_EXPLANATIONS, FEEDBACK: SHED_FEEDBACK}
# The share of the limit that each kind of requests may wait, by its counter.
SHARES: Final = {SHED_PREDICTIONS: 1.0, SHED_EXPLANATIONS: 0.5, SHED_FEEDBACK: 0.25}


class LoadShedder:
    """Knows whether this worker is overloaded; used on the event loop's thread.

    Args:
        turns: The turns of large requests.
        writer: Writes feedback; None if nothing is learned.
        queue_seconds: How long requests may wait.

    Attributes:
        is_shedding: Whether requests that have waited for too long are refused.
        delay: The last measurement of how long requests wait, in seconds.
    """

    def __init__(self, turns: Turns, writer: Writer | None, queue_seconds: float) -> None:
        self.is_shedding = False
        self.delay = 0.0
        self._turns: Final = turns
        self._writer: Final = writer
        self._queue_seconds: Final = queue_seconds
        self._above_since: float | None = None
        self._turn_began: float | None = None  # when this turn's first request was read; known while load is shed
        self._refused_at = 0.0

    def observe_turn(self, began: float) -> None:
        """Note that a turn of the event loop has ended, and begin or end to shed load.

        Args:
            began: When the turn began, in seconds of the monotonic clock.
        """
        now = time.monotonic()
        self.delay = max(now - began, self._turns.oldest_seconds(now))
        if self.delay <= self._queue_seconds:
            self._above_since = None
            if self.is_shedding and now - self._refused_at > END_SECONDS:
                self.is_shedding = False
                logger.event("overload_ended")
            return
        if self._above_since is None:
            self._above_since = now - self.delay
        if not self.is_shedding and now - self._above_since >= BEGIN_SECONDS:
            self.is_shedding = True
            self._refused_at = now
            logger.event("overload_began", delay_seconds=round(self.delay, 3))

    def refuses(self, endpoint: Endpoint) -> bool:
        """Whether a request that is read now is refused; it is counted then. Ask only while load is shed."""
        now = time.monotonic()
        if self._turn_began is None:
            self._turn_began = now
            asyncio.get_running_loop().call_soon(self._end_turn)
        return self._refuses_after(endpoint, now - self._turn_began)

    def _end_turn(self) -> None:
        """End a turn in which load was shed; leave the core to the writer's thread if its batch takes long."""
        self._turn_began = None
        if self._writer is not None and self._writer.stalled_seconds(time.monotonic()) > STALLED_SECONDS:
            time.sleep(YIELD_SECONDS)

    def refuses_large(self, endpoint: Endpoint) -> bool:
        """Whether a large request is refused instead of waiting for its turn, as `refuses`."""
        return self._refuses_after(endpoint, self._turns.oldest_seconds(time.monotonic()))

    def _refuses_after(self, endpoint: Endpoint, seconds: float) -> bool:
        kind = endpoint.kind % KINDS  # that of a limited endpoint is larger
        if kind in READS:
            return False
        counter = COUNTERS_OF_KINDS.get(kind, SHED_PREDICTIONS)
        if seconds <= SHARES[counter] * self._queue_seconds:
            return False
        self._refused_at = time.monotonic()
        endpoint.served.counters[SHED + counter] += 1
        return True
