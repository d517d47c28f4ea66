"""The receiver of a replica that folds nothing: when it is ready, and what it says of each stream."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from service.learn import receiver_process, replica_list
from service.learn.receiver_process import HALTED, NO_LEARNER, ReceiverProcess
from service.learn.replica_list import ReplicaList
from service.process.shared_memory import LOG_DOUBTS, LOG_FORKS, SharedMemory
from service.process.wakeup import Wakeup
from service.settings import Settings
from service.store.directory.data_directory import DataDirectory
from service.store.log.events import SEQ_MAX
from service.store.states.state_folder import list_seqs
from service.store.states.status import read_status
from tests.support.memory_streams import feedback
from tests.support.shared_log_rig import SharedLogRig
from tests.support.shared_memory_log import SharedMemoryLog
from tests.support.waiting import SECONDS, wait_until


class Worker:
    """A receiver's process that a test drives, and a learner's of the same log."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rig = SharedLogRig(folder / "learner", monkeypatch)
        self.log, self.stream = self.rig.log, self.rig.stream
        monkeypatch.setattr(receiver_process, "open_log", lambda *_: self.log)
        monkeypatch.setattr(replica_list, "REPORT_SECONDS", 0.0)
        monkeypatch.setattr("socket.gethostname", lambda: "another machine")
        self.memory = SharedMemory(1, 4)
        self.folder = DataDirectory(folder / "worker").stream_folder("m", 1)
        settings = Settings(data=folder / "worker", models=folder, role="worker", log="postgresql://localhost/unused")
        self.process = ReceiverProcess(settings, self.memory, Wakeup(), [])

    def look(self) -> None:
        self.process._receive_all(time.monotonic())  # `run` handles signals and waits

    def until(self, is_done: Callable[[], bool], *, learning: bool = False) -> None:
        """Look until something is done; the learner learns meanwhile if it is asked to."""

        def look_and_ask() -> bool:
            if learning:
                self.rig.look()
            self.look()
            return is_done()

        wait_until(look_and_ask, SECONDS)

    def append(self, *numbers: int) -> None:
        self.log.append([feedback(self.stream, number) for number in numbers])

    def status(self) -> tuple[str, str]:
        status = read_status(self.folder.path)
        return status.get("state", ""), status.get("reason", "")

    def served(self) -> int:
        return max(list_seqs(self.folder.snapshots), default=0)


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    return Worker(tmp_path, monkeypatch)


def test_a_worker_is_ready_at_once_if_there_are_no_events(worker: Worker) -> None:
    """The artifact is what the log leads to, whether or not a learner runs."""
    worker.look()
    assert worker.memory.is_caught_up


def test_a_worker_is_ready_once_it_serves_what_the_log_had(worker: Worker) -> None:
    """Not before: without a learner it waits, and what comes later does not count."""
    worker.append(1, 2, 3)
    for _ in range(3):
        worker.look()
    assert not worker.memory.is_caught_up
    assert worker.status() == ("held", NO_LEARNER)
    worker.append(4)
    worker.until(lambda: worker.memory.is_caught_up, learning=True)
    assert worker.served() >= 3
    worker.until(lambda: worker.served() == 4, learning=True)
    assert worker.status() == ("receiving", "")
    assert worker.memory.learners == worker.rig.memory.learners == 1


def test_a_worker_is_ready_with_what_halted_learners_have(worker: Worker) -> None:
    """No learner can fold the next event: then what they have passed on is all that can be served."""
    worker.append(1, 2)
    worker.log.facts.report_replica("a", {}, "learner", [worker.stream.number])
    worker.log.facts.report_replica("b", {}, "all")
    for _ in range(3):
        worker.look()
    assert not worker.memory.is_caught_up
    worker.log.facts.report_replica("b", {}, "all", [worker.stream.number])
    worker.until(lambda: worker.memory.is_caught_up)
    worker.look()
    assert worker.status() == ("held", HALTED)
    worker.log.facts.report_replica("b", {}, "all")
    worker.until(lambda: worker.status() == ("receiving", ""))


def test_a_stream_that_fails_delays_itself_alone(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its status says why; it continues once the cause is gone."""
    worker.append(1)
    worker.until(lambda: worker.served() == 1, learning=True)
    worker.append(2)
    with monkeypatch.context() as patch:
        patch.setattr(type(worker.log.snapshots), "get", lambda *_: b"damaged")
        worker.until(lambda: worker.status()[0] == "held", learning=True)
        assert "snapshot" in worker.status()[1]
        assert worker.served() == 1
    worker.until(lambda: worker.served() == 2)
    assert worker.status() == ("receiving", "")


def test_a_fork_is_counted(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The states of a lost branch go, and what learners have of the other one is served.

    Meanwhile workers know that what they serve is in doubt.
    """
    monkeypatch.setattr("service.learn.stream_receiver.CHECK_SECONDS", 0.0)
    worker.append(1, 2)
    kept = worker.log.save()
    worker.append(3, 4)
    worker.until(lambda: worker.served() == 4, learning=True)
    worker.log.restore(kept)
    worker.look()
    assert worker.status()[0] == "held"
    cells = worker.memory.learner_cells
    assert (doubts := cells[LOG_DOUBTS]) > 0
    worker.append(*range(10, 15))
    worker.until(lambda: worker.served() == 7, learning=True)
    assert cells[LOG_FORKS] == 1
    assert cells[LOG_DOUBTS] > doubts


class Erased:
    """What this replica has erased of a stream."""

    def __init__(self, epoch: int) -> None:
        self.erased_epoch, self.erased_elsewhere = epoch, 0


@pytest.mark.parametrize("role", ["all", "worker"])
def test_replicas_find_out_what_the_others_have_erased(role: str) -> None:
    """Workers count too. A worker alone finds out nothing, because only learners erase from the log."""
    log, cells, stream = SharedMemoryLog(), SharedMemory(1, 4).learner_cells, Erased(2)
    replicas = ReplicaList(log, role, cells)
    replicas.exchange(0.0, {1: stream})
    assert (stream.erased_elsewhere, replicas.has_workers) == (0 if role == "worker" else SEQ_MAX, False)
    log.facts.report_replica("w", {1: 1}, "worker")
    replicas.exchange(0.0, {1: stream})
    assert (stream.erased_elsewhere, replicas.has_workers) == (0 if role == "worker" else 1, True)
    log.facts.report_replica("l", {1: 2}, "learner")
    replicas.exchange(0.0, {1: stream})
    assert stream.erased_elsewhere == 1
    assert [replica.name for replica in replicas.learners or ()] == ["l"]
    log.facts.report_replica("w", {}, "worker")
    replicas.exchange(0.0, {1: stream})
    assert stream.erased_elsewhere == 0
