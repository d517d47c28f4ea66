"""`softstep purge`: delete all that a model version has learned. No service may be running."""

import argparse

from service.console import complain, disk_errors, tell
from service.settings import Settings
from service.store.directory.ack_marks import delete_mark
from service.store.directory.offline import StoredData, find_stream, open_stored_data
from service.store.log.events import Stream


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """0 when nothing of it is left, 2 where it was not meant, 1 where an instance uses the directory."""
    with open_stored_data(settings.data) as found, found.data.acquire_lock():
        # First what an interrupted purge has left: it may be the one that is asked for again.
        _finish(found)
        stream = find_stream(found.log, arguments.model)
        events = found.log.stream_state(stream.number).seq
        name = f"{stream.model}/{stream.version}"
        if not arguments.yes:
            complain(f"{events} events of {name} and all that was learned from them would be deleted; say --yes")
            return 2
        _purge(found, stream)
    told = {"model": stream.model, "version": str(stream.version), "events": events}
    tell(told, f"{name}: {events} events deleted", as_json=arguments.json)
    return 0


def _purge(found: StoredData, stream: Stream) -> None:
    """Delete folder, events and ids; whenever it is interrupted, what is left is a stream or remnants.

    The folder goes first: a stream without one is bound anew, but a folder without its stream would be taken for the
    beginning of the next one. Then its marks: a stream that has one and is not in the log is taken for lost.
    """
    with disk_errors():
        found.data.hide_stream(stream.model, stream.version)
        for path in found.data.mark_files():
            delete_mark(path, stream.number)
    found.log.purge_stream(stream.number)
    _finish(found)


def _finish(found: StoredData) -> None:
    """Delete what is out of sight already, and leave nothing of it in the write-ahead log."""
    found.log.finish_purges()
    with disk_errors():
        found.data.delete_hidden_streams()
    found.log.empty_wal()
