"""Note which streams differ from other replicas, and when each of them is folded again from the artifact."""

from typing import Final

from service.learn.retry_delay import RetryDelay
from service.learn.state_exchange import StateDivergedError
from service.process.shared_memory import DIVERGED, DIVERGENCES, SharedMemory

# A fault of memory or of a processor may return in each folding. With this pause, one of ten seconds costs 3 %.
PAUSE_SECONDS_MAX: Final = 300.0
# A stream that differs again after this time has another fault, and is folded again at once.
QUIET_SECONDS: Final = 3600.0


class Divergences:
    """The streams that differ, and their number in shared memory: the service is ready once there are none.

    Args:
        memory: The memory of the service; only the learner may make an object of it.
    """

    def __init__(self, memory: SharedMemory) -> None:
        self._cells: Final = memory.learner_cells
        self._seqs: Final[dict[int, int]] = {}
        self._delays: Final[dict[int, RetryDelay]] = {}

    def seq_of(self, stream: int) -> int | None:
        """Return the event at which a stream differed and that it has not passed since, or None."""
        return self._seqs.get(stream)

    def record(self, stream: int, error: StateDivergedError, now: float) -> float:
        """Count that a stream differs.

        Returns:
            When to fold it again, in seconds of the clock of `now`. The pause doubles each time, also if the stream has
            passed the event since.
        """
        self._cells[DIVERGENCES] += 1
        delay = self._delays.get(stream)
        if delay is None or now > delay.due + QUIET_SECONDS:
            delay = self._delays[stream] = RetryDelay(PAUSE_SECONDS_MAX)
        delay.record_failure(str(error), now)
        self.update(stream, error.seq)
        return delay.due

    def update(self, stream: int, seq: int | None) -> None:
        """Note the event that a stream has yet to pass, or that it is as the others are."""
        if seq is None:
            self._seqs.pop(stream, None)
        else:
            self._seqs[stream] = seq
        self._cells[DIVERGED] = len(self._seqs)

    def drop(self, stream: int) -> None:
        """Forget a stream that was purged."""
        self.update(stream, None)
        self._delays.pop(stream, None)
