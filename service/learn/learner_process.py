"""The learner's process: read the events of every stream, fold them and publish the states.

Workers notify the learner after a commit; the learner notifies them after publishing. A crash of the learner loses
nothing: the next one continues from a checkpoint, while workers serve the last snapshot and accept feedback.

A fault of one stream delays that stream only: a disk that fails its files, a damaged artifact, an event that the fold
fails at. The stream is left alone for a growing delay, and its status says why. A fault of the log delays all streams.
An event at which the fold fails three times stalls its stream, by an exception or by a crash of the process:
predictions and feedback continue, and `softstep skip` makes the fold leave the event out.
"""

import select
import signal
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from service.errors import LogDamagedError, LogError, SoftstepError
from service.learn.failure_tracker import FailureTracker
from service.learn.first_bases import FirstBases
from service.learn.publish import PUBLISH_SECONDS
from service.learn.retry_delay import RetryDelay
from service.learn.stream_learner import StreamLearner, report_held
from service.log_events import logger
from service.log_limit import LineLimit
from service.process.shared_memory import SharedMemory
from service.process.wakeup import Wakeup
from service.settings import Settings
from service.store.directory.data_directory import DataDirectory
from service.store.directory.log_opening import open_log
from service.store.log.events import Stream

# Longest pause between two looks at the log, in case a notification was lost with a worker.
POLL_SECONDS: Final = 0.5
# Shortest pause between two looks at which streams exist and how long the write-ahead log is.
STREAMS_SECONDS: Final = 0.01


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
        self._wakeup: Final = wakeup
        self._workers: Final = workers
        self._first_bases: Final = FirstBases(settings, self._data)
        self._failures: Final = FailureTracker(memory)
        self._log: Final = open_log(settings, self._data, memory.disk_faults)
        self._streams: dict[int, Stream] = {}
        self._pauses: Final = LineLimit()
        self._streams_due = 0.0
        self._has_listed_streams = False
        self._learners: dict[int, StreamLearner] = {}
        self._delays: defaultdict[int, RetryDelay] = defaultdict(RetryDelay)
        self._is_stopping = False

    def run(self) -> None:
        """Learn until SIGTERM."""
        signal.signal(signal.SIGTERM, self._on_sigterm)
        while not self._is_stopping:
            self._wakeup.clear()
            try:
                is_busy = self._learn_all(time.monotonic())
            except (LogError, OSError) as error:
                if self._pauses.is_due(str(error)):
                    logger.exception("learner_paused")
                is_busy = False
                time.sleep(POLL_SECONDS)
            if not is_busy:
                self._wait()
        for number, learner in self._learners.items():
            with self._delay_on_failure(self._streams[number]):
                learner.publisher.write_checkpoint_if_due(idle=True)
        self._log.close()

    def _on_sigterm(self, _number: int, _frame: object) -> None:
        self._is_stopping = True
        self._wakeup.notify()

    def _learn_all(self, now: float) -> bool:
        """Fold one batch of each stream; return whether more may wait."""
        self._has_listed_streams = now >= self._streams_due
        if self._has_listed_streams:
            self._list_streams()
            self._log.tidy()
            if self._first_bases.write_missing():
                for worker in self._workers:
                    worker.notify()
            self._streams_due = now + STREAMS_SECONDS
        is_busy = False
        for number, stream in self._streams.items():
            if self._delays[number].due <= now:
                with self._delay_on_failure(stream):
                    is_busy |= self._learn(stream)
        return is_busy

    def _list_streams(self) -> None:
        """Look up which streams exist, and drop the learners of those that were purged."""
        self._streams = {stream.number: stream for stream in self._log.list_streams()}
        for number in self._delays.keys() - self._streams.keys():
            del self._delays[number]
            self._learners.pop(number, None)

    def _learn(self, stream: Stream) -> bool:
        """Fold one batch of a stream and write what is due; return whether more may wait."""
        number = stream.number
        if number not in self._learners:
            folder = self._data.stream_folder(stream.model, stream.version)
            self._learners[number] = StreamLearner(stream, self._log, folder, self._settings, self._failures)
        try:
            is_busy = self._learners[number].fold_next()
        except BaseException:
            # The state may be half folded; the next learner starts from the files.
            del self._learners[number]
            raise
        self._learners[number].write_due(self._workers)
        return is_busy

    @contextmanager
    def _delay_on_failure(self, stream: Stream) -> Iterator[None]:
        """Delay a stream if its learning fails.

        Raises:
            LogError: The log, which all streams share, cannot be used now.
        """
        delay = self._delays[stream.number]
        try:
            yield
        except LogDamagedError as error:
            self._delay(stream, str(error))
        except LogError:
            raise
        except OSError as error:
            self._delay(stream, f"disk error: {error.strerror}")
        except SoftstepError as error:
            self._delay(stream, str(error))
        except Exception:
            logger.exception("learning_failed", model=stream.model, version=stream.version)
            self._failures.record_failure()
            self._delay(stream, "the fold failed; the service's log has the traceback")
        else:
            if delay.reason is not None:
                logger.event("learning_continues", model=stream.model, version=stream.version)
            delay.record_success()
        finally:
            self._failures.discard_batch()

    def _delay(self, stream: Stream, reason: str) -> None:
        """Delay a stream, log the reason once, and write it to the status."""
        delay, now = self._delays[stream.number], time.monotonic()
        if reason != delay.reason:
            logger.event("learning_held", model=stream.model, version=stream.version, reason=reason)
        delay.record_failure(reason, now)
        learner = self._learners.get(stream.number)
        with suppress(OSError):  # the status is on the disk that may have failed
            if learner is None:
                report_held(self._data.stream_folder(stream.model, stream.version), reason)
            else:
                learner.publisher.report_status(now, {"state": "held", "reason": reason})

    def _wait(self) -> None:
        """Wait for a notification, or until something is due."""
        now = time.monotonic()
        retries = [delay.due - now for delay in self._delays.values() if delay.due > now]
        active = [learner for number, learner in self._learners.items() if self._delays[number].due <= now]
        pauses = [pause for learner in active if (pause := learner.publisher.seconds_until_due(now)) is not None]
        soon = [pause for pause in pauses if 0 < pause <= PUBLISH_SECONDS]
        if soon:
            # Events that are committed before the next snapshot are folded for it together. A batch for every commit
            # would take several times the processor time, and nothing would be served sooner.
            time.sleep(min(soon))
            return
        pause = min([POLL_SECONDS, *retries, *pauses])
        if not self._has_listed_streams:  # the notification may be about a new stream
            pause = max(0.0, min(pause, self._streams_due - now))
        select.select([self._wakeup.fd], [], [], pause)


def run_learner(settings: Settings, memory: SharedMemory, wakeup: Wakeup, workers: Sequence[Wakeup]) -> None:
    """Run the learner in this process until SIGTERM."""
    LearnerProcess(settings, memory, wakeup, workers).run()
