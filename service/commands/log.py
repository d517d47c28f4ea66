"""`softstep log`: print the latest events of a model, and with --follow those that come. The service may be running."""

import argparse
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

import orjson

from service.console import flush_output, print_error, print_result
from service.settings import Settings
from service.store.directory.offline import StoredData, find_stream, open_stored_data
from service.store.log.events import Stream
from service.store.states.event_entries import Entry, EventChoice, EventEntries

COLUMNS: Final = "{:>10}  {:29}  {:9}  {:11}  {:>5}  {:>5}  {:>6}  {:>9}  {:24}  {}"
HEADINGS: Final = ("seq", "time", "kind", "removed", "rows", "label", "answer", "loss", "actor", "id")
# Entries of one read: each reads at most 64 KiB of the event.
READ_EVENTS: Final = 1000
# Time between two looks at the log: a person hardly notices it, and a look costs a fraction of a millisecond.
FOLLOW_SECONDS: Final = 0.25


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Return 0 once the events are printed; with --follow run until the process is ended."""
    choice = EventChoice(arguments.kind)
    if arguments.follow and choice == EventChoice.SURPRISING:
        print_error("--follow shows events as they come; leave it out with --kind surprising")
        return 2
    with open_stored_data(settings, read_only=True) as stored:
        reader = _Reader(stored, find_stream(stored.log, arguments.model), choice)
        if not arguments.json:
            print_result({}, COLUMNS.format(*HEADINGS), as_json=False)
        for entries in reader.read(arguments.limit, follow=arguments.follow):
            for entry in entries:
                print_result(entry, _format(entry), as_json=arguments.json)
            flush_output()
    return 0


class _Reader:
    """Reads the chosen events of one stream."""

    def __init__(self, stored: StoredData, stream: Stream, choice: EventChoice) -> None:
        self._log = stored.log
        self._stream = stream.number
        self._entries = EventEntries(stored.data.stream_folder(stream.model, stream.version).path)
        self._choice = choice

    def read(self, limit: int, *, follow: bool) -> Iterator[list[Entry]]:
        """Yield the latest events, oldest first, or the most surprising ones; then those that come."""
        if self._choice == EventChoice.SURPRISING:
            yield self._entries.list_entries(self._log, self._stream, self._choice, limit)
            return
        last = self._log.stream_state(self._stream).seq
        yield self._between(0, last, limit)
        while follow:
            time.sleep(FOLLOW_SECONDS)
            after, last = last, self._log.stream_state(self._stream).seq
            if last > after:
                yield self._between(after, last, last - after)

    def _between(self, after: int, last: int, limit: int) -> list[Entry]:
        """Return the latest events with seqs from after + 1 to last, oldest first."""
        found: list[Entry] = []
        before = last + 1
        while limit > len(found):
            count = min(limit - len(found), READ_EVENTS)
            part = self._entries.list_entries(self._log, self._stream, self._choice, count, before)
            found += [entry for entry in part if entry["seq"] > after]
            if len(part) < count or part[-1]["seq"] <= after:
                break
            before = part[-1]["seq"]
        return found[::-1]


def _format(entry: Entry) -> str:
    """Return a line of text; the id is near its end, because it can have any length."""
    moment = datetime.fromtimestamp(entry["time_ms"] / 1000, UTC).isoformat(timespec="milliseconds")
    loss = None if entry["loss"] is None else f"{entry['loss']:.6f}"
    cells = {**entry, "time": moment, "loss": loss}
    line = COLUMNS.format(*("" if cells[name] is None else cells[name] for name in HEADINGS))
    detail = ", ".join(f"{name} {orjson.dumps(value).decode()}" for name, value in (entry["detail"] or {}).items())
    return f"{line}  {detail}".rstrip()
