"""Queue the statements of a pipeline, each with its text, or by the name under which the session has prepared it.

A prepared statement is parsed once in a session and planned a few times, which is a large part of what a short append
costs the server (docs/benchmarks/operations.md). It needs a session that stays the same, or a pooler that knows
prepared statements.

Each is prepared just before its first use, inside of the transaction, because parsing ends the moment in which a
transaction may still choose its isolation level.
"""

from collections.abc import Sequence
from typing import Final

from psycopg import pq
from psycopg.pq.abc import PGconn, PGresult

from service.store.log.postgres_values import Statement


class StatementQueue:
    """The statements of one connection; those that it prepares are few, and each has the same text always.

    Args:
        prepares: Whether to prepare them.
    """

    def __init__(self, *, prepares: bool) -> None:
        self._prepares: Final = prepares
        self._prepared: dict[bytes, bytes] = {}  # the name of each text that the session has prepared
        self._names: dict[bytes, bytes] = {}
        self._sent: list[bytes | None] = []  # of each result to come, the text that it has prepared

    @property
    def results(self) -> int:
        """The number of results that what was sent will have."""
        return len(self._sent)

    def forget(self) -> None:
        """Note that the session is another one."""
        self._prepared.clear()

    def send(self, pgconn: PGconn, statements: Sequence[Statement]) -> None:
        """Queue the statements of one pipeline; their values are binary, and those of their results."""
        self._sent = []
        self._names = names = dict(self._prepared)
        for sql, values in statements:
            formats = [pq.Format.BINARY] * len(values)
            if not self._prepares:
                pgconn.send_query_params(sql, values, param_formats=formats, result_format=pq.Format.BINARY)
            else:
                if sql not in names:
                    names[sql] = b"%d" % len(names)
                    pgconn.send_prepare(names[sql], sql)
                    self._sent.append(sql)
                pgconn.send_query_prepared(names[sql], values, param_formats=formats, result_format=pq.Format.BINARY)
            self._sent.append(None)

    def results_of(self, received: Sequence[PGresult]) -> list[PGresult]:
        """Return one result of each statement; that of one which could not be prepared says why."""
        results: list[PGresult] = []
        refused: PGresult | None = None
        for sql, result in zip(self._sent, received, strict=True):
            if sql is None:
                results.append(result if refused is None else refused)
                refused = None
            elif result.status == pq.ExecStatus.COMMAND_OK:
                self._prepared[sql] = self._names[sql]
            else:
                refused = result
        return results
