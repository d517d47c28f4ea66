"""Restoring a backup into a data directory, so that a kill at any point leaves the old state or the new one.

    .restore.partial/    the backup's copy, which is checked, and in which is forgotten what was forgotten since
    .restore/            the same, whole: renamed once it is synced; from here on it is only moved to its place

While there is a `.restore/`, nobody else opens the directory (data.py), and the next restore finishes it.

**What was forgotten stays forgotten.** A backup holds the rows of events that were forgotten after it was made. Where
it is restored over a log, that log still knows their ids, and they are forgotten in the copy before it counts.
"""

import shutil
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from service.errors import LogError, LogUnavailableError, RefusedError
from service.store.directory.backup_files import KEY_NAME, close_log, copy_token_key, write_marks
from service.store.directory.data_directory import RESTORING, DataDirectory
from service.store.directory.offline import StoredData
from service.store.filesystem import sync_folder, sync_tree
from service.store.log.admin_payloads import dump_forget_ids
from service.store.log.events import Draft, EventLocation, Kind, Stream
from service.store.log.feedback_log import read_event, read_lineage
from service.store.log.ids import new_id
from service.store.log.sqlite import SqliteLog
from service.store.states.checkpoints import delete_states

PARTIAL: Final = ".restore.partial"
LOG: Final = "log.sqlite"
FORGET_IDS: Final = 1000

IdsByModel = Mapping[str, Sequence[bytes]]


def forgotten_ids(log: SqliteLog) -> IdsByModel:
    """The ids of all events of a log that were forgotten, by the model's name."""
    ids: defaultdict[str, list[bytes]] = defaultdict(list)
    for stream in log.list_streams():
        lineage = read_lineage(log, stream.number)
        for seq in sorted(lineage.forgotten):
            event = read_event(log, stream.number, seq)
            if event is not None:
                ids[stream.model].append(event.id)
    return ids


def read_forgotten_ids(data: DataDirectory) -> IdsByModel:
    """The same of the log that is to be replaced.

    Raises:
        LogUnavailableError: It cannot be read, and so nobody knows what it forgot.
    """
    if not data.log.exists():
        return {}
    try:
        log = SqliteLog(data.log)
        try:
            return forgotten_ids(log)
        finally:
            log.close()
    except LogError as error:
        raise LogUnavailableError(
            "the log that would be replaced cannot be read, so it cannot say what was forgotten since the backup; "
            "move the data directory away, restore into an empty one, and forget again what must stay forgotten"
        ) from error


def copy_backup(backup: Path, data: DataDirectory) -> DataDirectory:
    """A copy of a backup within the data directory, not counted yet; what an earlier try left is deleted.

    Raises:
        LogUnavailableError: The folder holds no backup.
        OSError: The disk refuses.
    """
    if not (backup / LOG).is_file():
        raise LogUnavailableError("the folder holds no backup; name one that softstep backup has written")
    delete_partial_copy(data)
    partial = data.path / PARTIAL
    copy = DataDirectory(partial)
    for name in (LOG, f"{LOG}-wal"):  # of a data directory that was copied as it lay, the second counts too
        if (backup / name).exists():
            shutil.copyfile(backup / name, partial / name)
    for name in ("marks", "streams"):
        if (backup / name).is_dir():
            shutil.copytree(backup / name, partial / name, copy_function=shutil.copyfile, dirs_exist_ok=True)
    (partial / "streams").mkdir(exist_ok=True)
    copy_token_key(backup, partial)
    return copy


def delete_partial_copy(data: DataDirectory) -> None:
    """Deletes a copy that does not count."""
    shutil.rmtree(data.path / PARTIAL, ignore_errors=True)


def repeat_forgets(copy: StoredData, ids: IdsByModel) -> int:
    """Forgets events in a copy that still has their rows; returns how many.

    Raises:
        RefusedError: An id names something else there.
    """
    count = 0
    for model, all_ids in ids.items():
        for start in range(0, len(all_ids), FORGET_IDS):
            present: defaultdict[int, list[bytes]] = defaultdict(list)
            for id_, place in copy.log.find_ids(model, all_ids[start : start + FORGET_IDS]).items():
                if not place.forgotten:
                    present[place.stream].append(id_)
            for number, its_ids in present.items():
                _forget(copy.log, number, its_ids)
                count += len(its_ids)
    for stream in copy.log.list_streams():
        _delete_holding(copy, stream)
    return count


def _delete_holding(copy: StoredData, stream: Stream) -> None:
    """Deletes the files of a stream that were made of forgotten events."""
    lineage = read_lineage(copy.log, stream.number)
    folder, epoch = copy.data.stream_folder(stream.model, stream.version), copy.log.stream_state(stream.number).epoch
    for files in (folder.snapshots, folder.checkpoints):
        delete_states(files, epoch, lambda seq: any(lineage.contains(seq, one) for one in lineage.forgotten))


def _forget(log: SqliteLog, stream: int, ids: Sequence[bytes]) -> None:
    draft = Draft(stream, Kind.FORGET, new_id(), dump_forget_ids(ids), time.time_ns() // 1_000_000)
    (outcome,) = log.append([draft])
    if not isinstance(outcome, EventLocation):
        raise outcome if isinstance(outcome, RefusedError) else LogUnavailableError(str(outcome))


def commit_copy(data: DataDirectory, copy: StoredData) -> None:
    """Lets a copy count: from here on a restore only goes forwards."""
    write_marks(copy.data, copy.log)
    close_log(copy.data, copy.log)
    sync_tree(copy.data.path)
    copy.data.path.rename(data.path / RESTORING)
    sync_folder(data.path)


def finish_restore(data: DataDirectory) -> None:
    """Moves a whole copy to its place, in place of what is there; going on where an earlier try was killed.

    What is in the copy still has not been moved, so what has its name beside it is the old one.
    """
    whole = data.path / RESTORING
    if (whole / LOG).exists():
        for end in ("-wal", "-shm", ""):
            Path(f"{data.log}{end}").unlink(missing_ok=True)
        for name in ("marks", "streams"):
            if (whole / name).exists():
                shutil.rmtree(data.path / name, ignore_errors=True)
                (whole / name).rename(data.path / name)
        if (whole / KEY_NAME).exists():
            (whole / KEY_NAME).replace(data.path / KEY_NAME)
        sync_folder(data.path)
        (whole / LOG).rename(data.log)
        sync_folder(data.path)
    shutil.rmtree(whole)
    sync_folder(data.path)
