"""Start services by forking a process that has imported them; the imports take most of a start.

    python -m tests.support.fork_server DESCRIPTOR

is that process, one for each test process. For every request on the socket it forks a watcher. The watcher forks the
service, writes its process id to a pipe, waits for it, and writes its exit code. The service runs `main` of
service/__main__.py with the arguments and the environment of the request, as from a shell.
"""

import atexit
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import Any, NoReturn, TextIO

from service.__main__ import main
from service.environment import IMPORT_VARIABLES
from tests.support.paths import ROOT
from tests.support.waiting import is_readable

MODULES = ("service.command_line", "service.commands.serve")
REQUEST_BYTES = 1 << 17
# The first request waits for the imports, which compile the kernels if there are none yet: 200 s of an idle processor.
START_SECONDS = 600.0
# Variables that begin so are read after imports, apart from two, or by pytest; others may be read by any import.
PREFIXES = ("SOFTSTEP_", "AIP_", "PYTEST_")


class ForkedProcess:
    """A process that another one has forked and watches, with the methods of `subprocess.Popen`.

    Attributes:
        pid: Its process id.
        stdout: What it writes to standard output.
        returncode: Its exit code, or minus the number of the signal that ended it; None while it is not known.
    """

    def __init__(self, output: int, status: int) -> None:
        self.stdout = os.fdopen(output)
        self.returncode: int | None = None
        self._status = os.fdopen(status)
        assert is_readable(self._status, START_SECONDS), "the fork server does not answer"
        line = self._status.readline()
        assert line, "the fork server has exited; its standard error says why"
        self.pid = int(line)

    def poll(self) -> int | None:
        """Return the exit code, or None while the process runs."""
        if self.returncode is None and is_readable(self._status):
            self.returncode = int(self._status.readline())
            self._status.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the process to exit; return the exit code.

        Raises:
            subprocess.TimeoutExpired: It still runs.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            left = 1.0 if until is None else until - time.monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
            is_readable(self._status, left)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has exited."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """The client's side of a process that forks services."""

    def __init__(self) -> None:
        self._imported_with = _import_environment(os.environ)
        self._end, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.fork_server", str(other.fileno())],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=(other.fileno(),),
            )  # fmt: skip
        atexit.register(self._close)

    def is_usable(self, environment: Mapping[str, str]) -> bool:
        """Return whether a service with this environment imports what the server has imported."""
        return _import_environment(environment) == self._imported_with

    def start(self, arguments: list[str], environment: Mapping[str, str], errors: TextIO) -> ForkedProcess:
        """Fork a service, which writes its log to a file."""
        output, output_end = os.pipe()
        status, status_end = os.pipe()
        request = json.dumps({"arguments": arguments, "environment": dict(environment)}).encode()
        socket.send_fds(self._end, [request], [output_end, errors.fileno(), status_end])
        os.close(output_end)
        os.close(status_end)
        return ForkedProcess(output, status)

    def _close(self) -> None:
        self._end.close()
        self._process.wait()


@cache
def fork_server() -> ForkServer:
    """Return the fork server of this test process."""
    return ForkServer()


def _import_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that may be read when modules are imported."""
    return {
        name: value
        for name, value in environment.items()
        if name in IMPORT_VARIABLES or not name.startswith(PREFIXES)
    }  # fmt: skip


def run(end: socket.socket) -> None:
    """Fork a watcher for each request, until the socket is closed."""
    for module in MODULES:
        import_module(module)
    # As before the forks of service/process/supervisor.py.
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # watchers are not waited for
    while True:
        data, descriptors, _, _ = socket.recv_fds(end, REQUEST_BYTES, 3)
        if not data:
            return
        if os.fork() == 0:
            end.close()
            watch(json.loads(data), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def watch(request: Mapping[str, Any], output: int, errors: int, status: int) -> None:
    """Fork a service, report its process id and its exit code, and exit; the fork itself becomes the service."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        become_service(request, output, errors, status)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the service ends by it
    os.close(output)
    os.close(errors)
    os.write(status, f"{child}\n".encode())
    _, code = os.waitpid(child, 0)
    os.write(status, f"{os.waitstatus_to_exitcode(code)}\n".encode())
    os._exit(0)


def become_service(request: Mapping[str, Any], output: int, errors: int, status: int) -> NoReturn:
    """Run the service with the descriptors and the environment of the request."""
    os.dup2(output, 1)
    os.dup2(errors, 2)
    for descriptor in (output, errors, status):
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["softstep", *request["arguments"]]
    exit_like_python(main)


def exit_like_python(function: Callable[[], int]) -> NoReturn:
    """Run a function and exit with its code as `sys.exit` does, but without freeing what has been imported.

    That would copy the memory that a fork shares, which takes as long as the start.
    """
    code = 1
    try:
        code = function()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001  # as the interpreter does
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]  # only a private function waits for threads as at the exit
    atexit._run_exitfuncs()  # the module has no public name for it
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = 120  # the interpreter's
    os._exit(code)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        run(requests)
