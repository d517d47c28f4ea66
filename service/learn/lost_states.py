"""Delete the states of events that the log has no longer, after its chain and the one that was folded have parted.

A log forks when PostgreSQL fails over to a server without the last events of the one before. Checkpoints, snapshots and
keyframes of those events name a seq and a hash that the log does not have. They are deleted before anything is folded,
those of the latest events first: as long as one is left, a learner that starts finds it.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from service.chain_errors import LogEndsEarlierError
from service.errors import SnapshotError
from service.store.directory.data_directory import StreamFolder
from service.store.log.events import Position, Stream
from service.store.log.feedback_log import FeedbackLog, read_lineage
from service.store.states.snapshots import Fields, read_fields, read_snapshot
from service.store.states.state_folder import list_seqs
from service.store.states.state_positions import contains_position, dependencies
from service.store.states.status import read_status, write_status

VERIFY_EVENTS: Final = 1 << 12
# In the place of a file that cannot be read: it goes with the others if there is a fork.
UNKNOWN: Final = Position(0, b"")


def drop_lost_states(stream: Stream, log: FeedbackLog, folder: StreamFolder) -> int | None:
    """Delete the states of a stream that contain or heed events which the log has no longer.

    Returns:
        The seq of the last event that the lost states depend on. None if the log has the newest position that an intact
        file names.

    Raises:
        LogEndsEarlierError: The log ends before that position; nothing is deleted, because it may still catch up.
        LogDamagedError: The chain is broken, so the files may be right and the log wrong; nothing is deleted.
        OSError: The disk failed.
    """
    with suppress(LogEndsEarlierError):
        reached = _newest(_list_states(stream, folder, read_fields))
        if reached == UNKNOWN or contains_position(log, stream, reached):
            return None
    files = _list_states(stream, folder, lambda path: read_snapshot(path).fields)
    reached = _newest(files)
    if reached == UNKNOWN or contains_position(log, stream, reached):
        return None  # the file that named another position is damaged
    kept = {path for path, positions in files.items() if all(_is_in(log, stream, position) for position in positions)}
    last = max((files[path][0] for path in kept), default=Position(0, stream.genesis))
    _verify_to(log, stream, last, reached.seq)
    _lower_erased_epoch(folder, read_lineage(log, stream.number).epoch(last.seq))
    for path in sorted(files.keys() - kept, key=lambda path: max(files[path]), reverse=True):
        path.unlink(missing_ok=True)
    return reached.seq


def _newest(files: Mapping[Path, list[Position]]) -> Position:
    return max((position for positions in files.values() for position in positions), default=UNKNOWN)


def _list_states(stream: Stream, folder: StreamFolder, read: Callable[[Path], Fields]) -> dict[Path, list[Position]]:
    """Return the files that hold a state or a report of the stream, with the positions that each depends on.

    Args:
        stream: The stream.
        folder: The folder of its files.
        read: Reads the fields of a file, or raises SnapshotError.
    """
    found: dict[Path, list[Position]] = {}
    for files in (folder.checkpoints, folder.snapshots, folder.keyframes, folder.history):
        for seq in list_seqs(files):
            found[files / str(seq)] = _read_dependencies(stream, files / str(seq), seq, read)
    found[folder.report] = _read_dependencies(stream, folder.report, None, read)
    return {path: positions for path, positions in found.items() if positions}


def _read_dependencies(stream: Stream, path: Path, seq: int | None, read: Callable[[Path], Fields]) -> list[Position]:
    """Return the positions that a file depends on, its own first; none if it is missing or of another stream."""
    try:
        fields = read(path)
        if fields.get("genesis", stream.genesis.hex()) != stream.genesis.hex():
            return []
        return dependencies(int(fields["seq"]) if seq is None else seq, fields)
    except (SnapshotError, KeyError, TypeError, ValueError):
        return [UNKNOWN] if path.exists() else []


def _is_in(log: FeedbackLog, stream: Stream, position: Position) -> bool:
    return position != UNKNOWN and contains_position(log, stream, position)


def _verify_to(log: FeedbackLog, stream: Stream, since: Position, seq: int) -> None:
    """Verify the chain up to an event, so that a damaged hash does not pass for a fork."""
    for position in log.verify_chain(stream.number, since, VERIFY_EVENTS):
        if position.seq >= seq:
            break


def _lower_erased_epoch(folder: StreamFolder, epoch: int) -> None:
    """Let the status count only FORGET events up to the last one that is kept: the next may forget other events."""
    status = read_status(folder.path)
    if int(status.get("erased_epoch", 0)) > epoch:
        write_status(folder.path, {**status, "erased_epoch": epoch})
