"""The learner process as `softstep serve` forks it: with a fault injected, or run until it has published everything."""

import os
import signal
import time
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

from service.commands.serve import open_data
from service.learn import checkpoint_schedule, learner_process, publish
from service.process.shared_memory import SharedMemory
from service.process.wakeup import Wakeup
from service.settings import Settings
from service.store.directory.data_directory import DataDirectory
from service.store.log.sqlite import SqliteLog
from service.store.states.state_folder import list_seqs
from service.store.states.status import read_status
from tests.torture.fault_injection import DONE, SECONDS_MAX, Child, Emit, Injection, ProcessResult, Strace
from tests.torture.scenario import bind_scenario_artifact

FINISH_SECONDS = 20.0
PAUSE_SECONDS = 0.001
# Time for the learner to meet a stream whose artifact is missing.
MISSING_SECONDS = 0.1


def run_learner(settings: Settings, shared: SharedMemory, wakeup: Wakeup, _emit: Emit) -> None:
    """Run the learner process until SIGTERM, with shorter intervals than in production.

    It looks for events every 20 ms, writes a checkpoint every 6 events, and pauses only as long as publishing took.
    """
    learner_process.POLL_SECONDS, publish.PUBLISH_PAUSE = 0.02, 1  # type: ignore[misc]
    checkpoint_schedule.CHECKPOINT_EVENTS, checkpoint_schedule.CHECKPOINT_PAUSE = 6, 0  # type: ignore[misc]
    learner_process.run_learner(settings, shared, wakeup, [])


def start_and_learn(settings: Settings, emit: Emit) -> None:
    """Do the start-up of `softstep serve`, emit "last <seq>", then run the learner."""
    with open_data(settings) as data:
        last = 0
        if data is not None and data.log.exists():
            with closing(SqliteLog(data.log)) as log:
                last = max((log.stream_state(stream.number).seq for stream in log.list_streams()), default=0)
        emit(f"last {last}")
        run_learner(settings, SharedMemory(1, 8), Wakeup(), emit)


def start_injected(settings: Settings, injection: Injection, log: Path) -> ProcessResult:
    """Start with a fault injected, until the learner has published everything."""
    child = Child(partial(start_and_learn, settings))
    strace = Strace(child.pid, injection, log)
    child.start()
    return _stop_when_published(settings, child, strace)


def start_until_published(settings: Settings) -> None:
    """Start without a fault, until the learner has published everything."""
    child = Child(partial(start_and_learn, settings))
    child.start()
    result = _stop_when_published(settings, child, None)
    assert result.code == DONE, result.lines


def finish_learning(settings: Settings, seq: int, epoch: int) -> None:
    """Run the learner until it has published, erased and checkpointed everything.

    Args:
        settings: Settings with the data directory.
        seq: The last event, which is not yet published.
        epoch: The number of forgets.

    Raises:
        AssertionError: The learner fails, or does not finish within FINISH_SECONDS.
    """
    child = Child(partial(run_learner, settings, SharedMemory(1, 8), Wakeup()))
    child.start()
    folder = DataDirectory(settings.data).stream_folder("iris", 1)
    if not folder.artifact.exists():  # a purge was interrupted; the next feedback binds the stream again
        time.sleep(MISSING_SECONDS)
        bind_scenario_artifact(settings)
    deadline = time.monotonic() + FINISH_SECONDS
    while not (has_published(settings, seq) and read_status(folder.path).get("erased_epoch", 0) >= epoch):
        if child.has_ended() or time.monotonic() > deadline:
            break
        time.sleep(PAUSE_SECONDS)
    is_late = time.monotonic() > deadline
    stop_learner(child)
    result = child.wait()
    assert not is_late, "the learner does not finish"
    assert result.code == DONE, result.lines


def has_published(settings: Settings, seq: int) -> bool:
    """Return whether there is a snapshot of this seq or a later one."""
    return max(list_seqs(DataDirectory(settings.data).stream_folder("iris", 1).snapshots), default=0) >= seq


def stop_learner(child: Child) -> None:
    """Send SIGTERM to a learner once it has installed its handler."""
    handled = 1 << (signal.SIGTERM - 1)
    deadline = time.monotonic() + SECONDS_MAX
    while not child.has_ended() and time.monotonic() < deadline:
        with suppress(OSError):
            status = Path(f"/proc/{child.pid}/status").read_text()
            if int(status.partition("SigCgt:")[2].split()[0], 16) & handled:
                break
        time.sleep(PAUSE_SECONDS)
    with suppress(ProcessLookupError):
        os.kill(child.pid, signal.SIGTERM)


def _stop_when_published(settings: Settings, child: Child, strace: Strace | None) -> ProcessResult:
    deadline = time.monotonic() + FINISH_SECONDS
    while not child.has_ended() and time.monotonic() < deadline:
        last = [int(line.split()[1]) for line in child.lines() if line.startswith("last ")]
        if last and has_published(settings, last[0]):
            break
        time.sleep(PAUSE_SECONDS)
    stop_learner(child)
    return child.wait(strace)
