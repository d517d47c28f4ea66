"""Programs with real processes and fake work, which tests run as `python -m tests.support.fake_workers NAME`.

A test process has threads, and forking it would copy their locks; a program of its own has none.
"""

import errno
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence

from service.process import supervisor
from service.process.listener import listen
from service.process.shared_memory import GENERATION, SharedMemory
from service.process.supervisor import LearnerMain, Supervisor, WorkerMain
from service.process.unload_list import publish_unload_list, read_unload_list
from service.settings import Settings

SETTINGS = Settings(drain_seconds=0, shutdown_seconds=0.5)


def print_line(word: str) -> None:
    """Write a line for the test."""
    os.write(1, f"{word}\n".encode())


def supervise(work: WorkerMain, slots: int = 1) -> None:
    """Run a supervisor whose workers do `work`."""
    print_line(f"parent {os.getpid()}")
    listener = listen("127.0.0.1", 0)
    memory = SharedMemory(slots, 4)
    Supervisor(SETTINGS, memory, [listener], work, lambda _line: (0, 0, b"")).run()
    print_line("stopped")


def idle_worker(_slot: int, _listeners: Sequence[socket.socket], _pipe: int) -> None:
    """Do nothing until a signal ends the process."""
    print_line(f"worker {os.getpid()}")
    signal.pause()


def learning() -> None:
    """Run a worker and a learner, which both report their stop."""

    def report_stop(name: str) -> None:
        def stop(*_: object) -> None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a worker may get it twice
            print_line(f"end-{name}")
            sys.exit()

        signal.signal(signal.SIGTERM, stop)
        print_line(f"{name} {os.getpid()}")
        signal.pause()

    print_line(f"parent {os.getpid()}")
    memory = SharedMemory(1, 4)
    work: WorkerMain = lambda _slot, _listeners, _pipe: report_stop("worker")  # noqa: E731
    learn: LearnerMain = lambda: report_stop("learner")  # noqa: E731
    Supervisor(SETTINGS, memory, [listen("127.0.0.1", 0)], work, lambda _line: (0, 0, b""), learn).run()
    print_line("stopped")


def ignoring_sigterm() -> None:
    """Run a worker that ignores SIGTERM."""

    def work(slot: int, listeners: Sequence[socket.socket], pipe: int) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        idle_worker(slot, listeners, pipe)

    supervise(work)


def exiting() -> None:
    """Run a worker that exits at once."""
    supervise(lambda _slot, _listeners, _pipe: print_line(f"started {time.monotonic()}"))


def raising() -> None:
    """Run a worker that raises."""

    def work(_slot: int, _listeners: Sequence[socket.socket], _pipe: int) -> None:
        print_line("started")
        raise RuntimeError("the worker's own fault")

    supervise(work)


def failing_fork() -> None:
    """Fail the first two forks, as a system without free processes does."""
    supervisor.PAUSE_SECONDS_MAX = 0.1  # type: ignore[misc]
    fork, refusals = os.fork, iter(range(2))

    def refuse() -> int:
        if next(refusals, None) is None:
            return fork()
        raise OSError(errno.EAGAIN, "no process left")

    os.fork = refuse
    supervise(idle_worker)


def with_orphan() -> None:
    """Run with a child that the supervisor did not start, as the first process of a container may."""
    if os.fork() == 0:
        time.sleep(0.3)
        os._exit(7)
    supervise(idle_worker)


def idle() -> None:
    """Run two idle workers."""
    supervise(idle_worker, slots=2)


def race() -> None:
    """Publish lists as fast as possible while another process reads and checks every one."""
    memory = SharedMemory(1, 1)
    reader = os.fork()
    if reader == 0:
        os._exit(_read_lists(memory))
    for number in range(1, 30_001):
        publish_unload_list(memory, _text_of(number))
    _, status = os.waitpid(reader, 0)
    sys.exit(os.waitstatus_to_exitcode(status))


def _text_of(number: int) -> bytes:
    return b"%d " % number * (1 + number % 7 * 500)


def _read_lists(memory: SharedMemory) -> int:
    reads = 0
    while memory.cells[GENERATION] < 30_000:
        number, text = read_unload_list(memory)
        reads += 1
        if number and text != _text_of(number):
            return 1
    return 0 if reads > 100 else 2


PROGRAMS: dict[str, Callable[[], None]] = {
    program.__name__: program
    for program in (ignoring_sigterm, learning, exiting, raising, failing_fork, with_orphan, idle, race)
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]]()
