"""Measure figure B11: `softstep whatif` with four variants, compared with a plain `softstep replay` of the same log.

    .venv/bin/python loadtest/whatif.py FOLDER [--events 1000000] [--rounds 3]     (from the repository root)

The log has events of one row of 32 features and 10 classes, for a model that learns from zero weights by ftrl. It is
made once in FOLDER. Both commands run in turns, each in a new process on one core. The processor time of the same
command on a log of one event is subtracted.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from service.store.artifact.artifact import Artifact
from service.store.artifact.fingerprint import compute_genesis
from service.store.directory.bound_artifact import bind_artifact
from service.store.directory.data_directory import DataDirectory
from service.store.log.events import Draft, Kind
from service.store.log.feedback_payload import Targets, encode_rows
from service.store.log.sqlite import SqliteLog

N, K, BATCH = 32, 10, 10_000
BYTES_MAX = 1 << 24
NOISE = 3.0  # of the scores that decide labels
VARIANTS = ("rule=ftrl rate=0.1", "rule=ftrl rate=0.5", "rule=ftrl beta=2", "rule=ftrl firmness=0.1")
COMMANDS = {
    "replay": ["replay", "wide", "--json"],
    "whatif": ["whatif", "wide", "--json", *(part for one in VARIANTS for part in ("--variant", one))],
}


def make_log(path: Path, events: int) -> None:
    """Make a data directory with a stream of events, unless it exists."""
    if path.exists():
        return
    fields = {
        "head": "softmax",
        "classes": [f"class {k}" for k in range(K)],
        "features": N,
        "dtype": "float32",
        "layers": [{"weight": "weight", "bias": "bias", "activation": "identity"}],
        "learning": {"rule": "ftrl"},
    }
    artifact = Artifact.from_fields(fields, {"weight": np.zeros((N, K), "f4"), "bias": np.zeros(K, "f4")})
    data, rng = DataDirectory(path), np.random.default_rng(0)
    folder = data.stream_folder("wide", 1)
    folder.path.mkdir(parents=True)
    bind_artifact(folder, artifact, BYTES_MAX)
    log = SqliteLog(data.log)
    stream = log.open_stream("wide", 1, compute_genesis(artifact), K)
    truth = rng.standard_normal((N, K))
    for start in range(0, events, BATCH):
        X = rng.standard_normal((min(BATCH, events - start), N)).astype(np.float32)
        y = (X @ truth + NOISE * rng.gumbel(size=(len(X), K))).argmax(axis=1)
        payloads = [encode_rows(X[i : i + 1], y[i : i + 1], Targets.INDEX, K) for i in range(len(X))]
        log.append([Draft(stream.number, Kind.FEEDBACK, os.urandom(16).hex().encode(), one, 0) for one in payloads])
        log.checkpoint_wal()
    log.close()


def run_command(data: Path, argv: list[str], core: int) -> tuple[float, list[dict[str, Any]]]:
    """Return the processor seconds and the results of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "service", *argv, "--data", str(data)],
        stdout=subprocess.PIPE, text=True, check=True, preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, [json.loads(line) for line in done.stdout.splitlines()]


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    logs = {events: options.folder / f"whatif-{events}" for events in (1, options.events)}
    for events, path in logs.items():
        make_log(path, events)
    core = max(os.sched_getaffinity(0))
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    hashes: dict[str, str] = {}
    for _ in range(options.rounds):
        for name, argv in COMMANDS.items():
            start, _ = run_command(logs[1], argv, core)
            whole, results = run_command(logs[options.events], argv, core)
            seconds[name].append(whole - start)
            hashes[name] = results[0]["weights_sha256"]
    ratios = [whatif / replay for replay, whatif in zip(seconds["replay"], seconds["whatif"], strict=True)]
    result = {
        "events": options.events,
        "variants": len(VARIANTS),
        **{f"{name}_seconds": round(median(found), 3) for name, found in seconds.items()},
        "ratio": round(median(ratios), 2),
        "ratios": [round(one, 2) for one in ratios],
        "same_hash": hashes["replay"] == hashes["whatif"],
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
