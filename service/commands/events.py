"""`softstep events`: list a model's events and who sent them, without their rows. The service may be running."""

import argparse
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from service.console import print_result
from service.settings import Settings
from service.store.directory.offline import find_stream, open_stored_data
from service.store.log.events import Event, Kind, Position, Stream
from service.store.log.feedback_log import FeedbackLog, read_lineage
from service.store.log.removals import removal_error, removed_by

COLUMNS: Final = "{:>10}  {:29}  {:9}  {:11}  {:24}  {}"
HEADINGS: Final = ("seq", "time", "kind", "removed", "actor", "id")
# Events of one read: a few MB of usual rows.
READ_EVENTS: Final = 4096


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Return 0 once the events are listed; raise LogDamagedError at the first one that was altered."""
    with open_stored_data(settings, read_only=True) as stored:
        stream = find_stream(stored.log, arguments.model)
        lineage, last = read_lineage(stored.log, stream.number), stored.log.stream_state(stream.number).seq
        if not arguments.json:
            print_result({}, COLUMNS.format(*HEADINGS), as_json=False)
        for event in _verified_events(stored.log, stream, last):
            described = describe_event(event)
            if arguments.actor not in {None, described["actor"]}:
                continue
            removal = removed_by(lineage, last, event.seq, event.kind, is_erased=event.payload is None)
            described["removed"] = None if removal is None else removal_error(removal).code
            fields = {name: described[name] for name in HEADINGS}
            cells = ["" if value is None else value for value in fields.values()]
            print_result(fields, COLUMNS.format(*cells), as_json=arguments.json)
    return 0


def describe_event(event: Event) -> dict[str, Any]:
    """Return the seq, time, kind, actor and id of an event."""
    return {
        "seq": event.seq,
        "time": datetime.fromtimestamp(event.time_ms / 1000, UTC).isoformat(timespec="milliseconds"),
        "kind": Kind(event.kind).name.lower(),
        "actor": event.actor.decode(errors="backslashreplace"),
        "id": event.id.decode(errors="backslashreplace"),
    }


def _verified_events(log: FeedbackLog, stream: Stream, last: int) -> Iterator[Event]:
    """Yield the events up to a seq, each once the chain of hashes is checked up to it."""
    since = 0
    for position in log.verify_chain(stream.number, Position(0, stream.genesis), READ_EVENTS):
        yield from log.read_events(stream.number, since, min(position.seq, last) - since)
        since = position.seq
        if since >= last:
            return
