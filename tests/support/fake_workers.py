"""Programs with real processes and fake work, run as `python -m tests.support.fake_workers NAME` by the tests.

A test process has threads, and forking it would copy their locks; a program of its own has none.
"""

import errno
import os
import signal
import socket
import sys
import time
from collections.abc import Callable

from service.process import supervisor
from service.process.shared_memory import GENERATION, SharedMemory
from service.process.supervisor import LearnerMain, Supervisor, WorkerMain, listen
from service.process.unload_list import publish_unload_list, read_unload_list
from service.settings import Settings

SETTINGS = Settings(drain_seconds=0, shutdown_seconds=0.5)


def say(word: str) -> None:
    """Write a line that the test reads."""
    os.write(1, f"{word}\n".encode())


def supervise(work: WorkerMain, slots: int = 1) -> None:
    """Run a supervisor whose workers do `work`."""
    say(f"parent {os.getpid()}")
    listener = listen("127.0.0.1", 0)
    board = SharedMemory(slots, 4)
    Supervisor(SETTINGS, board, listener, work, lambda _line: (0, 0, b"")).run()
    say("stopped")


def rest(_slot: int, _listener: socket.socket, _pipe: int) -> None:
    """Do nothing until a signal ends it."""
    say(f"worker {os.getpid()}")
    signal.pause()


def learning() -> None:
    """A worker, and a learner beside it; both say when they stop."""

    def stop_saying(name: str) -> None:
        signal.signal(signal.SIGTERM, lambda *_: (say(f"end-{name}"), sys.exit()))
        say(f"{name} {os.getpid()}")
        signal.pause()

    say(f"parent {os.getpid()}")
    board = SharedMemory(1, 4)
    work: WorkerMain = lambda _slot, _listener, _pipe: stop_saying("worker")  # noqa: E731
    learn: LearnerMain = lambda: stop_saying("learner")  # noqa: E731
    Supervisor(SETTINGS, board, listen("127.0.0.1", 0), work, lambda _line: (0, 0, b""), learn).run()
    say("stopped")


def deaf() -> None:
    """A worker that does not hear SIGTERM."""

    def work(slot: int, listener: socket.socket, pipe: int) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        rest(slot, listener, pipe)

    supervise(work)


def mortal() -> None:
    """A worker that dies at once."""
    supervise(lambda _slot, _listener, _pipe: say(f"born {time.monotonic()}"))


def broken() -> None:
    """A worker that raises."""

    def work(_slot: int, _listener: socket.socket, _pipe: int) -> None:
        say("born")
        raise RuntimeError("the worker's own fault")

    supervise(work)


def crowded() -> None:
    """A system that has no process left, twice."""
    supervisor.PAUSE_SECONDS_MAX = 0.1  # type: ignore[misc]
    fork, refusals = os.fork, iter(range(2))

    def refuse() -> int:
        if next(refusals, None) is None:
            return fork()
        raise OSError(errno.EAGAIN, "no process left")

    os.fork = refuse
    supervise(rest)


def orphanage() -> None:
    """A parent that has a child which it does not know, as the first process of a container may."""
    if os.fork() == 0:
        time.sleep(0.3)
        os._exit(7)
    supervise(rest)


def idle() -> None:
    """Workers that rest."""
    supervise(rest, slots=2)


def race() -> None:
    """One process gives orders as fast as it can; the other reads them and checks every one."""
    board = SharedMemory(1, 1)
    reader = os.fork()
    if reader == 0:
        os._exit(_read_orders(board))
    for number in range(1, 30_001):
        publish_unload_list(board, _text_of(number))
    _, status = os.waitpid(reader, 0)
    sys.exit(os.waitstatus_to_exitcode(status))


def _text_of(number: int) -> bytes:
    return b"%d " % number * (1 + number % 7 * 500)


def _read_orders(board: SharedMemory) -> int:
    looks = 0
    while board.cells[GENERATION] < 30_000:
        number, text = read_unload_list(board)
        looks += 1
        if number and text != _text_of(number):
            return 1
    return 0 if looks > 100 else 2


PROGRAMS: dict[str, Callable[[], None]] = {
    program.__name__: program for program in (deaf, learning, mortal, broken, crowded, orphanage, idle, race)
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]]()
