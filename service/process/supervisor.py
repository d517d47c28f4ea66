"""Supervise the processes of one service: start workers and learner, restart them after a crash, stop them in order.

The parent has imported all code but runs none of it: no thread, no event loop, no open database. So it can fork a child
at any time, without importing again and sharing its memory, and there is little in it that can fail.

    start     fork the workers and the learner
    running   restart a child that exits, after a growing pause if it exits soon after its start
    SIGHUP    pass it on to the workers, which read their files of TLS and keys again
    SIGTERM   fail readiness and send SIGTERM to the workers, which drain their connections (serve/http/server.py);
              after drain_seconds + shutdown_seconds kill them; then stop the learner in the same way; exit code 0
    SIGINT    the same with a drain of 0 s; so is SIGTERM before the service is ready
    kill -9   the kernel kills the children with the parent (PR_SET_PDEATHSIG), so that none keeps the port
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
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

from service.log_events import logger
from service.process.shared_memory import ACKNOWLEDGED, HANDLED, PID, READY, RESTARTS, SEQ_WAITERS, SharedMemory
from service.process.unload_list import publish_unload_list
from service.settings import Settings

PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15
# A child that exits within this time is restarted after a pause, which doubles up to the longest.
EARLY_EXIT_SECONDS: Final = 5.0
PAUSE_SECONDS, PAUSE_SECONDS_MAX = 0.1, 5.0
POLL_SECONDS: Final = 0.5
# Enough for a checkpoint; what the learner does not finish is folded again at the next start.
LEARNER_SECONDS: Final = 1.5
# A service that was never ready exits within a second, so its learner has less.
UNREADY_LEARNER_SECONDS: Final = 0.5
HANDLED_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP)
READ_BYTES: Final = 4096
# Of the child beside the workers.
PROCESS_NAMES: Final = {"learner": "softstep-learn", "receiver": "softstep-recv"}

WorkerMain = Callable[[int, Sequence[socket.socket], int], None]
"""Runs a worker until SIGTERM, given its slot, the listening sockets and the pipe to the parent."""
LearnerMain = Callable[[], None]
"""Runs the learner until SIGTERM."""
HandleRequest = Callable[[bytes], tuple[int, int, bytes]]
"""Handles a line that a worker sent; returns the slot and token to acknowledge, and the list of unloaded models."""


def exit_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent exits, for whatever reason."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it exited before the call
        os._exit(1)


def name_process(name: str) -> None:
    """Set the name, of at most 15 bytes, that `ps` and `top` show for this process."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode())


def exit_cause(status: int) -> str:
    """Return why a process exited, given its wait status: the name of a signal, or an exit code."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:  # a real-time signal has no name
        return f"signal {-code}"


class Supervisor:
    """The parent process of the workers and of the learner.

    Args:
        settings: The number of workers and the times of the shutdown.
        memory: The memory that the processes share.
        listeners: The listening sockets; closed when the service starts to stop.
        run_worker: Runs a worker after the fork.
        handle_request: Handles the lines of workers.
        run_learner: Runs the learner, in the slot after the workers'; None if nothing is learned.
    """

    def __init__(  # noqa: PLR0917  # the parts of a service
        self,
        settings: Settings,
        memory: SharedMemory,
        listeners: Sequence[socket.socket],
        run_worker: WorkerMain,
        handle_request: HandleRequest,
        run_learner: LearnerMain | None = None,
    ) -> None:
        self._settings = settings
        self._memory = memory
        self._listeners = tuple(listeners)
        self._run_worker = run_worker
        self._handle_request = handle_request
        self._run_learner = run_learner
        self._slots: dict[int, int] = {}  # the slot of each running process
        self._started: dict[int, float] = {}
        self._pause = [PAUSE_SECONDS] * memory.slots
        # When each empty slot is filled.
        self._start_due = dict.fromkeys(range(memory.workers if run_learner is None else memory.slots), 0.0)
        self._requests, self._requests_in = os.pipe()
        self._signals, self._signals_in = os.pipe()
        self._stop_signal: int | None = None
        self._must_reread = False
        for end in (self._requests, self._requests_in, self._signals, self._signals_in):
            os.set_blocking(end, False)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        signal.set_wakeup_fd(self._signals_in, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGHUP, self._on_reread)
        # Imported objects stay until the process exits; a child's collector would copy shared pages by visiting them.
        gc.collect()
        gc.freeze()
        unread = b""
        while self._stop_signal is None:
            self._start_missing()
            readable, _, _ = select.select([self._signals, self._requests], [], [], self._seconds_until_due())
            self._clear_signals()
            self._reap()
            if self._must_reread:
                self._must_reread = False
                self._signal(signal.SIGHUP, self._workers())
            if self._requests in readable:
                unread = self._handle_requests(unread + os.read(self._requests, READ_BYTES))
        self._shut_down(self._stop_signal)

    def _on_reread(self, _number: int, _frame: object) -> None:
        self._must_reread = True

    def _on_stop(self, number: int, _frame: object) -> None:
        self._stop_signal = number

    def _clear_signals(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._signals, READ_BYTES)

    def _seconds_until_due(self) -> float:
        """Return the time until a start is due; at most POLL_SECONDS, in case a signal came just before the wait."""
        now = time.monotonic()
        return max(0.0, min([POLL_SECONDS, *(due - now for due in self._start_due.values())]))

    def _start_missing(self) -> None:
        now = time.monotonic()
        for slot, due in list(self._start_due.items()):
            if due <= now:
                del self._start_due[slot]
                try:
                    self._start(slot)
                except OSError as error:  # no process or memory left for a moment
                    logger.event("child_not_started", child=self._name(slot), reason=error.strerror)
                    self._start_due[slot] = now + PAUSE_SECONDS_MAX

    def _start(self, slot: int) -> None:
        cell = self._memory.slot(slot)
        if slot < self._memory.workers:
            self._memory.cells[cell + READY] = self._memory.cells[cell + ACKNOWLEDGED] = 0
        parent = os.getpid()
        # A signal that the child received before it resets the parent's handlers would be lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED_SIGNALS)
        try:
            process = os.fork()
            if process == 0:
                self._run_child(slot, parent)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED_SIGNALS)
        self._slots[process] = slot
        self._started[process] = time.monotonic()
        self._memory.cells[cell + PID] = process
        logger.event("child_started", child=self._name(slot), pid=process)

    def _name(self, slot: int) -> str:
        if slot < self._memory.workers:
            return f"worker {slot}"
        return "receiver" if self._settings.role == "worker" else "learner"

    def _run_child(self, slot: int, parent: int) -> NoReturn:
        """Run a worker or the learner in a forked process, and exit; never return into the parent's code."""
        code = 1
        try:
            name_process(PROCESS_NAMES.get(self._name(slot), "softstep-worker"))
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a worker handles it once it serves
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent handles it
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED_SIGNALS)
            exit_with_parent(parent)
            for end in (self._requests, self._signals, self._signals_in):
                os.close(end)
            if self._run_learner is not None and slot == self._memory.workers:
                self._close_listeners()
                self._run_learner()
            else:
                self._run_worker(slot, self._listeners, self._requests_in)
            code = 0
        except BaseException:
            logger.exception("child_crashed", child=self._name(slot))
        finally:
            logging.shutdown()
            os._exit(code)

    def _reap(self) -> None:
        """Reap the children that exited, and note when to start them again."""
        with contextlib.suppress(ChildProcessError):
            while True:
                process, status = os.waitpid(-1, os.WNOHANG)
                if process == 0:
                    return
                if process not in self._slots:
                    continue  # the first process of a container inherits orphans of other processes
                slot = self._slots.pop(process)
                seconds = time.monotonic() - self._started.pop(process)
                cell = self._memory.slot(slot)
                self._memory.cells[cell + PID] = 0
                if slot < self._memory.workers:
                    self._memory.cells[cell + READY] = self._memory.cells[cell + SEQ_WAITERS] = 0
                    self._memory.forget_in_flight(slot)
                self._schedule_restart(slot, process, status, is_early=seconds < EARLY_EXIT_SECONDS)

    def _schedule_restart(self, slot: int, process: int, status: int, *, is_early: bool) -> None:
        """Note when to start a child again, and log its exit unless the service stops."""
        pause = min(self._pause[slot] * 2, PAUSE_SECONDS_MAX) if is_early else 0.0
        self._start_due[slot] = time.monotonic() + pause
        self._pause[slot] = max(pause, PAUSE_SECONDS)
        if self._stop_signal is None:
            self._memory.cells[self._memory.slot(slot) + RESTARTS] += 1
            cause = exit_cause(status)
            logger.event("child_exited", child=self._name(slot), pid=process, cause=cause, restart_seconds=pause)

    def _handle_requests(self, unread: bytes) -> bytes:
        """Handle the whole lines that workers sent; return the rest."""
        *lines, rest = unread.split(b"\n")
        for line in lines:
            slot, token, unload_list = self._handle_request(line)
            publish_unload_list(self._memory, unload_list)
            self._memory.cells[self._memory.slot(slot) + HANDLED] = token
        return rest

    def _shut_down(self, number: int) -> None:
        """Fail readiness, have the workers drain their connections and stop, then stop the learner."""
        is_ready = self._memory.sum_over_workers(READY) > 0
        drain_seconds = self._settings.drain_seconds if is_ready and number == signal.SIGTERM else 0.0
        logger.event("draining", signal=signal.Signals(number).name, drain_seconds=drain_seconds)
        self._memory.drain_until(time.monotonic() + drain_seconds)
        self._close_listeners()  # the workers have them too, and close them at the end of the drain
        self._signal(signal.SIGTERM, self._workers())
        self._wait(drain_seconds, lambda: not self._workers())
        logger.event("listener_closed", shutdown_seconds=self._settings.shutdown_seconds)
        # Workers first: the events that they accept until then are on disk; the next learner folds them.
        self._stop("workers", self._workers, self._settings.shutdown_seconds)
        logger.event("workers_stopped")
        self._stop("learners", lambda: set(self._slots), LEARNER_SECONDS if is_ready else UNREADY_LEARNER_SECONDS)
        logger.event("stopped")

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()

    def _workers(self) -> set[int]:
        return {process for process, slot in self._slots.items() if slot < self._memory.workers}

    def _stop(self, name: str, running: Callable[[], set[int]], seconds: float) -> None:
        """Send SIGTERM to some processes, and kill those that have not exited in time."""
        self._signal(signal.SIGTERM, running())
        self._wait(seconds, lambda: not running())
        if running():
            logger.event("children_killed", count=len(running()), children=name)
            self._signal(signal.SIGKILL, running())
            self._wait(self._settings.shutdown_seconds, lambda: not running())

    def _wait(self, seconds: float, is_done: Callable[[], bool]) -> None:
        end = time.monotonic() + seconds
        while not is_done() and (left := end - time.monotonic()) > 0:
            select.select([self._signals], [], [], min(left, POLL_SECONDS))
            self._clear_signals()
            self._reap()

    def _signal(self, number: int, processes: set[int]) -> None:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)
