"""Measure services whose log is in PostgreSQL: acknowledged feedback (P5), and the way to another replica (P7).

    .venv/bin/python loadtest/shared_log.py [--rounds 7] [--seconds 3] [--write]

P5: a service with a log in PostgreSQL, one that prepares its statements too, and one with SQLite are up at once, each
with one worker and a log of its own. wrk sends feedback of one row over 64 connections from the last core, to each in
turns. The services and PostgreSQL, a primary and a synchronous standby, share both cores: more processes work for an
event than there are cores, and the scheduler knows best where.

P7: a client sends an event to one replica, and then asks another one for predictions until its answer includes the
event. Nothing else is sent meanwhile.
"""

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from checkout_service import CheckoutService
from closedloop import FEEDBACK_CONNECTIONS, saturate_feedback
from database import running_servers
from environments import ROOT
from machine import describe
from operations import read_options, report, row
from processes import CORES, Running, free_port, serving

from service.store.log.postgres_schema import create_schema
from tests.support.postgres_servers import PostgresCluster

RATIO_MIN, P99_MS_MAX, SERVED_MS_MAX = 0.65, 15.0, 25.0
SAMPLES = 300
PREDICT, FEEDBACK, STATUS = "/v1/models/iris:predict", "/v1/models/iris:feedback", "/v1/models/iris"
PREDICTION, EVENT = b'{"instances":[[5.1,3.5,1.4,0.2]]}', b'{"instances":[[5.1,3.5,1.4,0.2]],"labels":[0]}'
SUCCESSES = (200, 202)
ABOUT = (
    "A primary and a synchronous standby of PostgreSQL on the same disk and the same two cores as the services, with "
    "Debian's settings and `fsync`; {rounds} rounds of {seconds} s in turns, {connections} connections."
)

POSTGRES, PREPARED, SQLITE = "postgres", "prepared", "sqlite"

Saturated = dict[str, list[float]]


@contextmanager
def running(folder: Path, *variables: str) -> Iterator[Running]:
    """Run a service of the shipped models on all cores, with variables of its environment."""
    port = free_port()
    service = CheckoutService(port, folder)
    unpinned = ["taskset", "-c", ",".join(map(str, CORES)), "env", "-C", str(ROOT), *variables]
    with serving([*unpinned, *service.command], port, "/readyz", folder / "log") as server:
        yield server


def measure_feedback(folder: Path, primary: PostgresCluster, rounds: int, seconds: int) -> dict[str, Saturated]:
    """Return the rates and the p99 in ms of feedback at saturation, by each log."""
    body = folder / "row.json"
    body.write_bytes(EVENT)
    logs = [f"SOFTSTEP_LOG={primary.make_database(create_schema)}" for _ in range(2)]
    sides = {POSTGRES: [logs[0]], PREPARED: [logs[1], "SOFTSTEP_LOG_PREPARE=true"], SQLITE: []}
    found: dict[str, Saturated] = {name: {"per_s": [], "p99_ms": []} for name in sides}
    with ExitStack() as stack:
        servers = {name: stack.enter_context(running(folder / name, *each)) for name, each in sides.items()}
        for number in range(rounds):
            for name in sides if number % 2 else reversed(sides):
                seen = saturate_feedback(servers[name], FEEDBACK, body, seconds)
                found[name]["per_s"].append(seen["per_s"])
                found[name]["p99_ms"].append(seen["p99_us"] / 1000)
            print(*(f"{side['per_s'][-1]:,.0f}/s {side['p99_ms'][-1]:.1f} ms" for side in found.values()), flush=True)
    return found


def measure_served(folder: Path, address: str) -> list[float]:
    """Return the ms from an acknowledgement by one replica to an answer of another one that includes the event."""
    log = f"SOFTSTEP_LOG={address}"
    with running(folder / "a", log) as first, running(folder / "b", log) as second:
        connections = [HTTPConnection("127.0.0.1", server.port, timeout=30) for server in (first, second)]
        while send(connections[1], STATUS)["lag_events"]:
            time.sleep(0.05)
        found = []
        for _ in range(SAMPLES):
            seq = send(connections[0], FEEDBACK, EVENT)["seq"]
            acked = time.perf_counter()
            while send(connections[1], PREDICT, PREDICTION)["seq"] < seq:
                pass
            found.append((time.perf_counter() - acked) * 1e3)
        for connection in connections:
            connection.close()
    return found


def send(connection: HTTPConnection, path: str, body: bytes | None = None) -> dict[str, Any]:
    """Send a request that must succeed, and return the answer."""
    connection.request("GET" if body is None else "POST", path, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = response.read()
    if response.status not in SUCCESSES:
        raise SystemExit(f"{path} answered {response.status}: {answer[:120].decode(errors='replace')}")
    return dict(json.loads(answer))


def feedback_rows(title: str, ours: Saturated, sqlite: Saturated) -> list[list[str]]:
    """Return the rows of a service with a log in PostgreSQL, compared with one with SQLite."""
    ratios = [one / other for one, other in zip(ours["per_s"], sqlite["per_s"], strict=True)]
    rate, p99 = median(ratios), median(ours["p99_ms"])
    rates = f"{median(ours['per_s']):,.0f} and {median(sqlite['per_s']):,.0f}"
    value = f"{rate:.2f} ({min(ratios):.2f} to {max(ratios):.2f}): {rates}"
    waits = f"{p99:.1f} ms, with SQLite {median(sqlite['p99_ms']):.1f} ms"
    return [
        row(f"{title}, compared with SQLite", f"≥ {RATIO_MIN:g}", value, met=rate >= RATIO_MIN),
        row("p99 of these requests", f"≤ {P99_MS_MAX:g} ms", waits, met=p99 <= P99_MS_MAX),
    ]


def main() -> None:
    """Measure and print."""
    options = read_options(__doc__, rounds=7, seconds=3)
    machine = describe()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with running_servers() as (primary, _):
            found = measure_feedback(folder, primary, options.rounds, options.seconds)
            served = measure_served(folder, primary.make_database(create_schema))
    served_p99 = float(np.percentile(served, 99))
    rows = [
        *feedback_rows("P5: acknowledged events/s over HTTP", found[POSTGRES], found[SQLITE]),
        *feedback_rows("the same with `SOFTSTEP_LOG_PREPARE`", found[PREPARED], found[SQLITE]),
        row(
            "P7: acknowledged by one replica, served by another, p99",
            f"≤ {SERVED_MS_MAX:g} ms",
            f"{served_p99:.1f} ms of {SAMPLES}; the median {median(served):.1f} ms",
            met=served_p99 <= SERVED_MS_MAX,
        ),
    ]
    about = ABOUT.format(rounds=options.rounds, seconds=options.seconds, connections=FEEDBACK_CONNECTIONS)
    report("shared_log", about, rows, machine, write=options.write)


if __name__ == "__main__":
    main()
