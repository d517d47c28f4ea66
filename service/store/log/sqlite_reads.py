"""The reads of the SQLite backend; sqlite.py has its writes and its invariants."""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import apsw

from service.errors import LogDamagedError
from service.store.log import tables
from service.store.log.chain import PAYLOAD_OF, check_chain, check_continues
from service.store.log.database import read_transaction
from service.store.log.events import SEQ_BITS, Event, EventLocation, EventPreview, Position, Stream, StreamState
from service.store.log.lineage import Lineage, lineage_change
from service.store.log.log_cache import LogCache
from service.store.log.log_connection import LogConnection
from service.store.log.log_rows import ReadChanges, StreamHead, duplicate_of
from service.store.log.shared_facts import SharedFacts
from service.store.log.shared_files import SharedFiles
from service.store.log.shared_snapshots import SharedSnapshots
from service.store.log.shared_states import SharedStates


class SqliteReads:
    """The reading methods of a `FeedbackLog` in a file.

    Args:
        connection: The object's connection.
        cache: What it keeps in memory.
    """

    is_shared: ClassVar[bool] = False
    files: SharedFiles | None = None
    states: SharedStates | None = None
    facts: SharedFacts | None = None
    snapshots: SharedSnapshots | None = None

    def __init__(self, connection: LogConnection, cache: LogCache) -> None:
        self._connection = connection
        self._cache = cache

    def list_streams(self) -> list[Stream]:
        """See FeedbackLog."""
        with self._connection.connection() as database:
            return tables.read_streams(database)

    def stream_state(self, stream: int) -> StreamState:
        """See FeedbackLog."""
        with self._connection.connection() as database:
            return tables.read_head(database, stream).state()

    def position_after_append(self, stream: int) -> tuple[Stream, Position]:
        """See FeedbackLog."""
        head = self._cache.head_after_append(stream)
        return head.stream, Position(head.seq, head.hash)

    def read_events(self, stream: int, after: int, limit: int) -> list[Event]:
        """See FeedbackLog; raises LogDamagedError if events are missing."""
        with self._connection.connection() as database:
            events = tables.read_events(database, stream, after, limit)
            if not events:
                tables.read_head(database, stream)
            return events

    def read_checked(self, stream: int, since: Position, limit: int) -> list[Event]:
        """See FeedbackLog."""
        after, count = max(0, since.seq - 1), limit + (since.seq > 0)
        genesis, last_seq = b"", since.seq
        with self._connection.connection() as database:
            found = tables.read_links(database, stream, after, count)
            if since.seq == 0 or not found:
                with read_transaction(database):
                    head = tables.read_head(database, stream)
                    genesis, last_seq = head.stream.genesis, head.seq
                    found = tables.read_links(database, stream, after, count)
        return [Event._make(link[:-1]) for link in check_continues(since, found, genesis, last_seq)]

    def moved_streams(self) -> None:
        """See FeedbackLog: a look at every stream costs less than to find out which ones have moved."""

    def read_previews(self, stream: int, before: int, limit: int, *, admin_only: bool = False) -> list[EventPreview]:
        """See FeedbackLog; raises LogDamagedError if events are missing."""
        with self._connection.connection() as database, read_transaction(database):
            tables.read_head(database, stream)
            return tables.read_previews(database, stream, before, limit, admin_only=admin_only)

    def current_lineage(self, stream: int) -> Lineage:
        """See FeedbackLog."""
        with self._connection.connection() as database, read_transaction(database):
            return self._cache.current_lineage(database, stream)

    def read_payloads(self, stream: int, since: Position, limit: int) -> tuple[list[bytes | None], Position]:
        """See FeedbackLog."""
        with self._connection.connection() as database:
            links = tables.read_links(database, stream, since.seq, limit)
            if not links:
                tables.read_head(database, stream)
        return list(map(PAYLOAD_OF, links)), check_chain(since, links)

    def read_admin_events(self, stream: int) -> list[Event]:
        """See FeedbackLog."""
        with self._connection.connection() as database:
            return tables.read_admin_events(database, tables.read_head(database, stream).stream)

    def last_admin_seq(self, stream: int) -> int:
        """See FeedbackLog."""
        with self._connection.connection() as database:
            return tables.read_last_admin_seq(database, stream)

    def find_ids(self, model: str, ids: Sequence[bytes]) -> dict[bytes, EventLocation]:
        """See FeedbackLog."""
        with self._connection.snapshot() as database:
            heads = self._cache.catch_up(database)
            rows = self._cache.find_rows(database, {(model, id_) for id_ in ids}, heads)
            read_changes = changes_reader(database, heads)
            return {id_: duplicate_of(row, heads[row[0] >> SEQ_BITS], read_changes) for (_, id_), row in rows.items()}

    def verify_chain(self, stream: int, since: Position, rows: int) -> Iterator[Position]:
        """See FeedbackLog."""
        while True:
            with self._connection.connection() as database:
                head = tables.read_head(database, stream)
                links = tables.read_links(database, stream, since.seq, rows)
            if not links:
                break
            since = check_chain(since, links)
            yield since
        if since.seq < head.seq:
            raise LogDamagedError(f"the feedback log has lost event {since.seq + 1}; restore a backup")


def changes_reader(database: apsw.Connection, heads: Mapping[int, StreamHead]) -> ReadChanges:
    """Return a function that reads the admin events of a stream after a seq."""
    return lambda number, after: map(lineage_change, tables.read_admin_events(database, heads[number].stream, after))
