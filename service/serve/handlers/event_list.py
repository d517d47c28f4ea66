"""Answer GET `/events`: the events of a model, without their features."""

from typing import Final, NamedTuple

import orjson

from service.serve.log.writer import Writer
from service.serve.models.served_model import ServedModel
from service.serve.responses import NDJSON, HttpResponse
from service.store.directory.data_directory import DataDirectory
from service.store.log.event_summaries import forgotten_stretches
from service.store.log.feedback_log import FeedbackLog
from service.store.states.event_entries import Entry, EventChoice, EventEntries

# Entries of one answer, so that the thread of the log is free again after some ms.
LIMIT_MAX: Final = 200
# Stretches of forgotten events in one answer: a chart of the history has as many points.
STRETCHES_MAX: Final = 512

Stretches = list[tuple[int, int]]


class EventsQuery(NamedTuple):
    """Which events a call asks for.

    Attributes:
        choice: Which of them.
        before: The seq before which they are, or None for the end.
        limit: How many.
        as_lines: Whether each event is a line of its own.
    """

    choice: EventChoice
    before: int | None
    limit: int
    as_lines: bool


class EventsHandler:
    """Lists events of one worker's models.

    Args:
        writer: The writer, whose thread reads the log.
        data: The data directory.
    """

    def __init__(self, writer: Writer, data: DataDirectory) -> None:
        self._writer: Final = writer
        self._data: Final = data
        self._entries: Final[dict[tuple[str, int], EventEntries]] = {}
        # Of each stream, for as long as it has this many forgotten events.
        self._forgotten: Final[dict[int, tuple[int, Stretches]]] = {}

    async def respond(self, served: ServedModel, query: EventsQuery) -> HttpResponse:
        """Return the events that a call asks for, as JSON or as lines of JSON.

        Raises:
            LogError: The log cannot be read.
        """
        events, forgotten = await self._writer.call_with_log(lambda log: self._read(log, served.key, query))
        if query.as_lines:
            return HttpResponse(200, b"".join([orjson.dumps(event) + b"\n" for event in events]), NDJSON)
        return HttpResponse(200, orjson.dumps({"events": events, "forgotten": forgotten}))

    def _read(self, log: FeedbackLog, key: tuple[str, int], query: EventsQuery) -> tuple[list[Entry], Stretches]:
        """Read the log, on the writer's thread."""
        entries = self._entries.get(key)
        if entries is None:
            entries = self._entries[key] = EventEntries(self._data.stream_folder(*key).path)
        for stream in log.list_streams():
            if stream[1:3] == key:
                events = entries.list_entries(log, stream.number, query.choice, query.limit, query.before)
                return events, [] if query.as_lines else self._stretches(log, stream.number)
        return [], []

    def _stretches(self, log: FeedbackLog, stream: int) -> Stretches:
        lineage = log.current_lineage(stream)
        count, stretches = self._forgotten.get(stream, (0, []))
        if count != len(lineage.forgotten):
            stretches = forgotten_stretches(lineage, STRETCHES_MAX)
            self._forgotten[stream] = len(lineage.forgotten), stretches
        return stretches
