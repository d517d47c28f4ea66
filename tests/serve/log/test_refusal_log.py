"""Refusals of feedback in the log: at once, then once a minute."""

import logging

import pytest

from service.errors import LogFullError, LogUnavailableError
from service.serve.log import refusal_log
from service.serve.log.refusal_log import PAUSE_SECONDS, RefusalLog


class Clock:
    """A clock that moves when it is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the clock of the log of refusals."""
    clock = Clock()
    monkeypatch.setattr(refusal_log, "time", clock)
    return clock


@pytest.fixture
def events(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """The records that a test logs."""
    caplog.set_level(logging.INFO, "softstep")
    return caplog.records


def counts(events: list[logging.LogRecord]) -> list[tuple[str, int]]:
    """Return the name and the count of each event."""
    return [(event.__dict__["event"], event.__dict__["fields"]["count"]) for event in events]


def test_a_full_disk_is_logged_once_a_minute(clock: Clock, events: list[logging.LogRecord]) -> None:
    """A line has the number of events that were refused since the one before."""
    log = RefusalLog()
    for _ in range(5):
        log.note_refused(LogFullError("full"), 1)
    assert counts(events) == [("feedback_refused", 1)]
    clock.now += PAUSE_SECONDS
    log.note_refused(LogFullError("full"), 2)
    log.note_refused(LogFullError("full"), 1)
    assert counts(events)[1:] == [("feedback_refused", 6)]
    assert events[1].__dict__["fields"] | {"count": 0} == {"count": 0, "reason": "full", "code": "log_full"}


def test_space_again_is_logged_after_a_minute(clock: Clock, events: list[logging.LogRecord]) -> None:
    """A disk that is full now and then causes one line a minute."""
    log = RefusalLog()
    assert not log.is_open
    for _ in range(10):
        log.note_refused(LogFullError("full"), 1)
        log.note_written()
        assert log.is_open
    assert counts(events) == [("feedback_refused", 1)]
    clock.now += PAUSE_SECONDS
    log.note_written()
    assert counts(events)[1:] == [("feedback_accepted", 9)]
    assert not log.is_open
    log.note_refused(LogFullError("full"), 1)
    assert counts(events)[2:] == [("feedback_refused", 1)]


def test_each_reason_has_its_own_minute(clock: Clock, events: list[logging.LogRecord]) -> None:
    """A log that cannot be used is logged with its traceback, beside a full disk."""
    log = RefusalLog()
    for _ in range(3):
        log.note_refused(LogFullError("full"), 1)
        log.note_refused(LogUnavailableError("held"), 4)
    assert counts(events) == [("feedback_refused", 1), ("feedback_not_written", 4)]
    assert events[1].exc_info is not None
    clock.now += PAUSE_SECONDS
    log.note_refused(LogUnavailableError("held"), 4)
    assert counts(events)[2:] == [("feedback_not_written", 12)]
