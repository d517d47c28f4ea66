"""Backups: a backup is a data directory of its own, as of one moment, made while others append and learn.

    log.sqlite                                    everything committed at that moment, without free pages
    marks/0                                       where each stream of that copy ends, so that truncation is detected
    streams/<model>/<version>/artifact/           the artifact that each stream is bound to
    streams/<model>/<version>/checkpoints/<seq>   the newest one that is a state of the copy, for a quick start
    token.key                                     the keys of feedback tokens, if there is a key file

Snapshots are derived from these again. Nothing that was forgotten by that moment is in any of them; a checkpoint that
still contains it is not copied.
"""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from service.errors import LogUnavailableError, SnapshotError
from service.settings import Settings
from service.store.artifact.artifact import write_artifact
from service.store.directory.ack_marks import AckMarks
from service.store.directory.artifact_transfer import download_artifact
from service.store.directory.bound_artifact import read_bound_artifact
from service.store.directory.data_directory import LOCK_NAME, DataDirectory, StreamFolder
from service.store.directory.keyfile import copy_key_file
from service.store.directory.offline import StoredData
from service.store.directory.stream_artifact import read_stream_artifact
from service.store.directory.verify_files import later_exclusions, position_mismatch
from service.store.log.events import Position, Stream
from service.store.log.feedback_log import FeedbackLog, read_lineage
from service.store.log.sqlite import SqliteLog
from service.store.states.snapshots import read_snapshot, write_snapshot
from service.store.states.state_folder import list_seqs

WAL_SUFFIXES: Final = ("-wal", "-shm")


class StreamBackup(NamedTuple):
    """A stream in a backup: the stream, where it ends, and the seq of its checkpoint, 0 without one."""

    stream: Stream
    position: Position
    checkpoint: int


def write_backup(stored: StoredData, folder: Path, settings: Settings) -> list[StreamBackup]:
    """Fill an empty folder from a data directory that may be in use.

    Raises:
        ArtifactError: A bound artifact is damaged.
        LogError: The log cannot be read.
        OSError: The disk failed.
    """
    target = DataDirectory(folder)
    stored.log.write_copy(target.log)
    log = SqliteLog(target.log)
    try:
        for stream in log.list_streams():
            if not stored.data.stream_folder(stream.model, stream.version).artifact.exists():
                new = target.stream_folder(stream.model, stream.version)
                if not download_artifact(stored.log.files, stream, new):
                    write_artifact(new.artifact, read_stream_artifact(stored, stream, settings))
        copies = [
            copy_stream_files(stored.data, StoredData(target, log), stream, settings.artifact_bytes_max)
            for stream in log.list_streams()
        ]
        write_marks(target, log)
    finally:
        log.close()
    copy_key_file(stored.data.path, folder)
    return copies


def copy_stream_files(source: DataDirectory, target: StoredData, stream: Stream, bytes_max: int) -> StreamBackup:
    """Copy the artifact and the newest checkpoint of a stream to a data directory that has the stream's events.

    Raises:
        ArtifactError: The artifact is damaged or missing.
        OSError: The disk failed.
    """
    old, new = (data.stream_folder(stream.model, stream.version) for data in (source, target.data))
    if not new.artifact.exists():
        write_artifact(new.artifact, read_bound_artifact(old, stream, bytes_max))
    checkpoint = _copy_checkpoint(old, new, target.log, stream)
    return StreamBackup(stream, _end_of(target.log, stream), checkpoint)


def write_marks(data: DataDirectory, log: FeedbackLog) -> None:
    """Replace all marks by one for each stream, at its end."""
    for path in data.mark_files():
        path.unlink()
    streams = log.list_streams()
    marks = AckMarks(data.mark_file(0), {stream.number for stream in streams})
    for stream in streams:
        marks.write_mark(stream.number, _end_of(log, stream))
    marks.close()


def close_log(data: DataDirectory, log: FeedbackLog) -> None:
    """Move all of a log in a data directory into its one file, close it and delete the files beside it."""
    log.erase_forgotten()
    log.close()
    for suffix in WAL_SUFFIXES:
        Path(f"{data.log}{suffix}").unlink(missing_ok=True)


def clear_folder(folder: Path) -> None:
    """Delete everything in a folder but its lock."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK_NAME:
            path.unlink()


def partial_backup_folder(target: Path) -> Path:
    """Return the folder in which a backup is made before it is renamed to its target.

    Raises:
        LogUnavailableError: The target exists.
    """
    if target.exists():
        raise LogUnavailableError("the folder for the backup exists already; name one that does not")
    return target.parent / f".{target.name}.partial"


def _copy_checkpoint(old: StreamFolder, new: StreamFolder, log: FeedbackLog, stream: Stream) -> int:
    """Copy the newest checkpoint that is a state of the copied log; return its seq, or 0 if there is none."""
    lineage = read_lineage(log, stream.number)
    last = log.stream_state(stream.number).seq
    for seq in reversed(list_seqs(old.checkpoints)):
        # Meanwhile the learner may delete a checkpoint, or write one that includes events after the copy.
        with suppress(SnapshotError):
            snapshot = read_snapshot(old.checkpoints / str(seq))
            if seq <= last and position_mismatch(log, stream, seq, snapshot) is None:
                is_of_copy = snapshot.fields["turns"] <= len(lineage.changes)
                if is_of_copy and not later_exclusions(snapshot.fields, seq, lineage):
                    write_snapshot(new.checkpoints, seq, snapshot.fields, snapshot.arrays, durable=True)
                    return seq
    return 0


def _end_of(log: FeedbackLog, stream: Stream) -> Position:
    state = log.stream_state(stream.number)
    return Position(state.seq, state.hash)
