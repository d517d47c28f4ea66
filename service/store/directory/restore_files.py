"""Restores of a backup into a data directory; a kill at any point leaves the old state or the new one.

    .restore.partial/    the copy of the backup, which is checked, and in which later forgets are repeated
    .restore/            the complete copy, renamed once it is synced; from here on its files are only moved into place

While `.restore/` exists, nothing else opens the directory (`directory_lock.py`), and the next restore finishes it.

**Forgotten events stay forgotten.** A backup contains the rows of events that were forgotten after it was made. If it
is restored over a log, that log still knows their ids, and they are forgotten in the copy before it takes effect.
"""

import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Final

from service.errors import LogError, LogUnavailableError, RefusedError
from service.settings import Settings
from service.store.directory.backup_files import WAL_SUFFIXES, close_log, write_marks
from service.store.directory.data_directory import LOG_NAME, MARKS_NAME, RESTORE_NAME, STREAMS_NAME, DataDirectory
from service.store.directory.keyfile import KEY_NAME, copy_key_file
from service.store.directory.log_opening import open_log
from service.store.directory.offline import StoredData
from service.store.filesystem import sync_folder, sync_tree
from service.store.log.admin_payloads import dump_forget_ids
from service.store.log.events import COMMAND, Draft, EventLocation, Kind, Stream
from service.store.log.feedback_log import FeedbackLog, read_event, read_lineage
from service.store.log.ids import new_id
from service.store.log.sqlite import SqliteLog
from service.store.states.bases import delete_bases
from service.store.states.state_folder import delete_states

PARTIAL_NAME: Final = ".restore.partial"
FORGET_IDS: Final = 1000

IdsByModel = Mapping[str, Sequence[bytes]]


def read_forgotten_ids(settings: Settings, data: DataDirectory) -> IdsByModel:
    """Return the ids that the log to be replaced has forgotten, by the name of their model.

    They are those of the log in the data directory, and those of the log in PostgreSQL that the settings name.

    Raises:
        LogUnavailableError: A log cannot be read, so what it forgot is unknown.
    """
    ids: defaultdict[str, list[bytes]] = defaultdict(list)
    opened: list[Callable[[], FeedbackLog]] = [partial(SqliteLog, data.log)] if data.log.exists() else []
    opened += [] if settings.log is None else [partial(open_log, settings, data)]
    try:
        for open_one in opened:
            with closing(open_one()) as log:
                for model, forgotten in forgotten_ids(log).items():
                    ids[model] += forgotten
    except LogError as error:
        raise LogUnavailableError(
            "the log to be replaced cannot be read, so what was forgotten since the backup is unknown; "
            "move the data directory away, restore into an empty one, and forget again what must stay forgotten"
        ) from error
    return {model: list(dict.fromkeys(known)) for model, known in ids.items()}


def forgotten_ids(log: FeedbackLog) -> IdsByModel:
    """Return the ids of all forgotten events of a log, by the name of their model."""
    ids: defaultdict[str, list[bytes]] = defaultdict(list)
    for stream in log.list_streams():
        for seq in sorted(read_lineage(log, stream.number).forgotten):
            event = read_event(log, stream.number, seq)
            if event is not None:
                ids[stream.model].append(event.id)
    return ids


def copy_backup(backup: Path, data: DataDirectory) -> DataDirectory:
    """Copy a backup into the data directory, without effect yet; what an earlier attempt left is deleted.

    Raises:
        LogUnavailableError: The folder contains no backup.
        OSError: The disk failed.
    """
    if not (backup / LOG_NAME).is_file():
        raise LogUnavailableError("the folder contains no backup; name one that softstep backup has written")
    delete_partial_copy(data)
    partial = data.path / PARTIAL_NAME
    copy = DataDirectory(partial)
    # The second belongs to a data directory that was copied as it was, without softstep backup.
    for name in (LOG_NAME, f"{LOG_NAME}-wal"):
        if (backup / name).exists():
            shutil.copyfile(backup / name, partial / name)
    for name in (MARKS_NAME, STREAMS_NAME):
        if (backup / name).is_dir():
            shutil.copytree(backup / name, partial / name, copy_function=shutil.copyfile, dirs_exist_ok=True)
    (partial / STREAMS_NAME).mkdir(exist_ok=True)
    copy_key_file(backup, partial)
    return copy


def delete_partial_copy(data: DataDirectory) -> None:
    """Delete a copy that has not taken effect."""
    shutil.rmtree(data.path / PARTIAL_NAME, ignore_errors=True)


def repeat_forgets(copy: StoredData, ids: IdsByModel) -> int:
    """Forget events in a copy that still contains their rows; return how many.

    Raises:
        RefusedError: An id names another kind of event there.
    """
    count = 0
    for model, model_ids in ids.items():
        for start in range(0, len(model_ids), FORGET_IDS):
            present: defaultdict[int, list[bytes]] = defaultdict(list)
            for id_, location in copy.log.find_ids(model, model_ids[start : start + FORGET_IDS]).items():
                if location.removed_by != Kind.FORGET:
                    present[location.stream].append(id_)
            for number, stream_ids in present.items():
                _append_forget(copy.log, number, stream_ids)
                count += len(stream_ids)
    for stream in copy.log.list_streams():
        _delete_states_with_forgotten(copy, stream)
    return count


def commit_copy(data: DataDirectory, copy: StoredData) -> None:
    """Let a copy take effect: from here on a restore can only be finished."""
    write_marks(copy.data, copy.log)
    close_log(copy.data, copy.log)
    sync_tree(copy.data.path)
    copy.data.path.rename(data.path / RESTORE_NAME)
    sync_folder(data.path)


def finish_restore(data: DataDirectory) -> None:
    """Move a complete copy into place, or continue to do so after a kill.

    A name that is still in the copy has not been moved, so the same name beside it is an old file.
    """
    copy = data.path / RESTORE_NAME
    if (copy / LOG_NAME).exists():
        for suffix in (*WAL_SUFFIXES, ""):
            Path(f"{data.log}{suffix}").unlink(missing_ok=True)
        for name in (MARKS_NAME, STREAMS_NAME):
            if (copy / name).exists():
                shutil.rmtree(data.path / name, ignore_errors=True)
                (copy / name).rename(data.path / name)
        if (copy / KEY_NAME).exists():
            (copy / KEY_NAME).replace(data.path / KEY_NAME)
        sync_folder(data.path)
        (copy / LOG_NAME).rename(data.log)
        sync_folder(data.path)
    shutil.rmtree(copy)
    sync_folder(data.path)


def _delete_states_with_forgotten(copy: StoredData, stream: Stream) -> None:
    """Delete the files of a stream whose states include forgotten events."""
    lineage = read_lineage(copy.log, stream.number)
    folder = copy.data.stream_folder(stream.model, stream.version)
    epoch = copy.log.stream_state(stream.number).epoch
    for files in (folder.snapshots, folder.checkpoints):
        delete_states(files, epoch, lambda seq: any(lineage.contains(seq, one) for one in lineage.forgotten))
    delete_bases(folder.bases, folder.snapshots)


def _append_forget(log: FeedbackLog, stream: int, ids: Sequence[bytes]) -> None:
    now_ms = time.time_ns() // 1_000_000
    (outcome,) = log.append([Draft(stream, Kind.FORGET, new_id(), dump_forget_ids(ids), now_ms, actor=COMMAND)])
    if not isinstance(outcome, EventLocation):
        raise outcome if isinstance(outcome, RefusedError) else LogUnavailableError(str(outcome))
