"""`softstep migrate`: make the tables of a log in PostgreSQL, and copy a log there or back, while no service runs."""

import argparse
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final

from service.access.key_migration import copy_keys_to_file, copy_keys_to_log
from service.command_audit import command_actor
from service.console import Progress, convert_disk_errors, print_error, print_result
from service.errors import LogUnavailableError, SoftstepError
from service.setting_types import LOG_ADDRESS
from service.settings import AUDIT_NAME, KEYS_NAME, Settings
from service.store.directory.data_directory import LOG_NAME, DataDirectory
from service.store.directory.log_migration import DirectoryEnd, Migration
from service.store.directory.log_opening import open_database_end
from service.store.log.facts_opening import open_facts

COMMAND: Final = "softstep migrate"


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Return 0 once the target is complete and verified; after an error or a kill the next run continues."""
    named = None if settings.log is None else settings.log.get_secret_value()
    source, target = arguments.source, arguments.target
    if target is None:
        target = named
    elif source is None and not is_address(target):
        source = named
    if target is None or (source is None and not is_address(target)):
        raise SoftstepError("name the log to make with --to, and the log to copy with --from; or set SOFTSTEP_LOG")
    with convert_disk_errors():
        if is_address(target):
            _prepare(settings, target, as_json=arguments.json)
        if source is not None:
            _copy(settings, source, target, as_json=arguments.json)
    return 0


def is_address(place: str) -> bool:
    """Return whether a place is in PostgreSQL, and not a data directory.

    Raises:
        SoftstepError: It is a URL of another kind.
    """
    if LOG_ADDRESS.fullmatch(place):
        return True
    if "://" in place:
        raise SoftstepError("an address of PostgreSQL begins with postgresql://; all else is a data directory")
    return False


def _prepare(settings: Settings, address: str, *, as_json: bool) -> None:
    """Make the tables that are missing."""
    with closing(open_database_end(settings, address, COMMAND)) as database:
        is_new = database.prepare()
    text = "the database has the tables of this release now" if is_new else "the database has all tables already"
    print_result({"tables_made": is_new}, text, as_json=as_json)


def _copy(settings: Settings, source: str, target: str, *, as_json: bool) -> None:
    """Copy a log, show the progress and print each stream."""
    from_folder = None if is_address(source) else Path(source)
    if from_folder is not None and not (from_folder / LOG_NAME).is_file():
        raise LogUnavailableError("the data directory has no feedback log; name the one that the service uses")
    files = settings.data if from_folder is None else from_folder
    with closing(_open_end(settings, source)) as old, closing(_open_end(settings, target)) as new:
        migration = Migration(
            old,
            new,
            DataDirectory(files, create=False) if files.is_dir() else None,
            settings.artifact_bytes_max,
            partial(_copy_keys, settings, source, target, as_json=as_json),
        )
        progress: dict[str, Progress] = {}
        for action, events, total in migration.run():
            progress.setdefault(action, Progress(action, "events")).update(events, total)
        for one in progress.values():
            one.finish()
    for head in migration.result.heads:
        name = f"{head.stream.model}/{head.stream.version}"
        state = "there already" if migration.was_there else "copied and verified"
        fields = {
            "model": head.stream.model,
            "version": str(head.stream.version),
            "seq": head.seq,
            "hash": head.hash.hex(),
            "copied": not migration.was_there,
        }
        print_result(fields, f"{name}: {head.seq} events, {state}", as_json=as_json)
    for stream in migration.missing:
        print_error(
            f"{stream.model}/{stream.version} has no artifact in the data directory; the service binds the one in "
            "its models directory"
        )


def _copy_keys(settings: Settings, source: str, target: str, *, as_json: bool) -> None:
    """Copy the API keys too, unless the service has a file of its own, or the target has keys."""
    if settings.keys_file is not None:
        return
    copied = None
    if is_address(target) and not is_address(source):
        with open_facts(settings, target, COMMAND) as facts:
            copied = copy_keys_to_log(Path(source) / KEYS_NAME, facts, command_actor())
    elif is_address(source) and not is_address(target):
        audit_path = settings.audit_file or Path(target) / AUDIT_NAME
        with open_facts(settings, source, COMMAND) as facts:
            copied = copy_keys_to_file(facts, Path(target) / KEYS_NAME, audit_path, command_actor())
    if copied is not None:
        print_result({"keys_copied": copied}, f"API keys: {copied} copied", as_json=as_json)


def _open_end(settings: Settings, place: str) -> Any:  # noqa: ANN401  # a MigrationEnd
    return open_database_end(settings, place, COMMAND) if is_address(place) else DirectoryEnd(Path(place))
