"""Files in a log in PostgreSQL: found by their hash, whole or not at all, and bound to streams as these are opened."""

import contextlib
import hashlib
import threading
from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.errors import LogDamagedError, LogUnavailableError, OutcomeUnknownError
from service.store.log import postgres_files
from service.store.log.postgres import PostgresLog
from tests.support.budgets import examples
from tests.support.feedback_log_contract import GENESIS
from tests.support.postgres_servers import OWNER, PostgresCluster

# A lock of another session ends then, and with it what waits for it succeeds.
HELD_SECONDS = 15.0


@pytest.fixture
def log(shared_address: str) -> Iterator[PostgresLog]:
    with contextlib.closing(PostgresLog(shared_address, copies=1)) as log:
        yield log


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files have many parts."""
    monkeypatch.setattr(postgres_files, "PART_BYTES", 3)
    monkeypatch.setattr(postgres_files, "PARTS_AT_ONCE", 2)


def run(server: PostgresCluster, address: str, sql: str) -> list[tuple[object, ...]]:
    return server.execute(sql, database=address.rpartition("/")[2])


@settings(max_examples=examples(20), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=40))
@pytest.mark.usefixtures("small_parts")
def test_a_file_is_read_as_it_was_stored(log: PostgresLog, content: bytes) -> None:
    """Its hash is returned, and storing it again changes nothing."""
    sha256 = hashlib.sha256(content).digest()
    for _ in range(2):
        assert log.files.put(content) == sha256
        assert (log.files.get(sha256), log.files.has(sha256)) == (content, True)
    other = hashlib.sha256(content + b"other").digest() + b"!"
    assert (log.files.get(other), log.files.has(other)) == (None, False)


@pytest.mark.parametrize(
    "damage", ["DELETE FROM blobs WHERE part = 2", "UPDATE blobs SET bytes = bytes || bytes WHERE part = 1"]
)
@pytest.mark.usefixtures("small_parts")
def test_a_damaged_file_is_refused(
    log: PostgresLog, postgres_server: PostgresCluster, shared_address: str, damage: str
) -> None:
    sha256 = log.files.put(b"0123456789")
    run(postgres_server, shared_address, damage)
    with pytest.raises(LogDamagedError):
        log.files.get(sha256)
    run(postgres_server, shared_address, "DELETE FROM blobs")


def test_a_stream_begins_with_its_files(log: PostgresLog) -> None:
    """They are read once, and belong to the first that opens the stream."""
    calls = []

    def read_files() -> tuple[bytes, ...]:
        calls.append(1)
        return b"tensors" * 999_999, b"manifest"

    stream = log.open_stream("files", 1, GENESIS, 3, read_files)
    assert log.open_stream("files", 1, GENESIS, 3, read_files) == stream
    assert len(calls) == 1
    hashes = log.files.artifact_of(stream.number)
    assert [log.files.get(sha256) for sha256 in hashes] == list(read_files())
    assert log.files.artifact_of(stream.number + 1) == []
    log.files.bind_artifact(stream.number, [b"others"])
    assert log.files.artifact_of(stream.number) == hashes


def test_a_stream_without_files_gets_them_later(log: PostgresLog) -> None:
    """As one that was moved to this log."""
    stream = log.open_stream("without", 1, GENESIS, 3)
    assert log.files.artifact_of(stream.number) == []
    log.files.bind_artifact(stream.number, [b"t", b"m"])
    assert list(map(log.files.get, log.files.artifact_of(stream.number))) == [b"t", b"m"]


def test_a_stream_that_cannot_be_opened_leaves_no_files(
    log: PostgresLog, postgres_server: PostgresCluster, shared_address: str
) -> None:
    """Files and stream are written in one transaction."""
    run(postgres_server, shared_address, "ALTER TABLE streams ADD CONSTRAINT refused CHECK (version <> 13)")
    try:
        with pytest.raises(LogUnavailableError):
            log.open_stream("refused", 13, GENESIS, 3, lambda: [b"not kept"])
    finally:
        run(postgres_server, shared_address, "ALTER TABLE streams DROP CONSTRAINT refused")
    assert not log.files.has(hashlib.sha256(b"not kept").digest())


def test_a_race_has_one_winner(shared_address: str) -> None:
    """Each opens the stream with files of its own: all get the stream, whose files are those of one of them."""
    threads, found = 4, []
    barrier = threading.Barrier(threads)

    def open_stream(number: int) -> None:
        with contextlib.closing(PostgresLog(shared_address, copies=1)) as log:
            barrier.wait()
            stream = log.open_stream("raced", 1, GENESIS, 3, lambda: [b"shared", b"%d" % number])
            found.append((stream, tuple(map(log.files.get, log.files.artifact_of(stream.number)))))

    racers = [threading.Thread(target=open_stream, args=(number,)) for number in range(threads)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert len(found) == threads
    assert len(set(found)) == 1
    assert found[0][1] in {(b"shared", b"%d" % number) for number in range(threads)}


def test_opening_a_stream_has_the_deadline_of_a_call(postgres_server: PostgresCluster, shared_address: str) -> None:
    """A lock that is held for longer, as a standby that does not answer, makes no writer wait for minutes."""
    name = shared_address.rpartition("/")[2]
    holder = f"host={postgres_server.folder} port={postgres_server.port} user={OWNER} dbname={name}"
    with (
        contextlib.closing(psycopg.connect(holder)) as session,
        contextlib.closing(PostgresLog(shared_address, copies=1, seconds=0.3)) as log,
    ):
        session.execute("LOCK TABLE streams IN SHARE MODE")
        release = threading.Timer(HELD_SECONDS, session.close)
        release.start()
        with pytest.raises((LogUnavailableError, OutcomeUnknownError)):
            log.open_stream("waits", 1, GENESIS, 3, lambda: [b"a file"])
        release.cancel()
