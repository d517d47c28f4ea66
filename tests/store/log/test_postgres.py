"""The PostgreSQL backend passes the conformance suite in each way to append, also through a pooler of transactions."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.store.log.feedback_log import FeedbackLog
from service.store.log.postgres import PostgresLog
from service.store.log.postgres_schema import create_schema
from tests.support.feedback_log_contract import FeedbackLogTests
from tests.support.pgbouncer_server import pooled
from tests.support.postgres_servers import PostgresCluster


@pytest.fixture(scope="module")
def database(postgres_server: PostgresCluster) -> Iterator[str]:
    """The address of a database that the tests of this file share."""
    address = postgres_server.make_database(create_schema)
    yield address
    postgres_server.drop_database(address)


@pytest.fixture(scope="module")
def pooled_address(postgres_server: PostgresCluster, database: str) -> Iterator[str]:
    """The address of that database behind PgBouncer."""
    with pooled(postgres_server) as port:
        yield postgres_server.address(database.rpartition("/")[2], port=port)


class TestPostgresLog(FeedbackLogTests):
    """Every racing thread has a connection of its own."""

    optimistic = True

    @pytest.fixture(autouse=True)
    def logs(self, postgres_server: PostgresCluster, database: str) -> Iterator[None]:
        """Empty the database, and close all logs of a test at its end."""
        name = database.rpartition("/")[2]
        postgres_server.execute("TRUNCATE streams, events", database=name)
        self.address = database
        self.logs: list[PostgresLog] = []
        yield
        for log in self.logs:
            log.close()

    def make_log(self, folder: Path) -> FeedbackLog:  # noqa: ARG002  # it keeps no files
        self.logs.append(PostgresLog(self.address, copies=1, optimistic=self.optimistic))
        return self.logs[-1]

    def reopen(self, log: FeedbackLog, folder: Path) -> FeedbackLog:
        log.close()
        return self.make_log(folder)

    def racer(self, log: FeedbackLog, folder: Path) -> FeedbackLog:  # noqa: ARG002  # it connects again
        return self.make_log(folder)


class TestPostgresLogWithLocks(TestPostgresLog):
    """Every append locks its streams."""

    optimistic = False


class TestPostgresLogThroughAPooler(TestPostgresLog):
    """Each transaction may run in another session."""

    @pytest.fixture(autouse=True)
    def pooled_logs(self, logs: None, pooled_address: str) -> None:  # noqa: ARG002  # after it
        self.address = pooled_address
