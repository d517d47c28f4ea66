"""Standard output and error that fail: a service continues, and stops with exit code 0."""

import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.processes import SECONDS, predict
from tests.support.running_service import is_ready
from tests.support.waiting import wait_until

REDIRECTIONS = {
    "a full disk": ">/dev/full 2>/dev/full",
    "no streams": "<&- >&- 2>&-",
    "a closed pipe": "",
}


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("redirection", REDIRECTIONS.values(), ids=REDIRECTIONS)
def test_failing_output_never_stops_the_service(iris_models: Path, tmp_path: Path, redirection: str) -> None:
    """Start, access log, a worker that is restarted, and the stop lose their lines and nothing else."""
    port = free_port()
    command = shlex.join([sys.executable, "-m", "service", "serve", "--models", str(iris_models), "--port", str(port)])
    settings = {"SOFTSTEP_DATA": str(tmp_path / "data"), "SOFTSTEP_ACCESS_LOG": "true", "SOFTSTEP_DRAIN_SECONDS": "0"}
    others = {name: value for name, value in os.environ.items() if not name.startswith(("SOFTSTEP_", "AIP_"))}
    reading, writing = os.pipe()
    os.close(reading)
    with subprocess.Popen(
        ["/bin/sh", "-c", f"exec {command} {redirection}"],
        env={**others, **settings}, cwd=ROOT, stdout=writing, stderr=writing,
    ) as process:  # fmt: skip
        os.close(writing)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until(lambda: is_ready(url, 1), 60)
            assert predict(url).status_code == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()
