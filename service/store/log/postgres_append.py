"""The two ways to append to a log in PostgreSQL; the rules of both are those of append_rules.py.

    optimistic   Feedback of one stream whose head is known is admitted in memory. One statement moves the head from
                 the known position and inserts the events. It commits in the same round trip.
    locked       The rows of the streams are locked, and the events that have the ids already are read. The rules
                 decide, and the events are written and committed in a second round trip.

The optimistic way can only accept. If the head has moved, an id is taken or a rule refuses, nothing is written, and the
locked way decides this batch and those of the next second. A duplicate is acknowledged by a transaction that has locked
a row and is committed like every other, because the event that it repeats may not have reached a standby yet.
"""

import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from service.store.log.append_rules import FEEDBACK, AppendBatch, draw_salts, find_names
from service.store.log.chain import strip_checksum
from service.store.log.events import SEQ_BITS, Draft, EventLocation, Outcome, Position, Stream
from service.store.log.lineage import Lineage, LineageChange, lineage_change
from service.store.log.log_rows import Name, ReadChanges, Row, StreamHead, duplicate_of
from service.store.log.postgres_connection import BEGIN, PostgresConnection
from service.store.log.postgres_errors import StatementRefusedError
from service.store.log.postgres_reads import checked_admin_events, extend_lineage
from service.store.log.postgres_schema import SELECT_SECRET
from service.store.log.postgres_tables import (
    DELETE_POSITIONS,
    FORGET_PAYLOADS,
    LOCK_HEADS_OF_KEYS,
    SELECT_HEADS_OF_KEYS,
    SELECT_ROWS,
    compare_and_append,
    head_of,
    insert_rows,
    key_of,
    select_admin_links,
    select_heads,
    select_positions,
    update_heads,
)
from service.store.log.postgres_values import Statement, pack_integers, pack_keys

# For how long the locked way is taken after the optimistic one has failed: others append to the stream then.
LOCKED_SECONDS: Final = 1.0
# Of the locked way. Only appends to other versions of a model, with the same ids at the same moment, lead to another.
ATTEMPTS_MAX: Final = 10


class PostgresAppender:
    """Appends to the log, and finds ids in it. All methods are called within a call of the connection.

    Args:
        connection: The connection.
        optimistic: Whether to try the optimistic way.
    """

    def __init__(self, connection: PostgresConnection, *, optimistic: bool) -> None:
        self._connection = connection
        self._optimistic = optimistic
        self._locked_until = 0.0
        self._streams: dict[int, Stream] = {}
        self._heads: dict[int, StreamHead] = {}
        self._lineages: dict[int, tuple[Lineage, Position]] = {}
        # Those that the batch in hand has, as they were before it.
        self._taken: dict[int, tuple[Lineage, Position]] = {}
        self._secret = b""
        self._secret_of = -1  # the count of connections when it was read

    def append(self, drafts: Sequence[Draft]) -> list[Outcome]:
        """Write drafts in one transaction; see FeedbackLog."""
        outcomes = self._append_optimistically(drafts)
        attempts = 0
        while outcomes is None:
            attempts += 1
            try:
                outcomes = self._append_locked(drafts)
            except StatementRefusedError as error:
                if not error.may_retry or attempts == ATTEMPTS_MAX:
                    raise
        return outcomes

    def note_opened(self, stream: Stream) -> Stream:
        """Note which stream has a number, and return it: drafts that name the number are of that stream alone."""
        if self._streams.get(stream.number) != stream:
            self._forget_stream(stream.number)
            self._streams[stream.number] = stream
        return stream

    def position_after_append(self, stream: int) -> tuple[Stream, Position]:
        """Return a stream that an outcome of the last append names, and its end since then."""
        head = self._heads[stream]
        return head.stream, Position(head.seq, head.hash)

    def find_ids(self, model: str, ids: Sequence[bytes]) -> dict[bytes, EventLocation]:
        """Return the locations of the events with these ids, once they are on as many nodes as an append needs."""
        names = {(model, id_) for id_ in ids}
        keys = self._pack_keys(names)
        if not self._connection.query(Statement(SELECT_ROWS, (keys,))):
            return {}
        _, locked, found = self._connection.run(
            BEGIN, Statement(LOCK_HEADS_OF_KEYS, (keys,)), Statement(SELECT_ROWS, (keys,))
        )
        heads = {row[0]: head_of(row) for row in self._connection.rows(locked)}
        rows = _rows_by_name(self._connection.rows(found), heads, names)
        read_changes = self._changes_reader(heads)
        places = {id_: duplicate_of(row, heads[row[0] >> SEQ_BITS], read_changes) for (_, id_), row in rows.items()}
        self._connection.commit()
        return places

    def _append_optimistically(self, drafts: Sequence[Draft]) -> list[Outcome] | None:
        """Return the outcomes, or None if the locked way has to decide."""
        stream = drafts[0].stream
        known = self._heads.get(stream)
        if known is None or not self._optimistic or time.monotonic() < self._locked_until:
            return None
        if any(draft.stream != stream or draft.kind != FEEDBACK for draft in drafts):
            return None
        head = replace(known, lineage=None, lineage_seq=0)
        batch = AppendBatch({stream: head}, {}, lambda _number, _after: ())
        salts = draw_salts(drafts, secrets.token_bytes)
        outcomes: list[Outcome] = [batch.admit(draft, salt) for draft, salt in zip(drafts, salts, strict=True)]
        if len(batch.rows) == len(drafts):
            keys = self._keys_of(name for _, name in batch.positions)
            statement = compare_and_append(Position(known.seq, known.hash), head, batch.rows, keys)
            del self._heads[stream]
            try:
                _, appended = self._connection.commit(BEGIN, statement)
            except StatementRefusedError:
                appended = None
            if appended is not None and appended.command_tuples == len(drafts):
                self._heads[stream] = head
                return outcomes
        self._locked_until = time.monotonic() + LOCKED_SECONDS
        return None

    def _append_locked(self, drafts: Sequence[Draft]) -> list[Outcome]:
        numbers = sorted({draft.stream for draft in drafts})
        streams = self._known_streams(numbers)
        self._read_lineages(streams)
        names = find_names(drafts, {stream.number: _empty_head(stream) for stream in streams})
        heads, rows = self._lock(numbers, names)
        # Events of purged streams free their ids.
        freed = [row[0] for row in rows if row[0] >> SEQ_BITS not in heads]
        self._compare_streams(numbers, streams, heads)
        first_seqs = {number: head.seq for number, head in heads.items()}
        batch = AppendBatch(heads, _rows_by_name(rows, heads, names), self._changes_reader(heads))
        salts = draw_salts(drafts, secrets.token_bytes)
        outcomes: list[Outcome] = [batch.admit(draft, salt) for draft, salt in zip(drafts, salts, strict=True)]
        self._connection.commit(*self._batch_statements(batch, freed))
        self._heads |= heads
        for number, head in heads.items():
            # A lineage that the batch has not needed is as it was.
            if head.lineage is not None and head.lineage_seq >= first_seqs[number]:
                self._lineages[number] = head.lineage, Position(head.seq, head.hash)
            elif number in self._taken:
                self._lineages[number] = self._taken[number]
        return outcomes

    def _batch_statements(self, batch: AppendBatch, freed: Sequence[int]) -> list[Statement]:
        """Return the statements that write a batch."""
        statements = []
        if freed:
            statements.append(Statement(DELETE_POSITIONS, (pack_integers(freed),)))
        if batch.rows:
            changed = sorted({row[0] >> SEQ_BITS for row in batch.rows})
            statements.append(insert_rows(batch.rows, self._keys_of(name for _, name in batch.positions)))
            statements.append(update_heads([batch.heads[number] for number in changed]))
        if batch.forgotten:
            statements.append(Statement(FORGET_PAYLOADS, (pack_integers(batch.forgotten),)))
        return statements

    def _lock(self, numbers: Sequence[int], names: set[Name]) -> tuple[dict[int, StreamHead], list[Row]]:
        """Lock streams, and read the events that have ids already, with the heads of their streams.

        Returns:
            The heads, by number, with the lineages that are in memory and still hold; and the events. A lineage is out
            of the memory until its batch is committed, because the batch changes it.
        """
        models = {model for model, _ in names}
        known = {
            number: (lineage, position)
            for number, (lineage, position) in self._lineages.items()
            if self._streams[number].model in models
        }
        keys = self._pack_keys(names)
        _, locked, found, others, intact = self._connection.run(
            BEGIN,
            select_heads(numbers, lock=True),
            Statement(SELECT_ROWS, (keys,)),
            Statement(SELECT_HEADS_OF_KEYS, (keys,)),
            select_positions((number, position) for number, (_, position) in known.items()),
        )
        rows_of = self._connection.rows
        heads = {row[0]: head_of(row) for row in [*rows_of(others), *rows_of(locked)]}
        positions = {position for (position,) in rows_of(intact)}
        self._taken = {}
        for number in known.keys() & heads.keys():
            lineage, position = self._lineages.pop(number)
            if number << SEQ_BITS | position.seq in positions or position.seq == 0:
                self._taken[number] = lineage, position
                heads[number].lineage, heads[number].lineage_seq = lineage, position.seq
        return heads, rows_of(found)

    def _read_lineages(self, streams: Sequence[Stream]) -> None:
        """Read lineages that are not in memory before their streams are locked, because a long one takes a while."""
        for stream in streams:
            if stream.number not in self._lineages:
                lineage, position = Lineage(), Position(0, stream.genesis)
                self._lineages[stream.number] = lineage, extend_lineage(self._connection, stream, lineage, position)

    def _known_streams(self, numbers: Iterable[int]) -> list[Stream]:
        """Return the streams of these numbers that exist, from memory where possible."""
        missing = [number for number in numbers if number not in self._streams]
        if missing:
            rows = self._connection.query(select_heads(missing))
            self._streams |= {row[0]: head_of(row).stream for row in rows}
        return [self._streams[number] for number in numbers if number in self._streams]

    def _compare_streams(self, numbers: Iterable[int], used: Sequence[Stream], heads: dict[int, StreamHead]) -> None:
        """Take the heads of streams out that are not those of the drafts: a failover gave their numbers to others.

        Raises:
            StatementRefusedError: One was opened meanwhile.
        """
        known = {stream.number: stream for stream in used}
        for number in numbers:
            if number in known and number in heads and heads[number].stream != known[number]:
                del heads[number]
            if number not in heads:
                self._forget_stream(number)
        self._streams |= {number: head.stream for number, head in heads.items()}
        if not known.keys() >= heads.keys() & set(numbers):
            raise StatementRefusedError("a stream has changed; try again", may_retry=True)

    def _forget_stream(self, number: int) -> None:
        for known in (self._streams, self._lineages, self._heads, self._taken):
            known.pop(number, None)

    def _changes_reader(self, heads: Mapping[int, StreamHead]) -> ReadChanges:
        """Return a function that reads the admin events of a stream after a seq, up to its head as it is now."""
        last_seqs = {number: head.seq for number, head in heads.items()}

        def read_changes(number: int, after: int) -> Iterable[LineageChange]:
            if after >= last_seqs[number]:
                return ()  # the events after it are of the batch
            rows = self._connection.query(select_admin_links(number, after + 1, last_seqs[number]))
            return map(lineage_change, checked_admin_events(heads[number].stream.genesis, rows))

        return read_changes

    def _keys_of(self, names: Iterable[Name]) -> list[bytes]:
        """Return the keys by which ids are found."""
        if self._secret_of != self._connection.opened:
            ((stored,),) = self._connection.query(SELECT_SECRET) or [(b"",)]
            self._secret, self._secret_of = strip_checksum(stored), self._connection.opened
        return [key_of(self._secret, name) for name in names]

    def _pack_keys(self, names: Iterable[Name]) -> bytes:
        return pack_keys(self._keys_of(names))


def _empty_head(stream: Stream) -> StreamHead:
    return StreamHead(stream, 0, stream.genesis, 0, stream.n_classes, 0)


def _rows_by_name(rows: Iterable[Row], heads: Mapping[int, StreamHead], names: set[Name]) -> dict[Name, Row]:
    """Return the events of streams that exist by the names that were looked up."""
    found = {(heads[row[0] >> SEQ_BITS].stream.model, row[2]): row for row in rows if row[0] >> SEQ_BITS in heads}
    return {name: row for name, row in found.items() if name in names}
