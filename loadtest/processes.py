"""Servers as child processes: pinned to one core, in a process group of their own, and always stopped.

Only groups that were started here are ever signaled.
"""

import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path

from environments import NotAvailableError

START_SECONDS = 60.0
STOP_SECONDS = 12.0
POLL_SECONDS = 0.002
TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")

CORES = sorted(os.sched_getaffinity(0))
# The first and the last core are never two threads of one core, whichever way the kernel numbers them.
SERVER_CORE, CLIENT_CORE = CORES[0], CORES[-1]


def environment(**extra: str) -> dict[str, str]:
    """Return the environment of every child: one thread per library, and OpenBLAS free to choose its kernels."""
    dropped = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return kept | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"} | extra


def pinned(command: list[str], core: int) -> list[str]:
    """Return `command` bound to one core."""
    return ["taskset", "-c", str(core), *command]


def free_port() -> int:
    """Return a free port whose next two are free as well (MLServer opens three)."""
    while True:
        with ExitStack() as stack:
            first = stack.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            try:
                for offset in (1, 2):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port + offset))
            except OSError:
                continue
            return port


@dataclass
class Running:
    """A server that is ready."""

    process: "subprocess.Popen[bytes]"
    port: int
    start_seconds: float

    def pids(self) -> list[int]:
        """Return every live process of the server's group."""
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    fields = stat_fields(int(folder.name))
                except OSError:
                    continue
                if int(fields[2]) == self.process.pid:
                    found.append(int(folder.name))
        return found

    def cpu_seconds(self) -> tuple[float, float]:
        """Return the (user, system) time that the whole group has used."""
        stats = [stat_fields(pid) for pid in self.pids()]
        return sum(int(s[11]) for s in stats) * TICK_SECONDS, sum(int(s[12]) for s in stats) * TICK_SECONDS

    def worker_private_bytes(self) -> int:
        """Return Private_Dirty of the largest child, or of the parent if it has no children."""
        pids = self.pids()
        return max(private_dirty(pid) for pid in ([p for p in pids if p != self.process.pid] or pids))


def stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the command name, which may hold spaces."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def private_dirty(pid: int) -> int:
    """Return the bytes that only this process maps and has written."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) * 1024
    return 0


@contextmanager
def serving(
    command: list[str], port: int, ready: str, log: Path, context: ssl.SSLContext | None = None
) -> Iterator[Running]:
    """Start `command`, wait until GET `ready` answers 200, and stop the whole group at the end.

    Args:
        command: The command of the server.
        port: Its port.
        ready: The path.
        log: The file of its output.
        context: The TLS context of the client that asks, if the server speaks TLS.
    """
    with log.open("wb") as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            pinned(command, SERVER_CORE), env=environment(), stdout=output, stderr=output, start_new_session=True
        )
        try:
            wait_until_ready(process, port, ready, log, context)
            yield Running(process, port, time.perf_counter() - began)
        finally:
            stop(process)


def wait_until_ready(
    process: "subprocess.Popen[bytes]", port: int, path: str, log: Path, context: ssl.SSLContext | None = None
) -> None:
    """Wait until the server is ready."""
    began = time.perf_counter()
    while not answers(port, path, context):
        if has_ended(process):
            raise NotAvailableError(f"ended at start: {last_line(log)}")
        waited = time.perf_counter() - began
        if waited > START_SECONDS:
            raise NotAvailableError(f"not ready after {START_SECONDS:.0f} s: {last_line(log)}")
        # Each probe costs the server time, so the pause grows to 2 % of the time since the start.
        time.sleep(max(POLL_SECONDS, 0.02 * waited))


def answers(port: int, path: str, context: ssl.SSLContext | None = None) -> bool:
    """Return whether GET `path` answers 200."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    if context is not None:
        connection = HTTPSConnection("127.0.0.1", port, timeout=5, context=context)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200  # noqa: PLR2004
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def last_line(log: Path) -> str:
    """Return the last line of a log that is not empty."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it printed nothing"


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End the group that `process` leads: SIGTERM first, then SIGKILL."""
    signal_group(process, signal.SIGTERM)
    deadline = time.perf_counter() + STOP_SECONDS
    while time.perf_counter() < deadline and not has_ended(process):
        time.sleep(POLL_SECONDS)
    # Children may outlive their parent; the rest of the group is ended too.
    signal_group(process, signal.SIGKILL)
    process.wait()


def has_ended(process: "subprocess.Popen[bytes]") -> bool:
    """Return whether the leader of a group has has_ended.

    It stays unreaped until the whole group has ended, so that its number cannot be given to another process.
    """
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def signal_group(process: "subprocess.Popen[bytes]", number: int) -> None:
    """Signal the group if any process of it is left."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return
