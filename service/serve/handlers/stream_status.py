"""Report the status of a stream, for the model's metadata and the metrics.

log_seq       the last committed event
lag_events    committed events that the served state does not hold yet
lag_seconds   the age of the first of them
learner       the learner's last report (store/states/status.py), or {"state": "unavailable"} if the log is unreadable
erased        whether no file holds a forgotten event any longer
"""

from typing import Any, Final, NamedTuple

from service.errors import LogError
from service.serve.handlers.feedback_context import now_ms
from service.serve.log.writer import Writer
from service.serve.models.served_model import ServedModel
from service.store.directory.data_directory import DataDirectory
from service.store.log.feedback_log import FeedbackLog
from service.store.states.status import read_status


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


class StreamStatus:
    """Reads the status of streams.

    Args:
        writer: The writer, whose thread reads the log.
        data: The data directory.
    """

    def __init__(self, writer: Writer, data: DataDirectory) -> None:
        self._writer: Final = writer
        self._data: Final = data

    def has_learned(self, served: ServedModel) -> bool:
        """Whether a version has a stream."""
        return self._data.stream_folder(*served.key).path.exists()

    async def status_of(self, served: ServedModel) -> dict[str, Any]:
        """Return the status of a served state's stream."""
        status = await self.pulse_of(served)
        status.pop("admin_seq", None)
        return status

    async def pulse_of(self, served: ServedModel) -> dict[str, Any]:
        """Return the status of a served state's stream, with `admin_seq`, the last event that is not feedback."""
        try:
            committed = await self._writer.call_with_log(lambda log: _committed(log, *served.key, served.seq))
        except LogError:
            return {"learner": {"state": "unavailable"}}
        status = read_status(self._data.stream_folder(*served.key).path)
        erased = status.pop("erased_epoch", 0)
        age = 0.0 if committed.since_ms is None else max(0.0, (now_ms() - committed.since_ms) / 1000)
        return {
            "log_seq": committed.seq,
            "lag_events": max(0, committed.seq - served.seq),
            "lag_seconds": age,
            "learner": status or {"state": "following"},
            "erased": erased >= committed.epoch,
            "admin_seq": committed.admin_seq,
        }


def _committed(log: FeedbackLog, model: str, version: int, served_seq: int) -> CommittedState:
    """Read the committed state from the log, on the writer's thread."""
    for stream in log.list_streams():
        if stream[1:3] == (model, version):
            state = log.stream_state(stream.number)
            waiting = log.read_events(stream.number, served_seq, 1)
            since_ms = waiting[0].time_ms if waiting else None
            return CommittedState(state.seq, state.epoch, since_ms, log.last_admin_seq(stream.number))
    return CommittedState()
