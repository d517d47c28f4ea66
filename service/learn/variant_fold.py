"""Fold the events of a stream with changes: another rule, other constants, fewer events, other labels.

A variant starts where the fold of the same events starts: from the artifact, or from the newest base. It takes the
same batches (replay.py), so the log is read and decoded once for all variants. Without changes the states are equal,
to the bit.

    rule          the rule holds from the start on, as if the manifest named it, with the defaults of this release.
                  `rule` and `constants` of CONFIGURE events have no effect; `paused` and `shadow` have theirs
    constants     without a rule they replace single constants of each rule that the stream has used
    without       these events are left out, as if they were forgotten
    corrections   these events have other labels, as if each had a CORRECT event

The mean losses of two variants compare only over rows that both have, with the same labels: `BatchLosses.shared`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import ArtifactError, EarlierReleaseError, PayloadError
from service.learn.event_fold import EventFold, RowLosses, decode_payloads
from service.learn.replay import EventBatch
from service.softmax.arrays import Doubles
from service.store.artifact.artifact import Artifact
from service.store.artifact.learning_rules import check_constants, parse_rule_name
from service.store.log.admin_payloads import dump, parse
from service.store.log.correction_payload import correct_payload
from service.store.log.events import Event, Kind
from service.store.log.feedback_blocks import Block
from service.store.log.lineage import Lineage

# Fields of a manifest that depend on the file that it is stored in, and measurements of the model before the change.
OTHER_FIELDS: Final = {"format_version", "tensors_sha256", "metrics"}
RULE_SETTINGS: Final = frozenset(("rule", "constants"))


@dataclass(frozen=True)
class Variant:
    """The changes of one variant; by default there are none.

    Attributes:
        rule: The name of the learning rule, or None for those of the stream.
        constants: Constants of the rule by name; the others have their defaults or, without a rule, their values.
        without: The seqs of the feedback events that are left out.
        corrections: For the seqs of feedback events the payload of a CORRECT event with their labels.
    """

    rule: str | None = None
    constants: Mapping[str, float] = field(default_factory=dict)
    without: frozenset[int] = frozenset()
    corrections: Mapping[int, bytes] = field(default_factory=dict)


class BatchLosses(NamedTuple):
    """The losses of a batch in all folds; R is the number of its rows without changes.

    Attributes:
        losses: (1 + V, R) the loss of each row before its step: without changes, then in each of V variants. NaN marks
            a row that was left out or skipped.
        shared: (R,) whether all folds have the row with the same label, and none skipped it.
    """

    losses: Doubles
    shared: NDArray[np.bool_]


class VariantFold:
    """The fold of a variant.

    Args:
        variant: The changes.
        start: The fold without changes, before its first event.

    Attributes:
        fold: The state.
        left_out: The number of events that were left out.
        relabeled: The number of events that had other labels.

    Raises:
        ArtifactError: The model cannot learn by the rule, or a constant is unknown or out of range.
    """

    def __init__(self, variant: Variant, start: EventFold) -> None:
        self._variant: Final = variant
        self._changed: Final = variant.without.union(variant.corrections)
        self.fold: Final = _start_fold(variant, start)
        frozen = start.state.served_parameters() if start.state.shadow else None
        self.fold.state.resume_serving(paused=start.state.paused, frozen=frozen)
        self.left_out = 0
        self.relabeled = 0

    def fold_feedback(self, batch: EventBatch, blocks: Sequence[Block | None]) -> tuple[list[RowLosses], list[int]]:
        """Fold the feedback of a batch.

        Args:
            batch: The events.
            blocks: Their rows, for a variant that changes none of these events.

        Returns:
            The losses of the rows, and the seqs of the events that had other labels.
        """
        variant = self._variant
        if not self._changed.intersection(batch.seqs):
            return self.fold.fold_blocks(blocks, np.array(batch.seqs, np.int64)), []
        seqs, payloads, relabeled = [], [], []
        for seq, payload in zip(batch.seqs, batch.payloads, strict=True):
            if seq in variant.without:
                continue
            correction = variant.corrections.get(seq)
            changed = payload if correction is None else correct_payload(payload, correction)
            if changed != payload:
                relabeled.append(seq)
            seqs.append(seq)
            payloads.append(changed)
        self.left_out += len(batch.seqs) - len(seqs)
        self.relabeled += len(relabeled)
        return self.fold.fold_blocks(decode_payloads(payloads), np.array(seqs, np.int64)), relabeled

    def fold_admin(self, event: Event, *, is_valid: bool) -> None:
        """Apply an admin event.

        Args:
            event: The event.
            is_valid: Whether it could apply without changes.

        Raises:
            ArtifactError: It configures a rule for which the constants of the variant are invalid.
        """
        unfit = self.fold.unfit
        self.fold.fold_events([self._change_event(event) if is_valid and event.kind == Kind.CONFIGURE else event])
        if is_valid and self.fold.unfit > unfit:
            raise ArtifactError(
                f"event {event.seq} configures a rule that lacks one of the constants, or needs it in another range; "
                "name a rule too"
            )

    def _change_event(self, event: Event) -> Event:
        """Return a CONFIGURE event as the variant applies it."""
        variant = self._variant
        try:
            changes = parse(event.payload or b"")
        except PayloadError:
            return event
        if RULE_SETTINGS.isdisjoint(changes):
            return event
        if variant.rule is not None:
            changes = {name: value for name, value in changes.items() if name not in RULE_SETTINGS}
        elif variant.constants:
            constants = changes.get("constants", {})
            changes["constants"] = {**(constants if isinstance(constants, dict) else {}), **variant.constants}
        return event._replace(payload=dump(changes))


class VariantFolds:
    """The folds of several variants beside the fold without changes.

    Args:
        unchanged: The fold without changes, before its first event.
        variants: The variants.

    Attributes:
        folds: The fold of each variant.

    Raises:
        ArtifactError: As for `VariantFold`.
    """

    def __init__(self, unchanged: EventFold, variants: Sequence[Variant]) -> None:
        self._unchanged: Final = unchanged
        self.folds: Final[list[VariantFold]] = []
        for number, variant in enumerate(variants, 1):
            with _named(number):
                self.folds.append(VariantFold(variant, unchanged))

    def fold_batch(self, batch: EventBatch) -> BatchLosses:
        """Fold a batch of events in all folds.

        Raises:
            ArtifactError: As for `VariantFold.fold_admin`.
        """
        unchanged = self._unchanged
        if batch.admin is not None:
            unfit = unchanged.unfit
            unchanged.fold_events([batch.admin])
            for number, one in enumerate(self.folds, 1):
                with _named(number):
                    one.fold_admin(batch.admin, is_valid=unchanged.unfit == unfit)
            return BatchLosses(np.empty((1 + len(self.folds), 0)), np.empty(0, bool))
        blocks = list(decode_payloads(batch.payloads))
        seqs, first = _join(unchanged.fold_blocks(blocks, np.array(batch.seqs, np.int64)))
        losses = np.full((1 + len(self.folds), len(first)), np.nan)
        losses[0] = first
        shared = np.ones(len(first), bool)
        for row, one in enumerate(self.folds, 1):
            found, relabeled = one.fold_feedback(batch, blocks)
            kept, own = _join(found)
            losses[row, slice(None) if len(kept) == len(seqs) else np.isin(seqs, kept)] = own
            if relabeled:
                shared &= ~np.isin(seqs, relabeled)
        return BatchLosses(losses, shared & ~np.isnan(losses).any(axis=0))


def refuse_base_events(lineage: Lineage, last: int, variants: Sequence[Variant]) -> None:
    """Raise EarlierReleaseError if a variant changes an event of the base that state(last) is folded from."""
    base = lineage.base_of_state(last)
    if base is None:
        return
    for variant in variants:
        for seq in variant.without.union(variant.corrections):
            if seq <= base.target and lineage.contains(last, seq):
                raise EarlierReleaseError(
                    f"event {seq} is part of a state that an earlier release made; only later events can be changed"
                )


@contextmanager
def _named(number: int) -> Iterator[None]:
    """Put the number of a variant before the message of its error."""
    try:
        yield
    except ArtifactError as error:
        raise ArtifactError(f"variant {number}: {error}") from error


def _join(found: list[RowLosses]) -> tuple[NDArray[np.int64], Doubles]:
    """Return the seq (R,) and the loss (R,) of each row."""
    all_rows = [RowLosses(np.empty(0, np.int64), np.empty(0)), *found]
    return np.concatenate([rows.seqs for rows in all_rows]), np.concatenate([rows.losses for rows in all_rows])


def _start_fold(variant: Variant, start: EventFold) -> EventFold:
    """Return the fold of a variant before its first event, but for what CONFIGURE events have set in the base."""
    artifact, scalars = start.artifact, start.state.scalars()
    if variant.rule is None and not variant.constants:
        return EventFold(artifact, scalars["fold_version"])
    rule, constants, version = variant.rule, dict(variant.constants), None
    if rule is None:
        rule, constants, version = scalars["rule"], scalars["constants"] | constants, scalars["fold_version"]
    check_constants(parse_rule_name(rule), constants, artifact)
    fields = artifact.manifest.model_dump(mode="json", exclude_none=True, exclude=OTHER_FIELDS)
    fields |= {"learning": {"rule": rule, "constants": constants}}
    return EventFold(Artifact.from_fields(fields, artifact.tensors), version)
