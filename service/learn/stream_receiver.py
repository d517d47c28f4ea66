"""Receive the snapshots of one stream from learners, in a replica that folds nothing.

The files are those that a learner of this replica would write, so workers serve them in the same way. A snapshot is
written only if its SHA-256 is right and the log has the events that it covers: after a failover the log may have lost
some. States from which folding continues, reports and losses are not received. Those that an earlier run with another
role has left are deleted, because nothing here would erase forgotten events from them.
"""

import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from service.chain_errors import LogEndsEarlierError
from service.errors import SnapshotError
from service.learn.lost_states import drop_lost_states
from service.learn.shared_artifact import bind_shared_artifact
from service.process.wakeup import Wakeup
from service.settings import Settings
from service.store.artifact.artifact import read_artifact
from service.store.artifact.mapped_artifact import BASE
from service.store.directory.data_directory import StreamFolder
from service.store.filesystem import make_folder, write_whole_file
from service.store.log.events import Position, Stream
from service.store.log.feedback_log import FeedbackLog
from service.store.log.shared_snapshots import SharedSnapshot, SharedSnapshots
from service.store.states.bases import delete_bases, write_first_base
from service.store.states.snapshots import BASE_NAME, Fields, Snapshot, read_base, read_fields, read_snapshot
from service.store.states.state_folder import (
    SNAPSHOTS_KEPT,
    delete_temporary_files,
    list_seqs,
    prune_snapshots,
    read_latest,
)
from service.store.states.state_positions import contains_position, dependencies
from service.store.states.status import read_status, write_status

# Between two checks that the log still has what is served.
CHECK_SECONDS: Final = 1.0
# The name of a snapshot that is not checked yet; readers of the folder pass it over.
UNCHECKED: Final = ".unchecked"


class StreamReceiver:
    """The snapshots of one stream.

    Args:
        stream: The stream.
        log: The log that holds its events.
        folder: The folder of its files.
        settings: The limits.

    Attributes:
        stream: The stream.
        erased_elsewhere: The number of FORGET events whose rows are in no file of any other replica.
        lost: The last event of the states that were deleted because the log has lost their events, or None.

    Raises:
        SoftstepError: The stream cannot be served as it was learned; the message says why.
        OSError: The disk failed.
    """

    def __init__(
        self, stream: Stream, log: FeedbackLog, snapshots: SharedSnapshots, folder: StreamFolder, settings: Settings
    ) -> None:
        self.stream: Final = stream
        self._log: Final = log
        self._snapshots: Final = snapshots
        self._folder: Final = folder
        if log.files is not None:
            bind_shared_artifact(stream, log.files, folder, settings)
        delete_temporary_files(folder.snapshots)
        for states in (folder.checkpoints, folder.keyframes, folder.history, folder.path / "losses"):
            shutil.rmtree(states, ignore_errors=True)
        folder.report.unlink(missing_ok=True)
        self.lost = drop_lost_states(stream, log, folder)
        artifact = read_artifact(folder.artifact, settings.artifact_bytes_max)
        self._first_base = write_first_base(folder.bases, artifact) if artifact.has_sparse_rows else None
        self._position, self._erased_epoch = Position(0, stream.genesis), 0
        # Its base stays mapped, so that the next snapshot does not need to check all of that again.
        self._served: Snapshot | None = None
        self._read_newest()
        self._check_due = 0.0
        self._status = read_status(folder.path)
        self._erased_ms = self._status.get("erased_ms")
        self.erased_elsewhere = int(self._status.get("erased_epoch", 0))

    @property
    def seq(self) -> int:
        """The last event of the newest snapshot, or 0."""
        return self._position.seq

    @property
    def erased_epoch(self) -> int:
        """The number of FORGET events whose rows are in no file of this replica."""
        return self._erased_epoch

    def receive(self, snapshot: SharedSnapshot | None, now: float, workers: Sequence[Wakeup]) -> bool:
        """Write the snapshot that learners have passed on, if it is later than what is served, and wake the workers.

        Args:
            snapshot: The snapshot, or None if there is none now.
            now: The time, in seconds of a monotonic clock.
            workers: The wakeups of the workers.

        Returns:
            Whether a snapshot was written.

        Raises:
            LogEndsEarlierError: The log ends before what is served, which stays.
            LogError: The log cannot be used now.
            SnapshotError: What was passed on is damaged.
            OSError: The disk failed.
        """
        if now >= self._check_due:
            self._check_due = now + CHECK_SECONDS
            self.lost = drop_lost_states(self.stream, self._log, self._folder) if self._is_lost() else None
            if self.lost is not None:
                self._read_newest()
        if snapshot is None or snapshot.position.seq <= self.seq or not self._is_in_log(snapshot.position):
            return False
        content = self._snapshots.get(snapshot)
        if content is None or not self._write(snapshot, content):
            return False
        for worker in workers:
            worker.notify()
        return True

    def report_status(self, trouble: dict[str, Any] | None = None) -> None:
        """Write the status if it has changed.

        Args:
            trouble: Fields that say why no later snapshots come, or None.

        Raises:
            OSError: The disk failed.
        """
        erased = min(self._erased_epoch, self.erased_elsewhere)
        status: dict[str, Any] = {"state": "receiving", "erased_epoch": erased}
        if self._erased_ms is not None:
            status["erased_ms"] = self._erased_ms
        status |= trouble or {}
        if status != self._status:
            write_status(self._folder.path, status)
            self._status = status

    def _is_lost(self) -> bool:
        """Return whether the log has other events than what is served."""
        return self._position.seq > 0 and not contains_position(self._log, self.stream, self._position)

    def _is_in_log(self, position: Position) -> bool:
        with suppress(LogEndsEarlierError):
            return contains_position(self._log, self.stream, position)
        return False

    def _read_newest(self) -> None:
        """Find out what workers serve, and delete other snapshots."""
        latest = read_latest(self._folder.snapshots)
        fields = {} if latest is None else latest[1].fields
        is_own = fields.get("genesis") == self.stream.genesis.hex()
        for seq in list_seqs(self._folder.snapshots):
            if latest is None or seq != latest[0] or not is_own:
                (self._folder.snapshots / str(seq)).unlink(missing_ok=True)
        self._position, self._erased_epoch, self._served = Position(0, self.stream.genesis), 0, None
        if latest is not None and is_own:
            self._position = dependencies(latest[0], fields)[0]
            self._erased_epoch, self._served = int(fields["epoch"]), latest[1]

    def _write(self, snapshot: SharedSnapshot, content: bytes) -> bool:
        """Write a snapshot under its name once it is checked; return False if its base is not there now."""
        make_folder(self._folder.snapshots)
        unchecked = self._folder.snapshots / UNCHECKED
        unchecked.write_bytes(content)
        try:
            fields = read_fields(unchecked)
            positions, epoch = dependencies(snapshot.position.seq, fields), int(fields["epoch"])
            if positions[0] != snapshot.position or fields["genesis"] != self.stream.genesis.hex():
                raise SnapshotError("a learner has passed on the snapshot of another stream or event")
            if not all(map(self._is_in_log, positions[1:])) or not self._has_base(fields):
                return False
            self._served = read_snapshot(unchecked)
            unchecked.rename(self._folder.snapshots / str(snapshot.position.seq))
        except (KeyError, TypeError, ValueError):
            raise SnapshotError("a learner has passed on a snapshot without its position") from None
        finally:
            unchecked.unlink(missing_ok=True)
        is_erasing = epoch != self._erased_epoch
        # A snapshot with fewer FORGET events may have the rows that were forgotten.
        prune_snapshots(self._folder.snapshots, 1 if is_erasing else SNAPSHOTS_KEPT)
        if is_erasing:
            self._erased_ms = time.time_ns() // 1_000_000  # for people
        delete_bases(self._folder.bases, self._folder.snapshots, self._first_base)
        self._position, self._erased_epoch = snapshot.position, epoch
        return True

    def _has_base(self, fields: Fields) -> bool:
        """Return whether the base that a snapshot names is on disk, and fetch it if learners have passed it on."""
        name = fields.get(BASE)
        if name is None:
            return True
        if not isinstance(name, str) or not BASE_NAME.fullmatch(name):
            raise SnapshotError("a snapshot names no valid base")
        path = self._folder.bases / name
        if path.exists():
            return True
        content = self._snapshots.get_base(self.stream.number, name)
        if content is None:
            return False
        make_folder(self._folder.bases)
        write_whole_file(path, [content], durable=False)
        try:
            read_base(path)
        except SnapshotError:
            path.unlink(missing_ok=True)
            raise
        return True
