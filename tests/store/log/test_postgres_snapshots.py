"""Snapshots that learners pass on in PostgreSQL: whole, one after another, and not too many bytes a second."""

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Iterator

import pytest

from service.errors import LogUnsafeError
from service.store.log import shared_snapshots
from service.store.log.events import Position
from service.store.log.postgres import PostgresLog
from service.store.log.postgres_files import PART_BYTES
from service.store.log.postgres_schema import create_schema
from service.store.log.shared_snapshots import SharedSnapshot
from tests.support.postgres_servers import PostgresCluster

SIZES = (1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 20 * PART_BYTES + 7)


@pytest.fixture
def log(shared_address: str) -> Iterator[PostgresLog]:
    with contextlib.closing(PostgresLog(shared_address, copies=1)) as log:
        yield log


@pytest.fixture
def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    """No stream rests."""
    monkeypatch.setattr(shared_snapshots, "REST_SECONDS", 0.0)
    monkeypatch.setattr(shared_snapshots, "BYTES_PER_SECOND", 1 << 50)


def snapshot(stream: int, seq: int, content: bytes, base: str = "", epoch: int = 0) -> SharedSnapshot:
    return SharedSnapshot(stream, Position(seq, b"%d" % seq * 8), epoch, hashlib.sha256(content).digest(), base)


def no_base() -> bytes:
    raise AssertionError("no base is needed")


def found(log: PostgresLog, stream: int) -> SharedSnapshot | None:
    return next((one for one in log.snapshots.list_snapshots() if one.stream == stream), None)


@pytest.mark.usefixtures("unlimited")
def test_a_later_snapshot_replaces_an_earlier_one(log: PostgresLog, shared_address: str) -> None:
    """Its bytes are those that were put, whatever their number; an earlier or equal one changes nothing."""
    with contextlib.closing(PostgresLog(shared_address, copies=1)) as other:
        for seq, size in enumerate((*SIZES, *reversed(SIZES)), start=1):
            content = os.urandom(size)
            one = snapshot(1, seq, content)
            assert log.snapshots.replace(one, content, no_base) == size
            assert found(other, 1) == one
            assert other.snapshots.get(one) == content
            assert other.snapshots.replace(one, b"the same seq", no_base) == 0
            assert other.snapshots.replace(snapshot(1, seq - 1, b"earlier"), b"earlier", no_base) == 0
            assert other.snapshots.get(one) == content
        assert other.snapshots.get(snapshot(1, 1, b"replaced")) is None
        assert other.snapshots.get(snapshot(9, 1, b"unknown")) is None


@pytest.mark.usefixtures("unlimited")
def test_a_snapshot_that_the_log_has_lost_is_replaced(log: PostgresLog) -> None:
    """By an earlier one, if it is still the one that was found to be lost."""
    lost, other, kept = (snapshot(2, seq, b"%d" % seq) for seq in (9, 10, 5))
    assert log.snapshots.replace(lost, b"9", no_base)
    assert not log.snapshots.replace(kept, b"5", no_base, lost=other.position)
    assert not log.snapshots.replace(kept, b"5", no_base, lost=Position(9, b"another hash"))
    assert log.snapshots.replace(kept, b"5", no_base, lost=lost.position)
    assert found(log, 2) == kept


@pytest.mark.usefixtures("unlimited")
def test_a_base_is_sent_once(log: PostgresLog) -> None:
    """It stays as long as snapshots name it, and counts as bytes that were sent."""
    base = os.urandom(2 * PART_BYTES + 5)
    assert log.snapshots.replace(snapshot(3, 1, b"a", base="a" * 32), b"a", lambda: base) == 1 + len(base)
    assert log.snapshots.replace(snapshot(3, 2, b"b", base="a" * 32), b"b", no_base) == 1
    assert log.snapshots.get_base(3, "a" * 32) == base
    assert log.snapshots.get_base(4, "a" * 32) is None
    assert log.snapshots.replace(snapshot(3, 3, b"c", base="b" * 32), b"c", lambda: b"other") == 6
    assert (log.snapshots.get_base(3, "a" * 32), log.snapshots.get_base(3, "b" * 32)) == (None, b"other")
    assert log.snapshots.replace(snapshot(3, 4, b"d"), b"d", no_base) == 1
    assert log.snapshots.get_base(3, "b" * 32) is None


def test_a_stream_rests_for_as_long_as_its_bytes_take(
    log: PostgresLog, shared_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For all learners together, by the server's clock; other streams do not rest."""
    monkeypatch.setattr(shared_snapshots, "BYTES_PER_SECOND", 1_000)
    content = bytes(300)
    with contextlib.closing(PostgresLog(shared_address, copies=1)) as other:
        assert log.snapshots.replace(snapshot(5, 1, content), content, no_base)
        start = time.monotonic()
        assert other.snapshots.replace(snapshot(6, 1, content), content, no_base)
        assert other.snapshots.replace(snapshot(5, 2, content), content, no_base) == 0
        while not other.snapshots.replace(snapshot(5, 2, content), content, no_base):
            time.sleep(0.005)
        assert time.monotonic() - start > 0.29


def test_one_of_several_learners_sends(shared_address: str) -> None:
    """All at the same moment, each another snapshot; the others read no base, and send nothing while it rests."""
    sent, barrier = list[int](), threading.Barrier(8)

    def send(seq: int) -> None:
        with contextlib.closing(PostgresLog(shared_address, copies=1)) as log:
            log.snapshots.list_snapshots()
            content = bytes(PART_BYTES)
            barrier.wait()
            sent.append(log.snapshots.replace(snapshot(9, seq, content), content, no_base))

    threads = [threading.Thread(target=send, args=(seq,)) for seq in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sent) == [0] * 7 + [PART_BYTES]
    with contextlib.closing(PostgresLog(shared_address, copies=1)) as log:
        assert log.snapshots.replace(snapshot(9, 100, b"a", base="a" * 32), b"a", no_base) == 0


@pytest.mark.usefixtures("unlimited")
def test_snapshots_with_forgotten_events_are_dropped(log: PostgresLog) -> None:
    """Those with fewer FORGET events, with all their parts and the base; the log's erasure works then."""
    content = bytes(3 * PART_BYTES)
    assert log.snapshots.replace(snapshot(7, 1, content, base="a" * 32, epoch=2), content, lambda: b"base")
    log.snapshots.drop_before(7, 2)
    assert found(log, 7) is not None
    log.snapshots.drop_before(7, 3)
    assert (found(log, 7), log.snapshots.get_base(7, "a" * 32)) == (None, None)
    log.erase_forgotten()


def test_an_earlier_release_has_no_place_for_them(postgres_server: PostgresCluster) -> None:
    """It is unsafe to go on as if there were, and the rest of the log works; `softstep migrate` makes the table."""
    address = postgres_server.make_database(create_schema)
    postgres_server.execute("DROP TABLE snapshots", database=address.rpartition("/")[2])
    with contextlib.closing(PostgresLog(address, copies=1)) as log:
        with pytest.raises(LogUnsafeError):
            log.snapshots.list_snapshots()
        with pytest.raises(LogUnsafeError):
            log.snapshots.replace(snapshot(1, 1, b"a"), b"a", no_base)
        log.begin()
        log.erase_forgotten()
        log.purge_stream(log.open_stream("model", 1, bytes(32), 3).number)
        create_schema(address)
        assert log.snapshots.list_snapshots() == []
    postgres_server.drop_database(address)


def test_a_table_that_is_emptied_is_filled_again(
    log: PostgresLog, shared_address: str, postgres_server: PostgresCluster
) -> None:
    """After a crash of the server it is empty, so the next snapshot need not be later. It is not logged."""
    name = shared_address.rpartition("/")[2]
    assert log.snapshots.replace(snapshot(8, 5, b"a"), b"a", no_base)
    postgres_server.execute("TRUNCATE snapshots", database=name)
    assert log.snapshots.replace(snapshot(8, 5, b"a"), b"a", no_base)
    kind = postgres_server.execute("SELECT relpersistence FROM pg_class WHERE relname = 'snapshots'", database=name)
    assert str(kind).strip() in {"u", "[('u',)]"}
