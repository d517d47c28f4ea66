"""`softstep backup`: a whole copy of what a service keeps, as of one moment, while it serves and learns."""

import argparse
import shutil
from pathlib import Path

from service.commands.verify import raise_if_damaged
from service.console import disk_errors, tell
from service.settings import Settings
from service.store.directory.backup_files import (
    StreamBackup,
    clear_folder,
    close_log,
    partial_backup_folder,
    write_backup,
)
from service.store.directory.data_directory import DataDirectory
from service.store.directory.offline import StoredData, open_stored_data
from service.store.filesystem import sync_folder, sync_tree


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """0 when the backup is whole, on disk and checked; until then it does not have its name."""
    target = arguments.directory.absolute()
    with open_stored_data(settings.data) as found, disk_errors():
        partial = partial_backup_folder(target)
        partial.mkdir(parents=True, exist_ok=True)
        with DataDirectory(partial).acquire_lock():
            try:
                copied = _made(found, partial, settings.artifact_bytes_max)
                partial.rename(target)
                sync_folder(target.parent)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    for one in copied:
        _tell(one, as_json=arguments.json)
    return 0


def _made(found: StoredData, folder: Path, bytes_max: int) -> list[StreamBackup]:
    """Make and check a backup in a folder, without its name yet; what a killed process left there goes first."""
    clear_folder(folder)
    copied = write_backup(found, folder, bytes_max)
    with open_stored_data(folder) as copy:
        raise_if_damaged(copy, bytes_max)
        close_log(*copy)
    (folder / "lock").unlink()
    sync_tree(folder)
    return copied


def _tell(one: StreamBackup, *, as_json: bool) -> None:
    """Write what a backup holds of one stream."""
    stream, (seq, hash_), checkpoint = one
    fields = {
        "model": stream.model,
        "version": str(stream.version),
        "seq": seq,
        "hash": hash_.hex(),
        "checkpoint": checkpoint,
    }
    kept_state = f"checkpoint at {checkpoint}" if checkpoint else "no checkpoint"
    tell(fields, f"{stream.model}/{stream.version}: {seq} events, {kept_state}", as_json=as_json)
