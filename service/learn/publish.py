"""What one stream's learner gives away: snapshots for workers, checkpoints for itself, and word of how it stands.

    snapshot     what is served, as often as it is cheap: writing costs at most a few percent of a core
    checkpoint   what a restart goes on from, and the way back of a refolding: after so much folding, and when idle
    status       how it stands (store/states/status.py)

When something is written depends on the clock; what is written depends on the events alone.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from numpy.typing import NDArray

from service.learn.event_fold import EventFold
from service.learn.follow import Follower
from service.store.artifact.calibration_record import describe_calibration
from service.store.artifact.hashing import hash_tensors
from service.store.states.checkpoints import delete_states, thin_checkpoints
from service.store.states.snapshots import list_seqs, write_snapshot
from service.store.states.status import read_status, write_status

# A snapshot is written at most so often, and at least so many times as long after the last as that one took to make.
PUBLISH_SECONDS: Final = 0.01
PUBLISH_PAUSE: Final = 25
SNAPSHOTS_KEPT: Final = 3
# A restart folds at most about this long, or this many events, behind a checkpoint.
CHECKPOINT_FOLD_SECONDS: Final = 1.0
CHECKPOINT_EVENTS: Final = 1 << 16
STATUS_SECONDS: Final = 0.25


def snapshot_contents(fold: EventFold, place: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The fields and arrays of a snapshot: what a fold serves, and where in its stream that is."""
    state = fold.state
    served = state.served_parameters()
    fields = {
        **place,
        "head": served.head,
        "clips": served.clips(),
        "classes": fold.classes,
        "weights_sha256": hash_tensors(served.tensors()),
        "learning": {**state.rule_settings, "paused": state.paused, "shadow": state.shadow},
        "calibration": describe_calibration(fold.artifact.manifest.calibration, served.calibration),
        "progressive": fold.progressive_validation,
    }
    return fields, dict(served.arrays())


class Publisher:
    """Writes what a follower's fold gives; all times are of one monotonic clock, in seconds.

    Args:
        follower: Whose fold.
        checkpoint_bytes_max: Bytes that the checkpoints of this stream may have together.
    """

    def __init__(self, follower: Follower, checkpoint_bytes_max: int) -> None:
        self._follower: Final = follower
        self._folder: Final = follower.folder
        self._bytes_max: Final = checkpoint_bytes_max
        self._published = -1  # the seq that is served
        self._snapshots = deque(list_seqs(self._folder.snapshots))
        self._due = 0.0
        self._kept = max(list_seqs(self._folder.checkpoints), default=0)  # the seq of the newest checkpoint
        self._folded = 0.0  # seconds of folding since then
        self._told = read_status(self._folder.path)
        self._erased_epoch = int(self._told.get("erased_epoch", 0))
        self._tell_due = 0.0

    def add_fold_seconds(self, seconds: float) -> None:
        """Note that folding went on for so long."""
        self._folded += seconds

    def is_due(self, now: float) -> bool:
        """Whether there is something new to serve, and time to write it."""
        follower = self._follower
        return follower.seq > 0 and follower.seq != self._published and not follower.is_refolding and now >= self._due

    def seconds_until_due(self, now: float) -> float | None:
        """Seconds until something is to be written though nothing happens; None where nothing is."""
        follower = self._follower
        if follower.is_refolding or follower.seq == 0:
            return None
        return max(0.0, self._due - now) if follower.seq != self._published else None

    def publish_snapshot(self, now: float, spent: Callable[[], float]) -> None:
        """Write a snapshot of what is served now.

        Args:
            now: The time.
            spent: Seconds of processor that the process has used. Not of the clock: where others have the processor
                meanwhile, a pause by the clock would make what is served ever older without sparing them anything.

        Raises:
            OSError: The disk refuses; it is tried again later.
        """
        follower, before = self._follower, spent()
        fields, arrays = snapshot_contents(follower.fold, follower.position_fields())
        fields["published_ms"] = time.time_ns() // 1_000_000  # for people
        self._due = now + PUBLISH_SECONDS
        write_snapshot(self._folder.snapshots, follower.seq, fields, arrays, durable=False)
        self._prune(follower.seq)
        self._published = follower.seq
        self._due = now + max(PUBLISH_SECONDS, PUBLISH_PAUSE * (spent() - before))

    def _prune(self, seq: int) -> None:
        """Let the oldest snapshots go for a new one; what was written stands here, for a look into the folder costs."""
        if seq not in self._snapshots:
            self._snapshots.append(seq)
        while len(self._snapshots) > SNAPSHOTS_KEPT:
            (self._folder.snapshots / str(self._snapshots.popleft())).unlink(missing_ok=True)

    def write_checkpoint_if_due(self, *, idle: bool) -> None:
        """Write a checkpoint where enough was folded since the last, or where there is nothing else to do.

        Raises:
            OSError: The disk refuses; it is tried again later.
        """
        follower = self._follower
        if follower.is_refolding or follower.seq == self._kept:
            return
        enough = self._folded >= CHECKPOINT_FOLD_SECONDS or follower.seq - self._kept >= CHECKPOINT_EVENTS
        if enough or idle:
            follower.write_checkpoint()
            self._kept, self._folded = follower.seq, 0.0
            thin_checkpoints(self._folder.checkpoints, self._bytes_max)

    @property
    def needs_erasure(self) -> bool:
        """Whether events were forgotten that files may still hold."""
        follower = self._follower
        is_served = follower.seq == self._published and not follower.is_refolding
        return is_served and follower.epoch > self._erased_epoch

    def erase_forgotten(self) -> None:
        """Delete the files that hold forgotten events; who owns the log erases that, and then calls `mark_erased`."""
        lineage, forgotten = self._follower.lineage, self._follower.lineage.forgotten
        for files in (self._folder.snapshots, self._folder.checkpoints, self._folder.history):
            delete_states(files, self._follower.epoch, lambda seq: any(lineage.contains(seq, one) for one in forgotten))
        # A file that could not be read went too; where it is what is served, it is written again.
        if self._published not in list_seqs(self._folder.snapshots):
            self._published = -1

    def mark_erased(self) -> None:
        """Note that nothing holds the forgotten events any more."""
        self._erased_epoch = self._follower.epoch

    def report_status(self, now: float, trouble: Mapping[str, Any] | None = None) -> None:
        """Write how the stream stands where that has changed; how far a refolding is, a few times a second.

        Args:
            now: The time.
            trouble: The state, the reason and what else is to be said where it cannot go on, or None.

        Raises:
            OSError: The disk refuses.
        """
        follower = self._follower
        status: dict[str, Any] = {"state": "following", "erased_epoch": self._erased_epoch}
        if trouble is not None:
            status |= trouble
        elif follower.is_refolding:
            status |= {"state": "refolding", "target": follower.seq, "refolded": round(follower.refold_progress, 3)}
        is_progress = status["state"] == self._told.get("state") == "refolding"
        if status != self._told and (now >= self._tell_due or not is_progress):
            write_status(self._folder.path, status)
            self._told, self._tell_due = status, now + STATUS_SECONDS
