"""A forked process into which strace injects a fault: a kill or an error at its N-th call of a system call.

The process is forked from one that has imported everything. That takes milliseconds; a new interpreter takes seconds.
It waits until strace is attached, and reports through a socket, so that reports are not among the injected calls. A
kill happens before the call is done; with an error the call returns that error and is not done.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

from service.errors import SoftstepError
from service.process.supervisor import exit_with_parent

STRACE = shutil.which("strace")
Emit = Callable[[str], None]
Work = Callable[[Emit], None]

DONE, REFUSED, BROKEN = 0, 3, 70
SECONDS_MAX = 60.0


class Injection(NamedTuple):
    """A fault to inject.

    Attributes:
        call: The system call.
        fault: "signal=KILL", "error=EIO" or "error=ENOSPC".
        at: The number of the call, from 1, counted per thread.
        forever: Whether the fault also meets every later call.
    """

    call: str
    fault: str
    at: int
    forever: bool = False

    def option(self) -> str:
        """Return the value of strace's option `-e`."""
        return f"inject={self.call}:{self.fault}:when={self.at}{'+' if self.forever else ''}"


class ProcessResult(NamedTuple):
    """The end of a process.

    Attributes:
        killed: Whether SIGKILL ended it.
        code: Its exit code: DONE, REFUSED after a known error, BROKEN after any other; -1 if it was killed.
        lines: The lines that it emitted.
        trace: The output of strace.
    """

    killed: bool
    code: int
    lines: list[str]
    trace: str

    @property
    def hit(self) -> bool:
        """Whether the fault met a call."""
        return self.killed or "INJECTED" in self.trace


class Child:
    """A forked process that waits for `start`.

    Args:
        work: The function to run; it receives a function that emits a line to the parent.
    """

    def __init__(self, work: Work) -> None:
        self._socket, child_socket = socket.socketpair()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            self._socket.close()
            _run_child(work, child_socket, parent)
        child_socket.close()
        self._received = b""
        self._status: int | None = None

    def start(self) -> None:
        """Start the work."""
        self._socket.send(b"\0")

    def has_ended(self) -> bool:
        """Return whether the process has ended."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = status if pid else None
        return self._status is not None

    def lines(self) -> list[str]:
        """Return every complete line emitted so far."""
        self._socket.setblocking(False)
        with suppress(BlockingIOError, ConnectionResetError):
            while chunk := self._socket.recv(1 << 16):
                self._received += chunk
        return self._received.decode().split("\n")[:-1]

    def wait(self, strace: "Strace | None" = None) -> ProcessResult:
        """Wait for the end of the process; after SECONDS_MAX kill it and count it as broken."""
        deadline = time.monotonic() + SECONDS_MAX
        while not self.has_ended():
            self.lines()
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                deadline += SECONDS_MAX
                self._received += b"late\n"
            time.sleep(0.0005)
        lines, status = self.lines(), self._status or 0
        self._socket.close()
        killed, code = os.WIFSIGNALED(status), BROKEN if "late" in lines else -1
        if not killed:
            code = os.waitstatus_to_exitcode(status)
        return ProcessResult(killed, code, lines, strace.read_trace() if strace else "")


class Strace:
    """strace, attached to a process and its threads.

    Args:
        pid: The process.
        injection: The fault to inject.
        log: The file that strace writes.
        watched: Further system calls to record, separated by commas.
    """

    def __init__(self, pid: int, injection: Injection, log: Path, watched: str = "") -> None:
        assert STRACE is not None
        calls = ",".join(filter(None, (injection.call, watched)))
        options = ["-f", "-y", "-qq", "-s", "40", "-o", str(log), "-e", f"trace={calls}", "-e", injection.option()]
        self._log = log
        self._process = subprocess.Popen([STRACE, *options, "-p", str(pid)], stdout=-3, stderr=-3)
        status = Path(f"/proc/{pid}/status")
        while "\nTracerPid:\t0\n" in status.read_text():
            assert self._process.poll() is None, "strace cannot attach to a process"
            time.sleep(0.0003)

    def read_trace(self) -> str:
        """Wait for strace to exit, which it does after its process, and return what it recorded."""
        self._process.wait(SECONDS_MAX)
        return self._log.read_text() if self._log.exists() else ""


def run_injected(work: Work, injection: Injection, log: Path, watched: str = "") -> ProcessResult:
    """Run some work in a child process with a fault injected; see Strace for the arguments."""
    child = Child(work)
    strace = Strace(child.pid, injection, log, watched)
    child.start()
    return child.wait(strace)


def _run_child(work: Work, child_socket: socket.socket, parent: int) -> NoReturn:
    code = BROKEN
    try:
        exit_with_parent(parent)
        child_socket.recv(1)
        work(lambda line: child_socket.sendall(f"{line}\n".encode()))
        code = DONE
    except (SoftstepError, OSError) as error:
        with suppress(OSError):
            child_socket.sendall(f"refused {type(error).__name__}\n".encode())
        code = REFUSED
    except BaseException as error:  # noqa: BLE001  # reported, and the exit code is BROKEN
        with suppress(OSError):
            child_socket.sendall(f"broke {error!r}\n".encode())
    finally:
        os._exit(code)
