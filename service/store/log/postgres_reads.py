"""The reads of the PostgreSQL backend; postgres.py has its writes and its invariants.

All are of the primary, because a standby may be behind, or on another branch of history after a failover.
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Final

from service.errors import LogDamagedError, StreamGoneError
from service.store.log.chain import PAYLOAD_OF, Link, check_chain, check_continues, check_event
from service.store.log.events import SEQ_MAX, Event, EventPreview, Position, Stream, StreamState
from service.store.log.lineage import Lineage, lineage_change
from service.store.log.log_rows import StreamHead
from service.store.log.postgres_connection import BEGIN_READ, COMMIT, PostgresConnection
from service.store.log.postgres_tables import (
    SELECT_MOVED,
    SELECT_STREAMS,
    head_of,
    select_admin_links,
    select_heads,
    select_last_admin,
    select_links,
    select_positions,
    select_previews,
)
from service.store.log.postgres_values import Statement, pack_integer

# Admin events that one statement reads for a lineage.
CHANGES_MAX: Final = 4096


class PostgresReads:
    """The reading methods of a `FeedbackLog` in PostgreSQL.

    Args:
        connection: The object's connection.
    """

    is_shared: ClassVar[bool] = True

    def __init__(self, connection: PostgresConnection) -> None:
        self._connection = connection
        self._lineages: dict[int, tuple[Lineage, Position]] = {}
        # As of the last look: the connection, the server's start and oldest transaction, each stream's last change.
        self._looked_at = (0, 0)
        self._oldest = 0
        self._moved: dict[int, int] = {}

    def list_streams(self) -> list[Stream]:
        """See FeedbackLog."""
        with self._connection.call():
            return [Stream(*row) for row in self._connection.query(SELECT_STREAMS)]

    def stream_state(self, stream: int) -> StreamState:
        """See FeedbackLog."""
        with self._connection.call():
            return self._read_head(stream).state()

    def read_events(self, stream: int, after: int, limit: int) -> list[Event]:
        """See FeedbackLog; raises LogDamagedError if events are missing."""
        links = self._read_links(stream, after, limit)
        # Rows come by ascending position, each once, so none is missing if the last one's seq matches their number.
        if links and links[-1][0] != after + len(links):
            raise LogDamagedError(f"the feedback log has lost an event after event {after}; restore a backup")
        return [Event(*link[:-1]) for link in links]

    def read_checked(self, stream: int, since: Position, limit: int) -> list[Event]:
        """See FeedbackLog."""
        select = select_links(stream, max(1, since.seq), limit + (since.seq > 0))
        with self._connection.call():
            found = self._connection.query(select) if since.seq else []
            genesis, last_seq = b"", since.seq
            if not found:
                heads, found = self._read_together(select_heads([stream]), select)
                head = _only_head(heads)
                genesis, last_seq = head.stream.genesis, head.seq
        return [Event(*link[:-1]) for link in check_continues(since, found, genesis, last_seq)]

    def moved_streams(self) -> set[int] | None:
        """See FeedbackLog.

        A transaction that the last look did not see is not older than the oldest one that ran then. Another server, as
        after a failover, counts transactions differently, so all streams may have moved then.
        """
        with self._connection.call():
            start, oldest, rows = self._select_moved(self._oldest)
            server = self._connection.opened, start
            is_continued = server == self._looked_at and oldest >= self._oldest
            if not is_continued:
                start, oldest, rows = self._select_moved(0)
                server = self._connection.opened, start
        moved = {number: transaction for number, transaction in rows if number is not None}
        changed = {number for number, transaction in moved.items() if self._moved.get(number) != transaction}
        self._looked_at, self._oldest, self._moved = server, oldest, self._moved | moved
        return changed if is_continued else None

    def read_previews(self, stream: int, before: int, limit: int, *, admin_only: bool = False) -> list[EventPreview]:
        """See FeedbackLog; raises LogDamagedError if events are missing."""
        with self._connection.call():
            heads, rows = self._read_together(
                select_heads([stream]), select_previews(stream, before, limit, admin_only=admin_only)
            )
            _only_head(heads)
        if rows and not admin_only and rows[0][0] - rows[-1][0] >= len(rows):
            raise LogDamagedError(f"the feedback log has lost an event after event {rows[-1][0]}; restore a backup")
        return list(map(EventPreview._make, rows))

    def current_lineage(self, stream: int) -> Lineage:
        """See FeedbackLog. What is in memory counts if the log still has the event up to which it was read."""
        lineage, position = self._lineages.pop(stream, (Lineage(), Position(0, b"")))
        with self._connection.call():
            heads, known = self._read_together(select_heads([stream]), select_positions([(stream, position)]))
            opened = _only_head(heads).stream
            if not known:
                lineage, position = Lineage(), Position(0, opened.genesis)
            self._lineages[stream] = lineage, extend_lineage(self._connection, opened, lineage, position)
        return lineage

    def read_payloads(self, stream: int, since: Position, limit: int) -> tuple[list[bytes | None], Position]:
        """See FeedbackLog."""
        links = self._read_links(stream, since.seq, limit)
        return list(map(PAYLOAD_OF, links)), check_chain(since, links)

    def read_admin_events(self, stream: int) -> list[Event]:
        """See FeedbackLog."""
        with self._connection.call():
            heads, links = self._read_together(select_heads([stream]), select_admin_links(stream, 1))
        return checked_admin_events(_only_head(heads).stream.genesis, links)

    def last_admin_seq(self, stream: int) -> int:
        """See FeedbackLog."""
        with self._connection.call():
            rows = self._connection.query(select_last_admin(stream))
        return rows[0][0] & SEQ_MAX if rows else 0

    def verify_chain(self, stream: int, since: Position, rows: int) -> Iterator[Position]:
        """See FeedbackLog."""
        while True:
            with self._connection.call():
                heads, links = self._read_together(select_heads([stream]), select_links(stream, since.seq + 1, rows))
            last = _only_head(heads).seq
            if not links:
                break
            since = check_chain(since, links)
            yield since
        if since.seq < last:
            raise LogDamagedError(f"the feedback log has lost event {since.seq + 1}; restore a backup")

    def _select_moved(self, oldest: int) -> tuple[int, int, list[Any]]:
        """Return the server's start, its oldest transaction, and what transactions from the given one on have moved."""
        rows = self._connection.query(Statement(SELECT_MOVED, (pack_integer(oldest),)))
        return *rows[0][:2], [row[2:] for row in rows]

    def _read_links(self, stream: int, after: int, limit: int) -> list[Link]:
        with self._connection.call():
            links = self._connection.query(select_links(stream, after + 1, limit))
            if not links:
                self._read_head(stream)
        return links

    def _read_head(self, stream: int) -> StreamHead:
        return _only_head(self._connection.query(select_heads([stream])))

    def _read_together(self, *statements: Statement) -> list[list[Any]]:
        """Return the rows of each statement, as of one moment."""
        results = self._connection.run(BEGIN_READ, *statements, COMMIT)
        return list(map(self._connection.rows, results[1:-1]))


def extend_lineage(connection: PostgresConnection, stream: Stream, lineage: Lineage, position: Position) -> Position:
    """Add the admin events after a position to a lineage, and return the position of the last one."""
    is_unfinished = True
    while is_unfinished:
        rows = connection.query(select_admin_links(stream.number, position.seq + 1, limit=CHANGES_MAX))
        for event in checked_admin_events(stream.genesis, rows):
            lineage.add(lineage_change(event))
            position = Position(event.seq, event.hash)
        is_unfinished = len(rows) == CHANGES_MAX
    return position


def checked_admin_events(genesis: bytes, rows: list[Any]) -> list[Event]:
    """Return the events of rows of `select_admin_links`.

    Raises:
        LogDamagedError: An event differs from what was written.
    """
    events = []
    for before, *link in rows:
        check_event(genesis if before is None else before, tuple(link))
        events.append(Event._make(link[:-1]))
    return events


def _only_head(rows: list[Any]) -> StreamHead:
    if not rows:
        raise StreamGoneError("the stream does not exist, or was purged")
    return head_of(rows[0])
