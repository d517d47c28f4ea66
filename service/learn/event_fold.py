"""Fold the events of a stream: the state, the class names, and what each kind of event does to them.

    FEEDBACK     score the rows, then learn from them
    CLASSES      add classes
    CONFIGURE    change the rule, pause, resume, start or end shadow mode
    others       change nothing here: follow.py and replay.py pass the events of a state's lineage
                 (store/log/lineage.py), with the labels that they have there

Invariants:

- Events change the state in their order. How they are split into calls and batches does not change a bit.
- The fold is total: whatever the log holds, the same events give the same state. An event that cannot apply (an invalid
  payload, rows of another width, format or number of classes) is counted in `unfit` and changes nothing else.
- An event without a payload was forgotten and is passed over.
- A row is scored before it is learned from, with the parameters that are served. So its loss is the one a client saw.
- A checkpoint also holds the state as an artifact, so that a later release with another fold can start from it.
- A change of any result raises FOLD_VERSION (store/artifact/fingerprint.py).

state.py has the invariants of the state itself.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import ArtifactError, ClassesFixedError, PayloadError
from service.learn.export import learned_manifest
from service.learn.row_answers import NO_LABEL
from service.learn.state import LearnerState
from service.learn.stream_history import History
from service.softmax.arrays import Doubles, Integers
from service.softmax.logit_targets import logit_targets
from service.softmax.sparse_learner import SparseLearner
from service.softmax.sparse_parameters import SparseParameters
from service.softmax.sparse_rows import Rows
from service.store.artifact.artifact import Artifact
from service.store.artifact.manifest import Manifest
from service.store.log.admin_payloads import parse, parse_classes
from service.store.log.events import Event, Kind
from service.store.log.feedback_blocks import Block, decode_events
from service.store.log.feedback_payload import Targets
from service.store.states.snapshots import Snapshot

# An int, because comparing with an enumeration's member takes longer than decoding a row.
FEEDBACK: Final = int(Kind.FEEDBACK)
SEQ_OF: Final = itemgetter(Event._fields.index("seq"))
# Fields of a manifest that depend on the file that it is stored in.
FILE_FIELDS: Final = {"format_version", "tensors_sha256"}

Contents = tuple[dict[str, Any], dict[str, NDArray[Any]]]
"""The fields and the arrays of a checkpoint or snapshot."""


class RowLosses(NamedTuple):
    """The losses of rows that were folded together, in order.

    Attributes:
        seqs: (R,) int64, the seq of each row's event.
        losses: (R,) float64, the loss before the row's step; NaN for a row that was skipped.
        labels: (R,) int64, the class that was wanted, or None without a history; see row_answers.py.
        answers: (R,) int64, the class that was answered, or None.
    """

    seqs: NDArray[np.int64]
    losses: Doubles
    labels: NDArray[np.int64] | None = None
    answers: NDArray[np.int64] | None = None

    def take(self, rows: NDArray[np.bool_]) -> "RowLosses":
        """Return some of the rows, given (R,) whether each is one of them."""
        labels, answers = (None if values is None else values[rows] for values in (self.labels, self.answers))
        return RowLosses(self.seqs[rows], self.losses[rows], labels, answers)


class EventFold:
    """The state of one stream after some events.

    Args:
        artifact: The artifact that the fold starts from.
        fold_version: The version of the fold; by default this release's.
        history: The history that the answers to rows are added to, or None.

    Attributes:
        state: The model that learns.
        classes: The names of all classes.
        events: The number of feedback events that were folded.
        unfit: The number of events that could not apply.
        history: The history, or None; a copy and a checkpoint do not contain it.
    """

    def __init__(self, artifact: Artifact, fold_version: int | None = None, history: History | None = None) -> None:
        self.artifact: Final = artifact
        self._row_type: Final = np.dtype(artifact.manifest.dtype), artifact.n_features
        self.state = LearnerState(artifact, fold_version)
        self.classes = list(artifact.manifest.classes)
        self.events = 0
        self.unfit = 0
        self.history = history

    def copy(self) -> "EventFold":
        """Return an equal fold that shares nothing with this one."""
        other = EventFold(self.artifact)
        other.state, other.classes = self.state.copy(), list(self.classes)
        other.events, other.unfit = self.events, self.unfit
        return other

    def fold_events(self, events: Iterable[Event]) -> list[RowLosses]:
        """Apply events in their order; return the losses of their rows."""
        losses: list[RowLosses] = []
        run: list[Event] = []
        for event in events:
            if event.payload is None:
                continue
            if event.kind == FEEDBACK:
                run.append(event)
            else:
                losses += self._fold_feedback(run)
                run = []
                self._apply_admin(event)
        return losses + self._fold_feedback(run)

    def fold_blocks(self, blocks: Iterable[Block | None], seqs: NDArray[np.int64]) -> list[RowLosses]:
        """Apply decoded feedback events in their order; return the losses of their rows.

        Args:
            blocks: The rows of the events, as `decode_payloads` returns them.
            seqs: The seq of each event.
        """
        losses: list[RowLosses] = []
        first = 0
        for block in blocks:
            events = 1 if block is None else block.events
            if block is None:
                self.unfit += 1
            elif (found := self._score_block(block, seqs[first : first + events])) is not None:
                losses.append(found)
            first += events
        return losses

    def fold_payloads(self, payloads: Sequence[bytes], after_event: Callable[[int], None] | None = None) -> None:
        """Apply the payloads of feedback events in their order, in bulk and without returning losses.

        Args:
            payloads: The payloads.
            after_event: Called with the index of each payload that may have changed what is served, after it is
                folded. The events are then folded one by one, which takes about ten times as long.
        """
        index = 0
        for block in decode_payloads(payloads):
            if block is None or after_event is None or self.state.paused or self.state.shadow:
                self._fold_block(block)
                index += 1 if block is None else block.events
                continue
            for part in block.split():
                self._fold_block(part)
                after_event(index)
                index += 1

    def _fold_feedback(self, events: list[Event]) -> list[RowLosses]:
        payloads = [event.payload for event in events if event.payload is not None]
        return self.fold_blocks(decode_payloads(payloads), np.fromiter(map(SEQ_OF, events), np.int64, len(events)))

    def _fold_block(self, block: Block | None) -> Doubles | None:
        """Fold a block's rows; return their losses, or None if they are not valid or do not fit the model now."""
        if block is None:
            self.unfit += 1
            return None
        return self.state.fold_rows(*self._rows_of(block)) if self._fits(block) else None

    def _score_block(self, block: Block, seqs: NDArray[np.int64]) -> RowLosses | None:
        """Fold a block's rows, and add how they were answered to the history; `seqs` are those of its events."""
        seqs = seqs.repeat(block.layout.rows)
        if self.history is None:
            losses = self._fold_block(block)
            return None if losses is None else RowLosses(seqs, losses)
        if not self._fits(block):
            return None
        scored = self.state.fold_scored_rows(*self._rows_of(block))
        rows = self.history.add_block(block, seqs, scored, self.classes)
        if len(rows.seqs) == len(seqs):
            return RowLosses(seqs, scored.losses, rows.labels, rows.answers)
        labels, answers = np.full((2, len(seqs)), NO_LABEL)
        is_scored = ~np.isnan(scored.losses)
        labels[is_scored], answers[is_scored] = rows.labels, rows.answers
        return RowLosses(seqs, scored.losses, labels, answers)

    def _fits(self, block: Block) -> bool:
        """Count the events of a block, and return whether the model can learn from their rows now."""
        layout = block.layout
        sizes = (layout.dtype, layout.n_features, layout.n_classes)
        fits = layout.is_sparse == self.artifact.has_sparse_rows and sizes == (*self._row_type, self.state.n_classes)
        if not fits or not self._accepts(layout.targets):
            self.unfit += block.events
            return False
        self.events += block.events
        return True

    def _rows_of(self, block: Block) -> tuple[Rows, Integers | None, Doubles | None, Doubles | None]:
        """Return the rows, labels or targets of the logits, and weights of a block, as the state takes them."""
        weights = None if block.weights is None else block.weights.astype(np.float64)
        if block.layout.targets == Targets.INDEX:
            return block.rows, block.targets.astype(np.int64), None, weights
        return block.rows, None, logit_targets(block.targets, self.artifact.manifest.head), weights

    def _accepts(self, targets: Targets) -> bool:
        """Return whether the head learns from such targets: multilabel heads only from sets, others never from sets."""
        return (targets == Targets.SET) == (self.artifact.manifest.head == "multilabel")

    def _apply_admin(self, event: Event) -> None:
        try:
            if event.kind == Kind.CLASSES:
                names = parse_classes(event.payload or b"")
                self.state.add_classes(len(names))
                self.classes += names
            elif event.kind == Kind.CONFIGURE:
                self.state.configure(parse(event.payload or b""))
        except (PayloadError, ArtifactError, ClassesFixedError):
            self.unfit += 1

    def checkpoint_contents(self) -> Contents:
        """Return the fields and arrays from which `from_checkpoint` makes an equal fold.

        They also hold the state as an artifact: its manifest under "manifest", or None if it makes no valid one, and
        under "artifact.<tensor>" its tensors but those that learning leaves as they are. Of sparse rows the state has
        the columns in which it differs from the artifact that it starts from, so it holds no tensors besides.
        """
        manifest, tensors = self._artifact_contents()
        fields = {
            "manifest": manifest,
            "classes": self.classes,
            "events": self.events,
            "unfit": self.unfit,
            "scalars": self.state.scalars(),
        }
        return fields, {**self.state.tensors(), **{f"artifact.{name}": tensor for name, tensor in tensors.items()}}

    def _artifact_contents(self) -> tuple[dict[str, Any] | None, Mapping[str, NDArray[Any]]]:
        provenance = self.artifact.manifest.provenance
        tensors: Mapping[str, NDArray[Any]] = {}
        try:
            if self.state.sparse_learner is None:
                artifact = self.state.export_artifact(self.classes, provenance)
                manifest, tensors = artifact.manifest, artifact.weight_tensors
            else:
                manifest = self._sparse_manifest(self.state.sparse_learner, provenance)
        except ArtifactError:
            return None, {}
        return manifest.model_dump(mode="json", exclude_none=True, exclude=FILE_FIELDS), tensors

    def _sparse_manifest(self, learner: SparseLearner, provenance: Mapping[str, str]) -> Manifest:
        """Return the manifest of the state as an artifact, without reading all weights."""
        served = SparseParameters(learner.head, learner.weights, self.state.calibration)
        rows, learning = int(self.state.progress["steps"]), self.state.learning_record
        return learned_manifest(
            self.artifact, served, rows=rows, learning=learning, classes=self.classes, provenance=provenance
        )

    @classmethod
    def from_checkpoint(cls, artifact: Artifact, snapshot: Snapshot) -> "EventFold":
        """Restore the fold that wrote a checkpoint.

        Raises:
            ArtifactError: The checkpoint belongs to another artifact or to another version of the fold.
        """
        fold = cls(artifact)
        fields = snapshot.fields
        try:
            fold.state = LearnerState.from_tensors(artifact, snapshot.arrays, fields["scalars"])
            fold.classes = list(fields["classes"])
            fold.events, fold.unfit = fields["events"], fields["unfit"]
        except (KeyError, TypeError) as error:
            raise ArtifactError("a checkpoint lacks a part of the state") from error
        return fold

    @property
    def progressive_validation(self) -> dict[str, Any]:
        """Counts, mean loss, accuracy and calibration, each in total and over the recent rows, for the metadata."""
        counts = {"events": self.events, "unfit_events": self.unfit, **self.state.progress}
        return counts | {"calibration": self.state.reliability}


def decode_payloads(payloads: Sequence[bytes]) -> Iterator[Block | None]:
    """Yield the rows of feedback events, joined where they have one layout; None for an event with an invalid payload.

    Args:
        payloads: The payloads, in the order of their events.
    """
    try:
        yield from decode_events(payloads)
    except PayloadError:
        if len(payloads) == 1:
            yield None
        else:
            for payload in payloads:
                yield from decode_payloads([payload])
