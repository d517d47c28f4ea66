"""Limits of keys in a service of several workers, which share every bucket."""

import os
import signal
import socket
import struct
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest

from service.access.key_file import LimitsRecord
from tests.support.api_keys import add_key, bearer
from tests.support.http_requests import instances, request
from tests.support.running_service import Service, is_ready, serving
from tests.support.waiting import SECONDS, wait_until

ROW = [5.1, 3.5, 1.4, 0.2]
PREDICT = "/v1/models/iris:predict"
RATE = 50.0
IN_FLIGHT = 4


class Keys:
    """A service of two workers, and the headers of its keys."""

    def __init__(self, service: Service, rate: str, in_flight: str) -> None:
        self.service = service
        self.rate, self.in_flight = bearer(rate), bearer(in_flight)

    def connections(self, count: int) -> list[HTTPConnection]:
        """Return connections, enough for both workers to have some."""
        return [HTTPConnection(*self.service.address, timeout=SECONDS) for _ in range(count)]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keys]:
    scratch = tmp_path_factory.mktemp("limits")
    path = scratch / "data" / "keys.json"
    rate = add_key(path, limits=LimitsRecord(requests_per_second=RATE))
    in_flight = add_key(path, limits=LimitsRecord(requests_in_flight=IN_FLIGHT))
    open_settings = {"SOFTSTEP_MIN_SEQ_SECONDS": 60}
    with serving(Path("models"), scratch, workers=2, **open_settings) as service:
        yield Keys(service, rate, in_flight)


def test_workers_share_a_limit(keys: Keys) -> None:
    """Over many connections at more than the limit, two workers together accept the limit and its burst."""
    connections = keys.connections(16)
    statuses: list[int] = []
    began = time.monotonic()
    while (seconds := time.monotonic() - began) < 2.0:
        for connection in connections:
            connection.request("POST", PREDICT, instances([ROW]), dict([keys.rate]))
            response = connection.getresponse()
            response.read()
            statuses.append(response.status)
    for connection in connections:
        connection.close()
    assert set(statuses) == {200, 429}
    accepted = statuses.count(200)
    # A quarter of a second may be used at once; the rest depends on the time of the last request.
    assert 0.9 * RATE * seconds <= accepted <= RATE * (seconds + 0.3) + 2


def wait_for_model(keys: Keys, count: int) -> list[socket.socket]:
    """Send requests that wait until the model has learned more, and return their connections."""
    waiting = request("POST", PREDICT, instances([ROW], min_seq=10**6), [keys.in_flight])
    ends = [socket.create_connection(keys.service.address, SECONDS) for _ in range(count)]
    for end in ends:
        end.sendall(waiting)
    return ends


def reset(ends: list[socket.socket]) -> None:
    """Reset connections: a client that only closes its end could still read an answer."""
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.close()


def status(keys: Keys) -> int:
    """Return the status of one more request of the key with a limit of requests in flight; 0 if its worker crashed."""
    url = f"{keys.service.url}{PREDICT}"
    try:
        return httpx.post(url, content=instances([ROW]), headers=[keys.in_flight], timeout=SECONDS).status_code
    except httpx.TransportError:
        return 0


def test_requests_of_a_crashed_worker_are_not_in_flight(keys: Keys) -> None:
    """Requests in flight count over both workers; those of a worker that is killed are forgotten."""
    ends = wait_for_model(keys, IN_FLIGHT)
    wait_until(lambda: status(keys) == 429)
    reset(ends)
    wait_until(lambda: status(keys) == 200)
    ends = wait_for_model(keys, IN_FLIGHT)
    wait_until(lambda: status(keys) == 429)
    parent = keys.service.process.pid
    for process in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        if Path(f"/proc/{process}/comm").read_text() == "softstep-worker\n":
            os.kill(int(process), signal.SIGKILL)
    wait_until(lambda: is_ready(keys.service.url, 2))
    wait_until(lambda: status(keys) == 200)
    reset(ends)
