"""Report the status of a stream, for the model's metadata and the metrics.

log_seq       the last committed event
lag_events    committed events that the served state does not hold yet
lag_seconds   the age of the first of them
learner       the learner's last report (store/states/status.py), or {"state": "unavailable"} if the log is unreadable
erased        whether no file holds a forgotten event any longer
archived_until_ms    until when archives of a shared log may hold one, in milliseconds since 1970; absent if unknown
"""

import time
from pathlib import Path
from typing import Any, Final, NamedTuple

from service.errors import LogError
from service.serve.handlers.feedback_context import now_ms
from service.serve.log.writer import Writer
from service.serve.metrics.counters import WorkerCounters
from service.serve.models.live_models import VersionKey
from service.serve.models.served_model import ServedModel
from service.settings import Settings
from service.store.directory.data_directory import DataDirectory
from service.store.log.feedback_log import FeedbackLog
from service.store.states.status import read_status

# How long a pulse trusts what it has read: commands append to the log too, which no worker counts.
KNOWN_SECONDS: Final = 5.0
UNREADABLE: Final = {"learner": {"state": "unavailable"}}

Folders = dict[VersionKey, Path]


class CommittedState(NamedTuple):
    """The committed part of a stream.

    Attributes:
        seq: The last seq.
        epoch: How often events were forgotten.
        since_ms: When the first event that is not served was appended, in milliseconds since 1970, or None.
        admin_seq: The last event that is not feedback, or 0.
    """

    seq: int = 0
    epoch: int = 0
    since_ms: int | None = None
    admin_seq: int = 0


class StreamEnd(NamedTuple):
    """The hash of the last event of a stream, and the seq of the last one that is not feedback, 0 for none."""

    hash: bytes
    admin_seq: int


class KnownState(NamedTuple):
    """A committed state that was read, and what it was read for.

    Attributes:
        served_seq: The seq that was served.
        commits: The transactions that all workers had written before.
        until: The time on the monotonic clock until which it counts.
        committed: The state.
    """

    served_seq: int
    commits: int
    until: float
    committed: CommittedState


class StreamStatus:
    """Reads the status of streams.

    Args:
        writer: The writer, whose thread reads the log.
        data: The data directory.
        counters: The worker's counters, which know how much all workers have written.
        settings: How long archives of a shared log are kept.
    """

    def __init__(self, writer: Writer, data: DataDirectory, counters: WorkerCounters, settings: Settings) -> None:
        seconds = None if settings.log is None else settings.log_archive_seconds
        self._archive_ms: Final = None if seconds is None else round(1000 * seconds)
        self._writer: Final = writer
        self._data: Final = data
        self._counters: Final = counters
        self._known: Final[dict[VersionKey, KnownState]] = {}
        self._folders: Final[Folders] = {}  # making the paths takes as long as the rest of a pulse
        # On the writer's thread alone: the number of each version's stream, which no purge can change while the data
        # directory is locked, and the end of each stream as it was read last. A shared log is not locked, and a
        # failover may lose a stream whose number another one gets then, so its numbers are read each time.
        self._streams: Final[dict[VersionKey, int]] = {}
        self._ends: Final[dict[int, StreamEnd]] = {}

    def has_learned(self, served: ServedModel) -> bool:
        """Whether a version has a stream."""
        return self._data.stream_folder(*served.key).path.exists()

    async def status_of(self, served: ServedModel) -> dict[str, Any]:
        """Return the status of a served state's stream."""
        try:
            committed = await self._writer.call_with_log(lambda log: self._read_committed(log, served))
        except LogError:
            return dict(UNREADABLE)
        return self._describe(served, committed)

    async def pulse_of(self, served: ServedModel) -> dict[str, Any]:
        """Return the status of a served state's stream, with `admin_seq`, the last event that is not feedback.

        The log is read if a worker has written or another state is served, and else now and then.
        """
        status = self.known_pulse(served)
        if status is None:
            commits, until = self._counters.total_commits(), time.monotonic() + KNOWN_SECONDS
            try:
                committed = await self._writer.call_with_log(lambda log: self._read_committed(log, served))
            except LogError:
                return dict(UNREADABLE)
            self._known[served.key] = KnownState(served.seq, commits, until, committed)
            status = self._describe_pulse(served, committed)
        return status

    def known_pulse(self, served: ServedModel) -> dict[str, Any] | None:
        """Return the same without reading the log, or None if that needs to be read."""
        known = self._known.get(served.key)
        if known is None or known.served_seq != served.seq or time.monotonic() > known.until:
            return None
        if known.commits != self._counters.total_commits():
            return None
        return self._describe_pulse(served, known.committed)

    def _describe_pulse(self, served: ServedModel, committed: CommittedState) -> dict[str, Any]:
        return {**self._describe(served, committed), "admin_seq": committed.admin_seq}

    def _describe(self, served: ServedModel, committed: CommittedState) -> dict[str, Any]:
        """Return the status of a served state's stream, whose committed state is known."""
        folder = self._folders.get(served.key)
        if folder is None:
            folder = self._folders[served.key] = self._data.stream_folder(*served.key).path
        status = read_status(folder)
        erased, erased_ms = status.pop("erased_epoch", 0), status.pop("erased_ms", None)
        archived = self._archived_until(erased_ms) if committed.epoch else {}
        age = 0.0 if committed.since_ms is None else max(0.0, (now_ms() - committed.since_ms) / 1000)
        return {
            "log_seq": committed.seq,
            "lag_events": max(0, committed.seq - served.seq),
            "lag_seconds": age,
            "learner": status or {"state": "following"},
            "erased": erased >= committed.epoch,
            **archived,
        }

    def _archived_until(self, erased_ms: int | None) -> dict[str, int]:
        """Return until when archives of a shared log may hold rows that were erased, if that is known."""
        if self._archive_ms is None or erased_ms is None:
            return {}
        return {"archived_until_ms": erased_ms + self._archive_ms}

    def _read_committed(self, log: FeedbackLog, served: ServedModel) -> CommittedState:
        """Read the committed state from the log, on the writer's thread; one query if nothing has changed.

        A shared log needs one more, for the stream's number.
        """
        number = None if log.is_shared else self._streams.get(served.key)
        if number is None:
            number = _find_stream(log, served.key)
            if number is None:
                return CommittedState()
            self._streams[served.key] = number
        state = log.stream_state(number)
        end = self._ends.get(number)
        if end is None or end.hash != state.hash:
            end = self._ends[number] = StreamEnd(state.hash, log.last_admin_seq(number))
        waiting = log.read_events(number, served.seq, 1) if state.seq > served.seq else []
        return CommittedState(state.seq, state.epoch, waiting[0].time_ms if waiting else None, end.admin_seq)


def _find_stream(log: FeedbackLog, key: VersionKey) -> int | None:
    """Return the number of a version's stream, or None if it has none."""
    return next((stream.number for stream in log.list_streams() if stream[1:3] == key), None)
