"""The removal of stored events from the state: which kind of event has removed an event, and the error for it.

    FORGET      feedback was forgotten, and its corrections with it; the payloads are gone, and the ids stay used
    SKIP        feedback could not be learned, and was left out
    ROLLBACK    a later rollback went back to a state before the event

Forgetting and skipping are for good. A rolled-back event is part of the state again after a rollback to a seq from
its own on. FORGET, SKIP and BASE events hold whatever is rolled back, so nothing removes them.
"""

from typing import Final

from service.errors import EventForgottenError, EventRolledBackError, EventSkippedError, RefusedError
from service.store.log.events import Kind
from service.store.log.lineage import Lineage

PERMANENT: Final = frozenset((Kind.FORGET, Kind.SKIP, Kind.BASE))


def removed_by(lineage: Lineage, last: int, seq: int, kind: int, *, is_erased: bool) -> Kind | None:
    """Return the kind of event that has removed an event from the state, or None if the state is made of it.

    Args:
        lineage: The lineage of the stream.
        last: The last seq of the stream.
        seq: The event's seq.
        kind: The event's kind.
        is_erased: Whether its payload is deleted.
    """
    if kind in PERMANENT:
        return None
    if is_erased:
        return Kind.FORGET
    if seq in lineage.skipped:
        return Kind.SKIP
    return Kind.ROLLBACK if lineage.is_undone(last, seq) else None


def removal_error(removal: Kind) -> RefusedError:
    """Return the error of a request whose event was removed by an event of this kind."""
    if removal == Kind.FORGET:
        return EventForgottenError("the event was forgotten; send its rows as a new event, with another id")
    if removal == Kind.SKIP:
        return EventSkippedError("the event was skipped; send its rows as a new event, with another id")
    return EventRolledBackError("a rollback has undone the event; send it again with another id")
