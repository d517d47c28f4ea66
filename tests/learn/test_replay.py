"""A replay of the log alone makes the same states as following it."""

from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from service.errors import EarlierReleaseError, LogDamagedError, UnknownSeqError
from service.learn import replay as module
from service.learn.event_fold import EventFold
from service.learn.follow import Follower
from service.learn.replay import ForgottenError, StreamReplay
from service.store.directory.data_directory import StreamFolder
from service.store.log.admin_payloads import dump, dump_classes, dump_forget, dump_forget_ids, dump_seq
from service.store.log.events import Draft, Kind
from service.store.log.lineage import Lineage
from tests.support.budgets import examples
from tests.support.history_machine import FollowMachine, contents_hash, fold_by_definition
from tests.support.memory_streams import damage_event, feedback, lose_events, memory_stream


def is_forgotten(lineage: Lineage, n: int) -> bool:
    """Return whether state(n) contained an event that was forgotten after n."""
    forgets = [change for change in lineage.changes if change.kind == Kind.FORGET and change.seq > n]
    return any(
        seq in range(lo + 1, hi + 1) for change in forgets for seq in change.excluded for lo, hi in lineage.segments(n)
    )


class ReplayMachine(FollowMachine):
    """The machine of the follower, which also replays states."""

    @rule(data=st.data())
    def replay_states(self, data: st.DataObject) -> None:
        """Replay three states, one after the other, with one object."""
        replay_states = StreamReplay(self.stream, self.artifact, self.log)
        for n in data.draw(st.lists(st.integers(0, self.last), min_size=1, max_size=3)):
            if 0 < n < replay_states.lineage.newest_base_seq:
                with pytest.raises(EarlierReleaseError):
                    list(replay_states.fold_to(n))
                continue
            if is_forgotten(replay_states.lineage, n):
                with pytest.raises(ForgottenError):
                    list(replay_states.fold_to(n))
                continue
            done = list(replay_states.fold_to(n))
            assert all(at.total == done[-1].events for at in done)
            assert replay_states.seq == n
            assert contents_hash(replay_states.fold) == contents_hash(
                fold_by_definition(self.artifact, self.log, self.stream.number, n)
            )

    @rule()
    def replay_the_last_state(self) -> None:
        """Compare the last state and its position with those of the follower."""
        self.catch_up()
        replay_states = StreamReplay(self.stream, self.artifact, self.log)
        list(replay_states.fold_to(replay_states.last))
        assert contents_hash(replay_states.fold) == contents_hash(self.follower.fold)
        assert replay_states.position_fields() == self.follower.position_fields()


TestReplaying = ReplayMachine.TestCase
TestReplaying.settings = settings(max_examples=examples(60), stateful_step_count=20, deadline=None)


@pytest.mark.parametrize("bytes_", [1, 1 << 10, 1 << 30])
def test_the_batch_size_changes_nothing(bytes_: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An invalid payload is counted alone."""
    monkeypatch.setattr(module, "BATCH_BYTES", bytes_)
    artifact, log, stream = memory_stream(150)
    log.append([Draft(stream.number, Kind.FEEDBACK, b"none", b"no rows", 0), feedback(stream, 900, 3)])
    replay_states = StreamReplay(stream, artifact, log)
    steps = list(replay_states.fold_to(replay_states.last))
    assert len(steps) > 100 if bytes_ == 1 else len(steps) < 20
    expected = EventFold(artifact)
    expected.fold_events(log.read_events(stream.number, 0, 999))
    assert (expected.events, expected.unfit) == (151, 1)
    assert contents_hash(replay_states.fold) == contents_hash(expected)


def test_states_with_a_forgotten_event_are_unavailable() -> None:
    """States before the event and after the forget are available."""
    artifact, log, stream = memory_stream(10)
    log.append([Draft(stream.number, Kind.FORGET, b"f", dump_forget_ids([b"4"]), 0), feedback(stream, 99)])
    for n in range(13):
        replay_states = StreamReplay(stream, artifact, log)
        if 5 <= n <= 10:
            with pytest.raises(ForgottenError, match="seq 11"):
                list(replay_states.fold_to(n))
        else:
            list(replay_states.fold_to(n))
            assert contents_hash(replay_states.fold) == contents_hash(
                fold_by_definition(artifact, log, stream.number, n)
            )


def test_an_event_forgotten_during_a_replay_is_noticed() -> None:
    """The replay fails instead of folding the remaining events."""
    artifact, log, stream = memory_stream(30)
    replay_states = StreamReplay(stream, artifact, log)
    log.append([Draft(stream.number, Kind.FORGET, b"f", dump_forget_ids([b"20"]), 0)])
    with pytest.raises(ForgottenError):
        list(replay_states.fold_to(30))


@pytest.mark.parametrize("damaged", [1, 7, 30])
def test_a_damaged_event_is_not_replayed(damaged: int) -> None:
    """States before the damaged event are available."""
    artifact, log, stream = memory_stream(30)
    damage_event(log, stream, damaged, feedback(stream, 99).payload)
    replay_states = StreamReplay(stream, artifact, log)
    with pytest.raises(LogDamagedError, match=f"event {damaged} "):
        list(replay_states.fold_to(30))
    list(replay_states.fold_to(damaged - 1))
    assert contents_hash(replay_states.fold) == contents_hash(
        fold_by_definition(artifact, log, stream.number, damaged - 1)
    )


@pytest.mark.parametrize(
    ("kind", "written", "read"),
    [
        (Kind.ROLLBACK, dump_seq(12), dump_seq(13)),
        (Kind.SKIP, dump_seq(12), dump_seq(13)),
        (Kind.CLASSES, dump_classes(["d"]), dump_classes(["d", "e"])),
        (Kind.CONFIGURE, dump({"rule": "sgd"}), dump({"rule": "ftrl"})),
        (Kind.FORGET, dump_forget_ids([b"4"]), dump_forget([6])),
    ],
)
def test_a_damaged_admin_event_is_rejected(kind: Kind, written: bytes, read: bytes) -> None:
    """Neither a replay nor a follower starts from another lineage."""
    artifact, log, stream = memory_stream(20)
    log.append([Draft(stream.number, kind, b"change", written, 0), feedback(stream, 99, 1)])
    list(StreamReplay(stream, artifact, log).fold_to(22))
    damage_event(log, stream, 21, read)
    with pytest.raises(LogDamagedError, match="event 21 "):
        StreamReplay(stream, artifact, log)
    with pytest.raises(LogDamagedError, match="event 21 "):
        Follower(stream, artifact, log, StreamFolder(Path("none")))


def test_unknown_seqs_are_rejected() -> None:
    """Negative seqs, seqs after the last one, and lost events raise an error."""
    artifact, log, stream = memory_stream(30)
    replay_states = StreamReplay(stream, artifact, log)
    for n in (-1, 31):
        with pytest.raises(UnknownSeqError):
            list(replay_states.fold_to(n))
    lose_events(log, stream, 20)
    with pytest.raises(LogDamagedError):
        list(replay_states.fold_to(30))
    # A replay that failed does not continue from where it was.
    list(replay_states.fold_to(5))
    assert contents_hash(replay_states.fold) == contents_hash(fold_by_definition(artifact, log, stream.number, 5))
