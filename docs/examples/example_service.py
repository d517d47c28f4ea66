"""A service that an example starts, on a free port, and requests to it."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# There was no answer, the answer was an error, or it was incomplete.
NO_ANSWER = (OSError, http.client.HTTPException, json.JSONDecodeError)
START_SECONDS = 60.0


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Serve `folder/models` with data in `folder/data`; yield address and process, and stop it at the end."""
    command = [
        sys.executable,
        "-m",
        "service",
        "serve",
        "--models",
        str(folder / "models"),
        "--data",
        str(folder / "data"),
    ]
    environment = {**os.environ, "SOFTSTEP_PORT": "0", "SOFTSTEP_DRAIN_SECONDS": "0"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[2]
            end = time.monotonic() + START_SECONDS
            while time.monotonic() < end and not is_ready(url):
                time.sleep(0.05)
            yield url, process
        finally:
            process.send_signal(signal.SIGTERM)


def is_ready(url: str) -> bool:
    """Return whether the service takes requests."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5):  # anything but 200 raises
            return True
    except NO_ANSWER:
        return False


def post(url: str, document: dict[str, Any]) -> dict[str, Any] | None:
    """Send a request; return None if no complete answer came, so that its outcome is unknown."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, json.dumps(document).encode()), timeout=20) as answer:
            return dict(json.load(answer))
    except NO_ANSWER:
        return None
