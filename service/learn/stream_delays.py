"""Delay the streams whose learning fails, each by itself, and report why."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final

from service.chain_errors import LogEndsEarlierError, LogForkedError
from service.errors import LogDamagedError, LogError, SoftstepError
from service.learn.divergences import Divergences
from service.learn.failure_tracker import FailureTracker
from service.learn.fold_upgrade import LaterReleaseError
from service.learn.retry_delay import RetryDelay
from service.learn.state_exchange import StateDivergedError
from service.learn.stream_learner import StreamLearner, report_held
from service.log_events import logger
from service.process.shared_memory import LOG_DOUBTS
from service.store.directory.data_directory import DataDirectory
from service.store.log.events import Stream


class StreamDelays:
    """The delay of each stream. All times are of the monotonic clock, in seconds.

    Args:
        data: The data directory, in which the status of each stream is.
        failures: The events that the fold failed at.
        divergences: The streams that differ from other replicas.
        cells: The learner's cells of the shared memory, which have the doubts that the log continues what was learned.

    Attributes:
        taken_over: The numbers of the streams that a later release continues.
    """

    def __init__(
        self, data: DataDirectory, failures: FailureTracker, divergences: Divergences, cells: memoryview
    ) -> None:
        self._data: Final = data
        self._failures: Final = failures
        self._divergences: Final = divergences
        self._cells: Final = cells
        self._delays: Final[defaultdict[int, RetryDelay]] = defaultdict(RetryDelay)
        self.taken_over: Final[set[int]] = set()

    def is_due(self, stream: int, now: float) -> bool:
        """Return whether a stream may be learned now."""
        return self._delays[stream].due <= now

    @property
    def held(self) -> set[int]:
        """The numbers of the streams whose learning has failed and was not tried again with success."""
        return {number for number, delay in self._delays.items() if delay.reason is not None}

    def pauses(self, now: float) -> list[float]:
        """Return the time until each stream that is delayed is tried again."""
        return [delay.due - now for delay in self._delays.values() if delay.due > now]

    def drop_others(self, streams: Iterable[int]) -> set[int]:
        """Forget all but these streams; return the numbers of those that were forgotten."""
        dropped = self._delays.keys() - set(streams)
        for number in dropped:
            del self._delays[number]
            self._divergences.drop(number)
        return dropped

    @contextmanager
    def delay_on_failure(self, stream: Stream, learners: Mapping[int, StreamLearner]) -> Iterator[None]:
        """Delay a stream if its learning fails.

        Args:
            stream: The stream.
            learners: The learner of each stream, by its number.

        Raises:
            LogError: The log, which all streams share, cannot be used now.
        """
        delay = self._delays[stream.number]
        try:
            yield
        except LogDamagedError as error:
            self._cells[LOG_DOUBTS] += isinstance(error, LogForkedError | LogEndsEarlierError)
            self._delay(stream, learners, str(error))
        except LogError:
            raise
        except StateDivergedError as error:
            logger.event("state_diverged", model=stream.model, version=stream.version, seq=error.seq)
            due = self._divergences.record(stream.number, error, time.monotonic())
            self._delay(stream, learners, str(error), due)
        except OSError as error:
            self._delay(stream, learners, f"disk error: {error.strerror}")
        except SoftstepError as error:
            if isinstance(error, LaterReleaseError):
                self.taken_over.add(stream.number)
            self._delay(stream, learners, str(error))
        except Exception:
            logger.exception("learning_failed", model=stream.model, version=stream.version)
            self._failures.record_failure()
            self._delay(stream, learners, "the fold failed; the service's log has the traceback")
        else:
            if delay.reason is not None:
                logger.event("learning_continues", model=stream.model, version=stream.version)
            delay.record_success()
        finally:
            self._failures.discard_batch()

    def _delay(self, stream: Stream, learners: Mapping[int, StreamLearner], reason: str, due: float = 0.0) -> None:
        """Delay a stream, at least until it is due, log the reason once, and write it to the status."""
        delay, now = self._delays[stream.number], time.monotonic()
        if reason != delay.reason:
            logger.event("learning_held", model=stream.model, version=stream.version, reason=reason)
        delay.record_failure(reason, now)
        delay.due = max(delay.due, due)
        learner = learners.get(stream.number)
        with suppress(OSError):  # the status is on the disk that may have failed
            if learner is None:
                report_held(self._data.stream_folder(stream.model, stream.version), reason)
            else:
                learner.publisher.report_status(now, {"state": "held", "reason": reason})
