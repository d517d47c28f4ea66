"""The learner's process: it reads every stream's events, folds them, and publishes what came of it.

Workers ring when they have committed something; snapshots are published by ringing back. A learner that dies loses
nothing: its successor goes on from a checkpoint, while workers serve the last snapshot and take feedback.

An event that kills its process three times stalls its stream: predictions and feedback go on, and `softstep skip` lets
the fold go past it. Before each fold the board is told what is folded; what stands there at a start killed the learner.
"""

import logging
import select
import signal
import time
from collections.abc import Sequence
from typing import Any, Final

from service.bell import Bell
from service.board import FOLD_DEATHS, FOLD_EVENTS, FOLD_SEQ, FOLD_STREAM, Board
from service.errors import LogError, SoftstepError
from service.learn.follow import Follower
from service.learn.publish import Publisher
from service.settings import Settings
from service.store.artifact import read_artifact
from service.store.data import DataDirectory, StreamFolder
from service.store.feedback import Stream
from service.store.genesis import genesis
from service.store.losses import LossWriter
from service.store.snapshots import remove_strays
from service.store.sqlite import SqliteLog

logger = logging.getLogger("softstep.learner")

# Without a ring the log is looked at so often, in case one was lost with a worker.
LOOK_SECONDS: Final = 0.5
# A batch is as many events as are folded in about this time, so that what is published is never much older.
BATCH_SECONDS: Final = 0.005
BATCH_EVENTS_MAX: Final = 4096
DEATHS_MAX: Final = 3
# After so long without an event what was folded is kept in a checkpoint.
IDLE_SECONDS: Final = 5.0


class Blame:
    """What the learner is folding, noted where its death does not reach."""

    def __init__(self, board: Board) -> None:
        start = board.slot(board.workers)
        self._cells: Final = board.cells[start : start + FOLD_DEATHS + 1]
        stream, seq, events = (self._cells[cell] for cell in (FOLD_STREAM, FOLD_SEQ, FOLD_EVENTS))
        self._suspects = {stream: range(seq, seq + events)} if stream else {}
        if stream:
            self._cells[FOLD_DEATHS] = self._cells[FOLD_DEATHS] + 1 if events == 1 else 0
        self._cells[FOLD_STREAM] = 0

    def limit(self, stream: int, after: int) -> int:
        """How many events behind a seq may be folded at once: suspects one by one."""
        suspects = self._suspects.get(stream, range(0))
        if after + 1 in suspects:
            return 1
        return suspects.start - after - 1 if after + 1 < suspects.start else BATCH_EVENTS_MAX

    def is_fatal(self, stream: int, seq: int) -> bool:
        """Whether an event has killed too many learners."""
        return seq in self._suspects.get(stream, range(0)) and self._cells[FOLD_DEATHS] >= DEATHS_MAX

    def begin(self, stream: int, seq: int, events: int) -> None:
        """Note what is folded from now on."""
        self._cells[FOLD_SEQ], self._cells[FOLD_EVENTS] = seq, events
        self._cells[FOLD_STREAM] = stream

    def end(self) -> None:
        """Note that it went well."""
        if self._cells[FOLD_DEATHS] and self._cells[FOLD_EVENTS] == 1:
            self._cells[FOLD_DEATHS] = 0
        self._cells[FOLD_STREAM] = 0


class Student:
    """One stream's learner: follower, publisher and losses, and why it is stalled if it is."""

    def __init__(self, stream: Stream, log: SqliteLog, folder: StreamFolder, settings: Settings, blame: Blame) -> None:
        self.stream: Final = stream
        self._log: Final = log
        self._blame: Final = blame
        self.stall: dict[str, Any] | None = None
        remove_strays(folder.snapshots)
        remove_strays(folder.checkpoints)
        artifact = read_artifact(folder.artifact, settings.artifact_bytes_max)
        if genesis(artifact) != stream.genesis:
            raise SoftstepError("its artifact or this release's fold is not what the stream was begun with")
        self.follower = Follower(stream, artifact, log, folder)
        self.publisher = Publisher(self.follower, settings.checkpoint_bytes_max)
        self._losses = LossWriter(folder.path / "losses")
        self._seconds = BATCH_SECONDS / 64  # of folding one event, as it went lately

    def work(self) -> bool:
        """Fold the next events; returns whether there were any."""
        limit = max(1, min(BATCH_EVENTS_MAX, int(BATCH_SECONDS / self._seconds)))
        after = self.follower.after
        events = self.follower.next_events(min(limit, self._blame.limit(self.stream.number, after)))
        if not events:
            return False
        first = events[0].seq
        if self._is_stalled_at(first):
            return False
        self.stall = None
        began = time.monotonic()
        self._blame.begin(self.stream.number, first, len(events))
        scored = self.follower.take(events)
        self._blame.end()
        taken = time.monotonic() - began
        self._seconds += (taken / len(events) - self._seconds) / 8
        self.publisher.moved(taken)
        if scored:
            self._losses.write([one.seq for one in scored], [one.losses for one in scored])
        return True

    def _is_stalled_at(self, seq: int) -> bool:
        """Whether an event is one that the fold cannot go past; one that was skipped is none."""
        if seq in self.follower.out:
            return False
        if self._blame.is_fatal(self.stream.number, seq):
            self.stall = {"reason": "the event ended the learner's process again and again; skip it", "seq": seq}
        return self.stall is not None and self.stall["seq"] == seq

    def look_ahead(self) -> None:
        """While stalled: see whether the event was skipped meanwhile."""
        if self.stall is not None:
            self.follower.look_ahead()

    def give(self, bells: Sequence[Bell], now: float) -> None:
        """Publish, erase and tell what is due."""
        if self.publisher.is_due(now):
            self.publisher.publish(now, time.monotonic)
            for bell in bells:
                bell.ring()
        if self.publisher.must_erase:
            self.publisher.erase()
            self._log.rewrite()
            self.publisher.erased()
        self.publisher.tell(now, self.stall)


class Learner:
    """All streams of one data directory.

    Args:
        settings: Where the data is, and the limits.
        board: What the processes share.
        heard: Rings when something was committed.
        published: One bell for each worker, rung when something is published.
    """

    def __init__(self, settings: Settings, board: Board, heard: Bell, published: Sequence[Bell]) -> None:
        self._settings: Final = settings
        self._data: Final = DataDirectory(settings.data)
        self._heard: Final = heard
        self._published: Final = published
        self._blame: Final = Blame(board)
        self._log: Final = SqliteLog(self._data.log, board.faults)
        self._students: dict[int, Student] = {}
        self._unfit: dict[int, str] = {}
        self._stopped = False

    def run(self) -> None:
        """Learn until SIGTERM."""
        signal.signal(signal.SIGTERM, self._on_stop)
        idle_since = time.monotonic()
        while not self._stopped:
            self._heard.hush()
            try:
                busy = self._turn()
            except (LogError, OSError):
                logger.exception("the learner cannot go on for now")
                busy = False
                time.sleep(LOOK_SECONDS)
            now = time.monotonic()
            if busy:
                idle_since = now
            else:
                self._rest(now, idle_since)
        self._keep(idle=True)
        self._log.close()

    def _on_stop(self, _number: int, _frame: object) -> None:
        self._stopped = True
        self._heard.ring()

    def _turn(self) -> bool:
        """One batch of each stream; returns whether there was anything to do."""
        self._meet_streams()
        busy = False
        for student in self._students.values():
            try:
                busy |= student.work()
            except (LogError, OSError):
                raise
            except Exception:
                logger.exception("the fold of %s/%d broke", student.stream.model, student.stream.version)
                student.stall = {"reason": "the fold broke at the event; skip it", "seq": student.follower.after + 1}
            student.give(self._published, time.monotonic())
        self._keep(idle=False)
        self._log.checkpoint()
        return busy

    def _meet_streams(self) -> None:
        """Take up streams that are new, and let go of those that were purged."""
        streams = {stream.number: stream for stream in self._log.streams()}
        for number in self._students.keys() - streams.keys():
            del self._students[number]
        for number, stream in streams.items():
            if number not in self._students and number not in self._unfit:
                folder = self._data.stream(stream.model, stream.version)
                try:
                    self._students[number] = Student(stream, self._log, folder, self._settings, self._blame)
                except SoftstepError as reason:
                    self._unfit[number] = str(reason)
                    logger.error("stream of %s/%d cannot be followed: %s", stream.model, stream.version, reason)  # noqa: TRY400

    def _keep(self, *, idle: bool) -> None:
        for student in self._students.values():
            student.publisher.checkpoint_if_due(idle=idle)

    def _rest(self, now: float, idle_since: float) -> None:
        """Wait for a ring, or for what is due without one."""
        waits = [student.publisher.wait(now) for student in self._students.values()]
        due = min([LOOK_SECONDS, *(wait for wait in waits if wait is not None)])
        select.select([self._heard.fd], [], [], due)
        for student in self._students.values():
            student.look_ahead()
            student.give(self._published, time.monotonic())
        if time.monotonic() - idle_since >= IDLE_SECONDS:
            self._keep(idle=True)


def run(settings: Settings, board: Board, heard: Bell, published: Sequence[Bell]) -> None:
    """Be the learner's process."""
    Learner(settings, board, heard, published).run()
