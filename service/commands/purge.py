"""`softstep purge`: delete everything that a model version has learned. No service may be running."""

import argparse
from contextlib import AbstractContextManager, nullcontext

from service.access.audit_log import Action
from service.command_audit import record_command
from service.console import convert_disk_errors, print_error, print_result
from service.settings import Settings
from service.store.directory.ack_marks import delete_mark
from service.store.directory.data_directory import DataDirectory
from service.store.directory.directory_lock import acquire_lock
from service.store.directory.log_opening import refuse_replicas
from service.store.directory.offline import StoredData, find_stream, open_stored_data
from service.store.log.events import Stream


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Return 0 once nothing of it is left, 1 if a service uses the directory, 2 if --yes is missing."""
    refuse_replicas(settings)
    with open_stored_data(settings) as stored, _locked(stored.data):
        # Finish an interrupted purge first: it may be of the version that is purged now.
        _finish_purges(stored)
        stream = find_stream(stored.log, arguments.model)
        events = stored.log.stream_state(stream.number).seq
        name = f"{stream.model}/{stream.version}"
        if not arguments.yes:
            print_error(f"this deletes {events} events of {name} and everything learned from them; confirm with --yes")
            return 2
        _purge(stored, stream)
        record_command(settings, Action.PURGE, name, facts=stored.log.facts)
    fields = {"model": stream.model, "version": str(stream.version), "events": events}
    print_result(fields, f"{name}: {events} events deleted", as_json=arguments.json)
    return 0


def _locked(data: DataDirectory) -> AbstractContextManager[object]:
    """Lock the data directory; that of a log in PostgreSQL may be missing."""
    return acquire_lock(data) if data.path.is_dir() else nullcontext()


def _purge(stored: StoredData, stream: Stream) -> None:
    """Delete folder, marks, events and ids, in an order in which a crash leaves a stream or hidden remains.

    The folder goes first: a stream without a folder is bound again, but the next stream would start from a folder
    without a stream. Then the marks: a stream that has a mark and is not in the log counts as lost.
    """
    with convert_disk_errors():
        stored.data.hide_stream(stream.model, stream.version)
        for path in stored.data.mark_files():
            delete_mark(path, stream.number)
    stored.log.purge_stream(stream.number)
    _finish_purges(stored)


def _finish_purges(stored: StoredData) -> None:
    """Delete the hidden remains of purges, also from the write-ahead log."""
    stored.log.finish_purges()
    with convert_disk_errors():
        stored.data.delete_hidden_streams()
    stored.log.erase_forgotten()
