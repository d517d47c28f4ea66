"""A stream that differs from other replicas again and again is folded again after longer and longer pauses."""

from typing import Final

import pytest

from service.learn.divergences import PAUSE_SECONDS_MAX, QUIET_SECONDS, Divergences
from service.learn.retry_delay import DELAY_SECONDS
from service.learn.state_exchange import StateDivergedError
from service.process.shared_memory import SharedMemory

ERROR: Final = StateDivergedError(16)


@pytest.fixture
def memory() -> SharedMemory:
    return SharedMemory(1, 4)


@pytest.mark.parametrize("passes", [True, False])
def test_pauses_double_although_the_stream_agrees_between(memory: SharedMemory, *, passes: bool) -> None:
    """A fault that returns in each folding may show at a later event each time. Other streams are not concerned."""
    divergences, now, pauses = Divergences(memory), 100.0, []
    for _ in range(14):
        due = divergences.record(3, ERROR, now)
        pauses.append(due - now)
        if passes:
            divergences.update(3, None)
        now = due + 1.0
    assert pauses == pytest.approx([min(DELAY_SECONDS * 2**n, PAUSE_SECONDS_MAX) for n in range(14)])
    assert divergences.record(4, ERROR, now) == pytest.approx(now + DELAY_SECONDS)


def test_a_stream_that_differs_much_later_is_folded_again_soon(memory: SharedMemory) -> None:
    divergences = Divergences(memory)
    first = divergences.record(3, ERROR, 100.0)
    second = divergences.record(3, ERROR, first + QUIET_SECONDS - 1)
    assert second == pytest.approx(first + QUIET_SECONDS - 1 + 2 * DELAY_SECONDS)
    now = second + QUIET_SECONDS + 1
    assert divergences.record(3, ERROR, now) == pytest.approx(now + DELAY_SECONDS)


def test_the_service_is_not_ready_while_a_stream_differs(memory: SharedMemory) -> None:
    divergences = Divergences(memory)
    for stream in (3, 4):
        divergences.record(stream, ERROR, 0.0)
    assert (memory.divergences, divergences.seq_of(3), divergences.seq_of(5)) == (2, 16, None)
    divergences.update(3, None)
    assert memory.has_diverged
    divergences.drop(4)
    assert not memory.has_diverged
    assert memory.divergences == 2
    assert divergences.record(4, ERROR, 9.0) == pytest.approx(9.0 + DELAY_SECONDS)
