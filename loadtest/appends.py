"""Measure what feedback costs the log: processor time, bytes of write-ahead log, and the speed of a replay.

    python loadtest/appends.py FOLDER [--rows 1000000] [--page-bytes 4096]

Runs in one process, best pinned to a core (`taskset -c 1`), on a log that already holds `rows` events with random ids.
Two ways to index ids alternate, each on its own copy of that log: slices that are written late (the log's own way), and
every id at once (a tail of one event), as an ordinary index does. Each figure is the median of all turns.
"""

import argparse
import json
import os
import shutil
import time
from pathlib import Path
from statistics import median

import numpy as np

from service.store.log import database
from service.store.log.events import Draft, Kind, Position, Stream
from service.store.log.feedback_blocks import decode_events
from service.store.log.feedback_payload import Targets, encode_rows
from service.store.log.sqlite import SqliteLog

BATCH, BATCHES, TURNS, FILL = 64, 400, 7, 10_000
CHUNK, READ = 4096, 200_000
PAYLOAD = encode_rows(np.ones((1, 4), "f4"), np.array([1]), Targets.INDEX, 3)


def make_drafts(stream: Stream, count: int) -> list[Draft]:
    """Return make_drafts of single rows of four features, with random ids, which no order helps to index."""
    return [Draft(stream.number, Kind.FEEDBACK, os.urandom(16).hex().encode(), PAYLOAD, 0, 0) for _ in range(count)]


def fill_log(path: Path, rows: int) -> tuple[SqliteLog, Stream]:
    """Return a log that holds `rows` events."""
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    log = SqliteLog(path)
    stream = log.open_stream("iris", 1, bytes(32), 3)
    while (missing := rows - log.stream_state(stream.number).seq) > 0:
        log.append(make_drafts(stream, min(FILL, missing)))
        log.checkpoint_wal()
    return log, stream


def time_appends(log: SqliteLog, stream: Stream) -> tuple[float, float, float]:
    """Return processor microseconds, elapsed microseconds and bytes of log for each event of one turn."""
    batches = [make_drafts(stream, BATCH) for _ in range(BATCHES)]
    log.append(make_drafts(stream, 1))  # reads the ids that no slice covers yet
    log.empty_wal()
    cpu, clock = time.process_time(), time.perf_counter()
    for batch in batches:
        log.append(batch)
    cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
    events = BATCH * BATCHES
    return cpu / events * 1e6, clock / events * 1e6, log.wal_bytes / events


def time_checkpoint(log: SqliteLog) -> float:
    """Return processor microseconds for each event when the write-ahead log is moved into the database."""
    cpu = time.process_time()
    log.empty_wal()
    return (time.process_time() - cpu) / (BATCH * BATCHES) * 1e6


def time_replay(log: SqliteLog, stream: Stream) -> dict[str, float]:
    """Return events per second: read and decoded into arrays, and verified."""
    began, after = time.perf_counter(), 0
    while after < READ:
        events = log.read_events(stream.number, after, CHUNK)
        decode_events([event.payload for event in events if event.payload])
        after = events[-1].seq
    read = after / (time.perf_counter() - began)
    began = time.perf_counter()
    for seq, _ in log.verify_chain(stream.number, Position(0, stream.genesis), CHUNK):
        if seq >= READ:
            break
    return {"read_and_decoded_per_s": round(read), "verified_per_s": round(seq / (time.perf_counter() - began))}


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--page-bytes", type=int, default=database.PAGE_BYTES)
    options = parser.parse_args()
    database.PAGE_BYTES = options.page_bytes  # type: ignore[misc]
    log, stream = fill_log(options.folder / f"appends-{options.page_bytes}.sqlite", options.rows)
    log.empty_wal()
    copy = Path(shutil.copy(log.path, log.path.with_suffix(".copy")))
    logs = {"late": log, "at_once": SqliteLog(copy, tail_events_max=1)}
    turns: dict[str, list[tuple[float, ...]]] = {name: [] for name in logs}
    for _ in range(TURNS):
        for name, indexed in logs.items():
            turns[name].append((*time_appends(indexed, stream), time_checkpoint(indexed)))
    figures = ("cpu_us", "clock_us", "wal_bytes", "checkpoint_cpu_us")
    result: dict[str, object] = {
        name: {figure: round(median(seen), 2) for figure, seen in zip(figures, zip(*rounds, strict=True), strict=True)}
        for name, rounds in turns.items()
    }
    result |= {"rows": options.rows, "batch": BATCH, "syncs_per_event": 1 / BATCH, **time_replay(log, stream)}
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
