"""While the table of a shared log is vacuumed, or cannot be, all replicas learn; one that has stopped holds up none."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg

from tests.support.learning_client import metadata, post
from tests.support.log_replicas import learned, replica, teach
from tests.support.postgres_servers import OWNER, PostgresCluster
from tests.support.processes import children
from tests.support.waiting import SECONDS, wait_until


@contextlib.contextmanager
def vacuum_kept_waiting(server: PostgresCluster, database: str) -> Iterator[None]:
    """Hold the lock that VACUUM takes, as another VACUUM of the table does; reads and writes need another one."""
    holder = f"host={server.folder} port={server.port} user={OWNER} dbname={database}"
    with contextlib.closing(psycopg.connect(holder, autocommit=True)) as session:
        session.execute("SET idle_in_transaction_session_timeout = 0")
        session.execute("BEGIN")
        session.execute("LOCK TABLE events IN SHARE UPDATE EXCLUSIVE MODE")
        yield
        session.execute("COMMIT")


def waiting_vacuums(server: PostgresCluster, database: str) -> int:
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock' "
        "AND query LIKE 'VACUUM%%'"
    )
    return int(server.execute(query, database)[0][0])


def test_replicas_learn_while_a_vacuum_waits(
    iris_models: Path, tmp_path: Path, postgres_server: PostgresCluster, address: str
) -> None:
    """Then one is stopped (SIGSTOP) in this state, and the other goes on. Rows count as erased at the end alone."""
    database = address.rpartition("/")[2]
    with replica(iris_models, tmp_path / "a", address) as a, replica(iris_models, tmp_path / "b", address) as b:
        teach(a, *range(5))
        with vacuum_kept_waiting(postgres_server, database):
            assert post(b, "iris:forget", {"ids": ["2"]}).status_code in {200, 202}
            # Of two one may wait for the other, whose transaction is older.
            wait_until(lambda: waiting_vacuums(postgres_server, database) > 0, SECONDS)
            teach(b, "6", "7")
            assert learned(a, 8) == learned(b, 8)
            assert metadata(a, "iris")["learner"]["state"] == "following"
            stopped = [b.process.pid, *children(b.process.pid)]
            try:
                for process in stopped:
                    os.kill(process, signal.SIGSTOP)
                teach(a, "8", "9")
                learned(a, 10)
                assert not metadata(a, "iris")["erased"]
            finally:
                for process in stopped:
                    os.kill(process, signal.SIGCONT)
        for service in (a, b):
            wait_until(lambda service=service: metadata(service, "iris")["erased"], 4 * SECONDS)
        assert learned(a, 10) == learned(b, 10)
