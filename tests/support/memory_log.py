"""A feedback log in memory, the second backend of the conformance suite; its disk never fails."""

import copy
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from service.errors import LogUnsafeError, StreamGoneError
from service.store.log.append_rules import AppendBatch, draw_salts, find_names
from service.store.log.chain import Link, check_chain, check_continues, check_event
from service.store.log.events import (
    PREVIEW_BYTES_MAX,
    PREVIEW_START_BYTES,
    SEQ_BITS,
    SEQ_MAX,
    Draft,
    Event,
    EventLocation,
    EventPreview,
    Kind,
    Outcome,
    Position,
    Stream,
    StreamState,
    hash_payload,
)
from service.store.log.lineage import Lineage, LineageChange, lineage_change
from service.store.log.log_rows import Row, StreamHead, duplicate_of
from service.store.log.shared_facts import SharedFacts
from service.store.log.shared_files import ReadFiles, SharedFiles
from service.store.log.shared_snapshots import SharedSnapshots
from service.store.log.shared_states import SharedStates


def preview(event: Event) -> EventPreview:
    """Return an event with no more than the start of a long payload."""
    seq, kind, id_, time_ms, payload, _, actor = event
    if payload is None:
        return EventPreview(seq, kind, id_, time_ms, actor, None, b"")
    kept = payload if len(payload) <= PREVIEW_BYTES_MAX else payload[:PREVIEW_START_BYTES]
    return EventPreview(seq, kind, id_, time_ms, actor, len(payload), kept)


class MemoryLog:
    """A `FeedbackLog` made of lists; threads may share it.

    Args:
        token_bytes: Returns that many random bytes, for salts.
    """

    is_shared: ClassVar[bool] = False
    files: SharedFiles | None = None
    states: SharedStates | None = None
    facts: SharedFacts | None = None
    snapshots: SharedSnapshots | None = None

    def __init__(self, token_bytes: Callable[[int], bytes] = secrets.token_bytes) -> None:
        self._token_bytes = token_bytes
        self._lock = threading.Lock()
        self._heads: dict[int, StreamHead] = {}
        self._stored: dict[int, list[tuple[Event, bytes]]] = {}
        self._places: dict[tuple[str, bytes], int] = {}
        self._opened = 0

    def open_stream(
        self,
        model: str,
        version: int,
        genesis: bytes,
        n_classes: int,
        read_files: ReadFiles | None = None,  # noqa: ARG002  # the data directory has them
    ) -> Stream:
        """See FeedbackLog."""
        with self._lock:
            for head in self._heads.values():
                if head.stream[1:3] == (model, version):
                    return head.stream
            self._opened += 1
            stream = Stream(self._opened, model, version, genesis, n_classes)
            self._heads[stream.number] = StreamHead(stream, 0, genesis, 0, n_classes, 0)
            self._stored[stream.number] = []
            return stream

    def list_streams(self) -> list[Stream]:
        """See FeedbackLog."""
        with self._lock:
            return [head.stream for head in self._heads.values()]

    def stream_state(self, stream: int) -> StreamState:
        """See FeedbackLog."""
        with self._lock:
            return self._head(stream).state()

    def append(self, drafts: Sequence[Draft]) -> list[Outcome]:
        """See FeedbackLog."""
        with self._lock:
            names = {name: known for name in find_names(drafts, self._heads) if (known := self._known(name))}
            batch = AppendBatch(self._heads, names, self._changes)
            salts = draw_salts(drafts, self._token_bytes)
            outcomes: list[Outcome] = [batch.admit(draft, salt) for draft, salt in zip(drafts, salts, strict=True)]
            for row in batch.rows:
                self._insert(row)
            for position in batch.forgotten:
                self._forget(position >> SEQ_BITS, position & SEQ_MAX)
            return outcomes

    def position_after_append(self, stream: int) -> tuple[Stream, Position]:
        """See FeedbackLog."""
        with self._lock:
            head = self._heads[stream]
            return head.stream, Position(head.seq, head.hash)

    def read_events(self, stream: int, after: int, limit: int) -> list[Event]:
        """See FeedbackLog."""
        with self._lock:
            self._head(stream)
            return [event for event, _ in self._stored[stream][after : after + limit]]

    def read_checked(self, stream: int, since: Position, limit: int) -> list[Event]:
        """See FeedbackLog."""
        found = self._links(stream, max(0, since.seq - 1), limit + (since.seq > 0))
        with self._lock:
            head = self._head(stream)
        return [Event(*link[:-1]) for link in check_continues(since, found, head.stream.genesis, head.seq)]

    def moved_streams(self) -> None:
        """See FeedbackLog."""

    def read_previews(self, stream: int, before: int, limit: int, *, admin_only: bool = False) -> list[EventPreview]:
        """See FeedbackLog."""
        with self._lock:
            self._head(stream)
            events = [event for event, _ in self._stored[stream][: max(0, before - 1)]]
        wanted = [event for event in reversed(events) if not admin_only or event.kind != Kind.FEEDBACK][:limit]
        return [preview(event) for event in wanted]

    def current_lineage(self, stream: int) -> Lineage:
        """See FeedbackLog."""
        return Lineage(map(lineage_change, self.read_admin_events(stream)))

    def read_payloads(self, stream: int, since: Position, limit: int) -> tuple[list[bytes | None], Position]:
        """See FeedbackLog."""
        links = self._links(stream, since.seq, limit)
        return [payload for *_, payload, _, _, _ in links], check_chain(since, links)

    def read_admin_events(self, stream: int) -> list[Event]:
        """See FeedbackLog."""
        with self._lock:
            before, stored = self._head(stream).stream.genesis, list(self._stored[stream])
        events = []
        for event, seal in stored:
            if event.kind != Kind.FEEDBACK:
                check_event(before, (*event, seal))
                events.append(event)
            before = event.hash
        return events

    def last_admin_seq(self, stream: int) -> int:
        """See FeedbackLog."""
        with self._lock:
            return max((event.seq for event, _ in self._stored[stream] if event.kind != Kind.FEEDBACK), default=0)

    def find_ids(self, model: str, ids: Sequence[bytes]) -> dict[bytes, EventLocation]:
        """See FeedbackLog."""
        with self._lock:
            known = {id_: self._known((model, id_)) for id_ in ids}
            return {
                id_: duplicate_of(row, self._heads[row[0] >> SEQ_BITS], self._changes)
                for id_, row in known.items()
                if row
            }

    def verify_chain(self, stream: int, since: Position, rows: int) -> Iterator[Position]:
        """See FeedbackLog."""
        while links := self._links(stream, since.seq, rows):
            since = check_chain(since, links)
            yield since

    def purge_stream(self, stream: int) -> None:
        """See FeedbackLog."""
        with self._lock:
            self._head(stream)
            del self._heads[stream], self._stored[stream]
            self._places = {name: place for name, place in self._places.items() if place >> SEQ_BITS != stream}

    def begin(self) -> bool:
        """See FeedbackLog."""
        return False

    def tidy(self) -> None:
        """See FeedbackLog; there is no file."""

    def erase_forgotten(self) -> None:
        """See FeedbackLog; there is no file."""

    def finish_purges(self) -> None:
        """See FeedbackLog: a purge is done at once."""

    def check_file(self) -> None:
        """See FeedbackLog: there is no file."""

    def write_copy(self, path: Path) -> None:
        """Refuse: there is no file to copy."""
        raise LogUnsafeError(f"a log in memory has no file, so {path.name} is not written")

    def save(self) -> object:
        """Return everything that is in the log now, for `restore`."""
        with self._lock:
            return copy.deepcopy((self._heads, self._stored, self._places, self._opened))

    def restore(self, saved: Any) -> None:
        """Become the log of an earlier moment, as a server does that has not received later events."""
        with self._lock:
            self._heads, self._stored, self._places, self._opened = copy.deepcopy(saved)

    def close(self) -> None:
        """See FeedbackLog; the events stay until the object is deleted."""

    def _links(self, stream: int, after: int, limit: int) -> list[Link]:
        with self._lock:
            self._head(stream)
            return [(*event, seal) for event, seal in self._stored[stream][after : after + limit]]

    def _head(self, stream: int) -> StreamHead:
        if stream not in self._heads:
            raise StreamGoneError("the stream does not exist, or was purged")
        return self._heads[stream]

    def _known(self, name: tuple[str, bytes]) -> Row | None:
        position = self._places.get(name)
        if position is None:
            return None
        event, seal = self._stored[position >> SEQ_BITS][(position & SEQ_MAX) - 1]
        return (position, *event[1:], seal)

    def _changes(self, stream: int, after: int) -> list[LineageChange]:
        return [lineage_change(event) for event, _ in self._stored[stream][after:] if event.kind != Kind.FEEDBACK]

    def _insert(self, row: Row) -> None:
        position, *rest, seal = row
        stream = position >> SEQ_BITS
        event = Event._make((position & SEQ_MAX, *rest))
        self._stored[stream].append((event, seal))
        self._places[self._heads[stream].stream.model, event.id] = position

    def _forget(self, stream: int, seq: int) -> None:
        event, seal = self._stored[stream][seq - 1]
        if event.payload is not None:
            self._stored[stream][seq - 1] = (event._replace(payload=None), hash_payload(seal, event.payload))
