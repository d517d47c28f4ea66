"""Measure what an open page of the console costs: the size and time of its pulse, and processor time (V6, V8).

    .venv/bin/python loadtest/pulse.py [--pulses 1000] [--seconds 20] [--write]

A page asks for the pulse of one model once a second, with the position of its history. The time of a pulse is that of
`softstep_request_seconds`: from the head of the request to its answer, within the service. Processor time is that of
all processes of the service. It is measured with and without such a page in turns, at rest and while one client sends
100 events of one row in a second.
"""

import argparse
import json
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from statistics import median

from checkout_service import CheckoutService
from machine import describe
from operations import report, row
from processes import free_port

MODEL = "/v1/models/digits"
ROW = [float(pixel % 17) for pixel in range(64)]
EVENTS_PER_SECOND = 100
EVENTS = 500
TURNS = 3
SECONDS = 10.0
SIZE_MAX = 2048
PULSE_SECONDS_MAX = 0.0003
SHARE_MAX = 0.01
COUNTED = re.compile(r'softstep_request_seconds_(sum|count)\{model="",route="[^"]*/pulse",version=""\} (\S+)')
PROCESSOR = re.compile(r"softstep_process_cpu_seconds_total\{[^}]*\} (\S+)")
ABOUT = "A service with two workers on two cores, which its client shares; the model is `digits`."


class Page:
    """Asks for pulses over one connection, as a page of the console does."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=SECONDS)
        self._known = "since=0"

    def pulse(self) -> bytes:
        """Return the body of the next pulse."""
        body = get(self._connection, f"{MODEL}/pulse?{self._known}")
        history = json.loads(body)["history"]
        if history is not None:
            self._known = f"since={history['until']}&epoch={history['epoch']}&bucket={history['bucket']}"
        return body


def get(connection: HTTPConnection, path: str) -> bytes:
    """Return the body of an answer with 200."""
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:  # noqa: PLR2004  # OK
        raise SystemExit(f"{path} answered {answer.status}")
    return body


def metrics(port: int) -> str:
    """Return the metrics of the service."""
    return get(HTTPConnection("127.0.0.1", port, timeout=SECONDS), "/metrics").decode()


def send_feedback(port: int, prefix: str, count: int, per_second: int | None = None) -> None:
    """Send events of one row each, as fast as they are stored or at a rate."""
    connection, began = HTTPConnection("127.0.0.1", port, timeout=SECONDS), time.monotonic()
    for number in range(count):
        if per_second is not None:
            time.sleep(max(0.0, began + number / per_second - time.monotonic()))
        body = json.dumps({"id": f"{prefix}{number}", "instances": [ROW], "labels": [number % 10]})
        connection.request("POST", f"{MODEL}:feedback", body)
        connection.getresponse().read()


@contextmanager
def open_page(port: int) -> Iterator[None]:
    """Ask for a pulse once a second until the end of the block."""
    stopped, page = threading.Event(), Page(port)

    def run() -> None:
        while not stopped.wait(1):
            page.pulse()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def share_of_a_core(port: int, seconds: float, prefix: str) -> float:
    """Return the processor time of the service in each second, while it receives feedback or is at rest."""
    before = sum(map(float, PROCESSOR.findall(metrics(port))))
    began = time.monotonic()
    if prefix:
        send_feedback(port, prefix, int(EVENTS_PER_SECOND * seconds), EVENTS_PER_SECOND)
    else:
        time.sleep(seconds)
    elapsed = time.monotonic() - began
    return (sum(map(float, PROCESSOR.findall(metrics(port)))) - before) / elapsed


def measure_page(port: int, seconds: float, *, learning: bool) -> float:
    """Return how much more of a core the service takes while a page is open: the median of turns."""
    more = []
    for turn in range(TURNS):
        name = f"{turn}-" if learning else ""
        alone = share_of_a_core(port, seconds, name and f"alone-{name}")
        with open_page(port):
            more.append(share_of_a_core(port, seconds, name and f"page-{name}") - alone)
    return median(more)


def measure_pulses(port: int, pulses: int) -> tuple[int, float]:
    """Return the size of a steady pulse in bytes, and the mean seconds of one in the service."""
    page = Page(port)
    page.pulse()
    before = dict(COUNTED.findall(metrics(port)))
    size = max(len(page.pulse()) for _ in range(pulses))
    after = dict(COUNTED.findall(metrics(port)))
    total, count = (float(after[name]) - float(before[name]) for name in ("sum", "count"))
    return size, total / count


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pulses", type=int, default=1000, help="pulses whose time is measured")
    parser.add_argument("--seconds", type=float, default=20, help="seconds of each turn")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks/operations.md")
    options = parser.parse_args()
    machine, rows = describe(), []
    with tempfile.TemporaryDirectory() as name:
        service = CheckoutService(free_port(), Path(name), {"workers": 2, "metrics_access": "open"})
        with service.running():
            send_feedback(service.port, "before-", EVENTS)
            time.sleep(2)  # until the report is written
            size, seconds = measure_pulses(service.port, options.pulses)
            rows.append(row("size of a steady pulse", "≤ 2 KB", f"{size:,} bytes", met=size <= SIZE_MAX))
            met = seconds <= PULSE_SECONDS_MAX
            rows.append(row("mean time of a pulse", "≤ 0.3 ms", f"{1000 * seconds:.2f} ms", met=met))
            for learning, when in ((False, "at rest"), (True, f"at {EVENTS_PER_SECOND} events/s")):
                share = measure_page(service.port, options.seconds, learning=learning)
                title = f"processor time with one page open, above that without, {when}"
                rows.append(row(title, "≤ 1 % of a core", f"{100 * share:.2f} %", met=share <= SHARE_MAX))
    report(
        "pulse",
        f"{ABOUT} {options.pulses:,} pulses; turns of {options.seconds:g} s.",
        rows,
        machine,
        write=options.write,
    )


if __name__ == "__main__":
    main()
