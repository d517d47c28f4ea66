"""Measure how long a log takes to move to PostgreSQL and back (P9).

    python loadtest/migration.py FOLDER ADDRESS [--events 1000000]

A data directory with `events` single rows of iris and a checkpoint is made in FOLDER, if it is not there. Then
`softstep migrate` copies it to the database at ADDRESS, which must be empty, and from there to another directory. The
logs must have equal bytes, and the checkpoint must be valid at the end. Prints one JSON object.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("address")
    parser.add_argument("--events", type=int, default=1_000_000)
    options = parser.parse_args()
    data, back = options.folder / f"data-{options.events}", options.folder / "back"
    if not data.exists():
        make_data(data, options.events)
    shutil.rmtree(back, ignore_errors=True)
    there = time_command("migrate", "--from", data, "--to", options.address)
    here = time_command("migrate", "--from", options.address, "--to", back, "--data", data)
    verified = time_command("verify", "--data", back)
    result = {
        "events": options.events,
        "to_postgresql_s": there,
        "back_s": here,
        "verify_s": verified,
        "equal": log_hash(data) == log_hash(back),
        "checkpoints": sorted(path.name for path in (back / "streams" / "iris" / "1" / "checkpoints").iterdir()),
    }
    sys.stdout.write(f"{json.dumps(result)}\n")


if __name__ == "__main__":
    main()
