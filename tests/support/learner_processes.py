"""Learners as real processes, forked from the test's, over a real log."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service.learn.event_fold import EventFold
from service.learn.learner_process import run_learner
from service.process.shared_memory import SharedMemory
from service.process.wakeup import Wakeup
from service.settings import Settings
from tests.support.data_directories import History

Fault = Callable[[], None]
"""Changes the fold of the process that calls it."""


def no_fault() -> None:
    """Change nothing."""


def kill_at(*ids: str) -> Fault:
    """Return a fault that kills the process when it folds one of the events with these ids."""

    def install() -> None:
        fold_events = EventFold.fold_events

        def fold_or_kill(fold: EventFold, events: Any) -> Any:
            chosen = list(events)
            if any(event.id.decode() in ids for event in chosen):
                os.kill(os.getpid(), signal.SIGKILL)
            return fold_events(fold, chosen)

        EventFold.fold_events = fold_or_kill  # type: ignore[method-assign]

    return install


def kill_at_label(id_: str, label: int) -> Fault:
    """Return a fault that kills the process when it folds the event with that id, of one row, with that label."""

    def install() -> None:
        fold_events = EventFold.fold_events

        def fold_or_kill(fold: EventFold, events: Any) -> Any:
            chosen = list(events)
            if any(event.id.decode() == id_ and event.payload[-4:] == label.to_bytes(4, "little") for event in chosen):
                os.kill(os.getpid(), signal.SIGKILL)
            return fold_events(fold, chosen)

        EventFold.fold_events = fold_or_kill  # type: ignore[method-assign]

    return install


def raise_at(id_: str) -> Fault:
    """Return a fault that raises at the event with that id, after the events before it in the batch are folded."""

    def install() -> None:
        fold_events = EventFold.fold_events

        def fold_or_raise(fold: EventFold, events: Any) -> Any:
            losses: list[Any] = []
            for event in events:
                if event.id.decode() == id_:
                    raise RuntimeError("a fault of the fold")
                losses += fold_events(fold, [event])
            return losses

        EventFold.fold_events = fold_or_raise  # type: ignore[method-assign]

    return install


def fork_learner(path: Path, memory: SharedMemory, wakeup: Wakeup, fault: Fault = no_fault) -> int:
    """Fork a learner of a data directory; return its process id."""
    process = os.fork()
    if process == 0:
        try:
            fault()
            run_learner(Settings(data=path), memory, wakeup, [])
        finally:
            os._exit(0)
    return process


@contextmanager
def stop_learner(process: int) -> Iterator[None]:
    """Stop a learner at the end of the block, as the supervisor does."""
    try:
        yield
    finally:
        os.kill(process, signal.SIGTERM)
        os.waitpid(process, 0)


def make_streams(path: Path, versions: int) -> None:
    """Make streams without events, and close the log, because no connection may be inherited by a fork."""
    for version in range(1, versions + 1):
        History(path, version).close()


@contextmanager
def learning(path: Path, versions: int, fault: Fault = no_fault) -> Iterator[tuple[History, ...]]:
    """Run a learner that is restarted after each crash, as under the supervisor; yield the first of its streams."""
    if not (path / "log.sqlite").exists():
        make_streams(path, versions)
    memory, wakeup = SharedMemory(1, 4), Wakeup()
    supervisor = os.fork()
    if supervisor == 0:
        # The parent of the learners has no open log, so that each of them may open its own.
        current = 0

        def stop(_number: int, _frame: object) -> None:
            os.kill(current, signal.SIGTERM)
            os.waitpid(current, 0)
            os._exit(0)

        signal.signal(signal.SIGTERM, stop)
        while True:
            current = fork_learner(path, memory, wakeup, fault)
            os.waitpid(current, 0)
    histories = tuple(History(path, version) for version in range(1, versions + 1))
    try:
        yield histories
    finally:
        for history in histories:
            history.close()
        os.kill(supervisor, signal.SIGTERM)
        os.waitpid(supervisor, 0)
