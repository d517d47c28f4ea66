"""Detection of a log that has lost acknowledged events."""

from collections.abc import Iterable

from service.errors import LogDamagedError
from service.store.directory.ack_marks import Mark
from service.store.log.feedback_log import FeedbackLog, read_event


def refuse_truncated_log(log: FeedbackLog, reached: Iterable[Mark]) -> None:
    """Refuse a log that lacks a position which was reached once.

    Args:
        log: The log.
        reached: Streams' numbers and positions, from marks, snapshots and checkpoints.

    Raises:
        LogDamagedError: An event or a stream is missing, or differs.
    """
    live = {stream.number for stream in log.list_streams()}
    for stream, (seq, hash_) in reached:
        if stream not in live:
            raise LogDamagedError("the feedback log has lost a stream that was acknowledged; restore a backup")
        if seq > 0:
            event = read_event(log, stream, seq)
            if event is None or event.hash != hash_:
                raise LogDamagedError(
                    f"the feedback log ends before event {seq}, which was acknowledged, or has another event there; "
                    "restore a backup"
                )
