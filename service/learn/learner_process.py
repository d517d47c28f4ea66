"""The learner's process: read the events of every stream, fold them and publish the states.

Workers notify the learner after a commit; the learner notifies them after publishing. A crash of the learner loses
nothing: the next one continues from a checkpoint, while workers serve the last snapshot and accept feedback.

A fault of one stream delays that stream only: a disk that fails its files, a damaged artifact, an event that the fold
fails at. The stream is left alone for a growing delay, and its status says why. A fault of the log delays all streams.
A stream whose log has forked goes back to what both have in common; one whose log ends before what was folded is held.
An event at which the fold fails three times stalls its stream, by an exception or by a crash of the process:
predictions and feedback continue, and `softstep skip` makes the fold leave the event out.
"""

import select
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from service.chain_errors import BaseForgottenError, LogForkedError
from service.errors import LogError, SoftstepError
from service.learn.divergences import Divergences
from service.learn.facts_thread import following_facts
from service.learn.failure_tracker import FailureTracker
from service.learn.first_bases import FirstBases
from service.learn.fold_upgrade import LaterReleaseError
from service.learn.log_erasure import LogErasure
from service.learn.log_watch import POLL_SECONDS, LogWatch
from service.learn.lost_states import drop_lost_states
from service.learn.publish import PUBLISH_SECONDS
from service.learn.replica_exchange import ReplicaExchange
from service.learn.state_exchange import StateDivergedError
from service.learn.stream_delays import StreamDelays
from service.learn.stream_learner import StreamLearner
from service.log_events import logger
from service.log_limit import LineLimit
from service.process.shared_memory import LOG_DOUBTS, LOG_FORKS, LOG_LOST, SEQ_WAITERS, SharedMemory
from service.process.wakeup import Wakeup
from service.settings import Settings
from service.store.directory.data_directory import DataDirectory
from service.store.directory.log_opening import open_log
from service.store.log.events import Stream
from service.store.log.feedback_log import FeedbackLog

# Shortest pause between two looks at which streams exist and how long the write-ahead log is.
STREAMS_SECONDS: Final = 0.01
# The same of a shared log, which names new streams as soon as they have events.
SHARED_STREAMS_SECONDS: Final = 0.5


class LearnerProcess:
    """The learner of all streams of a data directory.

    Args:
        settings: The data directory and the limits.
        memory: The memory that the processes share.
        wakeup: Workers notify it after a commit.
        workers: The wakeup of each worker, notified after publishing.
    """

    def __init__(self, settings: Settings, memory: SharedMemory, wakeup: Wakeup, workers: Sequence[Wakeup]) -> None:
        self._settings: Final = settings
        self._data: Final = DataDirectory(settings.data)
        self._memory: Final = memory
        self._wakeup: Final = wakeup
        self._workers: Final = workers
        self._first_bases: Final = FirstBases(settings, self._data)
        self._failures: Final = FailureTracker(memory)
        self._cells: Final = memory.learner_cells
        self._log: Final = self._open_log()
        self._erasure: Final = LogErasure(self._log, self._open_log if self._log.is_shared else None)
        self._streams: dict[int, Stream] = {}
        self._pauses: Final = LineLimit()
        self._streams_due = 0.0
        self._has_listed_streams = False
        self._unread: set[int] = set()  # streams that may have events which were not read
        self._watch: Final = LogWatch(is_shared=self._log.is_shared)
        self._learners: dict[int, StreamLearner] = {}
        self._forked: Final[dict[int, int]] = {}  # the last event that was folded before a fork of the log
        self._divergences: Final = Divergences(memory)
        self._replicas: Final = ReplicaExchange(self._log, self._data, settings.role, memory)
        self._delays: Final = StreamDelays(self._data, self._failures, self._divergences, self._cells)
        self._failed_at = 0  # the number of the stream at which the log could not be used
        self._is_stopping = False

    def _open_log(self) -> FeedbackLog:
        return open_log(self._settings, self._data, self._memory.disk_faults)

    def run(self) -> None:
        """Learn until SIGTERM."""
        signal.signal(signal.SIGTERM, self._on_sigterm)
        while not self._is_stopping:
            self._wakeup.clear()
            try:
                is_busy = self._learn_all(time.monotonic())
                self._cells[LOG_LOST] = 0
            except (LogError, OSError) as error:
                self._cells[LOG_LOST] = 1
                if self._pauses.is_due(str(error)):
                    logger.exception("learner_paused")
                self._write_folded()
                is_busy = False
                time.sleep(POLL_SECONDS)
            if not is_busy:
                self._wait()
        for number, learner in self._learners.items():
            with self._delays.delay_on_failure(self._streams[number], self._learners):
                learner.publisher.write_checkpoint_if_due(idle=True)
        self._log.close()

    def _on_sigterm(self, _number: int, _frame: object) -> None:
        self._is_stopping = True
        self._wakeup.notify()

    def _learn_all(self, now: float) -> bool:
        """Fold one batch of each stream; return whether more may wait."""
        self._look(now)
        is_busy = False
        # The stream at which the log failed comes last: one that it fails at again and again holds up no other.
        for stream in sorted(self._streams.values(), key=lambda one: (one.number <= self._failed_at, one.number)):
            if self._delays.is_due(stream.number, now):
                self._failed_at = stream.number
                with self._delays.delay_on_failure(stream, self._learners):
                    is_busy |= self._learn(stream)
        self._failed_at = 0
        if self._replicas.exchange(now, self._streams, self._learners, self._delays):
            self._notify_workers()
        return is_busy

    def _write_folded(self) -> None:
        """Publish what is folded, although the log cannot be read now."""
        for learner in self._learners.values():
            with suppress(SoftstepError, OSError):
                learner.write_due(self._workers)

    def _look(self, now: float) -> None:
        """Look up which streams exist, and which of them may have new events."""
        moved = self._log.moved_streams()
        self._unread |= self._streams.keys() if moved is None else moved
        self._has_listed_streams = now >= self._streams_due or not self._unread <= self._streams.keys()
        if self._has_listed_streams:
            self._list_streams()
            self._log.tidy()
            if self._first_bases.write_missing():
                self._notify_workers()
            self._streams_due = now + (SHARED_STREAMS_SECONDS if self._log.is_shared else STREAMS_SECONDS)
            self._unread &= self._streams.keys()
        self._watch.note_look(now, has_events=bool(moved))

    def _notify_workers(self) -> None:
        for worker in self._workers:
            worker.notify()

    def _list_streams(self) -> None:
        """Look up which streams exist, and drop the learners of those that were purged."""
        self._streams = {stream.number: stream for stream in self._log.list_streams()}
        for number in self._delays.drop_others(self._streams):
            self._learners.pop(number, None)
            self._forked.pop(number, None)

    def _learn(self, stream: Stream) -> bool:
        """Fold one batch of a stream and write what is due; return whether more may wait."""
        number = stream.number
        learner = self._learners.get(number) or self._start_learner(stream)
        is_busy = number in self._unread
        if is_busy:
            try:
                is_busy = learner.fold_next()
            except LogForkedError:
                self._cells[LOG_DOUBTS] += 1
                self._forked[number] = self._learners.pop(number).follower.seq
                return True
            except BaseForgottenError:
                del self._learners[number]
                return True
            except LaterReleaseError:
                self._learners.pop(number).write_last(self._workers)
                raise
            except LogError:
                if not learner.is_whole:
                    del self._learners[number]
                raise
            except BaseException:
                # The state may be half folded; the next learner starts from the files.
                del self._learners[number]
                raise
            if not is_busy:
                self._unread.discard(number)
        try:
            learner.write_due(self._workers)
        except StateDivergedError:
            del self._learners[number]
            raise
        self._divergences.update(number, learner.diverged)
        return is_busy

    def _start_learner(self, stream: Stream) -> StreamLearner:
        """Make the learner of a stream; if the log takes back meanwhile what was read, start again at once."""
        try:
            return self._make_learner(stream)
        except (BaseForgottenError, LogForkedError):
            return self._make_learner(stream)

    def _make_learner(self, stream: Stream) -> StreamLearner:
        """Make the learner of a stream from those of its files whose events the log has."""
        folder = self._data.stream_folder(stream.model, stream.version)
        fork = drop_lost_states(stream, self._log, folder)
        folded = [seq for seq in (fork, self._forked.pop(stream.number, None)) if seq is not None]
        if folded:
            logger.event("log_forked", model=stream.model, version=stream.version, seq=max(folded))
            self._failures.clear_stream(stream.number)
            self._cells[LOG_FORKS] += 1
            self._cells[LOG_DOUBTS] += 1
            self._notify_workers()
        diverged = self._divergences.seq_of(stream.number)
        learner = StreamLearner(
            stream, self._log, folder, self._settings, self._failures, erasure=self._erasure, diverged=diverged
        )
        self._learners[stream.number] = learner
        self._unread.add(stream.number)
        return learner

    def _wait(self) -> None:
        """Wait for a notification, or until something is due."""
        now = time.monotonic()
        active = [learner for number, learner in self._learners.items() if self._delays.is_due(number, now)]
        pauses = [pause for learner in active if (pause := learner.publisher.seconds_until_due(now)) is not None]
        soon = [pause for pause in pauses if 0 < pause <= PUBLISH_SECONDS]
        if soon:
            # Events that are committed before the next snapshot are folded for it together. A batch for every commit
            # would take several times the processor time, and nothing would be served sooner.
            time.sleep(min(soon))
            return
        is_awaited = self._memory.sum_over_workers(SEQ_WAITERS) > 0
        pause = min([self._watch.seconds_until_look(now, is_awaited=is_awaited), *self._delays.pauses(now), *pauses])
        if not self._has_listed_streams:  # the notification may be about a new stream
            pause = max(0.0, min(pause, self._streams_due - now))
        select.select([self._wakeup.fd], [], [], pause)


def run_learner(settings: Settings, memory: SharedMemory, wakeup: Wakeup, workers: Sequence[Wakeup]) -> None:
    """Run the learner in this process until SIGTERM, and follow the facts of a shared log meanwhile."""
    with following_facts(settings, memory):
        LearnerProcess(settings, memory, wakeup, workers).run()
