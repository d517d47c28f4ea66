"""`softstep restore`: put a backup where a service keeps its data. No service may be running there."""

import argparse

from service.commands.verify import raise_if_damaged
from service.console import disk_errors, tell
from service.errors import LogUnavailableError
from service.settings import Settings
from service.store.directory import restore_files as restore
from service.store.directory.data_directory import RESTORING, DataDirectory
from service.store.directory.offline import open_stored_data


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """0 when the directory is the backup's, 1 where it was refused and is as it was."""
    with disk_errors():
        data = DataDirectory(settings.data)
        with data.acquire_lock(resumes=True):
            if (data.path / RESTORING).exists():
                restore.finish_restore(data)
                tell({"finished": True}, "a restore that was interrupted is finished", as_json=arguments.json)
                return 0
            if data.log.exists() and not arguments.over:
                raise LogUnavailableError(
                    "the data directory holds a log; name an empty one, or say --over to replace what it holds"
                )
            forgotten = _restore(settings, arguments, data)
    text = f"restored; {forgotten} events that were forgotten since the backup are forgotten again"
    tell({"finished": True, "forgotten_again": forgotten}, text, as_json=arguments.json)
    return 0


def _restore(settings: Settings, arguments: argparse.Namespace, data: DataDirectory) -> int:
    """Copy, check, forget and put in place; returns how many events were forgotten again."""
    ids = restore.read_forgotten_ids(data)
    try:
        copied = restore.copy_backup(arguments.directory, data)
        with open_stored_data(copied.path) as copy:
            raise_if_damaged(copy, settings.artifact_bytes_max)
            forgotten = restore.repeat_forgets(copy, ids)
            restore.commit_copy(data, copy)
    finally:
        restore.delete_partial_copy(data)
    restore.finish_restore(data)
    return forgotten
