"""A shared log is looked at often while something happens, and an idle one seldom and at random."""

import pytest

from service.learn.log_watch import ACTIVE_SECONDS, BUSY_SECONDS, IDLE_SECONDS, POLL_SECONDS, LogWatch


def test_a_log_of_one_service_waits_for_wakeups() -> None:
    watch = LogWatch(is_shared=False)
    watch.note_look(10.0, has_events=True)
    assert watch.seconds_until_look(10.4, is_awaited=True) == POLL_SECONDS


def test_a_shared_log_is_looked_at_often_while_events_come() -> None:
    watch = LogWatch(is_shared=True, draw=lambda: 1.0)
    watch.note_look(10.0, has_events=True)
    assert watch.seconds_until_look(10.001, is_awaited=False) == pytest.approx(BUSY_SECONDS - 0.001)
    watch.note_look(10.9, has_events=False)
    assert watch.seconds_until_look(10.9, is_awaited=False) == pytest.approx(BUSY_SECONDS)
    idle = 10.0 + ACTIVE_SECONDS
    watch.note_look(idle, has_events=False)
    assert watch.seconds_until_look(idle, is_awaited=False) == pytest.approx(1.5 * IDLE_SECONDS)
    assert watch.seconds_until_look(idle + 1, is_awaited=False) == 0


def test_a_request_that_waits_makes_the_looks_frequent() -> None:
    watch = LogWatch(is_shared=True)
    watch.note_look(10.0, has_events=False)
    assert watch.seconds_until_look(10.0, is_awaited=True) == pytest.approx(BUSY_SECONDS)
    assert watch.seconds_until_look(10.0, is_awaited=False) >= IDLE_SECONDS / 2


def test_the_looks_of_replicas_do_not_coincide() -> None:
    """Each idle pause has a random length, from half to one and a half times the usual one."""
    draws = iter([0.0, 0.5, 1.0])
    watch = LogWatch(is_shared=True, draw=lambda: next(draws))
    pauses = []
    for now in (10.0, 20.0, 30.0):
        watch.note_look(now, has_events=False)
        pauses.append(watch.seconds_until_look(now, is_awaited=False))
    assert pauses == pytest.approx([0.5 * IDLE_SECONDS, IDLE_SECONDS, 1.5 * IDLE_SECONDS])
