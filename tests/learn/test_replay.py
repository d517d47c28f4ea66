"""Replaying: state(n) from the log alone is what every other way leads to, whatever happened to the stream."""

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
from tests.support.history_machine import Following, scratch, weights_of
from tests.support.memory_streams import damage_event, feedback, lose_events, memory_stream


def gone(lineage: Lineage, n: int) -> bool:
    """Whether state(n) held an event that was forgotten behind n."""
    forgets = [turn for turn in lineage.changes if turn.kind == Kind.FORGET and turn.seq > n]
    return any(
        seq in range(lo + 1, hi + 1) for turn in forgets for seq in turn.excluded for lo, hi in lineage.segments(n)
    )


class Replaying(Following):
    """The follower's machine, beside which any state is replayed."""

    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        """Three states, one after the other, with one object."""
        replay = StreamReplay(self.stream, self.artifact, self.log)
        for n in data.draw(st.lists(st.integers(0, self.last), min_size=1, max_size=3)):
            if 0 < n < replay.lineage.newest_base_seq:
                with pytest.raises(EarlierReleaseError):
                    list(replay.fold_to(n))
                continue
            if gone(replay.lineage, n):
                with pytest.raises(ForgottenError):
                    list(replay.fold_to(n))
                continue
            done = list(replay.fold_to(n))
            assert all(at.total == done[-1].events for at in done)
            assert replay.seq == n
            assert weights_of(replay.fold) == weights_of(scratch(self.artifact, self.log, self.stream.number, n))

    @rule()
    def replay_what_is_followed(self) -> None:
        """The last state, and where it stands, as the follower has it."""
        self.catch_up()
        replay = StreamReplay(self.stream, self.artifact, self.log)
        list(replay.fold_to(replay.last))
        assert weights_of(replay.fold) == weights_of(self.follower.fold)
        assert replay.position_fields() == self.follower.position_fields()


TestReplaying = Replaying.TestCase
TestReplaying.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)


@pytest.mark.parametrize("bytes_", [1, 1 << 10, 1 << 30])
def test_batches_make_no_difference(bytes_: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many events are read at one time; what is no payload is counted alone."""
    monkeypatch.setattr(module, "BATCH_BYTES", bytes_)
    artifact, log, stream = memory_stream(150)
    log.append([Draft(stream.number, Kind.FEEDBACK, b"none", b"no rows", 0), feedback(stream, 900, 3)])
    replay = StreamReplay(stream, artifact, log)
    steps = list(replay.fold_to(replay.last))
    assert len(steps) > 100 if bytes_ == 1 else len(steps) < 20
    expected = EventFold(artifact)
    expected.fold_events(log.read_events(stream.number, 0, 999))
    assert (expected.events, expected.unfit) == (151, 1)
    assert weights_of(replay.fold) == weights_of(expected)


def test_a_state_before_a_forget_is_gone() -> None:
    """Those that held the event; what came before it, and what comes after the forget, can be had."""
    artifact, log, stream = memory_stream(10)
    log.append([Draft(stream.number, Kind.FORGET, b"f", dump_forget_ids([b"4"]), 0), feedback(stream, 99)])
    for n in range(13):
        replay = StreamReplay(stream, artifact, log)
        if 5 <= n <= 10:
            with pytest.raises(ForgottenError, match="seq 11"):
                list(replay.fold_to(n))
        else:
            list(replay.fold_to(n))
            assert weights_of(replay.fold) == weights_of(scratch(artifact, log, stream.number, n))


def test_an_event_that_is_forgotten_meanwhile_is_noticed() -> None:
    """The state that was asked for is gone, and is not made of what is left."""
    artifact, log, stream = memory_stream(30)
    replay = StreamReplay(stream, artifact, log)
    log.append([Draft(stream.number, Kind.FORGET, b"f", dump_forget_ids([b"20"]), 0)])
    with pytest.raises(ForgottenError):
        list(replay.fold_to(30))


@pytest.mark.parametrize("damaged", [1, 7, 30])
def test_a_damaged_event_is_not_replayed(damaged: int) -> None:
    """Whatever command or request the state is for; what comes before it can be had."""
    artifact, log, stream = memory_stream(30)
    damage_event(log, stream, damaged, feedback(stream, 99).payload)
    replay = StreamReplay(stream, artifact, log)
    with pytest.raises(LogDamagedError, match=f"event {damaged} "):
        list(replay.fold_to(30))
    list(replay.fold_to(damaged - 1))
    assert weights_of(replay.fold) == weights_of(scratch(artifact, log, stream.number, damaged - 1))


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
def test_a_damaged_admin_event_turns_nothing(kind: Kind, written: bytes, read: bytes) -> None:
    """A state of another lineage is as wrong as one of other rows; neither a replay nor a learner begins."""
    artifact, log, stream = memory_stream(20)
    log.append([Draft(stream.number, kind, b"turn", written, 0), feedback(stream, 99, 1)])
    list(StreamReplay(stream, artifact, log).fold_to(22))
    damage_event(log, stream, 21, read)
    with pytest.raises(LogDamagedError, match="event 21 "):
        StreamReplay(stream, artifact, log)
    with pytest.raises(LogDamagedError, match="event 21 "):
        Follower(stream, artifact, log, StreamFolder(Path("none")))


def test_seqs_that_there_are_not() -> None:
    """Beyond the last event, below zero, and one that the log has lost."""
    artifact, log, stream = memory_stream(30)
    replay = StreamReplay(stream, artifact, log)
    for n in (-1, 31):
        with pytest.raises(UnknownSeqError):
            list(replay.fold_to(n))
    lose_events(log, stream, 20)
    with pytest.raises(LogDamagedError):
        list(replay.fold_to(30))
    # A replay that broke off does not go on from where it was.
    list(replay.fold_to(5))
    assert weights_of(replay.fold) == weights_of(scratch(artifact, log, stream.number, 5))
