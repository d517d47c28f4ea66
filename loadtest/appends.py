"""What a feedback costs the log: processor time, bytes of write-ahead log, and how fast a replay reads.

    python loadtest/appends.py FOLDER [--rows 1000000] [--page-bytes 4096]

Runs in one process, best pinned to a core (`taskset -c 1`), against a log that already holds `rows` events with random
ids. Two ways to index ids are timed in turn, each on its copy of that log: slices written late (the log's own), and
every id at once (a tail of one event), which is what an ordinary index does. Each figure is the median of the turns.
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
from service.store.log.feedback_payload import Targets, decode_events, encode_rows
from service.store.log.sqlite import SqliteLog

BATCH, BATCHES, TURNS, FILL = 64, 400, 7, 10_000
CHUNK, READ = 4096, 200_000
PAYLOAD = encode_rows(np.ones((1, 4), "f4"), np.array([1]), Targets.INDEX, 3)


def drafts(stream: Stream, count: int) -> list[Draft]:
    """Single rows of four features, with ids that no order helps to index."""
    return [Draft(stream.number, Kind.FEEDBACK, os.urandom(16).hex().encode(), PAYLOAD, 0, 0) for _ in range(count)]


def filled(path: Path, rows: int) -> tuple[SqliteLog, Stream]:
    """Return a log that holds that many events."""
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    log = SqliteLog(path)
    stream = log.open_stream("iris", 1, bytes(32), 3)
    while (missing := rows - log.stream_state(stream.number).seq) > 0:
        log.append(drafts(stream, min(FILL, missing)))
        log.checkpoint_wal()
    return log, stream


def appended(log: SqliteLog, stream: Stream) -> tuple[float, float, float]:
    """Return microseconds of processor and of the clock, and bytes of log, for one event of one turn."""
    batches = [drafts(stream, BATCH) for _ in range(BATCHES)]
    log.append(drafts(stream, 1))  # reads what the slices do not cover
    log.empty_wal()
    cpu, clock = time.process_time(), time.perf_counter()
    for batch in batches:
        log.append(batch)
    cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
    events = BATCH * BATCHES
    return cpu / events * 1e6, clock / events * 1e6, log.wal_bytes / events


def checkpointed(log: SqliteLog) -> float:
    """Return microseconds of processor for one event when the write-ahead log is moved to its place."""
    cpu = time.process_time()
    log.empty_wal()
    return (time.process_time() - cpu) / (BATCH * BATCHES) * 1e6


def replayed(log: SqliteLog, stream: Stream) -> dict[str, float]:
    """Return events a second: read and decoded into arrays, and verified."""
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
    log, stream = filled(options.folder / f"appends-{options.page_bytes}.sqlite", options.rows)
    log.empty_wal()
    copy = Path(shutil.copy(log.path, log.path.with_suffix(".copy")))
    ways = {"late": log, "at_once": SqliteLog(copy, tail_events_max=1)}
    turns: dict[str, list[tuple[float, ...]]] = {name: [] for name in ways}
    for _ in range(TURNS):
        for name, way in ways.items():
            turns[name].append((*appended(way, stream), checkpointed(way)))
    figures = ("cpu_us", "clock_us", "wal_bytes", "checkpoint_cpu_us")
    result: dict[str, object] = {
        name: {figure: round(median(seen), 2) for figure, seen in zip(figures, zip(*rounds, strict=True), strict=True)}
        for name, rounds in turns.items()
    }
    result |= {"rows": options.rows, "batch": BATCH, "syncs_per_event": 1 / BATCH, **replayed(log, stream)}
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
