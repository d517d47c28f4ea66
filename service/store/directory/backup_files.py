"""A backup: a data directory of its own, as of one moment, made while others append and learn.

    log.sqlite                                    all that was committed at that moment, without free pages
    marks/0                                       where each stream of that copy ends: it cannot be cut unnoticed
    streams/<model>/<version>/artifact/           what each stream is bound to
    streams/<model>/<version>/checkpoints/<seq>   the newest one that is a state of the copy, so that a start is quick
    token.key                                     what seals feedback tokens, where there is one

Snapshots are made anew from these. What was forgotten by that moment is in none of them; a checkpoint that still holds
it is left behind.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from service.errors import LogUnavailableError, SnapshotError
from service.store.artifact.artifact import write_artifact
from service.store.directory.ack_marks import AckMarks
from service.store.directory.data_directory import DataDirectory, StreamFolder
from service.store.directory.offline import StoredData, read_bound_artifact
from service.store.directory.verify_files import later_exclusions, position_mismatch
from service.store.log.events import Position, Stream
from service.store.log.feedback_log import read_lineage
from service.store.log.sqlite import SqliteLog
from service.store.states.snapshots import list_seqs, read_snapshot, write_snapshot

KEY_NAME: Final = "token.key"


class StreamBackup(NamedTuple):
    """A stream in a backup: itself, where it ends, and the seq of its checkpoint, 0 where there is none."""

    stream: Stream
    position: Position
    checkpoint: int


def write_backup(found: StoredData, folder: Path, bytes_max: int) -> list[StreamBackup]:
    """Fills a folder, which is empty, from a data directory that may be in use.

    Raises:
        ArtifactError: A bound artifact is damaged.
        LogError: The log cannot be read.
        OSError: The disk refuses.
    """
    target = DataDirectory(folder)
    found.log.write_copy(target.log)
    log = SqliteLog(target.log)
    try:
        copied = [_copy_stream(found.data, StoredData(target, log), stream, bytes_max) for stream in log.list_streams()]
        write_marks(target, log)
    finally:
        log.close()
    copy_token_key(found.data.path, folder)
    return copied


def write_marks(data: DataDirectory, log: SqliteLog) -> None:
    """One mark for each stream, where it ends, in place of all that there are."""
    for path in data.mark_files():
        path.unlink()
    streams = log.list_streams()
    marks = AckMarks(data.mark_file(0), {stream.number for stream in streams})
    for stream in streams:
        marks.write_mark(stream.number, Position(*log.stream_state(stream.number)[:2]))
    marks.close()


def copy_token_key(source: Path, target: Path) -> None:
    """Copies the key of feedback tokens, where there is one, for its owner's eyes alone."""
    with suppress(FileNotFoundError):
        key = (source / KEY_NAME).read_bytes()
        descriptor = os.open(target / KEY_NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key)


def close_log(data: DataDirectory, log: SqliteLog) -> None:
    """Moves all of a log into its one file, and leaves nothing beside it."""
    log.empty_wal()
    log.close()
    for end in ("-wal", "-shm"):
        Path(f"{data.log}{end}").unlink(missing_ok=True)


def clear_folder(folder: Path) -> None:
    """Empties a folder, but for its lock."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != "lock":
            path.unlink()


def _copy_stream(source: DataDirectory, target: StoredData, stream: Stream, bytes_max: int) -> StreamBackup:
    old, new = (data.stream_folder(stream.model, stream.version) for data in (source, target.data))
    write_artifact(new.artifact, read_bound_artifact(old, stream, bytes_max))
    checkpoint = _copy_checkpoint(old, new, target.log, stream)
    return StreamBackup(stream, Position(*target.log.stream_state(stream.number)[:2]), checkpoint)


def _copy_checkpoint(old: StreamFolder, new: StreamFolder, log: SqliteLog, stream: Stream) -> int:
    """Copies the newest checkpoint that is a state of the copied log; returns its seq, or 0."""
    lineage = read_lineage(log, stream.number)
    last = log.stream_state(stream.number).seq
    for seq in reversed(list_seqs(old.checkpoints)):
        # The learner may delete one meanwhile, or know of what came after the copy.
        with suppress(SnapshotError):
            snapshot = read_snapshot(old.checkpoints / str(seq))
            if seq <= last and position_mismatch(log, stream, seq, snapshot) is None:
                is_known = snapshot.fields["turns"] <= len(lineage.changes)
                if is_known and not later_exclusions(snapshot.fields, seq, lineage):
                    write_snapshot(new.checkpoints, seq, snapshot.fields, snapshot.arrays, durable=True)
                    return seq
    return 0


def partial_backup_folder(target: Path) -> Path:
    """The folder beside a backup that is to be, in which it is made; raises LogUnavailableError where there is one."""
    if target.exists():
        raise LogUnavailableError("the folder for the backup exists already; name one that does not")
    return target.parent / f".{target.name}.partial"
