"""A learner that starts while the log forks, or cannot be read, loses nothing and waits no longer than it must."""

from pathlib import Path
from typing import Any

import pytest

from service.chain_errors import LogForkedError
from service.errors import LogUnavailableError
from service.learn import stream_learner
from service.store.states.state_folder import list_seqs
from service.store.states.status import read_status
from tests.support.shared_log_rig import EVENTS, SharedLogRig
from tests.support.shared_memory_log import SharedMemoryLog


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SharedLogRig:
    return SharedLogRig(tmp_path, monkeypatch)


def fork_while_starting(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Let the log fork during the next starts of a stream, after its lineage was read."""
    left = [None] * times
    check = stream_learner.check_taken_over

    def fork_or_check(*arguments: Any) -> None:
        if left:
            left.pop()
            raise LogForkedError("the log has another event")
        check(*arguments)

    monkeypatch.setattr(stream_learner, "check_taken_over", fork_or_check)


def test_a_fork_during_a_start_is_followed_at_once(rig: SharedLogRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first look at the log folds events, without a pause of a fault."""
    fork_while_starting(monkeypatch, 1)
    rig.append(rig.stream, 0, 3)
    rig.look()
    assert list_seqs(rig.folder.snapshots) != []
    assert read_status(rig.folder.path)["state"] == "following"
    rig.learn(lambda: rig.is_published(3))


def test_a_log_that_forks_in_each_start_is_held(rig: SharedLogRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not keep the learner busy; once it forks no more, the stream is learned."""
    fork_while_starting(monkeypatch, 2)
    rig.append(rig.stream, 0, 3)
    assert not rig.look()
    assert read_status(rig.folder.path) == {
        "state": "held", "reason": "the log has another event", "erased_epoch": 0
    }  # fmt: skip
    rig.learn(lambda: rig.is_published(3))


def test_a_log_that_is_lost_during_a_start_hides_no_fork(rig: SharedLogRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fork is noticed, and the log is lost before the stream has started again: later it is as without the loss."""
    common = rig.log.save()
    rig.append(rig.stream, 0, EVENTS + 3)
    rig.learn(lambda: rig.is_published(EVENTS + 3))
    rig.log.restore(common)
    rig.append(rig.stream, 100, 100 + EVENTS + 5)
    read_admin_events = SharedMemoryLog.read_admin_events

    def lose_log(*arguments: Any) -> Any:
        if rig.memory.log_forks:
            raise LogUnavailableError("the log is lost")
        return read_admin_events(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(SharedMemoryLog, "read_admin_events", lose_log)
        patch.setattr(SharedMemoryLog, "moved_streams", lambda _: None)
        assert rig.look()
        for _ in range(2):
            with pytest.raises(LogUnavailableError):
                rig.look()
    rig.learn(lambda: rig.is_published(EVENTS + 5))
    assert rig.memory.log_forks == 1
