"""The rules of `append`, which decide for each draft whether it becomes an event; pure, and the same for every backend.

For each draft, in order, with the changes of the drafts before it in the batch:

    the stream does not exist                           StreamGoneError
    FORGET: an id names no feedback of the stream       UnknownIdError; otherwise its ids become seqs in the payload;
                                                        the state of a BASE is forgotten with feedback that it includes
    the id already names an event of the model          that event's location, and what has removed it since, if kind
                                                        and payload are equal or the payload is forgotten, else
                                                        IdConflictError; payloads of one stream may differ by classes
                                                        that were added between them; the actor may be another one
    class_epoch, if_seq are given and differ            ClassesChangedError, SeqMovedError; the CORRECT events of a
                                                        batch are one call, so if_seq is the seq before the first
    FORGET of events that the state of a BASE includes  forgets the BASE too
    ROLLBACK to a seq after the last                    UnknownSeqError
    ROLLBACK to a state that an earlier release made    EarlierReleaseError; but seq 0, the artifact, is always possible
    CLASSES, and there would be more than CLASSES_MAX   ClassesMaxError
    SKIP of an event that is not feedback               UnknownSeqError; a rollback to before it leads past it, and one
                                                        to 0 past a BASE
    CORRECT of an event that is not feedback            UnknownSeqError
    CORRECT of an event that is no longer learned       EventForgottenError, EventSkippedError, EventRolledBackError
    a payload that is not valid for its kind            PayloadError (the fold checks the bytes of FEEDBACK)
    otherwise                                           the next seq

A FORGET also forgets the CORRECT events of its events, because they hold labels of the same rows. Whether a CORRECT
fits the rows of its event is not checked here: one that does not changes nothing (correction_payload.py).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from service.errors import (
    ClassesChangedError,
    ClassesMaxError,
    EarlierReleaseError,
    IdConflictError,
    PayloadError,
    RefusedError,
    SeqMovedError,
    StreamGoneError,
    UnknownIdError,
    UnknownSeqError,
)
from service.store.log.admin_payloads import dump_forget, parse, parse_forget, parse_forget_ids
from service.store.log.events import (
    ACTOR_BYTES_MAX,
    ID_BYTES_MAX,
    SALT_BYTES,
    SEQ_BITS,
    SEQ_MAX,
    Draft,
    Event,
    EventLocation,
    Kind,
    hash_event,
    hash_payload,
)
from service.store.log.feedback_payload import has_same_content
from service.store.log.lineage import Lineage, LineageChange, lineage_change
from service.store.log.log_rows import Name, ReadChanges, Row, RowsByName, StreamHead, duplicate_of
from service.store.log.removals import removal_error, removed_by

# No person types a longer list of classes; a response for one row has at most that many numbers more.
CLASSES_MAX: Final = 10_000

# For every draft a look-up of a member of an enumeration costs more than its other checks.
FEEDBACK: Final = Kind.FEEDBACK
FORGET: Final = Kind.FORGET


@dataclass
class AppendBatch:
    """The drafts of one transaction, and the rows that they become.

    Attributes:
        heads: Each stream that may be appended to, by number; the batch changes them.
        names: For (model, id) of every draft, and of every id that a draft forgets, the event that already has it.
        read_changes: Reads the effects of the admin events that are stored.
        rows: The rows to insert, in order.
        positions: The position and the (model, id) of each row.
        forgotten: The positions whose payloads and salts are to be deleted after the rows are inserted.
        changed_streams: The streams whose class_epoch, n_classes or epoch changed.
        corrections: The number of CORRECT events among the rows, by stream.
    """

    heads: Mapping[int, StreamHead]
    names: RowsByName
    read_changes: ReadChanges
    rows: list[Row] = field(default_factory=list)
    positions: list[tuple[int, Name]] = field(default_factory=list)
    forgotten: list[int] = field(default_factory=list)
    changed_streams: set[int] = field(default_factory=set)
    corrections: Counter[int] = field(default_factory=Counter)

    def admit(self, draft: Draft, salt: bytes) -> EventLocation | RefusedError:
        """Return the location of a draft in the log, or the error for which it is refused."""
        head = self.heads.get(draft.stream)
        if head is None:
            return StreamGoneError("this version's feedback is no longer stored; send the event again")
        try:
            return self._admit(head, draft if draft.kind == FEEDBACK else self._resolve(head, draft), salt)
        except RefusedError as error:
            return error

    def _admit(self, head: StreamHead, draft: Draft, salt: bytes) -> EventLocation:
        stream, kind, id_, payload, time_ms, class_epoch, if_seq, actor = draft
        name = (head.stream.model, id_)
        known = self.names.get(name)
        if known is not None:
            return self._match_duplicate(known, draft)
        if class_epoch is not None and class_epoch != head.class_epoch:
            raise ClassesChangedError("the model's classes have changed; ask for its metadata and send the event again")
        if if_seq is not None and if_seq != head.seq - (self.corrections[stream] if kind == Kind.CORRECT else 0):
            raise SeqMovedError("the model has learned since that seq; ask for its metadata and decide again")
        if not 0 < len(id_) <= ID_BYTES_MAX:
            raise PayloadError(f"an id has 1 to {ID_BYTES_MAX} bytes")
        if len(actor) > ACTOR_BYTES_MAX:
            raise PayloadError(f"an actor has at most {ACTOR_BYTES_MAX} bytes")
        seq = head.seq + 1
        hash_ = hash_event(head.hash, seq, kind, id_, time_ms, hash_payload(salt, payload), actor)
        if kind != FEEDBACK:
            self._apply_admin_event(head, Event(seq, kind, id_, time_ms, payload, hash_, actor))
        position = stream << SEQ_BITS | seq
        row = (position, kind, id_, time_ms, payload, hash_, actor, salt)
        self.rows.append(row)
        self.positions.append((position, name))
        self.names[name] = row
        head.seq, head.hash = seq, hash_
        return EventLocation(stream, seq)

    def _resolve(self, head: StreamHead, draft: Draft) -> Draft:
        """Return an admin draft with the payload that is stored."""
        if draft.kind in {Kind.BASE, Kind.CORRECT}:  # may be larger than others, and are parsed by their own rules
            return draft
        if draft.kind != FORGET:
            parse(draft.payload)
            return draft
        seqs = []
        for id_ in parse_forget_ids(draft.payload):
            known = self.names.get((head.stream.model, id_))
            if known is not None and known[1] == Kind.BASE:
                raise UnknownIdError(
                    "an id to forget is that of a state that was learned; name the feedback that it was made of"
                )
            if known is None or known[0] >> SEQ_BITS != draft.stream or known[1] != Kind.FEEDBACK:
                raise UnknownIdError("an id to forget names no feedback of this model version")
            seqs.append(known[0] & SEQ_MAX)
        lineage = head.read_lineage(self.read_changes)
        return draft._replace(payload=dump_forget(seqs, lineage.bases_containing(seqs), lineage.corrections_of(seqs)))

    def _apply_admin_event(self, head: StreamHead, event: Event) -> None:
        """Let an admin event change the stream's head, or refuse it and change nothing."""
        change, lineage = lineage_change(event), head.read_lineage(self.read_changes)
        _refuse_invalid_change(head, lineage, change)
        class_set = lineage.class_set(head.seq)
        lineage.add(change)
        head.lineage_seq = change.seq
        if lineage.class_set(change.seq) != class_set:
            head.class_epoch = change.seq
            head.n_classes = lineage.n_classes(change.seq, head.stream.n_classes)
        if change.kind == Kind.FORGET:
            head.epoch += 1
            self._forget(head, (*change.excluded, *change.bases, *change.corrections))
        self.corrections[head.stream.number] += change.kind == Kind.CORRECT
        self.changed_streams.add(head.stream.number)

    def _match_duplicate(self, known: Row, draft: Draft) -> EventLocation:
        """Return the location of the stored event if a draft repeats it.

        Raises:
            IdConflictError: The draft is another event.
        """
        is_same = _has_payload(known[4], draft) or (
            draft.kind == FEEDBACK
            and known[0] >> SEQ_BITS == draft.stream
            and has_same_content(known[4] or b"", draft.payload)
        )
        if known[1] != draft.kind or not is_same:
            raise IdConflictError("the id was used for another event of this model; give this one an id of its own")
        return duplicate_of(known, self.heads[known[0] >> SEQ_BITS], self.read_changes)

    def _forget(self, head: StreamHead, seqs: Sequence[int]) -> None:
        positions = {head.stream.number << SEQ_BITS | seq for seq in seqs}
        self.forgotten += sorted(positions)
        for name, (position, kind, id_, time_ms, _, hash_, actor, seal) in self.names.items():
            if position in positions:
                self.names[name] = (position, kind, id_, time_ms, None, hash_, actor, seal)


def draw_salts(drafts: Sequence[Draft], random: Callable[[int], bytes]) -> list[bytes]:
    """Return one salt for each draft, from one call for random bytes."""
    salts = random(SALT_BYTES * len(drafts))
    return [salts[at : at + SALT_BYTES] for at in range(0, len(salts), SALT_BYTES)]


def find_names(drafts: Sequence[Draft], heads: Mapping[int, StreamHead]) -> set[Name]:
    """Return every (model, id) that `AppendBatch.names` needs: those of the drafts, and those that drafts forget."""
    models = {number: head.stream.model for number, head in heads.items()}
    names = {(models[draft.stream], draft.id) for draft in drafts if draft.stream in models}
    for draft in drafts:
        if draft.kind == FORGET and draft.stream in models:
            names.update((models[draft.stream], id_) for id_ in _ids_to_forget(draft.payload))
    return names


def _ids_to_forget(payload: bytes) -> tuple[bytes, ...]:
    """Return the ids that a FORGET names, or none if it will be refused."""
    try:
        return parse_forget_ids(payload)
    except PayloadError:
        return ()


def _refuse_invalid_change(head: StreamHead, lineage: Lineage, change: LineageChange) -> None:
    if change.kind == Kind.CORRECT:
        refuse_uncorrectable(lineage, head.seq, change.target)
    elif change.target > head.seq:
        raise UnknownSeqError("the seq to go back to is after the last one; name an earlier one")
    if change.kind == Kind.ROLLBACK and 0 < change.target < lineage.newest_base_seq:
        raise EarlierReleaseError(
            f"an earlier release made that state; go back to seq {lineage.newest_base_seq} or a later one, "
            "or to 0, the model as it was trained"
        )
    if change.kind == Kind.SKIP and change.excluded[0] in {base.seq for base in lineage.bases}:
        raise UnknownSeqError(
            "the seq to skip is that of a state that an earlier release has learned, not of a feedback event; "
            "a rollback to 0, the model as it was trained, leads past it"
        )
    if change.kind == Kind.SKIP and not _is_feedback(lineage, head.seq, *change.excluded):
        raise UnknownSeqError("the seq to skip is not that of a feedback event")
    if change.classes and head.n_classes + change.classes > CLASSES_MAX:
        raise ClassesMaxError(f"a model may have at most {CLASSES_MAX} classes")


def refuse_uncorrectable(lineage: Lineage, last: int, seq: int) -> None:
    """Raise the RefusedError for an event that cannot be corrected, if it cannot.

    Args:
        lineage: The lineage of its stream.
        last: The stream's last seq.
        seq: The seq of the event.

    Raises:
        UnknownSeqError: It is not feedback.
        EventForgottenError: It was forgotten.
        EventSkippedError: It was skipped.
        EventRolledBackError: A rollback has undone it.
    """
    if not _is_feedback(lineage, last, seq):
        raise UnknownSeqError("the seq to correct is not that of a feedback event")
    removal = removed_by(lineage, last, seq, FEEDBACK, is_erased=seq in lineage.forgotten)
    if removal is not None:
        raise removal_error(removal)


def _is_feedback(lineage: Lineage, last: int, seq: int) -> bool:
    return 0 < seq <= last and not lineage.is_admin_event(seq)


def _has_payload(stored: bytes | None, draft: Draft) -> bool:
    """Return whether a draft has the payload of a stored event, as far as it is still stored."""
    if stored is None or stored == draft.payload:
        return True
    # Which BASE and CORRECT events a FORGET forgets depends on when it was appended.
    return draft.kind == FORGET and parse_forget(stored) == parse_forget(draft.payload)
