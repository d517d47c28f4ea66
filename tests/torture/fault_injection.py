"""One process, and what strace does to it: killed where it enters its N-th call of a kind, or that call fails.

The process is forked from one that has imported everything, which takes milliseconds where a new interpreter takes
seconds. It waits until strace holds it, and tells what it did through a socket, so that telling is none of the calls
that are struck. With KILL the call is not done; an error is what the call returns, without being done.
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
Tell = Callable[[str], None]
Work = Callable[[Tell], None]

DONE, REFUSED, BROKE = 0, 3, 70
SECONDS_MAX = 60.0


class Strike(NamedTuple):
    """What is done to a process.

    Attributes:
        call: The system call that is struck.
        fault: "signal=KILL", "error=EIO" or "error=ENOSPC".
        at: Which of a thread's calls, from 1.
        forever: Whether all that follow are struck too.
    """

    call: str
    fault: str
    at: int
    forever: bool = False

    def option(self) -> str:
        """What strace is told."""
        return f"inject={self.call}:{self.fault}:when={self.at}{'+' if self.forever else ''}"


class Ended(NamedTuple):
    """How a process ended.

    Attributes:
        killed: Whether by SIGKILL.
        code: Its exit code: DONE, REFUSED by a known error, BROKE by any other; -1 where it was killed.
        told: The lines that it told.
        trace: What strace saw.
    """

    killed: bool
    code: int
    told: list[str]
    trace: str

    @property
    def hit(self) -> bool:
        """Whether the strike met a call."""
        return self.killed or "INJECTED" in self.trace


class Child:
    """A forked process that begins its work when it is let go.

    Args:
        work: What it does; it is given the way to tell a line.
    """

    def __init__(self, work: Work) -> None:
        self._near, far = socket.socketpair()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            self._near.close()
            _be(work, far, parent)
        far.close()
        self._told = b""
        self._status: int | None = None

    def go(self) -> None:
        """Let it begin."""
        self._near.send(b"\0")

    def poll(self) -> bool:
        """Whether it has ended; takes what it told."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = status if pid else None
        return self._status is not None

    def lines(self) -> list[str]:
        """Every whole line that it told so far."""
        self._near.setblocking(False)
        with suppress(BlockingIOError, ConnectionResetError):
            while chunk := self._near.recv(1 << 16):
                self._told += chunk
        return self._told.decode().split("\n")[:-1]

    def wait(self, strace: "Trace | None" = None) -> Ended:
        """Wait for its end; a process that does not end in time is killed, and counts as broken."""
        late = time.monotonic() + SECONDS_MAX
        while not self.poll():
            self.lines()
            if time.monotonic() > late:
                os.kill(self.pid, signal.SIGKILL)
                late += SECONDS_MAX
                self._told += b"late\n"
            time.sleep(0.0005)
        lines, status = self.lines(), self._status or 0
        self._near.close()
        killed, code = os.WIFSIGNALED(status), BROKE if "late" in lines else -1
        if not killed:
            code = os.waitstatus_to_exitcode(status)
        return Ended(killed, code, lines, strace.end() if strace else "")


class Trace:
    """strace on a process and its threads.

    Args:
        pid: The process.
        strike: What is done to it, or None to watch.
        log: Where strace writes.
        watched: Further calls that are written down.
    """

    def __init__(self, pid: int, strike: Strike, log: Path, watched: str = "") -> None:
        assert STRACE is not None
        calls = ",".join(filter(None, (strike.call, watched)))
        options = ["-f", "-y", "-qq", "-s", "40", "-o", str(log), "-e", f"trace={calls}", "-e", strike.option()]
        self._log = log
        self._process = subprocess.Popen([STRACE, *options, "-p", str(pid)], stdout=-3, stderr=-3)
        status = Path(f"/proc/{pid}/status")
        while "\nTracerPid:\t0\n" in status.read_text():
            assert self._process.poll() is None, "strace cannot take hold of a process"
            time.sleep(0.0003)

    def end(self) -> str:
        """What it saw, once the process is gone."""
        self._process.wait(SECONDS_MAX)
        return self._log.read_text() if self._log.exists() else ""


def struck(work: Work, strike: Strike, log: Path, watched: str = "") -> Ended:
    """Do some work in a process that is struck."""
    child = Child(work)
    trace = Trace(child.pid, strike, log, watched)
    child.go()
    return child.wait(trace)


def _be(work: Work, far: socket.socket, parent: int) -> NoReturn:
    code = BROKE
    try:
        exit_with_parent(parent)
        far.recv(1)
        work(lambda line: far.sendall(f"{line}\n".encode()))
        code = DONE
    except (SoftstepError, OSError) as error:
        with suppress(OSError):
            far.sendall(f"refused {type(error).__name__}\n".encode())
        code = REFUSED
    except BaseException as error:  # noqa: BLE001  # told as what it is: broken
        with suppress(OSError):
            far.sendall(f"broke {error!r}\n".encode())
    finally:
        os._exit(code)
