"""Summaries of stored events for people: what each event is, without its features.

    feedback    rows, and the label if it has one row: of a distribution the likeliest class, the first of equals
    correct     the same of the new labels
    others      the content of their payloads

The label of feedback is that of the last correction that counts. A forgotten event keeps its seq, kind, id, time and
actor alone. A label is the index of a class, as in a confusion matrix.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from struct import Struct
from typing import Any, Final, NamedTuple

import numpy as np

from service.errors import PayloadError
from service.store.log.admin_payloads import parse
from service.store.log.correction_payload import HEAD as CORRECTION_HEAD
from service.store.log.correction_payload import correct_payload, parse_correction
from service.store.log.events import EventPreview, Kind
from service.store.log.feedback_blocks import decode_rows
from service.store.log.feedback_log import FeedbackLog
from service.store.log.feedback_payload import HEAD as FEEDBACK_HEAD
from service.store.log.feedback_payload import Layout, Targets
from service.store.log.lineage import SEQ_OF, Lineage, LineageChange
from service.store.log.removals import removal_error, removed_by

# The place of the number of rows among the fields of the heads of both payloads.
ROWS_FIELD: Final = 4
# Admin events whose content is in the lineage already; their payloads can be long.
LONG_KINDS: Final = frozenset((Kind.FORGET, Kind.BASE))


class EventSummary(NamedTuple):
    """An event without its features.

    Attributes:
        seq: Its seq.
        kind: Its kind.
        id: Its id as text.
        time_ms: When it was stored, in milliseconds since 1970.
        actor: Who sent it, or None.
        removed: Why the state is not made of it: the code of the error of a retry, or None.
        rows: Rows of FEEDBACK or CORRECT; None for other kinds, and if it was forgotten.
        label: The label of its only row, or None.
        detail: The content of an admin event; None for FEEDBACK, and if it was forgotten or is too long.
    """

    seq: int
    kind: Kind
    id: str
    time_ms: int
    actor: str | None
    removed: str | None
    rows: int | None
    label: int | None
    detail: Mapping[str, object] | None


def summarize_before(
    log: FeedbackLog, stream: int, before: int, limit: int, *, admin_only: bool = False
) -> list[EventSummary]:
    """Return summaries of the events before a seq, newest first.

    Args:
        log: The log.
        stream: The stream's number.
        before: The seq before which they are.
        limit: How many at most.
        admin_only: Whether to leave out FEEDBACK.
    """
    return _summarize(log, stream, log.read_previews(stream, before, limit, admin_only=admin_only))


def summarize_seqs(log: FeedbackLog, stream: int, seqs: Iterable[int]) -> dict[int, EventSummary]:
    """Return summaries of the events with these seqs that exist, by seq."""
    found = {one.seq: one for seq in set(seqs) for one in log.read_previews(stream, seq + 1, 1) if one.seq == seq}
    return {one.seq: one for one in _summarize(log, stream, list(found.values()))}


def forgotten_stretches(lineage: Lineage, limit: int) -> list[tuple[int, int]]:
    """Return the first and the last seq of each stretch of forgotten feedback, ascending; at most the last `limit`."""
    if not lineage.forgotten:
        return []
    seqs = np.sort(np.fromiter(lineage.forgotten, np.int64, len(lineage.forgotten)))
    ends = np.flatnonzero(np.diff(seqs, append=seqs[-1] + 2) > 1)
    starts = np.concatenate(([0], ends[:-1] + 1))
    return list(zip(seqs[starts[-limit:]].tolist(), seqs[ends[-limit:]].tolist(), strict=True))


def _summarize(log: FeedbackLog, stream: int, previews: Sequence[EventPreview]) -> list[EventSummary]:
    if not previews:
        return []
    last, lineage = log.stream_state(stream).seq, log.current_lineage(stream)
    corrections = lineage.corrections(last, {one.seq for one in previews})
    return [_summary(log, stream, one, lineage, last, corrections.get(one.seq)) for one in previews]


def _summary(  # noqa: PLR0917  # what a summary depends on
    log: FeedbackLog, stream: int, event: EventPreview, lineage: Lineage, last: int, correction: int | None
) -> EventSummary:
    kind, is_erased = Kind(event.kind), event.size is None
    removal = removed_by(lineage, last, event.seq, kind, is_erased=is_erased)
    rows: int | None = None
    label: int | None = None
    detail: Mapping[str, object] | None = None
    if kind == Kind.FEEDBACK:
        for one in [] if correction is None else log.read_previews(stream, correction + 1, 1):
            event = event._replace(payload=correct_payload(event.payload, one.payload))
        rows, label = _rows(event, FEEDBACK_HEAD), _label(event)
    elif kind == Kind.CORRECT:
        target = _change(lineage, event.seq)
        rows, label = _rows(event, CORRECTION_HEAD), _label(event)
        detail = None if is_erased or target is None else {"seq": target.target}
    elif not is_erased:
        detail = _detail(event, lineage)
    return EventSummary(
        event.seq,
        kind,
        event.id.decode(errors="backslashreplace"),
        event.time_ms,
        event.actor.decode(errors="backslashreplace") or None,
        None if removal is None else removal_error(removal).code,
        rows,
        label,
        detail,
    )


def _rows(event: EventPreview, head: Struct) -> int | None:
    """Return the number of rows of FEEDBACK or CORRECT; None if it was forgotten."""
    return head.unpack_from(event.payload)[ROWS_FIELD] if len(event.payload) >= head.size else None


def _label(event: EventPreview) -> int | None:
    """Return the label of the only row of FEEDBACK or CORRECT; None for several rows, a set, or a long payload."""
    try:
        if event.kind == Kind.CORRECT:
            _, layout, data = parse_correction(event.payload)
            return _only_label(layout, np.frombuffer(data, layout.target_dtype))
        if _rows(event, FEEDBACK_HEAD) != 1:
            return None  # before the features are copied
        block = decode_rows(event.payload)
    except PayloadError:  # it was forgotten, or is long and only its start is known
        return None
    return _only_label(block.layout, block.targets)


def _only_label(layout: Layout, targets: Any) -> int | None:  # noqa: ANN401  # an array of one of several dtypes
    if layout.rows > 1 or layout.targets == Targets.SET:
        return None
    return int(targets[0] if layout.targets == Targets.INDEX else np.argmax(targets))


def _detail(event: EventPreview, lineage: Lineage) -> Mapping[str, object] | None:
    """Return the content of an admin event."""
    if event.kind in LONG_KINDS:
        change = _change(lineage, event.seq)
        if change is None:
            return None
        if event.kind == Kind.FORGET:
            return {"count": len(change.excluded)}
        return {"seq": change.target, "fold": change.fold}
    return parse(event.payload) if len(event.payload) == event.size else None


def _change(lineage: Lineage, seq: int) -> LineageChange | None:
    at = bisect_left(lineage.changes, seq, key=SEQ_OF)
    return lineage.changes[at] if at < len(lineage.changes) and lineage.changes[at].seq == seq else None
