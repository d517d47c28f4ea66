"""The heads of streams and the index of ids in the memory of one connection; both equal what is committed."""

from collections.abc import Collection, Iterable, Mapping

import apsw

from service.store.log import tables
from service.store.log.events import SEQ_BITS
from service.store.log.id_index import IdIndex
from service.store.log.lineage import Lineage, lineage_change
from service.store.log.log_rows import Name, Row, StreamHead


class LogCache:
    """The cache of one connection, which reads what other processes have committed before each use.

    Args:
        tail_events_max: Ids in memory above which a slice of the index is written.

    Attributes:
        index: The index of ids.
        has_actors: Whether the log's events can have actors, as of the last look at other processes' commits.
    """

    index: IdIndex
    has_actors: bool

    def __init__(self, tail_events_max: int) -> None:
        self._tail_events_max = tail_events_max
        self._heads: dict[int, StreamHead] | None = None
        self._data_version = 0
        self._lineages: dict[int, tuple[Lineage, int]] = {}  # each with the seq up to which it is read

    def reset(self, database: apsw.Connection) -> None:
        """Start over with an empty cache."""
        self.index = IdIndex(tables.read_secret(database), self._tail_events_max)
        self._heads = None
        self._data_version = 0
        self._lineages.clear()

    def current_lineage(self, database: apsw.Connection, stream: int) -> Lineage:
        """Return the lineage of a stream, within a transaction; only admin events that are new are read.

        The lineages of heads are another matter: a batch may change them and then not be committed.
        """
        head = tables.read_head(database, stream)
        lineage, seq = self._lineages.get(stream, (Lineage(), 0))
        for change in list(map(lineage_change, tables.read_admin_events(database, head.stream, seq))):
            lineage.add(change)
        self._lineages[stream] = lineage, head.seq
        return lineage

    def catch_up(self, database: apsw.Connection) -> dict[int, StreamHead]:
        """Read what other processes have committed, within a transaction, and return the heads of all streams."""
        version = database.pragma("data_version")
        if self._heads is None or version != self._data_version:
            heads = _keep_lineages(self._heads or {}, tables.read_heads(database))
            self.index.catch_up(database, {number: head.stream.model for number, head in heads.items()})
            self._heads, self._data_version = heads, version
            self.has_actors = tables.has_actors(database)
        return self._heads

    def find_rows(
        self, database: apsw.Connection, names: Collection[Name], heads: Mapping[int, StreamHead]
    ) -> dict[Name, Row]:
        """Return the stored events that have these names."""
        rows = tables.read_rows(database, self.index.find_positions(database, names))
        found = {(heads[row[0] >> SEQ_BITS].stream.model, row[2]): row for row in rows if row[0] >> SEQ_BITS in heads}
        return {name: row for name, row in found.items() if name in names}

    def begin_batch(self, database: apsw.Connection) -> dict[int, StreamHead]:
        """Return the heads for a batch to change; the cache reads them again unless the batch is committed."""
        heads, self._heads = self.catch_up(database), None
        return heads

    def commit_batch(
        self, heads: dict[int, StreamHead], slices: Iterable[int], positions: Iterable[tuple[int, Name]]
    ) -> None:
        """Store the effects of a batch that is committed.

        Args:
            heads: The heads from `begin_batch`, as the batch has changed them.
            slices: The slices of the index that were written with the batch.
            positions: The position and the name of each event.
        """
        self._heads = heads
        self.index.drop_slices(slices)
        self.index.add(positions)

    def drop_heads(self) -> None:
        """Let the next use read the heads again."""
        self._heads = None

    def head_after_append(self, stream: int) -> StreamHead:
        """Return the head of a stream that the last append has changed."""
        assert self._heads is not None  # noqa: S101  # `commit_batch` has set it
        return self._heads[stream]


def _keep_lineages(known: Mapping[int, StreamHead], heads: dict[int, StreamHead]) -> dict[int, StreamHead]:
    """Give heads that were read again the lineages that are known, so that only later admin events are read."""
    for number in known.keys() & heads.keys():
        heads[number].lineage, heads[number].lineage_seq = known[number].lineage, known[number].lineage_seq
    return heads
