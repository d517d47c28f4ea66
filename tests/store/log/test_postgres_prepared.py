"""Statements that a session prepares: which it has, after a refusal and after it has ended."""

import contextlib
from collections.abc import Iterator

import pytest

from service.errors import LogUnsafeError
from service.store.log.postgres_connection import BEGIN, BEGIN_READ, COMMIT, PostgresConnection
from service.store.log.postgres_errors import StatementRefusedError
from service.store.log.postgres_values import Statement, pack_integer
from tests.support.pgbouncer_server import pooled
from tests.support.postgres_servers import PostgresCluster

NAMES = Statement(b"SELECT statement FROM pg_prepared_statements ORDER BY prepare_time, name::int")
DOUBLE = b"SELECT $1::bigint * 2"
MISSING = Statement(b"SELECT * FROM no_such_table")


@pytest.fixture
def connection(shared_address: str) -> Iterator[PostgresConnection]:
    with contextlib.closing(PostgresConnection(shared_address, 1, 5.0, prepares=True)) as connection:
        yield connection


def prepared(connection: PostgresConnection) -> list[str]:
    with connection.call():
        return [text for (text,) in connection.query(NAMES) if text != NAMES.sql.decode()]


def doubles(connection: PostgresConnection, *numbers: int) -> list[int]:
    """Double numbers in one pipeline, whose transaction chooses its isolation level."""
    statements = [Statement(DOUBLE, (pack_integer(number),)) for number in numbers]
    with connection.call():
        _, *results, _ = connection.run(BEGIN_READ, *statements, COMMIT)
    return [connection.rows(result)[0][0] for result in results]


def test_each_text_is_prepared_once(connection: PostgresConnection) -> None:
    assert doubles(connection, 1, 2, 3) == [2, 4, 6]
    assert doubles(connection, 4) == [8]
    assert prepared(connection) == [text.decode() for text in (BEGIN_READ.sql, DOUBLE, COMMIT.sql)]


def test_a_refused_statement_is_prepared_again(connection: PostgresConnection) -> None:
    """Those before it stay, and those after it were not prepared."""
    for _ in range(2):
        with connection.call(), pytest.raises(LogUnsafeError, match="no feedback log of this release"):
            connection.run(BEGIN, MISSING, Statement(DOUBLE, (pack_integer(1),)))
    assert prepared(connection) == [BEGIN.sql.decode(), "ROLLBACK"]
    assert doubles(connection, 5) == [10]


def test_a_statement_that_fails_stays_prepared(connection: PostgresConnection) -> None:
    divide = b"SELECT 1 / $1::bigint"
    with connection.call(), pytest.raises(StatementRefusedError, match="22012"):
        connection.query(Statement(divide, (pack_integer(0),)))
    with connection.call():
        assert connection.query(Statement(divide, (pack_integer(1),))) == [(1,)]
    assert prepared(connection) == [divide.decode()]


def test_another_session_prepares_again(connection: PostgresConnection, postgres_server: PostgresCluster) -> None:
    assert doubles(connection, 1) == [2]
    with connection.call():
        ((pid,),) = connection.query(Statement(b"SELECT pg_backend_pid()::bigint"))
    postgres_server.execute(f"SELECT pg_terminate_backend({pid}, 5000)")
    assert doubles(connection, 2) == [4]
    assert connection.opened == 2


def test_a_pooler_that_drops_them_is_named(postgres_server: PostgresCluster, shared_address: str) -> None:
    """Its session may be another one in each transaction."""
    with pooled(postgres_server) as port:
        address = postgres_server.address(shared_address.rpartition("/")[2], port=port)
        pair = [PostgresConnection(address, 1, 5.0, prepares=True) for _ in range(2)]
        with pytest.raises(LogUnsafeError, match="SOFTSTEP_LOG_PREPARE"):
            use_in_turns(pair)
        for connection in pair:
            connection.close()


def use_in_turns(connections: list[PostgresConnection]) -> None:
    for number in range(4):
        doubles(connections[number % 2], number)
