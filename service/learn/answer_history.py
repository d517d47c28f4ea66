"""Find every state of a stream in which the answer to one row changed.

All states are made in their order, and the answer is computed after every event that may have changed it. So no change
is missed, even if two changes cancel out. Most states continue the fold of the state before them; after a rollback, or
the correction of an event, the fold starts again.

The states are those of the log as it is now: events that were forgotten or skipped are in none of them, whenever that
was. A state that was served with an event which was forgotten since may have answered otherwise; see
`AnswerHistory.lacks_forgotten`.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import takewhile
from typing import Final, NamedTuple

import numpy as np

from service.learn.export import THRESHOLD
from service.learn.replay import EventBatch, ReplayProgress, StreamReplay
from service.softmax.arrays import Floats
from service.softmax.sparse_rows import Rows
from service.store.log.events import Kind

# The kinds of events whose state may not continue the fold of the state before it.
RESTARTS: Final = (Kind.ROLLBACK, Kind.CORRECT)


class Answer(NamedTuple):
    """The answer of one state to a row.

    Attributes:
        seq: The seq of the state.
        classes: The names of its C classes.
        probabilities: (C,), in the model's dtype.
        labels: The indices of the predicted classes: one, or any number with a multilabel head.
    """

    seq: int
    classes: tuple[str, ...]
    probabilities: Floats
    labels: tuple[int, ...]


Aspect = Callable[[Sequence[str], Floats, tuple[int, ...]], Hashable]
"""Returns what is compared of two answers, given the classes, the probabilities (C,) and the labels."""


def labels_aspect(_classes: Sequence[str], _probabilities: Floats, labels: tuple[int, ...]) -> Hashable:
    """Return the predicted labels."""
    return labels


def threshold_aspect(name: str, threshold: float) -> Aspect:
    """Return the aspect whether the probability of a class is at least a threshold; a class to come has none."""

    def is_reached(classes: Sequence[str], probabilities: Floats, _labels: tuple[int, ...]) -> Hashable:
        return name in classes and bool(probabilities[classes.index(name)] >= threshold)

    return is_reached


class AnswerHistory:
    """The states of a stream in which an aspect of the answer to a row changed.

    Args:
        replay: Makes the states.
        row: One row in the form of the model's.
        aspect: What is compared.

    Attributes:
        answers: The answer of the first state, then one for each change, by ascending seq.
    """

    def __init__(self, replay: StreamReplay, row: Rows, aspect: Aspect) -> None:
        self._replay: Final = replay
        self._row: Final = row
        self._aspect: Final = aspect
        self._compared: Hashable = None
        self._thresholds = np.empty(0)  # of a multilabel head
        self.answers: Final[list[Answer]] = []

    def find_changes(self) -> Iterator[ReplayProgress]:
        """Go through all states; `answers` is complete when the iterator ends.

        Yields:
            The progress, after each batch.

        Raises:
            UnacceptableError: The model cannot answer to the row.
            EarlierReleaseError: Another release made all states.
            LogDamagedError: An event is missing or altered.
        """
        runs, folded, total, before = self._runs(), 0, 0, 0
        for first, last in runs:
            total += self._replay.events_between(before, first) + self._replay.events_between(first, last)
            before = last
        for first, last in runs:
            for seq, each in ((first, False), (last, True)):
                events = 0
                for batch in self._replay.read_batches(seq, without_forgotten=True):
                    self._fold_batch(batch, each=each)
                    events = batch.progress.events
                    yield ReplayProgress(folded + events, total)
                folded += events
                self._compare(seq)

    def lacks_forgotten(self, seq: int) -> bool:
        """Return whether a state was served with an event that was forgotten since."""
        lineage = self._replay.lineage
        for change in takewhile(lambda change: change.seq > seq, reversed(lineage.changes)):
            if change.kind == Kind.FORGET:
                earlier = takewhile(lambda forgotten: forgotten <= seq, change.excluded)  # they ascend
                if any(lineage.contains(seq, forgotten) for forgotten in earlier):
                    return True
        return False

    def _runs(self) -> list[tuple[int, int]]:
        """Return the first and last seqs of the runs of states of which each continues the fold of the one before."""
        replay, lineage = self._replay, self._replay.lineage
        first = min(replay.since, replay.last)
        later = (change for change in lineage.changes if change.seq > first and change.kind in RESTARTS)
        starts = [first, *(one.seq for one in later if not lineage.continues(one.seq, one.seq - 1))]
        return list(zip(starts, [*(start - 1 for start in starts[1:]), replay.last], strict=True))

    def _fold_batch(self, batch: EventBatch, *, each: bool) -> None:
        """Fold a batch; compare the answer after each of its events that may have changed it, if asked for."""
        fold, seqs = self._replay.fold, batch.seqs
        if batch.admin is not None:
            fold.fold_events([batch.admin])
            if each:
                self._compare(batch.admin.seq)
        else:
            fold.fold_payloads(batch.payloads, (lambda index: self._compare(seqs[index])) if each else None)

    def _compare(self, seq: int) -> None:
        """Compare the answer of the state that is folded, state(seq), with the one before."""
        fold = self._replay.fold
        P, label = fold.state.classify(self._row)
        labels = self._labels_of(P[0]) if fold.artifact.manifest.head == "multilabel" else (label,)
        compared = self._aspect(fold.classes, P[0], labels)
        if not self.answers or compared != self._compared:
            self.answers.append(Answer(seq, tuple(fold.classes), P[0], labels))
            self._compared = compared

    def _labels_of(self, probabilities: Floats) -> tuple[int, ...]:
        """Return the labels of a multilabel head: the classes that reach their thresholds."""
        if self._thresholds.size != probabilities.size:
            given = self._replay.fold.artifact.manifest.thresholds or ()
            self._thresholds = np.array([*given, *[THRESHOLD] * (probabilities.size - len(given))])
        return tuple(np.flatnonzero(self._thresholds <= probabilities).tolist())
