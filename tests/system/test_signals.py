"""SIGTERM and SIGINT before a service is ready: it exits at once with code 0."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from service.store.directory.data_directory import LOCK_NAME
from tests.support.paths import ROOT
from tests.support.processes import SECONDS
from tests.support.programs import program
from tests.support.scripts import load_script
from tests.support.waiting import wait_until

# Seconds after the start: while the interpreter starts, imports, loads kernels, and forks; and once it is ready.
MOMENTS = (0.0, 0.15, 0.5, 1.0, 2.0)
# Far more than the second that loadtest/signals.py allows: the machine of a test may be busy.
EXIT_SECONDS = 10.0


@pytest.mark.parametrize("bare", [True, False], ids=["bare", "tini"])
def test_sigterm_ends_a_start_at_any_moment(tmp_path: Path, *, bare: bool) -> None:
    """The exit code is 0: after the interpreter's own start as a plain command, and always by way of tini."""
    signals = load_script("loadtest/signals.py")
    if not bare:
        program("tini")
        if os.geteuid() != 0:
            pytest.skip("a process namespace of its own needs root")
    for exited in signals.terminate_at_all(MOMENTS, tmp_path, bare=bare):
        assert exited.seconds < EXIT_SECONDS
        assert exited.code == 0 or (bare and exited.moment < 0.15 and exited.code == signals.TERMINATED)


@contextmanager
def command(log: Path, *words: str, **settings: object) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a command of softstep until the end of the block."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("SOFTSTEP_", "AIP_"))}
    variables |= {f"SOFTSTEP_{name.upper()}": str(value) for name, value in settings.items()}
    with (
        log.open("w") as output,
        subprocess.Popen([sys.executable, "-m", "service", *words], cwd=ROOT, env=variables, stderr=output) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def opened(process: int) -> set[str]:
    """Return the files that a process has open."""
    paths = set()
    for link in Path(f"/proc/{process}/fd").iterdir():
        with suppress(FileNotFoundError):
            paths.add(str(link.readlink()))
    return paths


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_start_that_waits_for_the_data_directory(
    iris_models: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """All is imported, and the supervisor does not run yet."""
    file = tmp_path / "data" / LOCK_NAME
    file.parent.mkdir()
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with command(tmp_path / "log", "serve", port=0, models=iris_models, data=file.parent) as process:
            wait_until(lambda: str(file) in opened(process.pid), SECONDS)
            process.send_signal(number)
            assert process.wait(EXIT_SECONDS) == 0
    assert (tmp_path / "log").read_text() == ""


def test_sigterm_ends_other_commands_as_usual(tmp_path: Path) -> None:
    """Only a service treats SIGTERM as a normal end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(SECONDS)
        with command(tmp_path / "log", "health", port=listener.getsockname()[1]) as process:
            end, _ = listener.accept()
            with end:
                process.terminate()
                assert process.wait(EXIT_SECONDS) == -signal.SIGTERM
