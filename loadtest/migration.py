"""Measure how long a log takes to move to PostgreSQL and back (P9).

    .venv/bin/python loadtest/migration.py [--events 1000000] [--write]

A data directory with `events` single rows of iris and a checkpoint is made. Then `softstep migrate` copies it to an
empty database, on servers that are started for that (database.py), and from there to another directory. The logs must
have equal bytes, and the checkpoint must be valid at the end.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from database import empty_log
from machine import describe
from operations import read_options, report, row

from service.learn.replay import StreamReplay
from service.store.artifact.artifact import read_artifact
from service.store.artifact.fingerprint import compute_genesis
from service.store.directory.bound_artifact import bind_artifact
from service.store.directory.data_directory import DataDirectory
from service.store.log.events import Draft, Kind
from service.store.log.feedback_payload import Targets, encode_rows
from service.store.log.sqlite import SqliteLog
from service.store.log.sqlite_copy import read_sqlite
from service.store.states.snapshots import write_snapshot

ROOT = Path(__file__).parent.parent
BATCH, READ = 10_000, 100_000
BYTES_MAX = 1 << 20
SECONDS_MAX = 60.0
ABOUT = (
    "`softstep migrate` of {events:,} events of one row, with all that it checks. PostgreSQL, with a synchronous "
    "standby, has the same two cores and disk."
)


def make_data(path: Path, events: int) -> None:
    """Make a data directory with a log and a checkpoint at its end."""
    data, artifact = DataDirectory(path), read_artifact(ROOT / "models" / "iris" / "1", BYTES_MAX)
    folder = data.stream_folder("iris", 1)
    folder.path.mkdir(parents=True)
    bind_artifact(folder, artifact, BYTES_MAX)
    log = SqliteLog(data.log)
    stream = log.open_stream("iris", 1, compute_genesis(artifact), 3)
    random = np.random.default_rng(9)
    for start in range(0, events, BATCH):
        X = random.uniform(0.1, 7.0, (BATCH, 1, 4)).astype("f4")
        y = random.integers(0, 3, (BATCH, 1))
        log.append(
            [
                Draft(
                    stream.number, Kind.FEEDBACK, os.urandom(16).hex().encode(), payload, start, actor=b"key:k7m2q9xd"
                )
                for payload in (encode_rows(*row, Targets.INDEX, 3) for row in zip(X, y, strict=True))
            ][: events - start]
        )
        log.checkpoint_wal()
    replay = StreamReplay(stream, artifact, log)
    for _ in replay.fold_to(events):
        pass
    fields, arrays = replay.fold.checkpoint_contents()
    write_snapshot(folder.checkpoints, events, {**fields, **replay.position_fields()}, arrays, durable=True)
    log.empty_wal()
    log.close()


def log_hash(path: Path) -> str:
    """Return the SHA-256 of all that a log has."""
    digest = hashlib.sha256()
    with read_sqlite(path / "log.sqlite") as contents:
        for head in contents.read_heads():
            digest.update(repr(head).encode())
            after = 0
            while links := contents.read_links(head.stream.number, after, READ):
                digest.update(repr(links).encode())
                after = links[-1][0]
    return digest.hexdigest()


def time_command(*argv: object) -> float:
    """Run a command of softstep, and return its seconds."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "service", *map(str, argv)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return round(time.perf_counter() - began, 2)


def measure(data: Path, back: Path, address: str) -> dict[str, Any]:
    """Return the seconds of a migration to an address and back, and what has changed."""
    there = time_command("migrate", "--from", data, "--to", address)
    here = time_command("migrate", "--from", address, "--to", back, "--data", data)
    time_command("verify", "--data", back)
    checkpoints = [list(path.glob("streams/iris/1/checkpoints/*")) for path in (data, back)]
    return {
        "there": there,
        "back": here,
        "equal": log_hash(data) == log_hash(back),
        "kept": [sorted(path.name for path in paths) for paths in checkpoints],
    }


def main() -> None:
    """Measure and print."""
    options = read_options(__doc__, events=1_000_000)
    machine = describe()
    with tempfile.TemporaryDirectory() as name, empty_log() as address:
        data, back = Path(name) / "data", Path(name) / "back"
        make_data(data, options.events)
        found = measure(data, back, address)
    is_kept = found["equal"] and found["kept"][0] == found["kept"][1] != []
    rows = [
        row(title, f"≤ {SECONDS_MAX:g} s", f"{found[name]:.1f} s", met=found[name] <= SECONDS_MAX)
        for title, name in (("P9: to PostgreSQL", "there"), ("and back", "back"))
    ]
    rows.append(
        row(
            "equal bytes of both logs, and the checkpoint is verified",
            "all",
            "all" if is_kept else "not all",
            met=is_kept,
        )
    )
    report("migration", ABOUT.format(events=options.events), rows, machine, write=options.write)


if __name__ == "__main__":
    main()
