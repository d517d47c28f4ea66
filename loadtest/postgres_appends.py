"""Measure the log in PostgreSQL beside the one in SQLite: appends by one writer, a look for news, and a replay.

    .venv/bin/python loadtest/postgres_appends.py [--turns 7] [--seconds 1] [--write]

It starts a primary and a standby on this machine (database.py). One writer appends batches of single rows with random
ids to each log in turns; every figure is the median of all turns. "alone" waits for the primary's disk, "standby" for
the standby's too; "optimistic" and "locked" are the two ways to append, and "prepared" is the first one with
prepared statements. P6 is the first, with the standby, in batches
of 64. With `--write` the table of docs/benchmarks/operations.md has them; the rest is printed alone.
"""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from appends import make_drafts
from database import running_servers
from machine import describe
from operations import read_options, report, row

from service.store.log.events import Position, Stream
from service.store.log.feedback_log import FeedbackLog
from service.store.log.postgres import PostgresLog
from service.store.log.postgres_schema import create_schema
from service.store.log.sqlite import SqliteLog
from tests.support.postgres_servers import PostgresCluster

BATCH = 64
BATCHES = (1, BATCH, 256)
LOOKS = 300
READ_EVENTS = 50_000
CHUNK = 4096

EVENTS_PER_S_MIN = 40_000
ABOUT = (
    "One writer, batches of {batch} rows, each with a random id, to PostgreSQL with Debian's settings and `fsync`, and "
    "to SQLite, on one disk; medians of {turns} turns of {seconds} s."
)

Figures = dict[str, float]
Result = dict[str, Any]


def time_appends(log: FeedbackLog, stream: Stream, batch: int, seconds: float) -> Figures:
    """Return events per second, the milliseconds of an append, and processor microseconds of the writer per event."""
    log.append(make_drafts(stream, 1))  # connects, and reads the head
    times: list[float] = []
    drafts = [make_drafts(stream, batch) for _ in range(64)]
    cpu, until = time.process_time(), time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        log.append([draft._replace(id=b"%d-%s" % (len(times), draft.id)) for draft in drafts[len(times) % 64]])
        times.append(time.perf_counter() - began)
    events = batch * len(times)
    p50, p99 = np.percentile(times, (50, 99)) * 1e3
    cpu = time.process_time() - cpu
    return {"events_per_s": events / sum(times), "p50_ms": p50, "p99_ms": p99, "cpu_us": cpu / events * 1e6}


def time_looks(log: PostgresLog) -> float:
    """Return the microseconds of a look for news when there is none."""
    log.moved_streams()
    began = time.perf_counter()
    for _ in range(LOOKS):
        log.moved_streams()
    return (time.perf_counter() - began) / LOOKS * 1e6


def time_replay(log: FeedbackLog, stream: Stream) -> float:
    """Return the events that are read and checked in a second."""
    position, began = Position(0, stream.genesis), time.perf_counter()
    while position.seq < READ_EVENTS and (events := log.read_checked(stream.number, position, CHUNK)):
        position = Position(events[-1].seq, events[-1].hash)
    return position.seq / (time.perf_counter() - began)


def bytes_per_event(primary: PostgresCluster, name: str, append: Callable[[], int]) -> Figures:
    """Return the bytes of tables and of write-ahead log that an event takes."""
    size = "SELECT pg_total_relation_size('events'), pg_current_wal_insert_lsn() - '0/0'"
    ((table, wal),) = primary.execute(size, database=name)
    events = append()
    ((table_after, wal_after),) = primary.execute(size, database=name)
    return {"table": (table_after - table) / events, "wal": float(wal_after - wal) / events}


def measure(primary: PostgresCluster, standby: PostgresCluster, folder: Path, turns: int, seconds: float) -> Result:
    """Return all figures."""
    address = primary.make_database(create_schema)
    log = PostgresLog(address, copies=1)
    logs: dict[str, FeedbackLog] = {
        "sqlite": SqliteLog(folder / "log.sqlite"),
        "optimistic": log,
        "locked": PostgresLog(address, copies=1, optimistic=False),
        "prepared": PostgresLog(address, copies=1, prepares=True),
    }
    streams = {name: opened.open_stream(name, 1, bytes(32), 3) for name, opened in logs.items()}
    found: dict[str, dict[int, list[Figures]]] = {}
    for _ in range(turns):
        for replicated in (False, True):
            primary.configure("synchronous_standby_names", f"ANY 1 ({standby.name})" if replicated else "")
            primary.wait_for_standby(standby.name, "quorum" if replicated else "async")
            for name, appended in logs.items():
                if name == "sqlite" and replicated:
                    continue
                label = name if name == "sqlite" else f"{name}, {'standby' if replicated else 'alone'}"
                by_batch = found.setdefault(label, {batch: [] for batch in BATCHES})
                for batch, figures in by_batch.items():
                    figures.append(time_appends(appended, streams[name], batch, seconds))
    result: Result = {
        label: {
            batch: {figure: round(median(turn[figure] for turn in figures), 2) for figure in figures[0]}
            for batch, figures in by_batch.items()
        }
        for label, by_batch in found.items()
    }

    def append() -> int:
        for _ in range(100):
            log.append(make_drafts(streams["optimistic"], 64))
        return 6400

    result["bytes_per_event"] = bytes_per_event(primary, address.rpartition("/")[2], append)
    result["look_us"] = round(time_looks(log), 1)
    result["replayed_per_s"] = {name: round(time_replay(read, streams[name])) for name, read in logs.items()}
    for opened in logs.values():
        opened.close()
    return result


def table_rows(result: Result, batch: int) -> list[list[str]]:
    """Return the rows of the page: each way to append, in batches of one size."""
    goal = "optimistic, standby"
    rates = {name: result[name][batch]["events_per_s"] for name in result if name in {"sqlite", goal} or "," in name}
    rows = []
    for name, rate in sorted(rates.items(), key=lambda pair: pair[0] != goal):
        p50, p99 = (result[name][batch][figure] for figure in ("p50_ms", "p99_ms"))
        value = f"{rate:,.0f} ({rate / rates['sqlite']:.2f} of SQLite); a batch {p50:.2f} ms, p99 {p99:.1f} ms"
        if name == goal:
            title = f"P6: events/s of the log alone, {name}"
            rows.append(row(title, f"≥ {EVENTS_PER_S_MIN:,}", value, met=rate >= EVENTS_PER_S_MIN))
        else:
            rows.append([f"the same, {name}", "", value, ""])
    replayed = result["replayed_per_s"]
    value = f"{replayed['optimistic']:,}, from SQLite {replayed['sqlite']:,}"
    return [*rows, ["events/s that are read again, with the chain checked", "", value, ""]]


def main() -> None:
    """Measure and print one JSON object."""
    options = read_options(__doc__, turns=7, seconds=1.0)
    machine = describe()
    with tempfile.TemporaryDirectory() as folder, running_servers(synchronous=False) as group:
        result = measure(*group, Path(folder), options.turns, options.seconds)
    print(json.dumps(result, indent=2))
    about = ABOUT.format(batch=BATCH, turns=options.turns, seconds=options.seconds)
    report("postgres", about, table_rows(result, BATCH), machine, write=options.write)


if __name__ == "__main__":
    main()
