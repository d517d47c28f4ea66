"""Pass the snapshots of learners on to replicas that fold nothing, while there are such replicas.

Any learner may replace the snapshot of a stream by a later one of its own; the log keeps the limit of bytes a second
(store/log/shared_snapshots.py), and each learner keeps it for itself too. A crash of the log's server loses them. So
each learner looks about once a second, even while nothing is learned.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from service.chain_errors import LogEndsEarlierError
from service.errors import LogDamagedError, LogError, LogUnsafeError, SnapshotError
from service.learn.stream_learner import StreamLearner
from service.log_events import logger
from service.store.artifact.mapped_artifact import BASE
from service.store.directory.data_directory import StreamFolder
from service.store.log.events import Position
from service.store.log.feedback_log import FeedbackLog
from service.store.log.shared_snapshots import REST_SECONDS, SharedSnapshot, rest_seconds
from service.store.states.snapshots import Fields, read_fields
from service.store.states.state_positions import contains_position

# Between two looks at a stream that has nothing new.
LOOK_SECONDS: Final = 1.0
# The fields of the first base of a stream, which follows from its artifact.
FIRST_BASE: Final = {"seq": 0}


class SendingTimes:
    """The times of one stream: of the next look at it, and of its next snapshot, on one monotonic clock in seconds."""

    def __init__(self) -> None:
        self.seq = -1
        self._send_due = self._look_due = 0.0

    def is_due(self, now: float, seq: int) -> bool:
        """Return whether to look, given the seq of the newest snapshot."""
        return now >= (self._look_due if seq == self.seq else self._send_due)

    def note_look(self, now: float, seq: int) -> None:
        """Note that all is done that can be done for a snapshot now."""
        self.seq = seq
        self._look_due = now + LOOK_SECONDS
        self.note_rest(now)

    def note_sent(self, now: float, size: int) -> None:
        """Note that so many bytes were sent up to now."""
        self._send_due = now + rest_seconds(size)

    def note_rest(self, now: float) -> None:
        """Note that the stream rests, as it does after each look."""
        self._send_due = max(self._send_due, now + REST_SECONDS)


class SnapshotSender:
    """Sends the snapshots of all streams.

    Args:
        log: The log, which may be shared.
        clock: Returns the time, in seconds of a monotonic clock.
    """

    def __init__(self, log: FeedbackLog, clock: Callable[[], float] = time.monotonic) -> None:
        self._log: Final = log
        self._clock: Final = clock
        self._times: dict[int, SendingTimes] = {}
        self._is_reported = False

    def send_due(self, learners: Mapping[int, StreamLearner]) -> None:
        """Send the snapshots that are due. While the log cannot be used nothing is sent, and the next call tries again.

        Args:
            learners: The learner of each stream, by its number.
        """
        snapshots, now = self._log.snapshots, self._clock()
        if snapshots is None:
            return
        due = {
            number: learner
            for number, learner in learners.items()
            if learner.publisher.published_seq > 0 and learner.diverged is None
            if self._times.setdefault(number, SendingTimes()).is_due(now, learner.publisher.published_seq)
        }
        if not due:
            return
        try:
            present = {snapshot.stream: snapshot for snapshot in snapshots.list_snapshots()}
            for number, learner in due.items():
                with suppress(OSError, SnapshotError, LogDamagedError):  # the publisher has replaced the file, or will
                    self._send(learner, present.get(number))
        except LogUnsafeError as error:
            self._report(str(error))
        except LogError:
            return

    def _send(self, learner: StreamLearner, present: SharedSnapshot | None) -> None:
        """Send the snapshot of a stream unless the one that is there is as late."""
        assert self._log.snapshots is not None  # noqa: S101  # as the caller has checked
        folder, seq = learner.follower.folder, learner.publisher.published_seq
        number, times = learner.stream.number, self._times[learner.stream.number]
        path = folder.snapshots / str(seq)
        fields = read_fields(path)
        position = Position(seq, bytes.fromhex(fields["hash"]))
        lost = None if present is None else self._find_lost(learner, present.position, position)
        if present is not None and present.position.seq >= seq and lost is None:
            times.note_look(self._clock(), seq)
            return
        content = path.read_bytes()
        snapshot = SharedSnapshot(
            number, position, int(fields["epoch"]), hashlib.sha256(content).digest(), _base_to_send(folder, fields)
        )
        size = len(content)
        try:
            size = self._log.snapshots.replace(snapshot, content, (folder.bases / snapshot.base).read_bytes, lost)
        finally:
            if size:
                times.note_sent(self._clock(), size)
        if size:
            times.note_look(self._clock(), seq)
        else:
            times.note_rest(self._clock())

    def _find_lost(self, learner: StreamLearner, present: Position, own: Position) -> Position | None:
        """Return the position of the snapshot that is there if the log has lost it, as after a failover."""
        if present.seq < own.seq or present == own:
            return None
        try:
            is_there = contains_position(self._log, learner.stream, present)
        except LogEndsEarlierError:
            is_there = False
        return None if is_there else present

    def _report(self, reason: str) -> None:
        if not self._is_reported:
            self._is_reported = True
            logger.event("snapshots_not_sent", reason=reason)


def _base_to_send(folder: StreamFolder, fields: Fields) -> str:
    """Return the name of the base that a snapshot names; "" without one, or for one that follows from the artifact."""
    name = str(fields.get(BASE, ""))
    return "" if not name or read_fields(folder.bases / name) == FIRST_BASE else name
