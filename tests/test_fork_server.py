"""A forked service is like one from a command; tests/support/fork_server.py forks those of most tests."""

import os
import re
import signal
import subprocess
from pathlib import Path
from typing import TextIO

import pytest

from tests.support.fork_server import ForkedProcess, fork_server
from tests.support.paths import SHIPPED
from tests.support.running_service import serving, start
from tests.support.waiting import is_readable

SECONDS = 20.0
# What a process inherits: its mask of new files, and the signals that it blocks, ignores and handles.
INHERITED = re.compile(r"^(Umask|SigBlk|SigIgn|SigCgt|NoNewPrivs|Seccomp):.*", re.MULTILINE)


def inherited(process: int) -> list[str]:
    """Return what a process inherited, and the kinds of its open files after the standard ones."""
    folder = Path(f"/proc/{process}")
    status = [found.group() for found in INHERITED.finditer((folder / "status").read_text())]
    links = [str(link.readlink()) for link in (folder / "fd").iterdir() if int(link.name) > 2]
    return status + sorted(re.sub(r"(:\[)?\d+\]?|/\S*/", "", link) for link in links)


def test_a_forked_service_is_like_a_started_one(iris_models: Path, tmp_path: Path) -> None:
    """Both inherit the same signals and open the same files."""
    found = []
    for name, under in (("forked", ()), ("started", ("env",))):
        (tmp_path / name).mkdir()
        with serving(iris_models, tmp_path / name, under=under) as service:
            assert isinstance(service.process, ForkedProcess) == (not under)
            found.append(inherited(service.process.pid))
    assert found[0] == found[1]


def forked(log: TextIO, *options: str, **settings: str) -> ForkedProcess:
    """Fork a service with further options and settings."""
    words = ["serve", "--models", str(SHIPPED), "--data", f"{log.name}.data", "--port", "0", *options]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("SOFTSTEP_")}
    process = start(words, variables | settings, log)
    assert isinstance(process, ForkedProcess)
    return process


def test_exit_codes_and_output_of_forked_services(tmp_path: Path) -> None:
    """A service that refuses its settings exits with their code, and a killed one with minus the signal's number."""
    with (tmp_path / "log").open("w") as log:
        refused = forked(log, SOFTSTEP_WORKERS="none")
        assert (refused.wait(SECONDS), refused.stdout.read()) == (2, "")
        assert "SOFTSTEP_WORKERS" in (tmp_path / "log").read_text()
        process = forked(log)
        try:
            assert is_readable(process.stdout, SECONDS)
            assert process.stdout.readline().split()[0] == "softstep"
            assert process.poll() is None
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.1)
        finally:
            process.kill()
        assert process.wait(SECONDS) == process.poll() == -signal.SIGKILL
        process.kill()  # does nothing
        for one in (refused, process):
            one.stdout.close()


def test_only_environments_with_the_same_imports_are_forked() -> None:
    """Settings may differ; a variable that is read at an import, or may be, may not."""
    server = fork_server()
    variables = {**os.environ, "SOFTSTEP_WORKERS": "2"}
    assert server.is_usable(variables)
    for name in ("SOFTSTEP_KERNELS", "NUMBA_CPU_NAME", "PYTHONPATH", "LD_PRELOAD"):
        assert not server.is_usable(variables | {name: "other"})
    assert not server.is_usable({})
