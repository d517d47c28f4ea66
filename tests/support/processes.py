"""Helpers for tests of running services: processes, ports, counters, and load."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import httpx

from tests.support.running_service import Service
from tests.support.waiting import wait_until

SECONDS = 20.0
# Every request has a connection of its own, so that each may meet another worker.
CLIENT = httpx.Client(limits=httpx.Limits(max_keepalive_connections=0), timeout=SECONDS)
ROW = {"instances": [[5.1, 3.5, 1.4, 0.2]]}


def children(process: int) -> list[int]:
    """Return the child processes of a process."""
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def workers(process: int) -> list[int]:
    """Return the workers among the children of a process, without those that are just being forked."""
    found = []
    for child in children(process):
        with suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{child}/comm").read_text() == "softstep-worker\n":
                found.append(child)
    return found


def is_running(process: int) -> bool:
    """Return whether a process exists and is no zombie."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def is_free(address: tuple[str, int]) -> bool:
    """Return whether a new service could listen on an address."""
    with socket.socket() as end:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            end.bind(address)
            end.listen()
        except OSError:
            return False
    return True


def sum_counter(url: str, name: str) -> float:
    """Return the sum of a counter over its labels."""
    text = CLIENT.get(f"{url}/metrics").text
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))


def predict(url: str, model: str = "iris", row: object = ROW) -> httpx.Response:
    """Request one prediction over a connection of its own."""
    return CLIENT.post(f"{url}/v1/models/{model}:predict", json=row)


def worker_of(answer: httpx.Response) -> str:
    """Return which worker answered; the request ids of a worker begin alike."""
    return str(answer.headers["x-request-id"].partition("-")[0])


def ask_every_worker(url: str, workers: int) -> list[httpx.Response]:
    """Request predictions over many connections until so many different workers have answered."""
    answers: list[httpx.Response] = []

    def done() -> bool:
        answers.extend(predict(url) for _ in range(8))
        return len({worker_of(answer) for answer in answers}) >= workers

    wait_until(done)
    return answers


def log_of(service: Service) -> str:
    """Return what a service wrote to standard error so far."""
    return service.log.read_text()


def kill(process: int) -> None:
    """Kill a process."""
    os.kill(process, signal.SIGKILL)


def run_fake(name: str, *arguments: str) -> "subprocess.Popen[str]":
    """Start a program of fake_workers.py."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.fake_workers", name, *arguments],
        cwd=Path(__file__).parents[2], stdout=-1, stderr=-1, text=True,
    )  # fmt: skip


class LoadResponse(NamedTuple):
    """One response under load: its status (0: none came) and the version that gave it."""

    status: int
    version: str


class LoadClient:
    """A client that sends one prediction after the other, now and then over a new connection."""

    def __init__(self, url: str, model: str = "iris") -> None:
        self.seen: list[LoadResponse] = []
        self._target = f"{url}/v1/models/{model}:predict"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            with httpx.Client(timeout=SECONDS) as client:
                for _ in range(50):
                    if not self._stop.is_set():
                        self.seen.append(self._ask(client))

    def _ask(self, client: httpx.Client) -> LoadResponse:
        try:
            answer = client.post(self._target, json=ROW)
        except httpx.TransportError:
            return LoadResponse(0, "")
        return LoadResponse(answer.status_code, answer.json().get("model_version", ""))

    @property
    def failed(self) -> list[LoadResponse]:
        """The requests that were not answered with probabilities."""
        return [seen for seen in self.seen if seen.status != 200]

    def versions(self) -> list[str]:
        """Return the versions that answered, in order, without repetition."""
        found = [seen.version for seen in self.seen]
        return [version for i, version in enumerate(found) if i == 0 or found[i - 1] != version]

    @contextlib.contextmanager
    def running(self) -> Iterator["LoadClient"]:
        """Send until the end of the block."""
        self._thread.start()
        try:
            wait_until(lambda: len(self.seen) > 20)
            yield self
            before = len(self.seen)
            wait_until(lambda: len(self.seen) > before + 20)
        finally:
            self._stop.set()
            self._thread.join(SECONDS)


def seconds_until_exit(process: "subprocess.Popen[str]") -> float:
    """Wait for a process to exit; return how long that took."""
    started = time.monotonic()
    process.wait(SECONDS)
    return time.monotonic() - started
