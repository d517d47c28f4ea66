"""A service in processes of its own, and raw requests to it."""

import contextlib
import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from http.client import HTTPResponse
from pathlib import Path
from typing import NamedTuple, TextIO

import httpx

from tests.support.api_keys import bearer
from tests.support.fork_server import ForkedProcess, fork_server
from tests.support.http_connection import Response, checked
from tests.support.http_requests import target_of
from tests.support.leaked_secrets import check_data, check_text
from tests.support.paths import ROOT
from tests.support.waiting import SECONDS, is_readable

START_SECONDS = 60.0
# For addresses without TLS: httpx would read all certificates of the system for each request.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Service(NamedTuple):
    """A running `softstep serve`."""

    url: str
    process: subprocess.Popen[str] | ForkedProcess
    log: Path

    @property
    def address(self) -> tuple[str, int]:
        """The host and port."""
        url = httpx.URL(self.url)
        return url.host, int(url.port or 80)


@contextlib.contextmanager
def serving(
    models: Path,
    scratch: Path,
    *,
    workers: int = 1,
    key: str | None = None,
    client: ssl.SSLContext | None = None,
    under: Sequence[str] = (),
    **environment: object,
) -> Iterator[Service]:
    """Run `softstep serve` on a free port until the end of the block; then no log of it may have a secret.

    Args:
        models: The models directory.
        scratch: Where the data directory and the service's log are made.
        workers: The number of worker processes.
        key: The key with which its metrics are read, which tell when it is ready; None if they are open.
        client: The TLS context of the client that waits for the service, if it speaks TLS.
        under: A command that runs the service, and ends when the service does. Other services are forked.
        environment: Further environment variables.
    """
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("SOFTSTEP_", "AIP_"))},
        "SOFTSTEP_PORT": "0",
        "SOFTSTEP_DRAIN_SECONDS": "0",
        "SOFTSTEP_METRICS_ACCESS": "open",  # they tell when it is ready
        **{name: str(value) for name, value in environment.items()},
    }
    arguments = ["serve", "--models", str(models), "--data", str(scratch / "data"), "--workers", str(workers)]
    log = scratch / "log"
    with log.open("w") as errors:
        process = start(arguments, variables, errors, under)
    assert process.stdout is not None
    with process.stdout:
        try:
            service = Service(_ready_url(process, workers, log, key, client), process, log)
            yield service
            check_metrics(service, client)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(SECONDS)
    check_text(log.read_text(), "the log of a service")
    check_data(scratch / "data")


def start(
    arguments: list[str], environment: dict[str, str], errors: TextIO, under: Sequence[str] = ()
) -> subprocess.Popen[str] | ForkedProcess:
    """Start a command of softstep: by a fork if the process that is forked would import the same, else as a command."""
    if not under and fork_server().is_usable(environment):
        return fork_server().start(arguments, environment, errors)
    command = [*under, sys.executable, "-m", "service", *arguments]
    return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=-1, stderr=errors, text=True)


def check_metrics(service: Service, client: ssl.SSLContext | None) -> None:
    """Fail if the metrics of a service have a secret; a service that gives none has none."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        connection = http.client.HTTPConnection(*service.address, timeout=SECONDS)
        if client is not None:
            connection = http.client.HTTPSConnection(*service.address, timeout=SECONDS, context=client)
        connection.request("GET", "/metrics")
        check_text(connection.getresponse().read().decode(), "the metrics of a service")
        connection.close()


def _ready_url(
    process: subprocess.Popen[str] | ForkedProcess,
    workers: int,
    log: Path,
    key: str | None,
    client: ssl.SSLContext | None,
) -> str:
    """Return the URL of a service once all its workers take predictions; fail with its log if they never do."""
    assert process.stdout is not None
    until = time.monotonic() + START_SECONDS
    url = ""
    while time.monotonic() < until and process.poll() is None:
        if not url and is_readable(process.stdout, 0.1):
            url = (process.stdout.readline().split() + [""] * 3)[2]
        if url and is_ready(url, workers, key, client):
            return url
        time.sleep(0.02)
    raise AssertionError(f"the service is not ready, exit code {process.poll()}; its log:\n{log.read_text()}")


def is_ready(url: str, workers: int, key: str | None = None, client: ssl.SSLContext | None = None) -> bool:
    """Return whether all workers of a service take predictions."""
    headers = [] if key is None else [bearer(key)]
    with contextlib.suppress(httpx.TransportError):
        response = httpx.get(f"{url}/metrics", headers=headers, timeout=2, verify=client or NO_TLS)
        return f"softstep_workers_ready {workers}.0\n" in response.text
    return False


def ask(service: Service, data: bytes) -> Response:
    """Send bytes to a running service and read the response."""
    with socket.create_connection(service.address, SECONDS) as end:
        with contextlib.suppress(ConnectionError):  # a refusal may come before the end
            end.sendall(data)
        answer = HTTPResponse(end, method=data.partition(b" ")[0].decode("latin-1"))
        answer.begin()
        headers = tuple((name.lower(), value) for name, value in answer.getheaders())
        response = Response(answer.status, headers, answer.read())
        return checked(response, target_of(data), has_body=not data.startswith(b"HEAD"))
