"""Read the events of one stream so that all of them belong to one chain, also if the log forks between two reads.

A log that forks has other events after some seq than it had before. Each read here is followed by a look whether the
log still has the furthest event that this object depends on. If it has, all events up to there are those of before.

An event whose payload is missing was forgotten by a later one. That one is read too, because a log that forks between
the two has the payload again.
"""

from collections.abc import Sequence
from typing import Final

from service.chain_errors import LogForkedError
from service.errors import LogDamagedError
from service.store.log.events import Event, Kind, Position, Stream
from service.store.log.feedback_log import FeedbackLog, read_position
from service.store.log.lineage import lineage_change
from service.store.states.state_positions import contains_position


class FollowedChain:
    """The chain of one stream that a fold follows.

    All methods raise LogForkedError if the log has another event where one was read, LogEndsEarlierError if it ends
    before one, and LogDamagedError if an event is missing or altered.

    Args:
        stream: The stream.
        log: The log that holds its events.

    Attributes:
        heeded: The last admin event that was read: a state may heed it before it is folded.
    """

    def __init__(self, stream: Stream, log: FeedbackLog) -> None:
        self.heeded = Position(0, stream.genesis)
        self._forgotten: set[int] = set()  # by the admin events that were read
        self._stream: Final = stream
        self._log: Final = log

    def read_admin(self, position: Position | None = None) -> list[Event]:
        """Return all admin events; they belong to the chain of a position and of those that were read before."""
        admin = self._log.read_admin_events(self._stream.number)
        self.check(self.heeded)
        if position is not None:
            self.check(position)
        for change in map(lineage_change, admin):
            if change.kind == Kind.FORGET:
                self._forgotten.update(change.excluded, change.bases, change.corrections)
        if admin:
            self.heeded = max(self.heeded, Position(admin[-1].seq, admin[-1].hash))
        return admin

    def read_after(self, position: Position, limit: int) -> list[Event]:
        """Return at most `limit` events after a position."""
        events = self._log.read_checked(self._stream.number, position, limit)
        if self.heeded.seq > position.seq:
            self.check(self.heeded)
        self.heed_forgets(events)
        return events

    def read_again(self, after: int, limit: int, target: Position) -> list[Event]:
        """Return at least one and at most `limit` events after a seq, on the way to a position that was read before."""
        since = read_position(self._log, self._stream, after)
        events = [] if since is None else self._log.read_checked(self._stream.number, since, limit)
        self.check(max(target, self.heeded))
        if not events:
            raise LogDamagedError(f"event {after + 1} of the feedback log is missing")
        self.heed_forgets(events)
        return events

    def heed_forgets(self, events: Sequence[Event]) -> None:
        """Read the admin events again if one that was not read has forgotten some of these events."""
        missing = {event.seq for event in events if event.payload is None}
        if not missing <= self._forgotten:
            self.read_admin(Position(events[-1].seq, events[-1].hash))
            if not missing <= self._forgotten:
                raise LogForkedError(f"the feedback log has event {min(missing - self._forgotten)} again")

    def check(self, position: Position) -> None:
        """Check that the log has a position."""
        if not contains_position(self._log, self._stream, position):
            raise LogForkedError(f"the feedback log has another event {position.seq} than the one that was read before")
