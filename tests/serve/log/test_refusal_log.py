"""Refusals of feedback in the log: at once, then once a minute."""

import logging

import pytest

from service import log_limit
from service.errors import LogFullError, LogUnavailableError
from service.log_limit import PAUSE_SECONDS
from service.serve.log.refusal_log import RefusalLog
from tests.support.set_clock import SetClock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    """Replace the clock of the log of refusals."""
    clock = SetClock()
    monkeypatch.setattr(log_limit, "time", clock)
    return clock


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The records that a test logs."""
    caplog.set_level(logging.INFO, "softstep")
    return caplog


def counts(log: pytest.LogCaptureFixture) -> list[tuple[str, int]]:
    """Return the name and the count of each event."""
    return [(record.__dict__["event"], record.__dict__["fields"]["count"]) for record in log.records]


def test_a_full_disk_is_logged_once_a_minute(clock: SetClock, log: pytest.LogCaptureFixture) -> None:
    """A line has the number of events that were refused since the one before."""
    refusals = RefusalLog()
    for _ in range(5):
        refusals.note_refused(LogFullError("full"), 1)
    assert counts(log) == [("feedback_refused", 1)]
    clock.now += PAUSE_SECONDS
    refusals.note_refused(LogFullError("full"), 2)
    refusals.note_refused(LogFullError("full"), 1)
    assert counts(log)[1:] == [("feedback_refused", 6)]
    assert log.records[1].__dict__["fields"] | {"count": 0} == {"count": 0, "reason": "full", "code": "log_full"}


def test_space_again_is_logged_after_a_minute(clock: SetClock, log: pytest.LogCaptureFixture) -> None:
    """A disk that is full now and then causes one line a minute."""
    refusals = RefusalLog()
    assert not refusals.is_open
    for _ in range(10):
        refusals.note_refused(LogFullError("full"), 1)
        refusals.note_written()
        assert refusals.is_open
    assert counts(log) == [("feedback_refused", 1)]
    clock.now += PAUSE_SECONDS
    refusals.note_written()
    assert counts(log)[1:] == [("feedback_accepted", 9)]
    assert not refusals.is_open
    refusals.note_refused(LogFullError("full"), 1)
    assert counts(log)[2:] == [("feedback_refused", 1)]


def test_each_reason_has_its_own_minute(clock: SetClock, log: pytest.LogCaptureFixture) -> None:
    """A log that cannot be used is logged with its traceback, beside a full disk."""
    refusals = RefusalLog()
    for _ in range(3):
        refusals.note_refused(LogFullError("full"), 1)
        refusals.note_refused(LogUnavailableError("held"), 4)
    assert counts(log) == [("feedback_refused", 1), ("feedback_not_written", 4)]
    assert log.records[1].exc_info is not None
    clock.now += PAUSE_SECONDS
    refusals.note_refused(LogUnavailableError("held"), 4)
    assert counts(log)[2:] == [("feedback_not_written", 12)]
