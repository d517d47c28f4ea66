"""Who lives: starts the workers, replaces the dead, carries orders, and stops everything in order.

The parent has imported all code but runs none of it: no thread, no event loop, no open database. So it can fork a
worker whenever one is missing, without importing again and sharing its memory, and nothing in the parent can break.

    start     bind the socket, fork the workers and the learner
    running   a child that dies is replaced, with a growing pause while it dies young
    SIGTERM   readiness fails -> drain_seconds -> listener closed, workers told -> shutdown_seconds -> killed,
              then the learner in the same way; exit 0
    SIGINT    the same without the drain
    kill -9   the workers die with the parent (PR_SET_PDEATHSIG), so that none keeps the port
"""

import contextlib
import ctypes
import gc
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Final, NoReturn

from service.process.shared_memory import ACKNOWLEDGED, DRAINING, HANDLED, PID, READY, SharedMemory
from service.process.unload_list import publish_unload_list
from service.settings import Settings

logger = logging.getLogger("softstep.supervisor")

PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15
# A worker that dies within this time is started again after a pause that doubles up to the longest.
YOUNG_SECONDS: Final = 5.0
PAUSE_SECONDS, PAUSE_SECONDS_MAX = 0.1, 5.0
LOOK_SECONDS: Final = 0.5
BACKLOG: Final = 2048
# The learner may finish a checkpoint; what it does not finish is folded again at the next start.
LEARNER_SECONDS: Final = 1.5
HANDLED_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
ORDER_BYTES: Final = 4096

Work = Callable[[int, socket.socket, int], None]
"""What a worker does: given its slot, the listening socket and the pipe to the parent, serve until SIGTERM."""
Learn = Callable[[], None]
"""What the learner does, until SIGTERM."""
Change = Callable[[bytes], tuple[int, int, bytes]]
"""What a worker's line asks for: the slot and token to acknowledge, and the orders for all."""


def listen(host: str, port: int) -> socket.socket:
    """Bind and listen.

    Raises:
        OSError: The address is taken or not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def exit_with_parent(parent: int) -> None:
    """Have the system kill this process when its parent is gone, however that went."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it went before the call
        os._exit(1)


def name_process(name: str) -> None:
    """Have `ps` and `top` show what this process is."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode())


class Supervisor:
    """The parent of the workers and of the learner.

    Args:
        settings: Number of workers and times of the shutdown.
        board: What the processes share.
        listener: The listening socket, closed when the service stops.
        work: What each worker does after the fork.
        change: Turns a worker's line into orders.
        learn: What the learner does, in the slot behind the workers'; None where there is none.
    """

    def __init__(  # noqa: PLR0917  # the parts of a service, in the order of its life
        self,
        settings: Settings,
        board: SharedMemory,
        listener: socket.socket,
        work: Work,
        change: Change,
        learn: Learn | None = None,
    ) -> None:
        self._settings = settings
        self._board = board
        self._listener = listener
        self._work = work
        self._change = change
        self._learn = learn
        self._slots: dict[int, int] = {}  # the slot of each living process
        self._born: dict[int, float] = {}
        self._pause = [PAUSE_SECONDS] * board.slots
        # When an empty slot is filled again.
        self._due = dict.fromkeys(range(board.workers if learn is None else board.slots), 0.0)
        self._orders, self._orders_in = os.pipe()
        self._wake, self._wake_in = os.pipe()
        self._stop: int | None = None
        for end in (self._orders, self._orders_in, self._wake, self._wake_in):
            os.set_blocking(end, False)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        signal.set_wakeup_fd(self._wake_in, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # What is imported lives as long as the process; a worker's collector would copy shared pages by looking at it.
        gc.collect()
        gc.freeze()
        unread = b""
        while self._stop is None:
            self._start_missing()
            readable, _, _ = select.select([self._wake, self._orders], [], [], self._seconds_to_rest())
            self._drain_wakes()
            self._reap()
            if self._orders in readable:
                unread = self._carry(unread + os.read(self._orders, ORDER_BYTES))
        self._shut_down()

    def _on_stop(self, number: int, _frame: object) -> None:
        self._stop = number

    def _drain_wakes(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, ORDER_BYTES)

    def _seconds_to_rest(self) -> float:
        """How long nothing is due; never long, in case a signal came just before the wait for it."""
        now = time.monotonic()
        return max(0.0, min([LOOK_SECONDS, *(due - now for due in self._due.values())]))

    def _start_missing(self) -> None:
        now = time.monotonic()
        for slot, due in list(self._due.items()):
            if due <= now:
                del self._due[slot]
                try:
                    self._start(slot)
                except OSError as reason:  # no process or memory left for a moment
                    logger.error("%s cannot be started: %s", self._name(slot), reason.strerror)  # noqa: TRY400
                    self._due[slot] = now + PAUSE_SECONDS_MAX

    def _start(self, slot: int) -> None:
        at = self._board.slot(slot)
        if slot < self._board.workers:
            self._board.cells[at + READY] = self._board.cells[at + ACKNOWLEDGED] = 0
        parent = os.getpid()
        # A signal that came before the worker forgot the parent's handlers would be lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED_SIGNALS)
        try:
            process = os.fork()
            if process == 0:
                self._be_child(slot, parent)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED_SIGNALS)
        self._slots[process] = slot
        self._born[process] = time.monotonic()
        self._board.cells[at + PID] = process

    def _name(self, slot: int) -> str:
        return f"worker {slot}" if slot < self._board.workers else "the learner"

    def _be_child(self, slot: int, parent: int) -> NoReturn:
        """Live as a worker or the learner, and never return into the parent's code."""
        code = 1
        try:
            name_process(f"softstep-{'worker' if slot < self._board.workers else 'learn'}")  # at most 15 bytes
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED_SIGNALS)
            exit_with_parent(parent)
            for end in (self._orders, self._wake, self._wake_in):
                os.close(end)
            if self._learn is not None and slot == self._board.workers:
                self._listener.close()
                self._learn()
            else:
                self._work(slot, self._listener, self._orders_in)
            code = 0
        except BaseException:
            logger.exception("%s broke", self._name(slot))
        finally:
            logging.shutdown()
            os._exit(code)

    def _reap(self) -> None:
        """Take leave of the dead, and say when their slots are filled again."""
        with contextlib.suppress(ChildProcessError):
            while True:
                process, status = os.waitpid(-1, os.WNOHANG)
                if process == 0:
                    return
                if process not in self._slots:
                    continue  # the first process of a container inherits the orphans of others
                slot = self._slots.pop(process)
                lived = time.monotonic() - self._born.pop(process)
                at = self._board.slot(slot)
                self._board.cells[at + PID] = 0
                if slot < self._board.workers:
                    self._board.cells[at + READY] = 0
                if self._stop is None:
                    logger.warning("%s (process %d) ended with status %d", self._name(slot), process, status)
                self._pause[slot] = min(self._pause[slot] * 2, PAUSE_SECONDS_MAX) if lived < YOUNG_SECONDS else 0.0
                self._due[slot] = time.monotonic() + self._pause[slot]
                self._pause[slot] = max(self._pause[slot], PAUSE_SECONDS)

    def _carry(self, unread: bytes) -> bytes:
        """Turn whole lines of workers into orders; returns the rest."""
        *lines, rest = unread.split(b"\n")
        for line in lines:
            slot, token, orders = self._change(line)
            publish_unload_list(self._board, orders)
            self._board.cells[self._board.slot(slot) + HANDLED] = token
        return rest

    def _shut_down(self) -> None:
        """Fail readiness, wait for balancers, close the listener, let requests finish, and end what is left."""
        logger.info("stopping")
        self._board.cells[DRAINING] = 1
        if self._stop == signal.SIGTERM:
            self._wait(self._settings.drain_seconds, lambda: not self._slots)
        self._listener.close()
        # Workers first: what they accept until their end is on disk, and the learner takes it up at the next start.
        self._end("workers", self._workers, self._settings.shutdown_seconds)
        self._end("learners", lambda: set(self._slots), LEARNER_SECONDS)
        logger.info("stopped")

    def _workers(self) -> set[int]:
        return {process for process, slot in self._slots.items() if slot < self._board.workers}

    def _end(self, name: str, left: Callable[[], set[int]], seconds: float) -> None:
        """Ask some processes to stop, and kill those that have not in time."""
        self._signal(signal.SIGTERM, left())
        self._wait(seconds, lambda: not left())
        if left():
            logger.warning("%d %s did not stop in time and are killed", len(left()), name)
            self._signal(signal.SIGKILL, left())
            self._wait(self._settings.shutdown_seconds, lambda: not left())

    def _wait(self, seconds: float, done: Callable[[], bool]) -> None:
        end = time.monotonic() + seconds
        while not done() and (left := end - time.monotonic()) > 0:
            select.select([self._wake], [], [], min(left, LOOK_SECONDS))
            self._drain_wakes()
            self._reap()

    def _signal(self, number: int, processes: set[int]) -> None:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)
