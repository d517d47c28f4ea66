"""Measure probes and small predictions while large requests keep a service busy (figure C4).

    python loadtest/probes.py [--seconds 10] [--connections 64] [--rows 65000] [--write]

wrk sends large bodies over many connections. Beside it, one client asks `/readyz` over a new connection each time, as
an orchestrator does. Two more keep a connection: one asks `/readyz`, the other sends predictions of one row. Each waits
for its answer, and then a moment. The service has one worker on one core; the clients have the other core.
"""

import argparse
import json
import random
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from statistics import quantiles
from typing import Any

from checkout_service import CheckoutService
from closedloop import wrk
from environments import ROOT
from machine import describe
from operations import read_options, report, row
from processes import Running, free_port, serving

SECONDS = 30.0
PAUSE_SECONDS = 0.01
# Each of the large requests waits for all others.
ANSWER_SECONDS = 60
P99_MS_MAX = 250.0
OK = 200
ROW = [5.1, 3.5, 1.4, 0.2]
ABOUT = (
    "One worker on one core, the clients on another; p99 of the answers while {connections} connections send {rows:,} "
    "rows in each request (`:explain`: an eighth of them)."
)
SMALL = json.dumps({"instances": [ROW]}).encode()


def bodies(rows: int) -> dict[str, tuple[str, bytes]]:
    """Return the path and the body of each kind of large request."""
    rng = random.Random(1)  # noqa: S311  # data for a measurement
    values = [[round(rng.uniform(0.1, 8.0), 1) for _ in ROW] for _ in range(rows)]
    labels = [rng.randrange(3) for _ in range(rows)]
    flat = [value for one in values for value in one]
    tensor = {"name": "x", "shape": [rows, len(ROW)], "datatype": "FP32", "data": flat}
    kinds = {
        "`:predict`": ("/v1/models/iris:predict", {"instances": values}),
        "v2 `/infer` as JSON": ("/v2/models/iris/infer", {"inputs": [tensor]}),
        "`:explain`": ("/v1/models/iris:explain", {"instances": values[: rows // 8]}),
        "`:feedback`": ("/v1/models/iris:feedback", {"instances": values, "labels": labels}),
    }
    return {name: (path, json.dumps(body, separators=(",", ":")).encode()) for name, (path, body) in kinds.items()}


class Prober:
    """Sends one small request after the other and keeps the times of the answers."""

    def __init__(self, port: int, method: str, path: str, body: bytes | None, *, keep: bool) -> None:
        self._port, self._keep = port, keep
        self._request = (method, path, body)
        self.milliseconds: list[float] = []

    def run(self, stopped: threading.Event) -> None:
        """Send until an event is set."""
        connection = self._connect()
        while not stopped.is_set():
            began = time.perf_counter()
            if not self._keep:
                connection.close()
                connection = self._connect()
            connection.request(*self._request)
            answer = connection.getresponse()
            answer.read()
            self.milliseconds.append(1000 * (time.perf_counter() - began))
            if answer.status != OK:
                raise SystemExit(f"{self._request[1]} answered {answer.status}")
            stopped.wait(PAUSE_SECONDS)
        connection.close()

    def _connect(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self._port, timeout=SECONDS)

    def p99(self) -> float:
        """Return the 99th percentile of the times, in milliseconds."""
        return quantiles(self.milliseconds, n=100)[-1]


def probers(port: int) -> dict[str, Prober]:
    """Return the small requests that are measured."""
    return {
        "`/readyz`, a new connection each": Prober(port, "GET", "/readyz", None, keep=False),
        "`/readyz`, one connection": Prober(port, "GET", "/readyz", None, keep=True),
        "`:predict` of one row": Prober(port, "POST", "/v1/models/iris:predict", SMALL, keep=True),
    }


def measure_beside(load: Callable[[], dict[str, Any]], small: dict[str, Prober]) -> dict[str, Any]:
    """Run a load with the small requests beside it; return what the load measured."""
    stopped = threading.Event()
    with ThreadPoolExecutor(len(small)) as pool:
        running = [pool.submit(prober.run, stopped) for prober in small.values()]
        try:
            seen = load()
        finally:
            stopped.set()
        for one in running:
            one.result()
    if seen["requests"] == seen["not_2xx"] or seen["broken"]:
        raise SystemExit(f"the large requests failed: {seen}")
    return seen


def measure(server: Running, kind: str, large: tuple[str, Path], options: argparse.Namespace) -> list[list[str]]:
    """Return the rows of the page for one kind of large request."""
    path, body = large

    def load() -> dict[str, Any]:
        words = [str(body), "Content-Type", "application/json"]
        counts = {"connections": options.connections, "seconds": options.seconds}
        return wrk(server.port, path, "post.lua", words, **counts, timeout=ANSWER_SECONDS)

    small = probers(server.port)
    seen = measure_beside(load, small)
    rate = seen["requests"] / seen["seconds"]
    # Feedback is refused with 429 while as much waits as may wait.
    refused = f" ({seen['not_2xx']} refused)" if seen["not_2xx"] else ""
    rows = []
    for name, prober in small.items():
        value, count = prober.p99(), len(prober.milliseconds)
        title = f"{name}, beside {rate:.0f} {kind}/s{refused}"
        rows.append(row(title, f"≤ {P99_MS_MAX:g} ms", f"{value:.0f} ms of {count:,}", met=value <= P99_MS_MAX))
    return rows


def main() -> None:
    """Measure and print."""
    options = read_options(__doc__, seconds=10, connections=64, rows=65_000)
    machine, rows = describe(), []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        service = CheckoutService(free_port(), scratch / "service", {})
        command = ["env", "-C", str(ROOT), *service.command]
        with serving(command, service.port, "/readyz", scratch / "log") as server:
            for kind, (path, body) in bodies(options.rows).items():
                file = scratch / "body"
                file.write_bytes(body)
                rows += measure(server, kind, (path, file), options)
    report("probes", ABOUT.format(**vars(options)), rows, machine, write=options.write)


if __name__ == "__main__":
    main()
