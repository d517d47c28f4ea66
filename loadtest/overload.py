"""Measure a service under three times the load that it can answer (figure K6).

    python loadtest/overload.py [--seconds 300] [--rows 256] [--connections 256] [--write]

One worker on one core answers predictions of digits, and a quarter of the requests is feedback of one row; the client
has the other core. The log begins with 200,000 events, so that the caches of ids and of pages are full. First the
capacity is measured: the answers a second while eight connections send as fast as they can. Then requests leave on a
schedule, at half of the capacity and at three times of it. SOFTSTEP_QUEUE_SECONDS is a quarter of the p99 of
predictions at half of the capacity.

    statuses    200, 202, 429 and 503 alone
    latency     p99 of accepted predictions, and of accepted feedback, compared with that at half of the capacity
    memory      of all processes, in the last tenth of the time compared with the first
    events      acknowledged feedback that the log does not have at the end
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from contextlib import closing
from itertools import count
from pathlib import Path
from statistics import mean, quantiles
from typing import Any, Self

from checkout_service import CheckoutService
from environments import ROOT
from machine import describe
from operations import read_options, report, row
from paced_clients import PacedLoad, post, run_loads
from processes import CLIENT_CORE, SERVER_CORE, free_port

from service.store.directory.data_directory import LOG_NAME
from service.store.log.sqlite import SqliteLog

MODEL = "digits"
FEATURES = 64
CLASSES = 10
TIMES = 3
P99_RATIO_MAX = 3.0
# The memory may grow by what allocators keep.
MEMORY_RATIO_MAX = 1.1
EVENTS = 200_000
CAPACITY_SECONDS = 5.0
HALF_SECONDS = 30.0
ACCEPTED = {"prediction": 200, "feedback": 202}
STATUSES = {200, 202, 429, 503}
FEEDBACK_SHARE = 0.25
# SOFTSTEP_QUEUE_SECONDS as a share of the p99 of predictions at half of the capacity.
QUEUE_SHARE = 0.25
ABOUT = (
    "{times} times the capacity, {rate:,.0f} requests/s, for {seconds:g} s over {connections} connections: three "
    "quarters are predictions of {rows} rows of digits, one quarter is feedback of a row. One worker on one core, the "
    "client on the other."
)
PAGE = os.sysconf("SC_PAGE_SIZE")


class Requests:
    """Makes the requests: predictions of the same body, and feedback with an id of its own each."""

    def __init__(self, rows: int) -> None:
        rng = random.Random(1)  # noqa: S311  # data for a measurement
        values = [[rng.randrange(17) for _ in range(FEATURES)] for _ in range(rows)]
        self._predict = post(f"/v1/models/{MODEL}:predict", json.dumps({"instances": values}).encode())
        self._row = values[0]
        self._ids = count()

    def predict(self) -> tuple[bytes, Any]:
        """Return a prediction."""
        return self._predict, None

    def feedback(self) -> tuple[bytes, Any]:
        """Return feedback of one row."""
        id_ = f"event-{next(self._ids)}"
        body = {"id": id_, "instances": [self._row], "labels": [len(id_) % CLASSES]}
        return post(f"/v1/models/{MODEL}:feedback", json.dumps(body).encode()), id_


class MemoryWatch:
    """Reads the resident memory of a process and its children once a second."""

    def __init__(self, parent: int) -> None:
        self._parent = parent
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.bytes: list[int] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(1.0):
            children = Path(f"/proc/{self._parent}/task/{self._parent}/children").read_text().split()
            pages = [int(Path(f"/proc/{process}/statm").read_text().split()[1]) for process in children]
            self.bytes.append(PAGE * sum(pages))

    def growth(self) -> float:
        """Return the memory of the last tenth of the time, compared with the first."""
        tenth = max(1, len(self.bytes) // 10)
        return mean(self.bytes[-tenth:]) / mean(self.bytes[:tenth])


def p99_of(load: PacedLoad, status: int) -> float:
    """Return the p99 of the answers with a status, in seconds."""
    seconds = [answer.seconds for answer in load.answers if answer.status == status]
    return quantiles(seconds, n=100)[-1] if len(seconds) > 1 else float("nan")


def run_at(port: int, requests: Requests, rate: float | None, connections: int, seconds: float) -> dict[str, PacedLoad]:
    """Send predictions and feedback, together at a rate; return both loads."""
    shares = {"prediction": (1 - FEEDBACK_SHARE, requests.predict), "feedback": (FEEDBACK_SHARE, requests.feedback)}
    loads = {
        name: PacedLoad(None if rate is None else share * rate, max(1, round(share * connections)), make)
        for name, (share, make) in shares.items()
    }
    run_loads(port, list(loads.values()), seconds)
    return loads


def calibrate(folder: Path, requests: Requests) -> tuple[float, dict[str, float]]:
    """Return the capacity in requests a second, and the p99 of each kind at half of it."""
    with CheckoutService(free_port(), folder).running() as service:
        pin(service)
        loads = run_at(service.port, requests, None, 8, CAPACITY_SECONDS)
        capacity = sum(len(load.answers) for load in loads.values()) / CAPACITY_SECONDS
        loads = run_at(service.port, requests, capacity / 2, 64, HALF_SECONDS)
    return capacity, {name: p99_of(load, ACCEPTED[name]) for name, load in loads.items()}


def write_history(models: Path, data: Path) -> None:
    """Make a data directory with many events of another model."""
    script = str(Path(__file__).parent / "history.py")
    subprocess.run([sys.executable, script, str(models), str(data), "--rows", str(EVENTS)], check=True, cwd=ROOT)


def process_of(service: CheckoutService) -> int:
    """Return the id of the parent process of a running service."""
    if service.process is None:
        raise ValueError("the service was not started")
    return service.process.pid


def pin(service: CheckoutService) -> None:
    """Give the worker a core to itself; its learner shares the client's."""
    parent = process_of(service)
    worker, *others = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    for process, core in ((worker, SERVER_CORE), *((one, CLIENT_CORE) for one in others)):
        for thread in Path(f"/proc/{process}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})


def count_lost(folder: Path, acknowledged: list[bytes]) -> int:
    """Return how many acknowledged events the log does not have."""
    with closing(SqliteLog(folder / "data" / LOG_NAME)) as log:
        found = {
            id_
            for start in range(0, len(acknowledged), 1000)
            for id_ in log.find_ids(MODEL, acknowledged[start : start + 1000])
        }
    return len(set(acknowledged) - found)


def main() -> None:
    """Measure and print."""
    options = read_options(__doc__, seconds=300.0, rows=(256, "the rows of a prediction"), connections=256)
    machine = describe()
    os.sched_setaffinity(0, {CLIENT_CORE})
    requests = Requests(options.rows)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "service"
        write_history(Path(name) / "models", folder / "data")
        capacity, normal = calibrate(folder, requests)
        settings = {"queue_seconds": round(normal["prediction"] * QUEUE_SHARE, 5)}
        print(f"capacity {capacity:.0f} requests/s, p99 at half of it {normal}, {settings}")
        with CheckoutService(free_port(), folder, settings).running() as service:
            pin(service)
            with MemoryWatch(process_of(service)) as memory:
                loads = run_at(service.port, requests, TIMES * capacity, options.connections, options.seconds)
            if service.terminate() != 0:
                raise SystemExit("the service did not end in order")
        acknowledged = [
            answer.tag.encode() for answer in loads["feedback"].answers if answer.status == ACCEPTED["feedback"]
        ]
        lost = count_lost(folder, acknowledged)
    rows = []
    for kind, load in loads.items():
        seen = Counter(answer.status for answer in load.answers)
        text = ", ".join(f"{count:,} with {status}" for status, count in sorted(seen.items()))
        text = f"{text}; {load.unsent:,} not sent, {load.broken} broken"
        rows.append(
            row(f"K6: statuses of {kind}", "200, 202, 429, 503", text, met=set(seen) <= STATUSES and not load.broken)
        )
        p99, usual = 1000 * p99_of(load, ACCEPTED[kind]), 1000 * normal[kind]
        text = f"{p99 / usual:.2f}: {p99:.1f} ms and {usual:.1f} ms"
        rows.append(
            row(
                f"K6: p99 of accepted {kind} ÷ at half load",
                f"≤ {P99_RATIO_MAX:g}",
                text,
                met=p99 <= P99_RATIO_MAX * usual,
            )
        )
    growth = memory.growth()
    rows.append(
        row(
            "K6: memory at the end ÷ at the start",
            f"≤ {MEMORY_RATIO_MAX:g}",
            f"{growth:.3f}",
            met=growth <= MEMORY_RATIO_MAX,
        )
    )
    rows.append(row("K6: lost events of those acknowledged", "0", f"{lost} of {len(acknowledged):,}", met=not lost))
    about = ABOUT.format(times=TIMES, rate=TIMES * capacity, **vars(options))
    report("overload", about, rows, machine, write=options.write)


if __name__ == "__main__":
    main()
