"""A refolding: runs of events that are folded again, from a state that is known to the state that is wanted.

Along a lineage (store/log/lineage.py) each run continues the one before. Along the timeline of a stream (timeline.py) a
run may start from a state that an earlier run has passed; that state is kept until then.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from service.learn.event_fold import EventFold, RowLosses
from service.learn.stream_history import History
from service.learn.timeline import Run


class Refolding:
    """Runs of events on their way into a fold.

    Args:
        fold: The state that the first run starts from.
        runs: The runs, in order, cut at each state that a later one starts from.
        corrections: The corrected events, each with the seq of the CORRECT whose labels it has.
        history: What the rows after its origin are added to, or None.

    Attributes:
        fold: A state on the way; at the end the one that is wanted.
        corrections: The same.
    """

    def __init__(
        self, fold: EventFold, runs: Sequence[Run], corrections: Mapping[int, int], history: History | None
    ) -> None:
        self.fold = fold
        self.corrections: Final = corrections
        self._history: Final = history
        self._runs = deque(runs)
        self._events: Final = max(1, self._count_events())
        self._corrected_seqs: Final = sorted(corrections)
        self._saved: Final[dict[int, EventFold]] = {}
        self._enter_run()

    @property
    def is_done(self) -> bool:
        """Whether no event is left."""
        return not self._runs

    @property
    def progress(self) -> float:
        """The share of the events that are folded, from 0 to 1."""
        return 1 - self._count_events() / self._events

    @property
    def run(self) -> Run:
        """The current run, without its events that are folded."""
        return self._runs[0]

    def events_to_read(self, limit: int) -> int:
        """Return how many events to read next, at most `limit`; a corrected event is read alone."""
        _, lo, hi = self._runs[0]
        at = bisect_right(self._corrected_seqs, lo)
        stop = self._corrected_seqs[at] if at < len(self._corrected_seqs) else hi + 1
        return max(1, min(limit, hi - lo, stop - lo - 1))

    def fold_batch(self, fold_events: Callable[[EventFold], list[RowLosses]], last: int) -> list[RowLosses]:
        """Fold the next events of the current run.

        Args:
            fold_events: Folds them into a fold, and returns the losses of their rows.
            last: The last of their seqs.

        Returns:
            What `fold_events` returned.
        """
        _, lo, hi = self._runs.popleft()
        history = self._history
        self.fold.history = history if history is not None and lo >= history.origin else None
        losses = fold_events(self.fold)
        if last < hi:
            self._runs.appendleft(Run(last, last, hi))
        else:
            self._enter_run()
        return losses

    def _enter_run(self) -> None:
        """Go to the state that the next run starts from, and keep it if a later run starts from it too."""
        while self._runs:
            start, lo, hi = self._runs[0]
            if start != lo:
                self.fold = self._saved[start].copy()
            if any(run.start == lo != run.lo for run in self._runs):
                self._saved[lo] = self.fold.copy()
            if lo < hi:
                break
            self._runs.popleft()
        if self._runs:
            self._runs[0] = self._runs[0]._replace(start=self._runs[0].lo)

    def _count_events(self) -> int:
        return sum(run.hi - run.lo for run in self._runs)
