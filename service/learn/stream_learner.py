"""Learn one stream: fold its next events and write what is due."""

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from service.errors import LogUnavailableError, LogUnsafeError, OutcomeUnknownError, SoftstepError
from service.learn.failure_tracker import FailureTracker
from service.learn.fold_upgrade import check_taken_over, take_over
from service.learn.follow import Follower
from service.learn.log_erasure import LogErasure
from service.learn.publish import Publisher
from service.learn.shared_artifact import bind_shared_artifact
from service.learn.state_exchange import StateDivergedError, StateExchange, delete_states_of
from service.log_events import logger
from service.process.wakeup import Wakeup
from service.settings import Settings
from service.store.artifact.artifact import read_artifact
from service.store.directory.data_directory import StreamFolder
from service.store.log.events import Kind, Stream
from service.store.log.feedback_log import FeedbackLog
from service.store.states.losses import LossWriter
from service.store.states.state_folder import delete_temporary_files
from service.store.states.status import read_status, write_status

# A batch has as many events as are folded in about this time, so that a snapshot is never much older.
BATCH_SECONDS: Final = 0.005
BATCH_EVENTS_MAX: Final = 4096


class StreamLearner:
    """The follower, the publisher and the losses of one stream.

    Args:
        stream: The stream.
        log: The log that holds its events.
        folder: The folder of its other files.
        settings: The limits.
        failures: The events that the fold failed at.
        erasure: Removes forgotten events from the log.
        diverged: The event at which the state of this replica differed from that of others, or None.

    Attributes:
        diverged: The same, until the state is that of the others.
        is_whole: Whether the state is one of the stream: an exception during a fold may leave half an event in it.

    Raises:
        SoftstepError: The stream cannot be followed; the message says why.
        OSError: The disk failed.
    """

    def __init__(
        self,
        stream: Stream,
        log: FeedbackLog,
        folder: StreamFolder,
        settings: Settings,
        failures: FailureTracker,
        *,
        erasure: LogErasure,
        diverged: int | None = None,
    ) -> None:
        self.stream: Final = stream
        self._log: Final = log
        self._failures: Final = failures
        self._stalled_seq: int | None = None
        delete_temporary_files(folder.snapshots)
        delete_temporary_files(folder.checkpoints)
        self.is_whole = True
        if log.files is not None:
            bind_shared_artifact(stream, log.files, folder, settings)
        self.diverged = diverged
        self._exchange: Final = StateExchange(stream, log, folder.checkpoints)
        if diverged is None:
            self._exchange.fetch()
        else:
            delete_states_of(folder)
        artifact = read_artifact(folder.artifact, settings.artifact_bytes_max)
        seq = take_over(stream, artifact, log, folder.checkpoints, time.time_ns() // 1_000_000)
        if seq is not None:
            logger.event("fold_upgraded", model=stream.model, version=stream.version, seq=seq)
        self.follower: Final = Follower(stream, artifact, log, folder)
        check_taken_over(stream, artifact, self.follower.lineage)
        self.publisher: Final = Publisher(self.follower, settings.checkpoint_bytes_max)
        if log.facts is not None:
            self.publisher.erased_elsewhere = 0  # until the other replicas say what they have
        self._erasure: Final = erasure
        self._erasing: Final[dict[int, int]] = {}  # the run that erases what was forgotten up to each epoch
        self._losses: Final = LossWriter(folder.path / "losses")
        self._event_seconds = BATCH_SECONDS / 64  # of folding one event, a moving average
        self._last_fold = time.monotonic()
        self._is_behind = False

    def fold_next(self) -> bool:
        """Fold the next events; return whether more may wait.

        Raises:
            LogForkedError: The log has other events; make a new learner.
            LogError: The log cannot be used now; unless `is_whole` is false, call this again later.
            Exception: Any other one; make a new learner.
        """
        number, follower = self.stream.number, self.follower
        limit = max(1, min(BATCH_EVENTS_MAX, int(BATCH_SECONDS / self._event_seconds)))
        limit = self._failures.batch_limit(number, follower.read_after, limit)
        keyframe = self.publisher.next_keyframe
        if not follower.is_refolding:
            limit = min(limit, keyframe - follower.seq, self._exchange.events_until_due(follower.seq))
        was_refolding = follower.is_refolding
        events = follower.read_next(limit)
        if not events:
            self._is_behind = False
            return False
        first = events[0].seq
        previous, self._stalled_seq = self._stalled_seq, None
        is_correction = events[0].kind == Kind.CORRECT
        cause = follower.cause_of(first)
        if self._failures.is_fatal(number, cause) and first not in follower.excluded and not is_correction:
            if follower.bypass(first):
                return True
            self._stalled_seq = first
            if first != previous:
                logger.event("learning_stalled", model=self.stream.model, version=self.stream.version, seq=first)
            return False
        self._failures.start_batch(number, cause, len(events))
        start = time.monotonic()
        self.is_whole = False
        losses = follower.fold_batch(events)
        self.is_whole = True
        self._last_fold = time.monotonic()
        if is_correction:  # a fault of its labels shows when its event is folded
            self._failures.discard_batch()
        else:
            self._failures.finish_batch()
        seconds = self._last_fold - start
        self._event_seconds += (seconds / len(events) - self._event_seconds) / 8
        self.publisher.checkpoints.add_fold_seconds(seconds)
        self.publisher.write_keyframe_if_due(keyframe)
        if self._exchange.is_due(follower.seq) and not follower.is_refolding:
            self.publisher.write_checkpoint_if_due(idle=True)
            self._exchange.add(follower.seq)
        for rows in losses:
            self._losses.write_losses(*rows)
        is_folded = follower.read_after >= events[-1].seq and not follower.is_refolding
        # After a refolding there may be events that it did not read.
        self._is_behind = len(events) == limit or was_refolding or not is_folded
        return self._is_behind

    def write_due(self, workers: Sequence[Wakeup]) -> None:
        """Publish, checkpoint, erase and report what is due; wake the workers after publishing.

        Raises:
            StateDivergedError: The state differs from that of other replicas.
            SoftstepError: Forgotten events cannot be erased from the log now.
            OSError: The disk failed.
        """
        now = time.monotonic()
        self._compare_states()
        if self.publisher.is_due(now):
            self._publish(now, workers)
        self.publisher.write_report_if_due(now, time.process_time)
        self.publisher.write_checkpoint_if_due(idle=self.publisher.checkpoints.is_idle(now - self._last_fold))
        if self.publisher.needs_erasure and self.follower.epoch not in self._erasing:
            self._erase_forgotten()
        self._note_erased()
        self.publisher.report_status(now, self._trouble)

    def write_last(self, workers: Sequence[Wakeup]) -> None:
        """Publish what is folded, and write it to a checkpoint: this release cannot fold the next event.

        Raises:
            OSError: The disk failed.
        """
        if self.publisher.has_new_state:
            self._publish(time.monotonic(), workers)
        self.publisher.write_checkpoint_if_due(idle=True)

    def _publish(self, now: float, workers: Sequence[Wakeup]) -> None:
        self.publisher.publish_snapshot(now, time.process_time, is_behind=self._is_behind)
        for worker in workers:
            worker.notify()

    def _compare_states(self) -> None:
        is_compared = self._exchange.compare()
        if self.diverged is not None and is_compared and not self.follower.is_refolding:
            self.diverged = self.diverged if self.follower.seq < self.diverged else None

    @property
    def is_stalled(self) -> bool:
        """Whether the fold has failed too often at the next event."""
        return self._stalled_seq is not None

    @property
    def _trouble(self) -> dict[str, Any] | None:
        if self._stalled_seq is None:
            return None if self.diverged is None else StateDivergedError(self.diverged).status
        reason = "the fold failed at this event several times; skip it, or roll back to before it"
        return {"state": "stalled", "reason": reason, "seq": self._stalled_seq}

    def _erase_forgotten(self) -> None:
        """Erase the forgotten events from the files of this stream, and have the log do the same."""
        self.publisher.erase_forgotten()
        self._losses.erase_events(self.follower.lineage.forgotten)
        epoch = self.follower.epoch
        try:
            if self._log.states is not None:
                self._log.states.drop_before(self.stream.number, epoch)
            if self._log.snapshots is not None:
                with suppress(LogUnsafeError):  # an earlier release made the tables
                    self._log.snapshots.drop_before(self.stream.number, epoch)
            self._erasing[epoch] = self._erasure.request()
        except (LogUnavailableError, OutcomeUnknownError) as error:  # a long read, which concerns this stream alone
            raise SoftstepError("another process reads the log; forgotten events are erased once it ends") from error

    def _note_erased(self) -> None:
        """Note what the log has erased since it was asked."""
        for epoch, run in list(self._erasing.items()):
            if self._erasure.is_done(run):
                self.publisher.mark_erased(epoch)
                del self._erasing[epoch]


def report_held(folder: StreamFolder, reason: str) -> None:
    """Write the status "held" for a stream that has no learner.

    Raises:
        OSError: The disk failed.
    """
    erased = read_status(folder.path).get("erased_epoch", 0)
    write_status(folder.path, {"state": "held", "reason": reason, "erased_epoch": erased})
