"""The learner's process: it reads every stream's events, folds them, and publishes what came of it.

Workers ring when they have committed something; snapshots are published by ringing back. A learner that dies loses
nothing: its successor goes on from a checkpoint, while workers serve the last snapshot and take feedback.

What goes wrong with one stream holds up that stream alone: a disk that refuses its files, a damaged artifact, an event
that the fold fails at. It is let alone for a while that grows, and its status says why. What is wrong with the log is
everybody's, and all wait. An event at which the fold has failed three times stalls its stream, whether that raised an
error or ended the process: predictions and feedback go on, and `softstep skip` lets the fold go past it.
"""

import logging
import select
import signal
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from service.errors import LogDamagedError, LogError, SoftstepError
from service.learn.failure_tracker import FailureTracker
from service.learn.publish import PUBLISH_SECONDS
from service.learn.stream_learner import RetryDelay, StreamLearner, write_held_status
from service.process.shared_memory import SharedMemory
from service.process.wakeup import Wakeup
from service.settings import Settings
from service.store.directory.data_directory import DataDirectory
from service.store.log.events import Stream
from service.store.log.sqlite import SqliteLog

logger = logging.getLogger("softstep.learner")

# Without a ring the log is looked at so often, in case one was lost with a worker.
LOOK_SECONDS: Final = 0.5
# What most turns need not is done at most so often: to see which streams there are, and how long the log has grown.
ROUND_SECONDS: Final = 0.01


class LearnerProcess:
    """All streams of one data directory.

    Args:
        settings: Where the data is, and the limits.
        board: What the processes share.
        heard: Rings when something was committed.
        published: One bell for each worker, rung when something is published.
    """

    def __init__(self, settings: Settings, board: SharedMemory, heard: Wakeup, published: Sequence[Wakeup]) -> None:
        self._settings: Final = settings
        self._data: Final = DataDirectory(settings.data)
        self._heard: Final = heard
        self._published: Final = published
        self._failures: Final = FailureTracker(board)
        self._log: Final = SqliteLog(self._data.log, board.disk_faults)
        self._streams: dict[int, Stream] = {}
        self._round_due = 0.0
        self._has_met = False
        self._students: dict[int, StreamLearner] = {}
        self._holds: defaultdict[int, RetryDelay] = defaultdict(RetryDelay)
        self._stopped = False

    def run(self) -> None:
        """Learn until SIGTERM."""
        signal.signal(signal.SIGTERM, self._on_stop)
        while not self._stopped:
            self._heard.clear()
            try:
                busy = self._turn(time.monotonic())
            except (LogError, OSError):
                logger.exception("the learner cannot go on for now")
                busy = False
                time.sleep(LOOK_SECONDS)
            if not busy:
                self._rest()
        for number, student in self._students.items():
            with self._alone(self._streams[number]):
                student.publisher.write_checkpoint_if_due(idle=True)
        self._log.close()

    def _on_stop(self, _number: int, _frame: object) -> None:
        self._stopped = True
        self._heard.notify()

    def _turn(self, now: float) -> bool:
        """One batch of each stream; returns whether more may wait."""
        self._has_met = now >= self._round_due
        if self._has_met:
            self._meet()
            self._log.checkpoint_wal()
            self._round_due = now + ROUND_SECONDS
        busy = False
        for number, stream in self._streams.items():
            if self._holds[number].due <= now:
                with self._alone(stream):
                    busy |= self._tend(stream)
        return busy

    def _meet(self) -> None:
        """See which streams there are, and let go of those that were purged."""
        self._streams = {stream.number: stream for stream in self._log.list_streams()}
        for number in self._holds.keys() - self._streams.keys():
            del self._holds[number]
            self._students.pop(number, None)

    def _tend(self, stream: Stream) -> bool:
        """One stream's turn; returns whether more may wait."""
        number = stream.number
        if number not in self._students:
            folder = self._data.stream_folder(stream.model, stream.version)
            self._students[number] = StreamLearner(stream, self._log, folder, self._settings, self._failures)
        try:
            busy = self._students[number].work()
        except BaseException:
            # What it was at may be half done; the next student begins where the files say.
            del self._students[number]
            raise
        self._students[number].give(self._published)
        return busy

    @contextmanager
    def _alone(self, stream: Stream) -> Iterator[None]:
        """Let a stream alone for a while where its part fails.

        Raises:
            LogError: The log, which all streams share, cannot be used now.
        """
        hold = self._holds[stream.number]
        try:
            yield
        except LogDamagedError as error:
            self._hold(stream, str(error))
        except LogError:
            raise
        except OSError as error:
            self._hold(stream, f"the disk refuses: {error.strerror}")
        except SoftstepError as error:
            self._hold(stream, str(error))
        except Exception:
            logger.exception("learning of %s/%d failed", stream.model, stream.version)
            self._failures.record_failure()
            self._hold(stream, "the learner failed; its log says more")
        else:
            if hold.reason is not None:
                logger.info("learning of %s/%d goes on", stream.model, stream.version)
            hold.end()
        finally:
            self._failures.discard_batch()

    def _hold(self, stream: Stream, reason: str) -> None:
        """Let a stream alone for a while, and say why: once in the log, and in its status."""
        hold, now = self._holds[stream.number], time.monotonic()
        if reason != hold.reason:
            logger.error("learning of %s/%d is held up: %s", stream.model, stream.version, reason)
        hold.begin(reason, now)
        student = self._students.get(stream.number)
        with suppress(OSError):  # the status is on the disk that refuses
            if student is None:
                write_held_status(self._data.stream_folder(stream.model, stream.version), reason)
            else:
                student.publisher.report_status(now, {"state": "held", "reason": reason})

    def _rest(self) -> None:
        """Wait for a ring, or for what is due without one."""
        now = time.monotonic()
        held = [hold.due - now for hold in self._holds.values() if hold.due > now]
        waits = [
            student.publisher.seconds_until_due(now)
            for number, student in self._students.items()
            if self._holds[number].due <= now
        ]
        dues = [wait for wait in waits if wait is not None]
        soon = [wait for wait in dues if 0 < wait <= PUBLISH_SECONDS]
        if soon:
            # What is committed until the next snapshot is folded for it at once: a turn for every commit would take
            # several times the processor, and nothing of it would be served sooner.
            time.sleep(min(soon))
            return
        due = min([LOOK_SECONDS, *held, *dues])
        if not self._has_met:  # what rang may be a stream that is new
            due = max(0.0, min(due, self._round_due - now))
        select.select([self._heard.fd], [], [], due)


def run_learner(settings: Settings, board: SharedMemory, heard: Wakeup, published: Sequence[Wakeup]) -> None:
    """Be the learner's process."""
    LearnerProcess(settings, board, heard, published).run()
