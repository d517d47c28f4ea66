"""Which events the learner fails at: what it is folding is noted on the board, where its death does not reach.

What stands there at a start killed the learner. Where that was a batch, its events are folded one by one from then on;
an event at which the fold has failed three times alone is not folded any more. The board keeps one suspect a stream:

    the learner's slot, from the cell SUSPECTS    rows of four cells: stream (0: free), seq, events, failures

One stream's suspect says nothing of the others, so events that go well in the meantime acquit nobody but themselves.
"""

from typing import Final

from service.process.shared_memory import FOLD_EVENTS, FOLD_SEQ, FOLD_STREAM, SUSPECTS, SUSPECTS_MAX, SharedMemory

FAILURES_MAX: Final = 3
STREAM, SEQ, EVENTS, FAILURES, ROW_CELLS = range(5)


class FailureTracker:
    """What the learner is folding, and which events are suspects."""

    def __init__(self, board: SharedMemory) -> None:
        start = board.slot(board.workers)
        self._cells: Final = board.cells[start : start + SUSPECTS + SUSPECTS_MAX * ROW_CELLS]
        self._rows = {
            self._cells[at + STREAM]: at
            for at in range(SUSPECTS, SUSPECTS + SUSPECTS_MAX * ROW_CELLS, ROW_CELLS)
            if self._cells[at + STREAM]
        }
        self.accuse()

    def limit(self, stream: int, after: int, at_most: int) -> int:
        """How many events behind a seq may be folded at once: suspects one by one, and no others with them."""
        suspects = self._suspects(stream)
        if after + 1 in suspects:
            return 1
        return min(at_most, suspects.start - after - 1) if after < suspects.start else at_most

    def is_fatal(self, stream: int, seq: int) -> bool:
        """Whether the fold has failed at an event too often."""
        at = self._rows.get(stream)
        return at is not None and seq in self._suspects(stream) and self._cells[at + FAILURES] >= FAILURES_MAX

    def begin(self, stream: int, seq: int, events: int) -> None:
        """Note what is folded from now on."""
        self._cells[FOLD_SEQ], self._cells[FOLD_EVENTS] = seq, events
        self._cells[FOLD_STREAM] = stream

    def end(self) -> None:
        """Note that it went well."""
        stream, last = self._cells[FOLD_STREAM], self._cells[FOLD_SEQ] + self._cells[FOLD_EVENTS] - 1
        self._cells[FOLD_STREAM] = 0
        if stream in self._rows and last >= self._suspects(stream).stop - 1:
            self._cells[self._rows.pop(stream) + STREAM] = 0

    def accuse(self) -> None:
        """Make suspects of what was folded, if anything was, because it did not go well."""
        cells = self._cells
        stream, seq, events = cells[FOLD_STREAM], cells[FOLD_SEQ], cells[FOLD_EVENTS]
        if stream:
            at = self._rows.get(stream)
            again = at is not None and (cells[at + SEQ], cells[at + EVENTS]) == (seq, events)
            if at is None:
                at = self._rows[stream] = self._free()
            cells[at + STREAM] = 0  # a row counts when it is whole
            cells[at + FAILURES] = (cells[at + FAILURES] * again + 1) if events == 1 else 0
            cells[at + SEQ], cells[at + EVENTS] = seq, events
            cells[at + STREAM] = stream
        cells[FOLD_STREAM] = 0

    def drop(self) -> None:
        """Let go of what was begun and did not end: the disk or the log failed, and no event is to blame."""
        self._cells[FOLD_STREAM] = 0

    def _suspects(self, stream: int) -> range:
        at = self._rows.get(stream)
        seq, events = (0, 0) if at is None else (self._cells[at + SEQ], self._cells[at + EVENTS])
        return range(seq, seq + events)

    def _free(self) -> int:
        """A free row; where there is none, that of the stream that has been a suspect longest is made free."""
        taken = set(self._rows.values())
        for at in range(SUSPECTS, SUSPECTS + SUSPECTS_MAX * ROW_CELLS, ROW_CELLS):
            if at not in taken:
                return at
        return self._rows.pop(next(iter(self._rows)))
