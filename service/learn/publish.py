"""Publish what one stream's learner has folded: snapshots, checkpoints and status.

    snapshot     what workers serve; as often as it is cheap, so that writing costs a few percent of a core. That of a
                 sparse model has what has changed since a base (sparse_bases.py)
    checkpoint   what a restart or a refolding continues from; after enough folding, and when idle
    status       how the learning stands (store/states/status.py)
    report       how rows were answered (store/states/report.py); about twice a second
    keyframe     a state of the past (keyframes.py); at each seq that is due

The clock decides when something is written; the events alone decide what is written.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from service.learn.checkpoint_schedule import CheckpointSchedule
from service.learn.event_fold import Contents, EventFold
from service.learn.follow import Follower
from service.learn.keyframes import Keyframes
from service.learn.sparse_bases import SparseBases
from service.softmax.calibration import Calibration
from service.store.artifact.calibration_record import describe_calibration
from service.store.artifact.hashing import hash_tensors
from service.store.artifact.mapped_artifact import BASE
from service.store.log.events import SEQ_MAX
from service.store.states.checkpoints import thin_checkpoints
from service.store.states.report import write_report
from service.store.states.snapshots import write_snapshot
from service.store.states.state_folder import SNAPSHOTS_KEPT, delete_states, list_seqs
from service.store.states.status import read_status, write_status

# Shortest pause between two snapshots, and its length in multiples of the time that the last one took.
PUBLISH_SECONDS: Final = 0.01
PUBLISH_PAUSE: Final = 25
# The same for a sparse model while no event waits to be folded. Its snapshots are large, and a longer pause would save
# time that the fold does not need. With 2, workers read so many of them that events are served later.
CAUGHT_UP_PAUSE: Final = 3
# The same if so few events came since the last snapshot that nothing else needs the time: their senders wait for them.
FEW_EVENTS: Final = 16
FEW_EVENTS_PAUSE: Final = 8
STATUS_SECONDS: Final = 0.25
# The same as for snapshots; a report is for people.
REPORT_SECONDS: Final = 0.5
REPORT_PAUSE: Final = 200


def snapshot_contents(fold: EventFold, position_fields: Mapping[str, Any]) -> Contents:
    """Return the fields and arrays of a snapshot: what a fold serves, and its position in the stream."""
    served = fold.state.served_parameters()
    fields = {**position_fields, "clips": served.clips(), "weights_sha256": hash_tensors(served.tensors())}
    return fields | _describe_state(fold, served.calibration), dict(served.arrays())


def _describe_state(fold: EventFold, calibration: Calibration | None) -> dict[str, Any]:
    """Return the fields of what a fold serves, given the calibration that is served."""
    state, manifest = fold.state, fold.artifact.manifest
    return {
        "head": manifest.head,
        "classes": fold.classes,
        "learning": {**state.rule_settings, "paused": state.paused, "shadow": state.shadow},
        "calibration": describe_calibration(manifest.calibration, calibration),
        "progressive": fold.progressive_validation,
    }


class Publisher:
    """Writes the files of one stream's learner. All times are of one monotonic clock, in seconds.

    Args:
        follower: The follower of the stream.
        checkpoint_bytes_max: Bytes that the stream's checkpoints may have together.
        clock: The clock.

    Attributes:
        checkpoints: When checkpoints are due.
        erased_elsewhere: The number of FORGET events whose rows are in no file of any other replica.
    """

    def __init__(
        self, follower: Follower, checkpoint_bytes_max: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._follower: Final = follower
        self._folder: Final = follower.folder
        self._bytes_max: Final = checkpoint_bytes_max
        self._published_seq = -1
        self._bases: Final = SparseBases(self._folder, follower.artifact) if follower.artifact.has_sparse_rows else None
        self._snapshots = deque(list_seqs(self._folder.snapshots))
        self._publish_due = 0.0
        newest = max(list_seqs(self._folder.checkpoints), default=0)
        self.checkpoints: Final = CheckpointSchedule(newest, clock, self._count_saved_rows)
        self._status = read_status(self._folder.path)
        self._erased_epoch = int(self._status.get("erased_epoch", 0))
        self._erased_ms = self._status.get("erased_ms")
        self._status_due = 0.0
        self.erased_elsewhere = SEQ_MAX
        self._keyframes: Final = Keyframes(self._folder.keyframes, follower.seq)
        self._reported_seq = -1
        self._report_due = 0.0

    def is_due(self, now: float) -> bool:
        """Return whether there is a new state to serve, and the pause is over."""
        return self.has_new_state and now >= self._publish_due

    def seconds_until_due(self, now: float) -> float | None:
        """Return the seconds until a snapshot or report is due if no event comes; None if there is nothing to write."""
        due = [self._publish_due] if self.has_new_state else []
        due += [self._report_due] if self._has_new_history else []
        return max(0.0, min(due) - now) if due else None

    @property
    def published_seq(self) -> int:
        """The seq of the last snapshot; -1 before the first one of this object."""
        return self._published_seq

    @property
    def has_new_state(self) -> bool:
        """Whether there is a state to serve that is not published."""
        follower = self._follower
        return follower.seq > 0 and follower.seq != self._published_seq and not follower.is_refolding

    @property
    def _has_new_history(self) -> bool:
        follower = self._follower
        return follower.seq > 0 and follower.seq != self._reported_seq and not follower.is_refolding

    @property
    def next_keyframe(self) -> int:
        """The seq up to which to fold before `write_keyframe_if_due` is called."""
        return self._keyframes.next_seq(self._follower.seq)

    def write_keyframe_if_due(self, seq: int) -> None:
        """Write a keyframe if the last event that is folded is the one at a seq that `next_keyframe` was."""
        follower = self._follower
        if follower.seq == seq and not follower.is_refolding:
            self._keyframes.write(seq, snapshot_contents(follower.fold, follower.position_fields()))

    def write_report_if_due(self, now: float, process_seconds: Callable[[], float]) -> None:
        """Write the report if it is due; the arguments are those of `publish_snapshot`.

        Raises:
            OSError: The disk failed; it is tried again later.
        """
        if self._has_new_history and now >= self._report_due:
            before = process_seconds()
            self._report_due = now + REPORT_SECONDS
            self._write_report()
            self._report_due = now + max(REPORT_SECONDS, REPORT_PAUSE * (process_seconds() - before))

    def _write_report(self) -> None:
        follower = self._follower
        report = follower.history.report(follower.position, follower.epoch, follower.fold.classes, self._keyframes.seqs)
        write_report(self._folder.report, report)
        self._reported_seq = follower.seq

    def publish_snapshot(self, now: float, process_seconds: Callable[[], float], *, is_behind: bool = False) -> None:
        """Write a snapshot of what is served now.

        Args:
            now: The time.
            process_seconds: Returns the processor time of the process. Not the clock's: on a busy
                machine a pause by the clock would make snapshots older without saving processor time.
            is_behind: Whether events wait to be folded.

        Raises:
            OSError: The disk failed; it is tried again later.
        """
        follower, before = self._follower, process_seconds()
        fields, arrays = self._served_contents()
        fields["published_ms"] = time.time_ns() // 1_000_000  # for people
        self._publish_due = now + PUBLISH_SECONDS
        write_snapshot(self._folder.snapshots, follower.seq, fields, arrays, durable=False)
        self._delete_old_snapshots(follower.seq)
        if self._bases is not None:
            self._bases.delete_unnamed()
        pause = self._pause(follower.seq - self._published_seq, is_behind=is_behind)
        self._published_seq = follower.seq
        self._publish_due = now + max(PUBLISH_SECONDS, pause * (process_seconds() - before))

    def _pause(self, events: int, *, is_behind: bool) -> int:
        """Return the pause after a snapshot with so many new events, in multiples of the time that it took."""
        if is_behind:
            return PUBLISH_PAUSE
        if self._bases is not None:
            return CAUGHT_UP_PAUSE
        return FEW_EVENTS_PAUSE if events < FEW_EVENTS else PUBLISH_PAUSE

    def _served_contents(self) -> Contents:
        """Return the fields and arrays of the next snapshot; those of a sparse model are what a base lacks."""
        fold, position = self._follower.fold, self._follower.position_fields()
        learner = fold.state.sparse_learner
        if learner is None or self._bases is None:
            return snapshot_contents(fold, position)
        name, arrays = self._bases.store_state(fold.state, learner, position)
        fields = {**position, "clips": {}, BASE: name}
        return fields | _describe_state(fold, fold.state.served_calibration), arrays

    def _delete_old_snapshots(self, seq: int) -> None:
        """Note a new snapshot and delete the oldest; the seqs are kept because listing the folder takes longer."""
        if seq not in self._snapshots:
            self._snapshots.append(seq)
        while len(self._snapshots) > SNAPSHOTS_KEPT:
            (self._folder.snapshots / str(self._snapshots.popleft())).unlink(missing_ok=True)

    def write_checkpoint_if_due(self, *, idle: bool) -> None:
        """Write a checkpoint if enough was folded since the last one, or if the learner is idle.

        Raises:
            OSError: The disk failed; it is tried again later.
        """
        follower = self._follower
        if follower.is_refolding or follower.seq == self.checkpoints.seq:
            return
        if idle or self.checkpoints.is_due(follower.seq):
            self.checkpoints.write(follower.seq, self._write_checkpoint)

    def _count_saved_rows(self) -> int:
        """Return how many rows of the weights a checkpoint of a sparse model has; 1 for others, which do not grow."""
        learner = self._follower.fold.state.sparse_learner
        return 1 if learner is None else learner.touched.count_rows()

    def _write_checkpoint(self) -> None:
        self._follower.write_checkpoint()
        thin_checkpoints(self._folder.checkpoints, self._bytes_max)

    @property
    def needs_erasure(self) -> bool:
        """Whether files may still hold events that were forgotten, and the state without them is published."""
        follower = self._follower
        is_published = follower.seq == self._published_seq and not follower.is_refolding
        return is_published and follower.epoch > self._erased_epoch

    def erase_forgotten(self) -> None:
        """Delete the files that hold forgotten events; call `mark_erased` once the log is rewritten too."""
        lineage, forgotten = self._follower.lineage, self._follower.lineage.forgotten
        for files in (
            self._folder.snapshots, self._folder.checkpoints, self._folder.history, self._folder.keyframes
        ):  # fmt: skip
            delete_states(files, self._follower.epoch, lambda seq: any(lineage.contains(seq, one) for one in forgotten))
        if self._bases is not None:
            self._bases.delete_unnamed()
        self._keyframes.note_deleted()
        self._write_report()
        # Unreadable files were deleted too. If the published one was among them, write it again.
        if self._published_seq not in list_seqs(self._folder.snapshots):
            self._published_seq = -1

    @property
    def erased_epoch(self) -> int:
        """The number of FORGET events whose rows are in no file of this replica."""
        return self._erased_epoch

    def mark_erased(self, epoch: int) -> None:
        """Note that no file holds events that were forgotten up to an epoch."""
        self._erased_epoch = epoch
        self._erased_ms = time.time_ns() // 1_000_000  # for people

    def report_status(self, now: float, trouble: Mapping[str, Any] | None = None) -> None:
        """Write the status if it has changed; the progress of a refolding a few times a second.

        Args:
            now: The time.
            trouble: Fields that say why the stream cannot continue, or None.

        Raises:
            OSError: The disk failed.
        """
        follower = self._follower
        erased = min(self._erased_epoch, self.erased_elsewhere)
        status: dict[str, Any] = {"state": "following", "erased_epoch": erased}
        if self._erased_ms is not None:
            status["erased_ms"] = self._erased_ms
        if trouble is not None:
            status |= trouble
        elif follower.is_refolding:
            status |= {"state": "refolding", "target": follower.seq, "refolded": round(follower.refold_progress, 3)}
        is_progress = status["state"] == self._status.get("state") == "refolding"
        if status != self._status and (now >= self._status_due or not is_progress):
            write_status(self._folder.path, status)
            self._status, self._status_due = status, now + STATUS_SECONDS
