"""One stream's learner: what it does in a turn, and how long it is let alone where that failed."""

import logging
import time
from collections.abc import Sequence
from typing import Any, Final

from service.errors import LogUnavailableError, SoftstepError
from service.learn.failure_tracker import FailureTracker
from service.learn.fold_upgrade import take_over
from service.learn.follow import Follower
from service.learn.publish import Publisher
from service.process.wakeup import Wakeup
from service.settings import Settings
from service.store.artifact.artifact import read_artifact
from service.store.directory.data_directory import StreamFolder
from service.store.log.events import Stream
from service.store.log.sqlite import SqliteLog
from service.store.states.losses import LossWriter
from service.store.states.snapshots import delete_temporary_files
from service.store.states.status import read_status, write_status

logger = logging.getLogger("softstep.learner")

# A batch is as many events as are folded in about this time, so that what is published is never much older.
BATCH_SECONDS: Final = 0.005
BATCH_EVENTS_MAX: Final = 4096
# After so long without an event what was folded is kept in a checkpoint.
IDLE_SECONDS: Final = 5.0
# A stream whose turn failed is let alone for so long, and for twice as long each time that it fails again.
HOLD_SECONDS: Final = 0.1
HOLD_SECONDS_MAX: Final = 5.0


class RetryDelay:
    """Why a stream is let alone, and until when; all times are of one monotonic clock, in seconds.

    Attributes:
        reason: Why it was held up last, without a path or a name; None where its last turn went well.
        due: When it has its next turn.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self.due = 0.0
        self._seconds = 0.0

    def begin(self, reason: str, now: float) -> None:
        """Let it alone for a while, longer than the last time."""
        self.reason = reason
        self._seconds = min(max(2 * self._seconds, HOLD_SECONDS), HOLD_SECONDS_MAX)
        self.due = now + self._seconds

    def end(self) -> None:
        """It goes on."""
        self.reason, self._seconds = None, 0.0


class StreamLearner:
    """One stream's learner: follower, publisher and losses.

    Args:
        stream: The stream.
        log: Where its events are.
        folder: Where everything else of it is.
        settings: The limits.
        failures: What knows which events are not to be folded.

    Raises:
        SoftstepError: The stream cannot be followed; the message says why.
        OSError: The disk refuses.
    """

    def __init__(
        self, stream: Stream, log: SqliteLog, folder: StreamFolder, settings: Settings, failures: FailureTracker
    ) -> None:
        self.stream: Final = stream
        self._log: Final = log
        self._failures: Final = failures
        self._stalled_at: int | None = None
        delete_temporary_files(folder.snapshots)
        delete_temporary_files(folder.checkpoints)
        artifact = read_artifact(folder.artifact, settings.artifact_bytes_max)
        seq = take_over(stream, artifact, log, folder.checkpoints, time.time_ns() // 1_000_000)
        if seq is not None:
            logger.warning("%s/%d goes on by a new fold, from its state at %d", stream.model, stream.version, seq)
        self.follower: Final = Follower(stream, artifact, log, folder)
        self.publisher: Final = Publisher(self.follower, settings.checkpoint_bytes_max)
        self._losses: Final = LossWriter(folder.path / "losses")
        self._seconds = BATCH_SECONDS / 64  # of folding one event, as it went lately
        self._worked_at = time.monotonic()

    def work(self) -> bool:
        """Fold the next events; returns whether more may wait. Whoever sees it fail begins with another student."""
        number, follower = self.stream.number, self.follower
        limit = max(1, min(BATCH_EVENTS_MAX, int(BATCH_SECONDS / self._seconds)))
        limit = self._failures.batch_limit(number, follower.read_after, limit)
        events = follower.read_next(limit)
        if not events:
            return False
        first = events[0].seq
        self._stalled_at = None
        if self._failures.is_fatal(number, first) and first not in follower.excluded:
            if follower.bypass(first):
                return True
            self._stalled_at = first
            return False
        self._failures.start_batch(number, first, len(events))
        began = time.monotonic()
        scored = follower.fold_batch(events)
        self._worked_at = time.monotonic()
        self._failures.finish_batch()
        taken = self._worked_at - began
        self._seconds += (taken / len(events) - self._seconds) / 8
        self.publisher.add_fold_seconds(taken)
        for one in scored:
            self._losses.write_losses(one.seqs, one.losses)
        return len(events) == limit or follower.read_after < events[-1].seq or follower.is_refolding

    def give(self, bells: Sequence[Wakeup]) -> None:
        """Publish, keep, erase and tell what is due.

        Raises:
            SoftstepError: What was forgotten cannot be erased from the log now.
            OSError: The disk refuses.
        """
        now = time.monotonic()
        if self.publisher.is_due(now):
            self.publisher.publish_snapshot(now, time.process_time)
            for bell in bells:
                bell.notify()
        self.publisher.write_checkpoint_if_due(idle=now - self._worked_at >= IDLE_SECONDS)
        if self.publisher.needs_erasure:
            self._erase()
        self.publisher.report_status(now, self._stall)

    @property
    def _stall(self) -> dict[str, Any] | None:
        if self._stalled_at is None:
            return None
        reason = "the fold failed at this event again and again; skip it, or roll back to before it"
        return {"state": "stalled", "reason": reason, "seq": self._stalled_at}

    def _erase(self) -> None:
        self.publisher.erase_forgotten()
        self._losses.erase_events(self.follower.lineage.forgotten)
        try:
            self._log.empty_wal()
        except LogUnavailableError as error:  # a long read of it, which holds up nobody else
            raise SoftstepError("what was forgotten cannot be erased from the log while somebody reads it") from error
        self.publisher.mark_erased()


def write_held_status(folder: StreamFolder, reason: str) -> None:
    """Write that a stream without a student is held up.

    Raises:
        OSError: The disk refuses.
    """
    erased = read_status(folder.path).get("erased_epoch", 0)
    write_status(folder.path, {"state": "held", "reason": reason, "erased_epoch": erased})
