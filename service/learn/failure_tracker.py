"""Record which events the learner fails at, in shared memory, which outlives a crash of the learner.

    the learner's slot   the cells of shared_memory.py; then FOLD_STREAM, FOLD_SEQ, FOLD_EVENTS: the batch of now
                         from SUSPECTS on: SUSPECTS_MAX rows of four cells: stream (0: free), seq, events, failures

A batch that stands in these cells when a learner starts crashed the learner before it. If the batch had several events,
they are suspects and are folded one by one from then on. An event that failed FAILURES_MAX times alone is no longer
folded. Each stream has at most one row of suspects, and only events of the same stream clear it: a success elsewhere
says nothing about it.
"""

from typing import Final

from service.process.shared_memory import LEARNER_CELLS, SharedMemory

FAILURES_MAX: Final = 3
FOLD_STREAM, FOLD_SEQ, FOLD_EVENTS, SUSPECTS = range(LEARNER_CELLS, LEARNER_CELLS + 4)
SUSPECTS_MAX: Final = 64
STREAM, SEQ, EVENTS, FAILURES, SUSPECT_CELLS = range(5)
ROW_STARTS: Final = range(SUSPECTS, SUSPECTS + SUSPECTS_MAX * SUSPECT_CELLS, SUSPECT_CELLS)


class FailureTracker:
    """The batch that is being folded, and the suspects of each stream.

    Args:
        memory: The memory of the service; only the learner may make a tracker of it.
    """

    def __init__(self, memory: SharedMemory) -> None:
        self._cells: Final = memory.learner_cells
        self._rows = {self._cells[row + STREAM]: row for row in ROW_STARTS if self._cells[row + STREAM]}
        self.record_failure()

    def batch_limit(self, stream: int, after: int, at_most: int) -> int:
        """Return how many events after a seq may be folded together: suspects alone, one by one."""
        suspects = self._suspects(stream)
        if after + 1 in suspects:
            return 1
        return min(at_most, suspects.start - after - 1) if after < suspects.start else at_most

    def is_fatal(self, stream: int, seq: int) -> bool:
        """Return whether the fold has failed too often at an event."""
        row = self._rows.get(stream)
        return row is not None and seq in self._suspects(stream) and self._cells[row + FAILURES] >= FAILURES_MAX

    def start_batch(self, stream: int, seq: int, events: int) -> None:
        """Note the batch that is folded from now on."""
        self._cells[FOLD_SEQ], self._cells[FOLD_EVENTS] = seq, events
        self._cells[FOLD_STREAM] = stream

    def finish_batch(self) -> None:
        """Note that the batch was folded; clear the stream's suspects if it contains their last."""
        stream, first, events = self._cells[FOLD_STREAM], self._cells[FOLD_SEQ], self._cells[FOLD_EVENTS]
        self._cells[FOLD_STREAM] = 0
        # Later events prove nothing: a refolding folds events in another order than that of their names here.
        if stream in self._rows and self._suspects(stream).stop - 1 in range(first, first + events):
            self._cells[self._rows.pop(stream) + STREAM] = 0

    def record_failure(self) -> None:
        """Make the events of the current batch suspects, if there is a batch."""
        cells = self._cells
        stream, seq, events = cells[FOLD_STREAM], cells[FOLD_SEQ], cells[FOLD_EVENTS]
        if stream:
            row = self._rows.get(stream)
            is_same = row is not None and (cells[row + SEQ], cells[row + EVENTS]) == (seq, events)
            if row is None:
                row = self._rows[stream] = self._free_row()
            cells[row + STREAM] = 0  # a crash while the row is written leaves it free
            cells[row + FAILURES] = (cells[row + FAILURES] * is_same + 1) if events == 1 else 0
            cells[row + SEQ], cells[row + EVENTS] = seq, events
            cells[row + STREAM] = stream
        cells[FOLD_STREAM] = 0

    def clear_stream(self, stream: int) -> None:
        """Forget the suspects of a stream that has other events now."""
        if stream in self._rows:
            self._cells[self._rows.pop(stream) + STREAM] = 0

    def discard_batch(self) -> None:
        """Forget a batch that says nothing about its events: the disk or the log failed, or nothing was folded yet."""
        self._cells[FOLD_STREAM] = 0

    def _suspects(self, stream: int) -> range:
        """Return the seqs of a stream's suspects."""
        row = self._rows.get(stream)
        seq, events = (0, 0) if row is None else (self._cells[row + SEQ], self._cells[row + EVENTS])
        return range(seq, seq + events)

    def _free_row(self) -> int:
        """Return a free row; if there is none, that of the stream with the oldest suspects."""
        used = set(self._rows.values())
        for row in ROW_STARTS:
            if row not in used:
                return row
        return self._rows.pop(next(iter(self._rows)))
