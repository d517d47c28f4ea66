"""Whether a draft becomes an event: the rules of `append`, pure, one set of them for every backend.

For each draft, in order, with what the drafts before it in the batch have changed:

    the stream does not exist                           StreamGoneError
    FORGET: an id names no feedback of the stream       UnknownIdError; else its ids become seqs, and the payload theirs
    the id names an event of the model already          that event's seq where kind and payload are equal or the payload
                                                        is forgotten, else IdConflictError
    class_epoch, if_seq are given and differ            ClassesChangedError, SeqMovedError
    FORGET of what the state of a BASE was made of      takes the BASE along
    ROLLBACK to a seq beyond the last                   UnknownSeqError
    ROLLBACK to a state that an earlier release made    EarlierReleaseError; but seq 0, the artifact, is anybody's
    CLASSES, and there would be more than CLASSES_MAX   ClassesMaxError
    SKIP of what is no feedback                         UnknownSeqError; anything else can be rolled back
    a payload that its kind does not have               PayloadError (the bytes of FEEDBACK are the fold's to check)
    otherwise                                           the next seq
"""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
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
    ID_BYTES_MAX,
    SALT_BYTES,
    SEQ_BITS,
    SEQ_MAX,
    Draft,
    Event,
    EventLocation,
    Kind,
    Stream,
    StreamState,
    hash_event,
    hash_payload,
)
from service.store.log.lineage import Lineage, LineageChange, lineage_change

# A label set beyond this is no list that somebody typed; an answer of one row has at most that many numbers more.
CLASSES_MAX: Final = 10_000

# An event as backends write it: position (stream << 40 | seq), kind, id, time_ms, payload, hash, seal. The payload is
# None where it was forgotten; the seal is the salt until then, and the digest after. A bare tuple: one is made for
# every event, and a named one costs more than the statement that writes it.
Row = tuple[int, int, bytes, int, bytes | None, bytes, bytes]
Names = MutableMapping[tuple[str, bytes], Row]
# For every draft a look-up of a member of an enumeration costs more than its other checks.
FEEDBACK: Final = Kind.FEEDBACK
FORGET: Final = Kind.FORGET


@dataclass(slots=True)
class StreamHead:
    """Where a stream stands while a batch is admitted; the batch writes to it.

    Attributes:
        stream: The stream.
        seq: Its last seq.
        hash: That event's hash, or the genesis.
        class_epoch: As in StreamState.
        n_classes: As in StreamState.
        epoch: As in StreamState.
        lineage: Its lineage, read when an admin event first needs it.
    """

    stream: Stream
    seq: int
    hash: bytes
    class_epoch: int
    n_classes: int
    epoch: int
    lineage: Lineage | None = None

    def state(self) -> StreamState:
        """The same as an immutable record."""
        return StreamState(self.seq, self.hash, self.class_epoch, self.n_classes, self.epoch)


@dataclass
class AppendBatch:
    """One transaction's drafts on their way to rows.

    Attributes:
        heads: Each stream that may be appended to, by number; its members move on with the batch.
        names: For (model, id) of every draft, and of every id that a draft forgets, the event that has it already.
        turns: Reads what a stream's admin events did so far.
        rows: What is to be inserted, in order.
        places: The position and the (model, id) of each row.
        forgotten: The positions whose payloads and salts are to be deleted after the rows are in.
        turned: The streams whose class_epoch, n_classes or epoch changed.
    """

    heads: Mapping[int, StreamHead]
    names: Names
    turns: Callable[[int], Sequence[LineageChange]]
    rows: list[Row] = field(default_factory=list)
    places: list[tuple[int, tuple[str, bytes]]] = field(default_factory=list)
    forgotten: list[int] = field(default_factory=list)
    turned: set[int] = field(default_factory=set)

    def admit(self, draft: Draft, salt: bytes) -> EventLocation | RefusedError:
        """What becomes of one draft: its place in the log, or why it has none."""
        head = self.heads.get(draft.stream)
        if head is None:
            return StreamGoneError("this version's feedback is not kept any more; ask for the model again")
        try:
            return self._admit(head, draft if draft.kind == FEEDBACK else self._resolved(head, draft), salt)
        except RefusedError as refusal:
            return refusal

    def _admit(self, head: StreamHead, draft: Draft, salt: bytes) -> EventLocation:
        stream, kind, id_, payload, time_ms, class_epoch, if_seq = draft
        name = (head.stream.model, id_)
        known = self.names.get(name)
        if known is not None:
            return _again(known, draft)
        if class_epoch is not None and class_epoch != head.class_epoch:
            raise ClassesChangedError("the model's classes have changed; ask for its metadata and send the event again")
        if if_seq is not None and if_seq != head.seq:
            raise SeqMovedError("the model has learnt since that seq; ask for its metadata and decide again")
        if not 0 < len(id_) <= ID_BYTES_MAX:
            raise PayloadError(f"an id has 1 to {ID_BYTES_MAX} bytes")
        seq = head.seq + 1
        hash_ = hash_event(head.hash, seq, kind, id_, time_ms, hash_payload(salt, payload))
        if kind != FEEDBACK:
            self._turn(head, Event(seq, kind, id_, time_ms, payload, hash_))
        position = stream << SEQ_BITS | seq
        row = (position, kind, id_, time_ms, payload, hash_, salt)
        self.rows.append(row)
        self.places.append((position, name))
        self.names[name] = row
        head.seq, head.hash = seq, hash_
        return EventLocation(stream, seq)

    def _resolved(self, head: StreamHead, draft: Draft) -> Draft:
        """An admin draft with the payload that is stored."""
        if draft.kind == Kind.BASE:  # which may be larger than others, and is parsed as what it is
            return draft
        if draft.kind != Kind.FORGET:
            parse(draft.payload)
            return draft
        seqs = []
        for id_ in parse_forget_ids(draft.payload):
            known = self.names.get((head.stream.model, id_))
            if known is None or known[0] >> SEQ_BITS != draft.stream or known[1] != Kind.FEEDBACK:
                raise UnknownIdError("an id to forget names no feedback of this model version")
            seqs.append(known[0] & SEQ_MAX)
        return draft._replace(payload=dump_forget(seqs, self._lineage(head).bases_containing(seqs)))

    def _turn(self, head: StreamHead, event: Event) -> None:
        """Lets an admin event change the stream's head, or refuses it with nothing changed."""
        turn, lineage = lineage_change(event), self._lineage(head)
        if turn.target > head.seq:
            raise UnknownSeqError("the seq to go back to is beyond the last one")
        if turn.kind == Kind.ROLLBACK and 0 < turn.target < lineage.newest_base_seq:
            raise EarlierReleaseError(
                f"that state was made by an earlier release; go back to seq {lineage.newest_base_seq} or a later one, "
                "or to 0, the model as it was trained"
            )
        if turn.kind == Kind.SKIP and not _is_feedback(head, *turn.excluded):
            raise UnknownSeqError("the seq to skip is not that of a feedback event")
        if turn.classes and head.n_classes + turn.classes > CLASSES_MAX:
            raise ClassesMaxError(f"a model may have at most {CLASSES_MAX} classes")
        classes = lineage.class_set(head.seq)
        lineage.add(turn)
        if lineage.class_set(turn.seq) != classes:
            head.class_epoch = turn.seq
            head.n_classes = lineage.n_classes(turn.seq, head.stream.n_classes)
        if turn.kind == Kind.FORGET:
            head.epoch += 1
            self._forget(head, (*turn.excluded, *turn.bases))
        self.turned.add(head.stream.number)

    def _lineage(self, head: StreamHead) -> Lineage:
        if head.lineage is None:
            head.lineage = Lineage(self.turns(head.stream.number))
        return head.lineage

    def _forget(self, head: StreamHead, seqs: Sequence[int]) -> None:
        out = {head.stream.number << SEQ_BITS | seq for seq in seqs}
        self.forgotten += sorted(out)
        for name, (position, kind, id_, time_ms, _, hash_, seal) in self.names.items():
            if position in out:
                self.names[name] = (position, kind, id_, time_ms, None, hash_, seal)


def duplicate_of(row: Row) -> EventLocation:
    """What a retry of a stored event is told."""
    position, forgotten = row[0], row[4] is None
    return EventLocation(position >> SEQ_BITS, position & SEQ_MAX, duplicate=True, forgotten=forgotten)


def _again(known: Row, draft: Draft) -> EventLocation:
    """The answer to a draft whose id is taken: the same event's place, or a conflict."""
    if known[1] != draft.kind or not _is_same(known[4], draft):
        raise IdConflictError("the id was used for another event of this model; give this one an id of its own")
    return duplicate_of(known)


def _is_same(stored: bytes | None, draft: Draft) -> bool:
    """Whether a draft has the payload of a stored event, as far as that is still known."""
    if stored is None or stored == draft.payload:
        return True
    # Which bases a FORGET takes along depends on when it came.
    return draft.kind == Kind.FORGET and parse_forget(stored) == parse_forget(draft.payload)


def _is_feedback(head: StreamHead, seq: int) -> bool:
    return 0 < seq <= head.seq and head.lineage is not None and seq not in {t.seq for t in head.lineage.changes}


def draw_salts(drafts: Sequence[Draft], random: Callable[[int], bytes]) -> list[bytes]:
    """One salt for each draft, from one call for random bytes."""
    all_ = random(SALT_BYTES * len(drafts))
    return [all_[at : at + SALT_BYTES] for at in range(0, len(all_), SALT_BYTES)]


def find_names(drafts: Sequence[Draft], heads: Mapping[int, StreamHead]) -> set[tuple[str, bytes]]:
    """Every (model, id) that `AppendBatch.names` must know of: those of the drafts, and those that drafts forget."""
    models = {number: head.stream.model for number, head in heads.items()}
    names = {(models[draft.stream], draft.id) for draft in drafts if draft.stream in models}
    for draft in drafts:
        if draft.kind == FORGET and draft.stream in models:
            names.update((models[draft.stream], id_) for id_ in _ids_in(draft.payload))
    return names


def _ids_in(payload: bytes) -> tuple[bytes, ...]:
    """The ids that a FORGET names; none where it will be refused."""
    try:
        return parse_forget_ids(payload)
    except PayloadError:
        return ()
