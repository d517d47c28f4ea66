"""The process in the learner's place of a replica that folds nothing: receive what learners have folded.

It looks at the snapshots that learners pass on in the log, checks and writes those of each stream, and wakes the
workers, as a learner does after publishing. Neither it nor what it imports can fold. A fault of one stream delays that
stream only, and its status says why.
"""

import random
import select
import signal
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from service.chain_errors import LogEndsEarlierError, LogForkedError
from service.errors import LogDamagedError, LogError, LogUnsafeError, SoftstepError
from service.learn.catch_up import CatchUp
from service.learn.facts_thread import following_facts
from service.learn.first_bases import FirstBases
from service.learn.log_watch import IDLE_SECONDS, POLL_SECONDS
from service.learn.replica_list import ReplicaList
from service.learn.retry_delay import RetryDelay
from service.learn.stream_receiver import StreamReceiver
from service.log_events import logger
from service.log_limit import LineLimit
from service.process.shared_memory import CAUGHT_UP, LOG_DOUBTS, LOG_FORKS, LOG_LOST, SEQ_WAITERS, SharedMemory
from service.process.wakeup import Wakeup
from service.settings import Settings
from service.store.directory.data_directory import DataDirectory
from service.store.directory.log_opening import open_log
from service.store.log.events import Stream
from service.store.log.shared_snapshots import SharedSnapshot, SharedSnapshots
from service.store.states.status import read_status, write_status

# Between two looks at which streams exist.
STREAMS_SECONDS: Final = 0.5
# Between two looks at the snapshots while a request waits for an event.
AWAITED_SECONDS: Final = 0.02
NO_LEARNER: Final = "no replica that folds events is running; start one of the role learner or all"
HALTED: Final = "no learner can fold the next event of this stream; the status of a learner says why"


class ReceiverProcess:
    """The receiver of all streams of a shared log.

    Args:
        settings: The data directory and the limits.
        memory: The memory that the processes share.
        wakeup: Workers notify it while requests wait for an event.
        workers: The wakeup of each worker, notified after a snapshot is written.
    """

    def __init__(self, settings: Settings, memory: SharedMemory, wakeup: Wakeup, workers: Sequence[Wakeup]) -> None:
        self._settings: Final = settings
        self._data: Final = DataDirectory(settings.data)
        self._memory: Final = memory
        self._cells: Final = memory.learner_cells
        self._wakeup: Final = wakeup
        self._workers: Final = workers
        self._first_bases: Final = FirstBases(settings, self._data)
        self._log: Final = open_log(settings, self._data, memory.disk_faults)
        self._replicas: Final = ReplicaList(self._log, settings.role, self._cells)
        self._catch_up: Final = CatchUp(self._log)
        self._streams: dict[int, Stream] = {}
        self._streams_due = 0.0
        self._receivers: Final[dict[int, StreamReceiver]] = {}
        self._present: dict[int, SharedSnapshot] = {}
        self._delays: Final[defaultdict[int, RetryDelay]] = defaultdict(RetryDelay)
        self._pauses: Final = LineLimit()
        self._is_stopping = False

    def run(self) -> None:
        """Receive until SIGTERM."""
        signal.signal(signal.SIGTERM, self._on_sigterm)
        while not self._is_stopping:
            self._wakeup.clear()
            try:
                self._receive_all(time.monotonic())
                self._cells[LOG_LOST] = 0
            except (LogError, OSError) as error:
                self._cells[LOG_LOST] = 1
                if self._pauses.is_due(str(error)):
                    logger.exception("learner_paused")
                time.sleep(POLL_SECONDS)
            self._wait()
        self._log.close()

    def _on_sigterm(self, _number: int, _frame: object) -> None:
        self._is_stopping = True
        self._wakeup.notify()

    def _receive_all(self, now: float) -> None:
        """Write the snapshots that are new, and what depends on them."""
        snapshots = self._log.snapshots
        if snapshots is None:
            raise LogUnsafeError("only a log in PostgreSQL has snapshots of learners; set SOFTSTEP_LOG")
        if now >= self._streams_due:
            self._list_streams()
            self._streams_due = now + STREAMS_SECONDS
        self._present = {snapshot.stream: snapshot for snapshot in snapshots.list_snapshots()}
        for number, stream in self._streams.items():
            if self._delays[number].due <= now:
                with self._delay_on_failure(stream):
                    self._receive(stream, snapshots, now)
        if self._replicas.is_due(now):
            self._replicas.exchange(now, self._receivers)
        if not self._memory.is_caught_up:
            self._note_progress()

    def _list_streams(self) -> None:
        """Look up which streams exist, drop those that were purged, and write what new models need."""
        self._streams = {stream.number: stream for stream in self._log.list_streams()}
        for number in self._delays.keys() - self._streams.keys():
            del self._delays[number]
            self._receivers.pop(number, None)
        if self._first_bases.write_missing():
            self._notify_workers()

    def _receive(self, stream: Stream, snapshots: SharedSnapshots, now: float) -> None:
        number = stream.number
        receiver = self._receivers.get(number)
        if receiver is None:
            folder = self._data.stream_folder(stream.model, stream.version)
            receiver = StreamReceiver(stream, self._log, snapshots, folder, self._settings)
            self._receivers[number] = receiver
            self._note_lost(receiver)
        receiver.receive(self._present.get(number), now, self._workers)
        self._note_lost(receiver)
        receiver.report_status(self._trouble_of(number))

    def _note_lost(self, receiver: StreamReceiver) -> None:
        """Count and log a fork of the log, of which a receiver has deleted the lost branch."""
        lost, receiver.lost = receiver.lost, None
        if lost is not None:
            stream = receiver.stream
            logger.event("log_forked", model=stream.model, version=stream.version, seq=lost)
            self._cells[LOG_FORKS] += 1
            self._cells[LOG_DOUBTS] += 1
            self._notify_workers()

    def _trouble_of(self, number: int) -> dict[str, Any] | None:
        """Return the fields of a stream's status that say why it gets no later snapshots; None if it does."""
        if self._replicas.learners == []:
            return {"state": "held", "reason": NO_LEARNER}
        return {"state": "held", "reason": HALTED} if self._is_halted(number) else None

    def _is_halted(self, number: int) -> bool:
        """Return whether learners run, and none of them can fold a stream further."""
        learners = self._replicas.learners or []
        return bool(learners) and all(number in learner.halted for learner in learners)

    def _note_progress(self) -> None:
        """Let the service be ready once it serves what the log had at the start.

        Of a stream that no learner can fold further it serves what they have passed on. Without learners it waits: the
        next one may have more.
        """
        published = {number: receiver.seq for number, receiver in self._receivers.items()}
        halted = {
            number
            for number in filter(self._is_halted, self._streams)
            if number not in self._present or self._present[number].position.seq <= published.get(number, 0)
        }
        if self._catch_up.is_done(self._streams.keys(), published, halted):
            self._cells[CAUGHT_UP] = 1
            self._notify_workers()

    def _notify_workers(self) -> None:
        for worker in self._workers:
            worker.notify()

    @contextmanager
    def _delay_on_failure(self, stream: Stream) -> Iterator[None]:
        """Delay a stream if it cannot be received.

        Raises:
            LogError: The log, which all streams share, cannot be used now.
        """
        try:
            yield
        except LogDamagedError as error:
            self._cells[LOG_DOUBTS] += isinstance(error, LogForkedError | LogEndsEarlierError)
            self._delay(stream, str(error))
        except LogError:
            raise
        except OSError as error:
            self._delay(stream, f"disk error: {error.strerror}")
        except SoftstepError as error:
            self._delay(stream, str(error))
        else:
            self._delays[stream.number].record_success()

    def _delay(self, stream: Stream, reason: str) -> None:
        """Delay a stream, log the reason once, and write it to the status."""
        delay = self._delays[stream.number]
        if reason != delay.reason:
            logger.event("learning_held", model=stream.model, version=stream.version, reason=reason)
        delay.record_failure(reason, time.monotonic())
        trouble = {"state": "held", "reason": reason}
        with suppress(OSError):  # the status is on the disk that may have failed
            receiver = self._receivers.get(stream.number)
            if receiver is not None:
                receiver.report_status(trouble)
                return
            folder = self._data.stream_folder(stream.model, stream.version).path
            write_status(folder, {**trouble, "erased_epoch": read_status(folder).get("erased_epoch", 0)})

    def _wait(self) -> None:
        """Wait until the next look: soon while a request waits for an event, and never in step with other replicas."""
        is_awaited = self._memory.sum_over_workers(SEQ_WAITERS) > 0
        pause = AWAITED_SECONDS if is_awaited else IDLE_SECONDS
        select.select([self._wakeup.fd], [], [], pause * random.uniform(0.5, 1.5))  # noqa: S311  # no secret


def run_receiver(settings: Settings, memory: SharedMemory, wakeup: Wakeup, workers: Sequence[Wakeup]) -> None:
    """Run the receiver in this process until SIGTERM."""
    with following_facts(settings, memory):
        ReceiverProcess(settings, memory, wakeup, workers).run()
