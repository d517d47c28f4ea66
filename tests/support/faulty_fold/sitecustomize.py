"""With this folder on PYTHONPATH the fold of a service fails at certain events, as a fault in a kernel might.

id           what folding the event does
deadly…      kills the process with SIGKILL
broken…      raises an error, with half of a batch folded
slow…        takes a tenth of a second
"""

import os
import signal
import time
from collections.abc import Iterable

from service.learn.event_fold import EventFold, RowLosses
from service.store.log.events import Event

fold_events = EventFold.fold_events


def fold_or_fail(self: EventFold, events: Iterable[Event]) -> list[RowLosses]:
    """Fold events up to one that fails."""
    losses = []
    for event in events:
        if event.id.startswith(b"deadly"):
            os.kill(os.getpid(), signal.SIGKILL)
        if event.id.startswith(b"broken"):
            raise RuntimeError("a fault of the fold")
        if event.id.startswith(b"slow"):
            time.sleep(0.1)
        losses += fold_events(self, [event])
    return losses


EventFold.fold_events = fold_or_fail  # type: ignore[method-assign]
