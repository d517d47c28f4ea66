"""The rig of PostgreSQL: databases, synchronous standbys, kills, promotions, PgBouncer, relays, and no leftovers."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support import postgres_servers
from tests.support.paths import ROOT
from tests.support.pgbouncer_server import pooled
from tests.support.postgres_servers import (
    FOLDER_PREFIX,
    PostgresCluster,
    cluster_parent,
    require_postgres,
    require_program,
    running_pair,
)
from tests.support.tcp_relay import TcpRelay
from tests.support.waiting import wait_until

Pair = tuple[PostgresCluster, PostgresCluster]


def make_table(address: str) -> None:
    """Make a table with one row."""
    with psycopg.connect(address) as session:
        session.execute("CREATE TABLE t AS SELECT 1 AS n")


def insert(address: str, n: int) -> None:
    """Insert a row, and return when its COMMIT has."""
    with psycopg.connect(address) as session:
        session.execute("INSERT INTO t VALUES (%s)", (n,))


def rows(address: str) -> list[int]:
    """Return the rows of the table."""
    with psycopg.connect(address) as session:
        return [n for (n,) in session.execute("SELECT n FROM t ORDER BY n")]


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """A primary and its synchronous standby; a test may leave them in any state."""
    require_postgres()
    with running_pair() as clusters:
        yield clusters


def test_each_database_is_a_copy_of_the_prepared_one(postgres_server: PostgresCluster) -> None:
    """The schema is made once; no test sees the rows of another, and ROLE has no power over the cluster."""
    first, second = (postgres_server.make_database(make_table) for _ in range(2))
    insert(first, 2)
    assert (rows(first), rows(second)) == ([1, 2], [1])
    with psycopg.connect(first, autocommit=True) as session, pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
    postgres_server.drop_database(second)
    with pytest.raises(psycopg.OperationalError):
        rows(second)


def test_each_transaction_through_pgbouncer_may_have_another_session(postgres_server: PostgresCluster) -> None:
    """PgBouncer gives a session to the next client between two transactions, so session state is lost."""
    name = postgres_server.make_database(make_table).rpartition("/")[2]
    with pooled(postgres_server, {"default_pool_size": "1"}) as port:
        address = postgres_server.address(name, port=port)
        with psycopg.connect(address) as one, psycopg.connect(address) as other:
            sessions = []
            for session in (one, other):
                sessions += session.execute("SELECT pg_backend_pid()").fetchall()
                session.commit()
    assert sessions[0] == sessions[1]


def test_pgbouncer_breaks_prepared_statements(postgres_server: PostgresCluster) -> None:
    """The trap that the log avoids: a prepared statement is unknown in the next session, or is another client's."""
    name = postgres_server.make_database(make_table).rpartition("/")[2]
    with pooled(postgres_server, {"default_pool_size": "1"}) as port:
        address = postgres_server.address(name, port=port)
        sessions = (psycopg.connect(address, prepare_threshold=0) for _ in range(2))
        with next(sessions) as one, next(sessions) as other:
            one.execute("SELECT 1")
            one.commit()
            with pytest.raises(psycopg.errors.DuplicatePreparedStatement):
                other.execute("SELECT 2")


def test_a_commit_waits_for_the_standby_and_survives_the_primary(pair: Pair) -> None:
    """A COMMIT waits while the standby is stalled; once it has returned, a killed primary loses nothing."""
    primary, standby = pair
    address = primary.make_database(make_table)
    with primary.paused("walsender"):
        child = subprocess.Popen([sys.executable, "-c", INSERT, address, "2"])
        wait_until(lambda: bool(primary.processes("COMMIT waiting")))
        time.sleep(0.2)
        assert child.poll() is None
    assert child.wait(20) == 0
    primary.kill()
    assert not primary.is_running
    standby.promote()
    assert rows(standby.address(address.rpartition("/")[2])) == [1, 2]


INSERT = """
import psycopg, sys
with psycopg.connect(sys.argv[1]) as session:
    session.execute("INSERT INTO t VALUES (%s)", (int(sys.argv[2]),))
"""


def test_a_killed_primary_follows_the_promoted_one(pair: Pair) -> None:
    """After a promotion the old primary can become the standby, and the roles can change again."""
    old, new = pair if not pair[0].is_running else pair[::-1]
    if old.is_running:
        old.kill()
        new.promote()
    old.follow(new)
    new.wait_for_standby(old.name)
    address = new.make_database(make_table)
    insert(address, 5)
    new.kill()
    old.promote()
    assert rows(old.address(address.rpartition("/")[2])) == [1, 5]


def test_a_relay_delays_stalls_and_cuts() -> None:
    """Bytes come late while there is a delay, not at all while stalled, and a cut resets connections old and new."""
    with socket.create_server(("127.0.0.1", 0)) as server, TcpRelay(server.getsockname()).running() as relay:
        with socket.create_connection(("127.0.0.1", relay.port), 5) as client:
            end, _ = server.accept()
            with end:
                client.sendall(b"a")
                assert end.recv(9) == b"a"
                relay.delay = 0.1
                started = time.monotonic()
                end.sendall(b"b")
                assert client.recv(9) == b"b"
                assert time.monotonic() - started >= 0.1
                relay.delay = 0.0
                relay.stall()
                client.sendall(b"c")
                end.settimeout(0.1)
                with pytest.raises(TimeoutError):
                    end.recv(9)
                relay.resume()
                end.settimeout(5)
                assert end.recv(9) == b"c"
                assert (relay.connections, relay.sent, relay.received) == (1, 2, 1)
                relay.cut()
                with pytest.raises(ConnectionResetError):
                    client.recv(9)
        with socket.create_connection(("127.0.0.1", relay.port), 5) as refused, pytest.raises(ConnectionResetError):
            refused.recv(9)
        relay.mend()
        with socket.create_connection(("127.0.0.1", relay.port), 5) as client:
            client.sendall(b"d")
            with server.accept()[0] as end:
                assert end.recv(9) == b"d"
                client.shutdown(socket.SHUT_WR)
                assert end.recv(9) == b""


KILLED = """
import os, signal
from tests.support.postgres_servers import running_cluster
with running_cluster() as cluster:
    print(cluster.folder, cluster._process.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_test_process_leaves_nothing(postgres_server: PostgresCluster) -> None:
    """Its cluster stops by itself; the next cluster removes its folder, and leaves the folders of running ones."""
    done = subprocess.run([sys.executable, "-c", KILLED], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    folder, process = Path(done.stdout.split()[0]), int(done.stdout.split()[1])
    assert folder.name.startswith(FOLDER_PREFIX)
    wait_until(lambda: not Path(f"/proc/{process}").exists(), 20)
    with postgres_servers.cluster_folder() as other:
        assert not folder.exists()
        assert {postgres_server.folder, other} <= set(cluster_parent().glob(f"{FOLDER_PREFIX}*"))
    assert not other.exists()


@pytest.mark.parametrize("variable", ["CI", "NEED_POSTGRES", None])
def test_without_postgres_tests_are_skipped_only_on_a_laptop(
    monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    """In CI a missing program fails the tests that need it; elsewhere they are skipped with the package's name."""
    for name in ("CI", "NEED_POSTGRES"):
        monkeypatch.delenv(name, raising=False)
    if variable is not None:
        monkeypatch.setenv(variable, "1")
    expected = pytest.skip.Exception if variable is None else pytest.fail.Exception
    with pytest.raises(expected, match="apt-get install --no-install-recommends postgresql"):
        require_program(None, "PostgreSQL", "postgresql")
    require_program("/a/path", "PostgreSQL", "postgresql")
