"""Forgotten events are erased from a shared log beside the learning, by one run at a time."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.errors import LogUnavailableError
from service.learn.log_erasure import LogErasure
from service.store.states.status import read_status
from tests.support.feedback_log_contract import forget
from tests.support.memory_log import MemoryLog
from tests.support.shared_log_rig import SharedLogRig
from tests.support.shared_memory_log import SharedMemoryLog
from tests.support.waiting import SECONDS, wait_until


class SlowLog(MemoryLog):
    """A log whose erasure takes as long as the test lets it.

    Attributes:
        begun: How many erasures have begun.
        running: How many run now.
        may_end: One is released to let an erasure end.
        error: What the next ones raise at their end, or None.
    """

    def __init__(self) -> None:
        super().__init__()
        self.begun = self.running = 0
        self.error: Exception | None = None
        self.may_end = threading.Semaphore(0)

    def end(self) -> None:
        """Let one erasure end, and wait for it."""
        self.may_end.release()
        wait_until(lambda: self.running == 0, SECONDS)

    def erase_forgotten(self) -> None:
        """See FeedbackLog."""
        self.begun += 1
        self.running += 1
        assert self.running == 1
        self.may_end.acquire()
        error = self.error
        self.running -= 1
        if error is not None:
            raise error


@pytest.fixture
def log() -> Iterator[SlowLog]:
    log = SlowLog()
    yield log
    log.end()


def test_a_run_counts_for_requests_before_it(log: SlowLog) -> None:
    """A run that had begun before the request may have read the table already, so another one follows."""
    erasure = LogErasure(MemoryLog(), lambda: log)
    first = erasure.request()
    assert not erasure.is_done(first)
    wait_until(lambda: log.running == 1, SECONDS)
    later = [erasure.request() for _ in range(3)]
    assert not any(map(erasure.is_done, (first, *later)))
    log.end()
    wait_until(lambda: erasure.is_done(first), SECONDS)
    wait_until(lambda: log.begun == 2, SECONDS)
    assert not any(map(erasure.is_done, later))
    log.end()
    wait_until(lambda: all(map(erasure.is_done, later)), SECONDS)
    assert log.begun == 2


def test_a_run_that_fails_is_made_again(log: SlowLog, caplog: pytest.LogCaptureFixture) -> None:
    """The reason is logged, and nothing counts as erased."""
    log.error = LogUnavailableError("an older transaction reads")
    erasure = LogErasure(MemoryLog(), lambda: log)
    run = erasure.request()
    assert not erasure.is_done(run)
    log.end()
    wait_until(lambda: not erasure.is_done(run) and log.begun == 2, SECONDS)
    assert "an older transaction reads" in caplog.text
    log.error = None
    log.end()
    wait_until(lambda: erasure.is_done(run), SECONDS)


def test_a_fault_of_a_run_is_raised(log: SlowLog) -> None:
    """The learner reports it as any other fault of the service."""
    log.error = ZeroDivisionError()
    erasure = LogErasure(MemoryLog(), lambda: log)
    run = erasure.request()
    assert not erasure.is_done(run)
    log.end()

    def has_raised() -> bool:
        try:
            return erasure.is_done(run)
        except ZeroDivisionError:
            return True

    wait_until(has_raised, SECONDS)
    assert not erasure.is_done(run)


def test_a_log_of_one_service_is_erased_at_once() -> None:
    log = SlowLog()
    log.may_end.release()
    erasure = LogErasure(log, None)
    assert erasure.is_done(erasure.request())
    log.error = LogUnavailableError("another process reads")
    log.may_end.release()
    with pytest.raises(LogUnavailableError):
        erasure.request()


def test_a_stream_is_learned_while_its_log_is_erased(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: SlowLog
) -> None:
    """Feedback and a second FORGET arrive meanwhile; the second is erased by the run after the first one."""
    rig = SharedLogRig(tmp_path, monkeypatch)
    monkeypatch.setattr(SharedMemoryLog, "erase_forgotten", lambda _: log.erase_forgotten())

    def erased() -> int:
        rig.look()
        return int(read_status(rig.folder.path)["erased_epoch"])

    rig.append(rig.stream, 0, 5)
    rig.log.append([forget(rig.stream, "first", "2")])
    rig.learn(lambda: rig.is_published(6))
    wait_until(lambda: log.running == 1, SECONDS)
    rig.append(rig.stream, 5, 8)
    rig.log.append([forget(rig.stream, "second", "3")])
    rig.learn(lambda: rig.is_published(10))
    assert (erased(), log.begun) == (0, 1)
    log.end()
    wait_until(lambda: erased() == 1, SECONDS)
    wait_until(lambda: log.running == 1, SECONDS)
    rig.append(rig.stream, 8, 9)
    rig.learn(lambda: rig.is_published(11))
    assert erased() == 1
    log.end()
    wait_until(lambda: erased() == 2, SECONDS)
    assert log.begun == 2
