"""Replay the history of a stream, from the bound artifact and the log alone."""

from collections.abc import Callable, Iterator

import numpy as np

from service.learn.event_fold import EventFold, RowLosses, decode_payloads
from service.learn.fold_upgrade import first_fold
from service.learn.refolding import Refolding
from service.learn.replay import EventBatch, ReplayProgress, StreamReplay
from service.learn.stream_history import History
from service.learn.timeline import cut_runs, runs_between, timeline_corrections


class HistoryReplay(StreamReplay):
    """A replay that can make the history too.

    Attributes:
        history: The history of all events after its origin, once `fold_history` has made it; else None.
    """

    history: History | None = None

    def fold_history(self, origin: int) -> Iterator[ReplayProgress]:
        """Make the last state, and the history after a seq; both are complete when the iterator ends.

        There is no history if a rollback led to before the base that the last state is folded from.

        Yields:
            The progress, after each batch.

        Raises:
            ForgottenError: As for `fold_to`, with all its other errors.
        """
        base = self.lineage.base_of_state(self.last)
        start = 0 if base is None else base.target
        runs = runs_between(self.lineage, start, self.last)
        if runs is None or self.last < self.since:
            yield from self.fold_to(self.last)
            return
        self.seq = -1  # until the end the fold is of no seq
        self._base, corrections = base, timeline_corrections(self.lineage, self.last)
        self._corrections, self._corrected = dict(corrections), sorted(corrections)
        first = first_fold(self.stream, self._artifact, self._log, self.lineage, base)
        history, total = History(self._artifact, origin), self.last - start
        refolding = Refolding(first, cut_runs(runs, origin), corrections, history)
        while not refolding.is_done:
            _, lo, hi = refolding.run
            for after, last in self._batches(((lo, hi),)):
                batch = self._read_batch(after, last, ReplayProgress(last - start, total))
                refolding.fold_batch(_folder_of(batch), last)
                yield batch.progress
        self.fold, self.seq, self.history = refolding.fold, self.last, history


def _folder_of(batch: EventBatch) -> Callable[[EventFold], list[RowLosses]]:
    """Return the function that folds a batch."""
    if batch.admin is not None:
        admin = batch.admin
        return lambda fold: fold.fold_events([admin])
    seqs = np.array(batch.seqs, np.int64)
    return lambda fold: fold.fold_blocks(decode_payloads(batch.payloads), seqs)
