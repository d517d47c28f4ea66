"""Measure what a pulse of the console costs (V8).

    .venv/bin/python loadtest/pulse.py [--pulses 3000]

A page asks for the pulse of one model once a second, with the position of its history. The time of a pulse is that of
its client: from the first byte of the request to the last one of the answer, over loopback. Processor time is that of
all processes of the service. console_figures.py measures the same and writes it.
"""

import argparse
import json
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import NamedTuple

from environments import ROOT
from processes import free_port, serving

MODEL = "/v1/models/digits"
ROW = [float(pixel % 17) for pixel in range(64)]
EVENTS = 500
PULSES = 3000
SECONDS = 10.0
READ_BYTES = 1 << 16


class PulseCost(NamedTuple):
    """The cost of a steady pulse.

    Attributes:
        size: The bytes of the largest body.
        seconds: The median time of one, as its client sees it.
        processor_seconds: The mean processor time of one in the service.
    """

    size: int
    seconds: float
    processor_seconds: float


def get(port: int, path: str) -> bytes:
    """Return the body of an answer with 200."""
    connection = HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    if answer.status != 200:  # noqa: PLR2004  # OK
        raise SystemExit(f"{path} answered {answer.status}")
    return body


def ask(end: socket.socket, request: bytes) -> bytes:
    """Send a request and return the body of its answer."""
    end.sendall(request)
    head, _, body = end.recv(READ_BYTES).partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while len(body) < length:
        body += end.recv(READ_BYTES)
    return body


def measure_pulses(port: int, used: Callable[[], float], pulses: int = PULSES) -> PulseCost:
    """Return the cost of a steady pulse of the model, while no events come.

    Args:
        port: The port of the service.
        used: Returns the processor seconds that the service has used so far.
        pulses: How many to ask for, over one connection.
    """
    history = json.loads(get(port, f"{MODEL}/pulse"))["history"]
    query = f"since={history['until']}&epoch={history['epoch']}&bucket={history['bucket']}"
    request = f"GET {MODEL}/pulse?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    sizes, times = [], []
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as end:
        ask(end, request)
        before = used()
        for _ in range(pulses):
            began = time.perf_counter()
            sizes.append(len(ask(end, request)))
            times.append(time.perf_counter() - began)
        return PulseCost(max(sizes), median(times), (used() - before) / pulses)


def send_feedback(port: int, count: int) -> None:
    """Send events of one row each."""
    connection = HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    for number in range(count):
        body = json.dumps({"id": f"event-{number}", "instances": [ROW], "labels": [number % 10]})
        connection.request("POST", f"{MODEL}:feedback?wait={'true' if number == count - 1 else 'false'}", body)
        connection.getresponse().read()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pulses", type=int, default=PULSES, help="pulses whose time is measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        port = free_port()
        command = [sys.executable, "-m", "service", "serve", "--port", str(port), "--workers", "2"]
        command += ["--models", str(ROOT / "models"), "--data", f"{name}/data"]
        with serving(command, port, "/readyz", Path(name) / "log") as running:
            send_feedback(port, EVENTS)
            time.sleep(2)  # until the report is written
            cost = measure_pulses(port, lambda: sum(running.cpu_seconds()), options.pulses)
    times = f"{1000 * cost.seconds:.3f} ms, of them {1000 * cost.processor_seconds:.3f} ms of the processor"
    print(f"{cost.size:,} bytes, {times}")


if __name__ == "__main__":
    main()
