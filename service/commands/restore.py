"""`softstep restore`: restore a backup to a data directory. No service may be running there."""

import argparse

from service.access.audit_log import Action
from service.command_audit import record_command
from service.commands.verify import raise_if_damaged
from service.console import convert_disk_errors, print_result
from service.errors import LogUnavailableError
from service.settings import Settings
from service.store.directory import restore_files as restore
from service.store.directory.data_directory import RESTORE_NAME, DataDirectory
from service.store.directory.directory_lock import acquire_lock
from service.store.directory.offline import open_directory


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Return 0 once the directory is the backup's; raise an error if it is refused and nothing is changed."""
    with convert_disk_errors():
        data = DataDirectory(settings.data)
        with acquire_lock(data, finishes_restore=True):
            if (data.path / RESTORE_NAME).exists():
                restore.finish_restore(data)
                _record(settings, arguments)
                print_result({"finished": True}, "finished an interrupted restore", as_json=arguments.json)
                return 0
            if data.log.exists() and not arguments.over:
                raise LogUnavailableError(
                    "the data directory has a log; choose an empty directory, or replace its content with --over"
                )
            forgotten = _restore(settings, arguments, data)
            _record(settings, arguments)
    text = f"restored; {forgotten} events forgotten since the backup were forgotten again"
    print_result({"finished": True, "forgotten_again": forgotten}, text, as_json=arguments.json)
    return 0


def _restore(settings: Settings, arguments: argparse.Namespace, data: DataDirectory) -> int:
    """Copy and verify a backup, repeat later forgets in it, and put it in place; return the number of such events."""
    ids = restore.read_forgotten_ids(settings, data)
    try:
        copied = restore.copy_backup(arguments.directory, data)
        with open_directory(copied.path) as copy:
            raise_if_damaged(copy, settings)
            forgotten = restore.repeat_forgets(copy, ids)
            restore.commit_copy(data, copy)
    finally:
        restore.delete_partial_copy(data)
    restore.finish_restore(data)
    return forgotten


def _record(settings: Settings, arguments: argparse.Namespace) -> None:
    record_command(settings, Action.RESTORE, str(arguments.directory.absolute()))
