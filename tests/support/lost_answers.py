"""Faults of a connection to PostgreSQL: one of its round trips fails, before or after the server has got it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from service.store.log.postgres_connection import PostgresConnection
from service.store.log.postgres_errors import ConnectionBrokenError


@contextmanager
def losing_answer(after: int, *, is_sent: bool) -> Iterator[None]:
    """Lose the answer to one round trip of all connections of this process in the block.

    Args:
        after: How many answers come before the one that is lost.
        is_sent: Whether the server gets the statements, and runs them, before their answer is lost.
    """
    # The socket cannot be cut between two statements of a pipeline, which the driver sends at once.
    exchange, left = PostgresConnection._exchange, after

    def lose(connection: PostgresConnection, *arguments: Any) -> Any:
        nonlocal left
        left -= 1
        if left != -1:
            return exchange(connection, *arguments)
        if is_sent:
            exchange(connection, *arguments)
        connection.close()
        raise ConnectionBrokenError("a test has cut the connection")

    with mock.patch.object(PostgresConnection, "_exchange", lose):
        yield
