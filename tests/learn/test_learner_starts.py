"""A learner that starts while the log forks, or cannot be read, loses nothing and waits no longer than it must."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from service.chain_errors import LogForkedError
from service.errors import LogUnavailableError
from service.learn import stream_learner
from service.store.directory.data_directory import DataDirectory
from service.store.log.events import Event, Position, Stream
from service.store.states.state_folder import list_seqs
from service.store.states.status import read_status
from tests.support.shared_log_rig import EVENTS, SharedLogRig
from tests.support.shared_memory_log import SharedMemoryLog
from tests.support.waiting import SECONDS, wait_until


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


def test_a_stream_at_which_the_log_fails_holds_up_no_other(rig: SharedLogRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one does whose artifact takes longer to read than a call may; all streams are tried again and again."""
    versions = [open_version(rig, version) for version in (2, 3)]
    read_checked, failed = SharedMemoryLog.read_checked, []

    def fail_or_read(log: SharedMemoryLog, stream: int, since: Position, limit: int) -> list[Event]:
        if stream == versions[0].number:
            failed.append(stream)
            raise LogUnavailableError("the database did not answer")
        return read_checked(log, stream, since, limit)

    monkeypatch.setattr(SharedMemoryLog, "read_checked", fail_or_read)
    for stream in (rig.stream, *versions):
        rig.append(stream, 10 * stream.number, 10 * stream.number + 3)

    def are_learned(*streams: Stream) -> bool:
        with suppress(LogUnavailableError):
            rig.look()
        folders = (DataDirectory(rig.path).stream_folder(stream.model, stream.version) for stream in streams)
        return all(list_seqs(folder.snapshots)[-1:] == [3] for folder in folders)

    wait_until(lambda: are_learned(rig.stream, versions[1]), SECONDS)
    assert failed != []
    monkeypatch.undo()
    monkeypatch.setattr(rig.process, "_log", rig.log)
    wait_until(lambda: are_learned(*versions), SECONDS)


def open_version(rig: SharedLogRig, version: int) -> Stream:
    """Open a stream of another version with the artifact of the first one."""
    (genesis,) = {stream.genesis for stream in rig.log.list_streams()}
    stream = rig.log.open_stream("m", version, genesis, 3)
    rig.log.files.artifacts[stream.number] = rig.log.files.artifact_of(rig.stream.number)
    return stream
