"""How a stream stands, as its model's metadata and the metrics tell it.

log_seq       the last event that is committed
lag_events    committed events that the served state does not hold yet
lag_seconds   the age of the first of them
learner       what the learner said last (store/states/status.py), or {"state": "unavailable"} if the log is unreadable
erased        whether nothing on disk holds a forgotten event any more
"""

from typing import Any, NamedTuple

from service.errors import LogError
from service.serve.log.writer import Writer
from service.serve.models.served_model import ServedModel
from service.store.directory.data_directory import StreamFolder
from service.store.log.feedback_log import FeedbackLog
from service.store.states.status import read_status


async def standing(writer: Writer, folder: StreamFolder, served: ServedModel, now_ms: int) -> dict[str, Any]:
    """How the stream of a served state stands; `now_ms` are milliseconds since 1970."""
    try:
        kept = await writer.call_with_log(lambda log: _kept(log, served.name, int(served.version), served.seq))
    except LogError:
        return {"learner": {"state": "unavailable"}}
    status = read_status(folder.path)
    erased = status.pop("erased_epoch", 0)
    return {
        "log_seq": kept.seq,
        "lag_events": max(0, kept.seq - served.seq),
        "lag_seconds": 0.0 if kept.since_ms is None else max(0.0, (now_ms - kept.since_ms) / 1000),
        "learner": status or {"state": "following"},
        "erased": erased >= kept.epoch,
    }


class CommittedState(NamedTuple):
    """What is committed of a stream: its last seq, its forgets, and when the first event that is not served came."""

    seq: int = 0
    epoch: int = 0
    since_ms: int | None = None


def _kept(log: FeedbackLog, model: str, version: int, served: int) -> CommittedState:
    """Look at the log; on the writer's thread."""
    for stream in log.list_streams():
        if stream[1:3] == (model, version):
            state = log.stream_state(stream.number)
            waiting = log.read_events(stream.number, served, 1)
            return CommittedState(state.seq, state.epoch, waiting[0].time_ms if waiting else None)
    return CommittedState()
