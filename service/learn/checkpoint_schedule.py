"""The schedule of the checkpoints of a stream.

A restart folds what came after the newest checkpoint, so they are frequent; but each takes a while, for a large sparse
model a second. So a checkpoint waits until the folding since the last one has taken CHECKPOINT_PAUSE times as long as
writing it is going to take. That is foreseen from the last one, by how much the state has grown since: writing takes at
most 5 % of folding.
"""

from collections.abc import Callable
from typing import Final

# A restart folds about this long, or this many events, after a checkpoint.
CHECKPOINT_FOLD_SECONDS: Final = 1.0
CHECKPOINT_EVENTS: Final = 1 << 16
# Folding between two checkpoints in multiples of the time that the second is going to take: 4 %, and room for errors.
CHECKPOINT_PAUSE: Final = 25
# A checkpoint is expected to take at most so many times as long as the last one. The time of a small one does not
# depend on its size alone, and a restart folds what a late one leaves out.
GROWTH_MAX: Final = 4
# After this time without an event a checkpoint is written.
IDLE_SECONDS: Final = 5.0


class CheckpointSchedule:
    """The schedule of one stream. The time of one process's first checkpoint is unknown before it is written.

    Args:
        seq: The seq of the newest checkpoint, 0 without one.
        clock: A monotonic clock, in seconds.
        measure_size: Returns the size of a checkpoint of now, positive and in any unit.

    Attributes:
        seq: The seq of the newest checkpoint.
    """

    def __init__(self, seq: int, clock: Callable[[], float], measure_size: Callable[[], int]) -> None:
        self.seq = seq
        self._clock: Final = clock
        self._measure_size: Final = measure_size
        self._fold_seconds = 0.0  # since the newest checkpoint
        self._pause = 0.0  # of folding, or without events, before the next one if it has the size of the newest
        self._fold_needed = 0.0  # before the next one as it was foreseen last
        self._size = 1  # of the newest

    def add_fold_seconds(self, seconds: float) -> None:
        """Add the time of a batch."""
        self._fold_seconds += seconds

    def is_due(self, seq: int) -> bool:
        """Return whether enough was folded since the newest checkpoint, up to a seq."""
        is_long = self._fold_seconds >= CHECKPOINT_FOLD_SECONDS or seq - self.seq >= CHECKPOINT_EVENTS
        if not is_long or self._fold_seconds < self._fold_needed:
            return False
        if self._pause:
            growth = min(max(1.0, self._measure_size() / self._size), GROWTH_MAX)
            self._fold_needed = growth * self._pause
        return self._fold_seconds >= self._fold_needed

    def is_idle(self, seconds: float) -> bool:
        """Return whether the last event was so many seconds ago that a checkpoint costs nothing."""
        return seconds >= max(IDLE_SECONDS, self._pause)

    def write(self, seq: int, write_checkpoint: Callable[[], None]) -> None:
        """Write the checkpoint of a seq, and note how long that takes.

        Raises:
            OSError: Writing failed; nothing is noted.
        """
        before = self._clock()
        write_checkpoint()
        self._pause = self._fold_needed = CHECKPOINT_PAUSE * (self._clock() - before)
        self.seq, self._fold_seconds, self._size = seq, 0.0, self._measure_size()
