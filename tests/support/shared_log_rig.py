"""A learner's process in the test's own, over a log in memory that replicas share."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from service.learn import learner_process, state_exchange
from service.learn.learner_process import LearnerProcess
from service.process.shared_memory import SharedMemory
from service.process.wakeup import Wakeup
from service.settings import Settings
from service.store.artifact.artifact import encode_artifact
from service.store.directory.data_directory import DataDirectory
from service.store.log.events import Stream
from service.store.states.state_folder import list_seqs
from tests.support.memory_streams import feedback, memory_stream
from tests.support.shared_memory_log import MemoryStates, SharedMemoryLog
from tests.support.waiting import SECONDS, wait_until

# States are compared at multiples of this.
EVENTS = 8


class SharedLogRig:
    """A learner's process that a test drives, and the log, memory and folder of its one stream.

    Args:
        path: The data directory.
        monkeypatch: Names the log to the process.
        log: A log that another process has had; by default a new one with a stream without events.

    Attributes:
        path, monkeypatch: As given.
    """

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch, log: SharedMemoryLog | None = None) -> None:
        self.path, self.monkeypatch = path, monkeypatch
        monkeypatch.setattr(state_exchange, "SHARED_EVENTS", EVENTS)
        self.log = begin_log() if log is None else log
        (self.stream,) = self.log.list_streams()
        monkeypatch.setattr(learner_process, "open_log", lambda *_: self.log)
        self.memory = SharedMemory(1, 4)
        self.folder = DataDirectory(path).stream_folder("m", 1)
        self.folder.path.mkdir(parents=True, exist_ok=True)
        self.process = LearnerProcess(Settings(data=path, models=path), self.memory, Wakeup(), [])

    @property
    def states(self) -> MemoryStates:
        assert isinstance(self.log.states, MemoryStates)
        return self.log.states

    def look(self) -> bool:
        """Fold one batch and write what is due; return whether more may wait."""
        return self.process._learn_all(time.monotonic())  # `run` handles signals and waits

    def learn(self, is_done: Callable[[], bool]) -> None:
        """Learn until something is done."""

        def learn_and_look() -> bool:
            self.look()
            return is_done()

        wait_until(learn_and_look, SECONDS)

    def is_published(self, seq: int) -> bool:
        """Whether the state at a seq is served, and the service is ready."""
        is_ready = self.memory.is_caught_up and not self.memory.has_diverged
        return is_ready and max(list_seqs(self.folder.snapshots), default=0) == seq

    def append(self, stream: Stream, first: int, last: int) -> None:
        self.log.append([feedback(stream, number) for number in range(first, last)])


def begin_log() -> SharedMemoryLog:
    """Return a shared log with a stream without events, and the artifact of it."""
    artifact, memory, stream = memory_stream(0)
    log = SharedMemoryLog()
    log.restore(memory.save())
    log.files.bind_artifact(stream.number, list(encode_artifact(artifact).values()))
    return log
