"""How rows were answered: by the model that learns, before each row's step, and by the artifact that never learned.

A row's label and answer are indices of classes. A soft target counts as its largest class. A multi-label row has no
single label or answer; its classes are in `wanted` and `answered` instead.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.errors import UnacceptableError
from service.learn.scored_rows import ScoredRows
from service.softmax.arrays import Doubles, Floats, Integers
from service.softmax.classifier import HEADS, NO_LABELS
from service.softmax.kernels.answer_counts import FROZEN_HIT_OF, FROZEN_LOSS_OF, find_answers
from service.softmax.kernels.calibration_kernels import head_forward
from service.softmax.kernels.exp_log import log_forward
from service.softmax.progress import OUTCOMES
from service.softmax.sparse_rows import Rows, slice_rows, take_rows
from service.store.artifact.artifact import Artifact
from service.store.artifact.model_factory import build_model
from service.store.log.feedback_blocks import Block
from service.store.log.feedback_payload import Targets
from service.store.states.report import RECENT

# The label and the answer of a row that has several.
NO_LABEL: Final = -1
THRESHOLD: Final = 0.5

Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class RowAnswers:
    """The answers to R rows that were scored, in order.

    Attributes:
        seqs: (R,) the seq of each row's event.
        rows: The rows, X (R, N) or sparse.
        labels: (R,) the class that was wanted; NO_LABEL for a multi-label row.
        answers: (R,) the class that was answered; NO_LABEL for a multi-label row.
        outcomes: (6, R) in the order of RECENT: the loss of the answer, 1 if it was right, else 0, the probability that
            was answered for the answer, the target of the answered class; and loss and hit of the artifact's answer.
        wanted: (R, K) the classes that a multi-label row has, or None.
        answered: (R, K) the classes that were answered to it, or None.
    """

    seqs: Integers
    rows: Rows
    labels: Integers
    answers: Integers
    outcomes: Doubles
    wanted: Flags | None
    answered: Flags | None


class AnswerReader:
    """Finds out how rows were answered.

    Args:
        artifact: The artifact that the stream is bound to.
    """

    def __init__(self, artifact: Artifact) -> None:
        manifest = artifact.manifest
        self._head: Final = manifest.head
        self._model: Final = build_model(artifact)
        self._thresholds: Final = tuple(manifest.thresholds or ())

    def read_answers(self, block: Block, seqs: Integers, scored: ScoredRows) -> RowAnswers:
        """Return the answers to the rows of a block that were not skipped.

        Args:
            block: The rows.
            seqs: (R,) the seq of each row's event.
            scored: How they were answered.
        """
        rows, targets, scores, found = block.rows, block.targets, scored.scores, scored.outcomes
        skipped = np.isnan(scored.losses)
        if skipped.any():
            keep = np.flatnonzero(~skipped)
            rows, targets, scores, found = take_rows(rows, keep), targets[keep], scores[keep], found[:, keep]
            seqs = seqs[keep]
        outcomes = np.empty((len(RECENT), len(seqs)))
        outcomes[:OUTCOMES] = found
        wanted = answered = None
        if self._head == "multilabel":
            labels = answers = np.full(len(seqs), NO_LABEL)
            wanted, answered = targets >= THRESHOLD, self._answered_sets(scores)
        else:
            is_index = block.layout.targets == Targets.INDEX
            labels = targets.astype(np.int64) if is_index else targets.argmax(axis=1)
            answers = np.empty_like(labels)
            find_answers(scores, outcomes, labels, answers)
        soft = None if block.layout.targets == Targets.INDEX else targets.astype(np.float64)
        outcomes[FROZEN_LOSS_OF], outcomes[FROZEN_HIT_OF] = self._frozen_answers(
            rows, labels, soft, block.layout.n_classes
        )
        return RowAnswers(seqs, rows, labels, answers, outcomes, wanted, answered)

    def _answered_sets(self, scores: Floats) -> Flags:
        """Return which classes a multi-label head answers for logits (R, K)."""
        P = np.empty_like(scores)
        head_forward(np.ascontiguousarray(scores), HEADS[self._head], P, NO_LABELS)
        return np.greater_equal(P, self._thresholds_of(scores.shape[1]))

    def _thresholds_of(self, classes: int) -> Doubles:
        """Return the probability from which each of the first classes is answered."""
        return np.array([*self._thresholds, *[THRESHOLD] * classes])[:classes]

    def _frozen_answers(
        self, rows: Rows, labels: Integers, soft: Doubles | None, classes: int
    ) -> tuple[Doubles, Flags]:
        """Return the losses and hits (R,) of the artifact's answers, given the number of classes now.

        A row whose values are too large for the artifact counts as a guess that gives each class the same probability,
        and as wrong.
        """
        try:
            return self._compare(rows, labels, soft, classes)
        except UnacceptableError:
            if len(labels) == 1:
                guess = classes * _uniform_loss(2) if self._head == "multilabel" else _uniform_loss(classes)
                return np.full(1, guess), np.zeros(1, bool)
            parts = [
                self._frozen_answers(
                    slice_rows(rows, i, i + 1),
                    labels[i : i + 1],
                    None if soft is None else soft[i : i + 1],
                    classes,
                )
                for i in range(len(labels))
            ]
            return np.concatenate([losses for losses, _ in parts]), np.concatenate([hits for _, hits in parts])

    def _compare(self, rows: Rows, labels: Integers, soft: Doubles | None, classes: int) -> tuple[Doubles, Flags]:
        """Return the losses and hits; a class that was added after training has the probability of a guess."""
        model, known = self._model, self._model.n_classes
        if not len(labels):
            return np.empty(0), np.empty(0, bool)
        if soft is None:
            losses, best = model.label_losses(rows, np.minimum(labels, known - 1))
            return np.where(
                labels < known, losses, _uniform_loss(classes)
            ) if classes > known else losses, best == labels
        if self._head == "multilabel":
            same = np.greater_equal(model.predict(rows), self._thresholds_of(known)) == (soft[:, :known] >= THRESHOLD)
            losses = model.losses(rows, np.ascontiguousarray(soft[:, :known])) + (classes - known) * _uniform_loss(2)
            return losses, same.all(axis=1) & (soft[:, known:] < THRESHOLD).all(axis=1)
        logs = model.log_probabilities(rows)
        losses = np.zeros(len(labels))
        for k in range(classes):  # one class after another, so that the order of the sum is fixed
            losses += soft[:, k] * (-logs[:, k] if k < known else _uniform_loss(classes))
        return losses, logs.argmax(axis=1) == labels


def _uniform_loss(classes: int) -> float:
    """Return the loss of a guess that gives each of some classes the same probability."""
    out = np.empty(1)
    log_forward(np.array([classes], np.float64), out)
    return float(out[0])
