"""`softstep backup`: copy all that a service stores, as of one moment, while it serves and learns."""

import argparse
import shutil
from contextlib import closing
from pathlib import Path

from service.commands.verify import raise_if_damaged
from service.console import convert_disk_errors, print_result
from service.settings import Settings
from service.store.directory.backup_files import (
    StreamBackup,
    clear_folder,
    close_log,
    partial_backup_folder,
    write_backup,
)
from service.store.directory.data_directory import DataDirectory
from service.store.directory.directory_lock import acquire_lock
from service.store.directory.keyfile import KEY_NAME, merge_keys, read_key_file, write_key_file
from service.store.directory.log_opening import open_database_end
from service.store.directory.offline import StoredData, open_directory, open_stored_data
from service.store.filesystem import sync_folder, sync_tree


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Return 0 once the backup is complete, verified and synced to disk; only then does it get its name."""
    target = arguments.directory.absolute()
    with open_stored_data(settings) as stored, convert_disk_errors():
        partial = partial_backup_folder(target)
        partial.mkdir(parents=True, exist_ok=True)
        with acquire_lock(DataDirectory(partial)):
            try:
                backups = _write_verified(stored, partial, settings)
                copy_shared_keys(settings, partial)
                partial.rename(target)
                sync_folder(target.parent)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    for backup in backups:
        _print_backup(backup, as_json=arguments.json)
    return 0


def _write_verified(stored: StoredData, folder: Path, settings: Settings) -> list[StreamBackup]:
    """Write and verify a backup in a folder; delete first what a killed process left there."""
    clear_folder(folder)
    backups = write_backup(stored, folder, settings)
    with open_directory(folder) as copy:
        raise_if_damaged(copy, settings)
        close_log(*copy)
    (folder / "lock").unlink()
    sync_tree(folder)
    return backups


def copy_shared_keys(settings: Settings, folder: Path) -> None:
    """Copy the keys of feedback tokens that a log in PostgreSQL has for all replicas; those of the folder stay."""
    if settings.log is None:
        return
    with closing(open_database_end(settings, settings.log.get_secret_value(), "softstep backup")) as database:
        keys = database.read_token_keys()
    if keys is not None:
        write_key_file(folder / KEY_NAME, merge_keys(keys, read_key_file(folder / KEY_NAME)))


def _print_backup(backup: StreamBackup, *, as_json: bool) -> None:
    stream, (seq, hash_), checkpoint = backup
    fields = {
        "model": stream.model,
        "version": str(stream.version),
        "seq": seq,
        "hash": hash_.hex(),
        "checkpoint": checkpoint,
    }
    state = f"checkpoint at {checkpoint}" if checkpoint else "no checkpoint"
    print_result(fields, f"{stream.model}/{stream.version}: {seq} events, {state}", as_json=as_json)
