"""A stream's fold at one seq: the state, the names of its classes, and how an event moves them.

    FEEDBACK     its rows are scored and learned from
    CLASSES      classes are added
    CONFIGURE    another rule, pause, resume, shadow
    the others   move the lineage (store/log/lineage.py); what that means for a state is follow.py's to find out

An event that cannot apply (rows of another width or number of classes, a payload that is none) is counted and changes
nothing else, so the fold is total: whatever the log holds, the same events give the same state.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import ArtifactError, ClassesFixedError, PayloadError
from service.learn.state import LearnerState
from service.softmax.linear_model import Doubles
from service.store.artifact.artifact import Artifact
from service.store.log.admin_payloads import parse, parse_classes
from service.store.log.events import Event, Kind
from service.store.log.feedback_payload import Block, Targets, decode_events
from service.store.states.snapshots import Snapshot

FEEDBACK: Final = int(Kind.FEEDBACK)  # comparing with a member of an enumeration costs more than a row's decoding
SEQ_OF: Final = itemgetter(Event._fields.index("seq"))
# Of a manifest: what depends on the file that it stands in.
FILE_FIELDS: Final = {"format_version", "tensors_sha256"}


class RowLosses(NamedTuple):
    """Events that were folded together: for each of their rows, in order, the event's seq and the loss before its step.

    Attributes:
        seqs: (R,) int64.
        losses: (R,).
    """

    seqs: NDArray[np.int64]
    losses: Doubles


class EventFold:
    """The state of one stream after some events.

    Args:
        artifact: What it starts from.

    Attributes:
        state: The model that learns.
        classes: The names of all classes.
        events: Feedback events that were folded.
        unfit: Events that could not apply.
    """

    def __init__(self, artifact: Artifact) -> None:
        self.artifact: Final = artifact
        self.state = LearnerState(artifact)
        self.classes = list(artifact.manifest.classes)
        self.events = 0
        self.unfit = 0

    def fold_events(self, events: Iterable[Event]) -> list[RowLosses]:
        """Apply events in their order; those without a payload, which were forgotten, are passed over."""
        scored: list[RowLosses] = []
        run: list[Event] = []
        for event in events:
            if event.payload is None:
                continue
            if event.kind == FEEDBACK:
                run.append(event)
            else:
                scored += self._fold_feedback(run)
                run = []
                self._apply_admin(event)
        return scored + self._fold_feedback(run)

    def fold_payloads(self, payloads: Sequence[bytes]) -> None:
        """Apply the payloads of feedback events in their order, in bulk, without returning losses."""
        for block in self._blocks(payloads):
            if block is not None:
                self._fold_block(block)

    def _fold_feedback(self, events: list[Event]) -> list[RowLosses]:
        scored: list[RowLosses] = []
        first = 0
        for block in self._blocks([event.payload for event in events if event.payload is not None]):
            if block is None:
                first += 1
                continue
            run = events[first : first + block.events]
            first += block.events
            losses = self._fold_block(block)
            if losses is not None:
                seqs = np.fromiter(map(SEQ_OF, run), np.int64, len(run))
                scored.append(RowLosses(seqs.repeat(block.layout.rows), losses))
        return scored

    def _blocks(self, payloads: Sequence[bytes]) -> Iterator[Block | None]:
        """The rows of payloads, joined where they can be; None for one that is no payload, which is counted."""
        try:
            yield from decode_events(payloads)
        except PayloadError:
            if len(payloads) == 1:
                self.unfit += 1
                yield None
            else:
                for payload in payloads:
                    yield from self._blocks([payload])

    def _fold_block(self, block: Block) -> Doubles | None:
        """The losses of a block's rows, or None where they are not of this model as it is now."""
        layout, manifest = block.layout, self.artifact.manifest
        sizes = (layout.dtype.name, layout.n_features, layout.n_classes)
        if sizes != (manifest.dtype, manifest.n_features, self.state.n_classes) or not self._accepts(layout.targets):
            self.unfit += block.events
            return None
        weights = None if block.weights is None else block.weights.astype(np.float64)
        self.events += block.events
        if layout.targets == Targets.INDEX:
            return self.state.fold_rows(block.X, block.targets.astype(np.int64), weights=weights)
        return self.state.fold_rows(block.X, Y=self._targets(block.targets), weights=weights)

    def _accepts(self, targets: Targets) -> bool:
        """Whether the head learns from targets of that kind: a multilabel head from sets alone, the others not."""
        return (targets == Targets.SET) == (self.artifact.manifest.head == "multilabel")

    def _targets(self, targets: NDArray[Any]) -> Doubles:
        """Y (B, K) of distributions or sets; the sigmoid head has one logit, that of its second class."""
        Y = targets.astype(np.float64)
        return np.ascontiguousarray(Y[:, 1:]) if self.artifact.manifest.head == "sigmoid" else Y

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

    def checkpoint_contents(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """The fields and arrays that `from_checkpoint` makes an equal fold of.

        Beside the state they hold it as an artifact, under "manifest" and "artifact.<tensor>", because a later release
        with another fold can go on from that alone; None where what was learned makes no artifact.
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
        try:
            artifact = self.state.export_artifact(self.classes, self.artifact.manifest.provenance)
        except ArtifactError:
            return None, {}
        manifest = artifact.manifest.model_dump(mode="json", exclude_none=True, exclude=FILE_FIELDS)
        return manifest, artifact.tensors

    @classmethod
    def from_checkpoint(cls, artifact: Artifact, snapshot: Snapshot) -> "EventFold":
        """The fold that gave a checkpoint.

        Raises:
            ArtifactError: It is of another artifact or of another version of the fold.
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
        """The progressive validation, for the metadata: counts, mean loss and accuracy, in all and recently; bins."""
        counts = {"events": self.events, "unfit_events": self.unfit, **self.state.progress}
        return counts | {"calibration": self.state.reliability}
