"""States in a log in PostgreSQL: the first replica stores one, the others compare theirs with it."""

import contextlib
import hashlib
from collections.abc import Iterator

import pytest

from service.store.log.events import Position
from service.store.log.postgres import PostgresLog
from service.store.log.shared_states import ComparedState
from tests.support.feedback_log_contract import GENESIS


@pytest.fixture
def log(shared_address: str) -> Iterator[PostgresLog]:
    with contextlib.closing(PostgresLog(shared_address, copies=1)) as log:
        yield log


def state(stream: int, seq: int, epoch: int = 0, fold: int = 2) -> ComparedState:
    return ComparedState(stream, Position(seq, b"%d" % seq * 8), epoch, fold)


def content_of(log: PostgresLog, one: ComparedState) -> bytes | None:
    """Return the bytes that are kept of a state."""
    hashes = dict(log.states.newest(one.stream))
    return log.files.get(hashes[one]) if one in hashes else None


def test_the_first_state_is_the_one_that_counts(log: PostgresLog, shared_address: str) -> None:
    """Others are equal or not; a state differs by its stream, position, epoch and fold."""
    states = [state(1, 8), state(1, 9), state(2, 8), state(1, 8, epoch=1), state(1, 8, fold=3)]
    states.append(ComparedState(1, Position(8, b"other"), 0, 2))
    for number, one in enumerate(states):
        assert log.states.compare(one, b"%d" % number)
    with contextlib.closing(PostgresLog(shared_address, copies=1)) as other:
        for number, one in enumerate(states):
            assert other.states.compare(one, b"%d" % number)
            assert not other.states.compare(one, b"different")


def test_the_bytes_of_the_newest_are_kept(log: PostgresLog) -> None:
    """Older states are compared by their hash alone."""
    for seq in range(1, 6):
        assert log.states.compare(state(3, seq), b"third %d" % seq)
    assert [one.position.seq for one, _ in log.states.newest(3)] == [5, 4]
    assert content_of(log, state(3, 5)) == b"third 5"
    assert not log.files.has(hashlib.sha256(b"third 3").digest())
    assert log.states.compare(state(3, 1), b"third 1")
    assert not log.states.compare(state(3, 1), b"third 2")


def test_states_with_forgotten_events_are_dropped(log: PostgresLog) -> None:
    """Those of other streams and those without the events stay."""
    kept, other = state(4, 7, epoch=1), state(5, 7)
    for one in (state(4, 6), kept, other):
        assert log.states.compare(one, repr(one).encode())
    log.states.drop_before(4, 1)
    assert [one for one, _ in log.states.newest(4)] == [kept]
    assert [one for one, _ in log.states.newest(5)] == [other]
    assert not log.files.has(hashlib.sha256(repr(state(4, 6)).encode()).digest())


def test_a_purge_deletes_the_files_of_a_stream(log: PostgresLog) -> None:
    """Files that another stream has too stay."""
    purged, kept = (
        log.open_stream("purged", version, GENESIS, 3, lambda version=version: [b"both", b"%d" % version])
        for version in (1, 2)
    )
    log.states.compare(state(purged.number, 3), b"its state")
    log.purge_stream(purged.number)
    hashes = [hashlib.sha256(content).digest() for content in (b"both", b"1", b"2", b"its state")]
    assert list(map(log.files.has, hashes)) == [True, False, True, False]
    assert log.states.newest(purged.number) == []
    assert len(log.files.artifact_of(kept.number)) == 2
