"""Replicas have equal bytes at the seqs where all write a checkpoint; one that differs is noticed."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.learn import state_exchange
from service.learn.follow import Follower
from service.learn.state_exchange import StateDivergedError, StateExchange
from service.store.artifact.artifact import Artifact
from service.store.directory.data_directory import StreamFolder
from service.store.log.admin_payloads import dump, dump_forget_ids, dump_seq
from service.store.log.events import Draft, Kind, Stream
from service.store.states.snapshots import read_snapshot, write_snapshot
from service.store.states.state_folder import list_seqs
from tests.support.budgets import examples
from tests.support.history_machine import contents_hash
from tests.support.memory_streams import feedback, memory_stream
from tests.support.shared_memory_log import MemoryStates, SharedMemoryLog

EVENTS = 8
STEPS = ("feedback", "feedback", "follow", "follow", "restart", "forget", "skip", "rollback", "pause")


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """States are compared often."""
    monkeypatch.setattr(state_exchange, "SHARED_EVENTS", EVENTS)


def shared_stream(events: int) -> tuple[Artifact, SharedMemoryLog, Stream]:
    artifact, memory, stream = memory_stream(events)
    log = SharedMemoryLog()
    log.restore(memory.save())
    return artifact, log, stream


class Replica:
    """One replica of a stream: a folder, a follower and an exchange, which may stop and start again."""

    def __init__(self, folder: Path, artifact: Artifact, log: SharedMemoryLog, stream: Stream) -> None:
        self.folder, self.artifact, self.log, self.stream = StreamFolder(folder), artifact, log, stream
        self.start()

    def start(self) -> None:
        self.exchange = StateExchange(self.stream, self.log, self.folder.checkpoints)
        self.exchange.fetch()
        self.follower = Follower(self.stream, self.artifact, self.log, self.folder)

    def follow(self, limit: int) -> bool:
        """Fold at most so many events; return whether there were any."""
        if not self.follower.is_refolding:
            limit = min(limit, self.exchange.events_until_due(self.follower.seq))
        events = self.follower.read_next(limit)
        if events:
            self.follower.fold_batch(events)
            if self.exchange.is_due(self.follower.seq) and not self.follower.is_refolding:
                self.follower.write_checkpoint()
                self.exchange.add(self.follower.seq)
            self.exchange.compare()
        return bool(events)

    def catch_up(self, limit: int = 5) -> None:
        while self.follow(limit):
            pass


def admin(stream: Stream, kind: Kind, payload: bytes) -> Draft:
    return Draft(stream.number, kind, b"%d %b" % (kind, payload[:40]), payload, 0)


@settings(max_examples=examples(25), deadline=None)
@given(data=st.data())
def test_equal_events_make_equal_bytes(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """However replicas split the events, whenever they start again, and whatever they had folded before a change."""
    artifact, log, stream = shared_stream(0)
    replicas = [Replica(tmp_path_factory.mktemp("replica"), artifact, log, stream) for _ in range(3)]
    ids: list[int] = []
    steps = st.lists(st.sampled_from(STEPS), min_size=10, max_size=40)
    for number, step in enumerate(data.draw(steps)):
        replica = data.draw(st.sampled_from(replicas))
        if step == "feedback":
            more = data.draw(st.integers(1, 12))
            log.append([feedback(stream, 1000 * number + one) for one in range(more)])
            ids += [1000 * number + one for one in range(more)]
        elif step == "follow":
            replica.follow(data.draw(st.integers(1, 9)))
        elif step == "restart":
            replica.start()
        elif step == "forget" and ids:
            log.append([admin(stream, Kind.FORGET, dump_forget_ids([b"%d" % data.draw(st.sampled_from(ids))]))])
        elif step == "pause":
            log.append([admin(stream, Kind.CONFIGURE, dump({"paused": bool(number % 2), "number": number}))])
        elif (last := log.stream_state(stream.number).seq) > 0:
            kind = Kind.SKIP if step == "skip" else Kind.ROLLBACK
            log.append([admin(stream, kind, dump_seq(data.draw(st.integers(1, last))))])
    log.append([feedback(stream, 10**6 + one) for one in range(2 * EVENTS)])
    for replica in replicas:
        replica.catch_up()
    assert isinstance(log.states, MemoryStates)
    assert log.states.compared >= 3


def test_a_new_replica_begins_with_the_newest_state(tmp_path: Path) -> None:
    """It folds what came after, and has the state of the others."""
    artifact, log, stream = shared_stream(3 * EVENTS + 5)
    first = Replica(tmp_path / "first", artifact, log, stream)
    first.catch_up()
    second = Replica(tmp_path / "second", artifact, log, stream)
    assert second.follower.seq == 3 * EVENTS
    second.catch_up()
    assert contents_hash(second.follower.fold) == contents_hash(first.follower.fold)


def test_a_state_of_other_events_is_not_begun_with(tmp_path: Path) -> None:
    """Not one before a FORGET, and none that a rollback has removed."""
    artifact, log, stream = shared_stream(2 * EVENTS)
    Replica(tmp_path / "first", artifact, log, stream).catch_up()
    log.append([admin(stream, Kind.ROLLBACK, dump_seq(EVENTS + 1))])
    assert Replica(tmp_path / "second", artifact, log, stream).follower.seq == EVENTS
    assert list_seqs(tmp_path / "second" / "checkpoints") == [EVENTS]
    log.append([admin(stream, Kind.FORGET, dump_forget_ids([b"2"]))])
    Replica(tmp_path / "third", artifact, log, stream)
    assert list_seqs(tmp_path / "third" / "checkpoints") == []


def test_a_state_that_differs_is_noticed(tmp_path: Path) -> None:
    """A fold that goes wrong in one replica, by one bit of one weight."""
    artifact, log, stream = shared_stream(EVENTS - 1)
    replicas = [Replica(tmp_path / name, artifact, log, stream) for name in "ab"]
    for replica in replicas:
        replica.catch_up()
    log.append([feedback(stream, 100)])
    replicas[0].catch_up()
    flip_a_bit(replicas[1].follower)
    with pytest.raises(StateDivergedError) as raised:
        replicas[1].catch_up()
    assert raised.value.seq == EVENTS


def flip_a_bit(follower: Follower) -> None:
    tensors: Any = follower.fold.state.tensors()
    name = next(name for name, tensor in tensors.items() if tensor.dtype.kind == "f" and tensor.size)
    path = write_snapshot(follower.folder.history, 0, *follower.fold.checkpoint_contents(), durable=False)
    snapshot = read_snapshot(path)
    arrays = {key: array.copy() for key, array in snapshot.arrays.items()}
    arrays[name].view("u1").flat[0] ^= 1
    follower.fold.state = type(follower.fold.state).from_tensors(follower.artifact, arrays, snapshot.fields["scalars"])
