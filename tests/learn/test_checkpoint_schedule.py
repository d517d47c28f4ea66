"""Checkpoints take a small share of folding, however long each takes."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.learn.checkpoint_schedule import (
    CHECKPOINT_EVENTS,
    CHECKPOINT_FOLD_SECONDS,
    CHECKPOINT_PAUSE,
    GROWTH_MAX,
    IDLE_SECONDS,
    CheckpointSchedule,
)
from tests.support.budgets import examples

SHARE_MAX = 0.05


class Stream:
    """A stream whose folding and writing take times of its own clock."""

    def __init__(self) -> None:
        self.now, self.seq, self.size = 0.0, 0, 1
        self.schedule = CheckpointSchedule(0, lambda: self.now, lambda: self.size)
        self.written: list[tuple[float, float]] = []  # folding before a checkpoint, and the time that it took
        self._folded = 0.0

    def fold(self, events: int, seconds: float) -> None:
        """Fold some events."""
        self.seq, self.now = self.seq + events, self.now + seconds
        self._folded += seconds
        self.schedule.add_fold_seconds(seconds)

    def write_if_due(self, seconds: float) -> None:
        """Write a checkpoint if it is due."""

        def write() -> None:
            self.now += seconds

        if self.schedule.is_due(self.seq):
            self.schedule.write(self.seq, write)
            self.written.append((self._folded, seconds))
            self._folded = 0.0


@settings(max_examples=examples(100), deadline=None)
@given(
    batch=st.floats(0.001, 0.02),
    events=st.integers(1, 4096),
    first=st.floats(0.0, 3.0),
    growth=st.floats(1.0, 1.25),
)
def test_checkpoints_take_a_twentieth_of_folding(batch: float, events: int, first: float, growth: float) -> None:
    """Each one against the folding before it, but for the first of a process, also while the model grows."""
    stream, seconds = Stream(), first
    for _ in range(5000):
        stream.fold(events, batch)
        count = len(stream.written)
        stream.write_if_due(seconds)
        seconds *= growth if len(stream.written) > count else 1
    assert stream.written
    for folded, took in stream.written[1:]:
        assert took <= SHARE_MAX * folded
    longest = max(CHECKPOINT_FOLD_SECONDS, 25 * max(took for _, took in stream.written)) + 2 * batch
    assert all(folded <= longest for folded, _ in stream.written)  # a restart has no more to fold


@settings(max_examples=examples(200), deadline=None)
@given(
    batch=st.floats(0.001, 0.05),
    share=st.floats(0.001, 0.029),
    bend=st.floats(0.0, 0.05),
    fixed=st.floats(0.0, 0.2),
    start=st.integers(1, 10_000),
)
def test_a_growing_checkpoint_is_foreseen(batch: float, share: float, bend: float, fixed: float, start: int) -> None:
    """The state grows while it is folded, fast at first: the next checkpoint takes longer, and still a twentieth.

    Rows of the state take 1 / 10,000 s each, and folding adds so many that writing them takes a share of it, which
    becomes smaller as columns are met again. Larger shares would exceed GROWTH_MAX.
    """
    stream, folded = Stream(), 0.0
    for _ in range(4000):
        stream.fold(1, batch)
        folded += batch
        stream.size = start + int(10_000 * share * folded / (1 + bend * folded))
        stream.write_if_due(fixed + stream.size / 10_000)
    assert all(took <= SHARE_MAX * before for before, took in stream.written[1:])
    for (_, last), (before, _) in pairwise(stream.written):
        assert before <= max(CHECKPOINT_FOLD_SECONDS, GROWTH_MAX * CHECKPOINT_PAUSE * last) + 2 * batch


def test_the_size_is_measured_seldom() -> None:
    """For a large model that takes a millisecond, as folding a batch does."""
    stream, measured = Stream(), []

    def measure() -> int:
        measured.append(stream.seq)
        return 1000 + stream.seq // 10  # twice as much after twice the pause

    stream.schedule = CheckpointSchedule(0, lambda: stream.now, measure)
    stream.fold(1, 1.0)
    stream.write_if_due(0.2)
    while len(stream.written) == 1:
        stream.fold(1, 0.001)
        stream.write_if_due(0.4)
    assert len(measured) < 20
    assert stream.written[1][0] == pytest.approx(2 * CHECKPOINT_PAUSE * 0.2, rel=0.01)


def test_quick_checkpoints_follow_events_or_folding() -> None:
    """Those that take next to nothing: after so many events or so much folding, whichever is first."""
    stream = Stream()
    for _ in range(3):
        stream.fold(CHECKPOINT_EVENTS - 1, 0.5)
        stream.write_if_due(0.001)
        assert not stream.schedule.is_due(stream.seq)
        stream.fold(1, 0.0)
        stream.write_if_due(0.001)
        assert stream.schedule.seq == stream.seq
    stream.fold(1, CHECKPOINT_FOLD_SECONDS)
    assert stream.schedule.is_due(stream.seq)


def test_an_idle_learner_waits_longer_for_a_slow_checkpoint() -> None:
    """Or a slow stream of single events would be a stream of checkpoints."""
    stream = Stream()
    assert (stream.schedule.is_idle(IDLE_SECONDS - 1), stream.schedule.is_idle(IDLE_SECONDS)) == (False, True)
    stream.fold(1, 2.0)
    stream.write_if_due(0.8)
    assert stream.written
    assert (stream.schedule.is_idle(19.0), stream.schedule.is_idle(20.1)) == (False, True)


def test_a_checkpoint_that_fails_is_still_due() -> None:
    """Nothing is noted of it."""
    stream = Stream()
    stream.fold(3, 2.0)

    def fail() -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        stream.schedule.write(stream.seq, fail)
    assert stream.schedule.is_due(stream.seq)
    assert stream.schedule.seq == 0
