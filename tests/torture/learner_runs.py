"""The learner's process, as `softstep serve` forks it: struck while it follows, or run until it has everything."""

import os
import signal
import time
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

from service.commands import serve
from service.learn import learner_process as loop
from service.learn import publish
from service.process.shared_memory import SharedMemory
from service.process.wakeup import Wakeup
from service.settings import Settings
from service.store.directory.data_directory import DataDirectory
from service.store.log.sqlite import SqliteLog
from service.store.states.snapshots import list_seqs
from service.store.states.status import read_status
from tests.torture.fault_injection import DONE, SECONDS_MAX, Child, Ended, Strike, Tell, Trace
from tests.torture.scenario import bound

FINISH_SECONDS = 20.0
PAUSE_SECONDS = 0.001
# Time in which a learner meets a stream whose artifact is missing.
MISSING_SECONDS = 0.1


def learn(settings: Settings, board: SharedMemory, heard: Wakeup, _tell: Tell) -> None:
    """Be the learner's process until SIGTERM; it looks, and writes checkpoints, more often than for real."""
    loop.LOOK_SECONDS, publish.CHECKPOINT_EVENTS, publish.PUBLISH_PAUSE = 0.02, 6, 1  # type: ignore[misc]
    loop.run_learner(settings, board, heard, [])


def start(settings: Settings, tell: Tell) -> None:
    """What `softstep serve` does before it forks, and what the learner does then; tells "last <seq>" in between."""
    with serve.open_data(settings) as data:
        last = 0
        if data is not None and data.log.exists():
            with closing(SqliteLog(data.log)) as log:
                last = max((log.stream_state(stream.number).seq for stream in log.list_streams()), default=0)
        tell(f"last {last}")
        learn(settings, SharedMemory(1, 8), Wakeup(), tell)


def start_struck(settings: Settings, strike: Strike, log: Path) -> Ended:
    """A start that is struck, up to where the learner has published everything."""
    child = Child(partial(start, settings))
    trace = Trace(child.pid, strike, log)
    child.go()
    return _ended(settings, child, trace)


def start_once(settings: Settings) -> None:
    """A start, up to where the learner has published everything."""
    child = Child(partial(start, settings))
    child.go()
    ended = _ended(settings, child, None)
    assert ended.code == DONE, ended.told


def finish(settings: Settings, seq: int, epoch: int) -> None:
    """Run the learner until it has published, erased and kept everything.

    Args:
        settings: Where the data is.
        seq: The last event, which was not published before.
        epoch: The number of forgets.

    Raises:
        AssertionError: It does not get there.
    """
    child = Child(partial(learn, settings, SharedMemory(1, 8), Wakeup()))
    child.go()
    folder = DataDirectory(settings.data).stream_folder("iris", 1)
    if not folder.artifact.exists():  # a purge was interrupted; the next feedback binds the stream anew
        time.sleep(MISSING_SECONDS)
        bound(settings)
    late = time.monotonic() + FINISH_SECONDS
    while not (has_published(settings, seq) and read_status(folder.path).get("erased_epoch", 0) >= epoch):
        if child.poll() or time.monotonic() > late:
            break
        time.sleep(PAUSE_SECONDS)
    is_late = time.monotonic() > late
    stop(child)
    ended = child.wait()
    assert not is_late, "the learner does not come to an end"
    assert ended.code == DONE, ended.told


def has_published(settings: Settings, seq: int) -> bool:
    """Whether a state up to an event, or a later one, is served."""
    return max(list_seqs(DataDirectory(settings.data).stream_folder("iris", 1).snapshots), default=0) >= seq


def stop(child: Child) -> None:
    """Ask a learner to end, once it listens to that."""
    listens = 1 << (signal.SIGTERM - 1)
    late = time.monotonic() + SECONDS_MAX
    while not child.poll() and time.monotonic() < late:
        with suppress(OSError):
            status = Path(f"/proc/{child.pid}/status").read_text()
            if int(status.partition("SigCgt:")[2].split()[0], 16) & listens:
                break
        time.sleep(PAUSE_SECONDS)
    with suppress(ProcessLookupError):
        os.kill(child.pid, signal.SIGTERM)


def _ended(settings: Settings, child: Child, trace: Trace | None) -> Ended:
    late = time.monotonic() + FINISH_SECONDS
    while not child.poll() and time.monotonic() < late:
        last = [int(line.split()[1]) for line in child.lines() if line.startswith("last ")]
        if last and has_published(settings, last[0]):
            break
        time.sleep(PAUSE_SECONDS)
    stop(child)
    return child.wait(trace)
