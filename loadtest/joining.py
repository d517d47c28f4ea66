"""Measure how long a new replica takes until it is ready behind a long log (P10).

    .venv/bin/python loadtest/joining.py [--events 1048575] [--write]

PostgreSQL is started on this machine (database.py). A first replica learns all events from an empty data directory;
that time is printed too. Then a second one starts with an empty data directory: from its first process until its worker
is ready. All processes share the machine's cores. The model is the shipped iris, with its default rule.
"""

import contextlib
import shutil
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np
from database import empty_log
from machine import describe
from operations import read_options, report, row

from service.store.artifact.artifact import encode_artifact, read_artifact
from service.store.artifact.fingerprint import compute_genesis
from service.store.log.events import Draft, Kind
from service.store.log.feedback_payload import Targets, encode_rows
from service.store.log.postgres import PostgresLog
from tests.support.paths import SHIPPED
from tests.support.running_service import Service, serving

MIB = 1 << 20
BATCH = 4096
# The most that a new replica has to fold itself: one event less than a multiple of 65,536.
EVENTS = (1 << 20) - 1
PAUSE = 0.02
SECONDS = 600.0
READY_SECONDS_MAX = 5.0
ABOUT = (
    "A first replica learns {events:,} events; then a second one starts with an empty data directory, from its first "
    "process until its worker is ready. PostgreSQL, with a synchronous standby, has the same two cores and disk."
)


def fill_log(address: str, events: int) -> None:
    """Make the stream of iris with so many events of one row."""
    artifact = read_artifact(SHIPPED / "iris" / "1", MIB)
    random = np.random.default_rng(1)
    labels = random.integers(0, 3, events)
    rows = (labels[:, None] + random.standard_normal((events, 4))).astype(np.float32)
    with contextlib.closing(PostgresLog(address)) as log:
        files = tuple(encode_artifact(artifact).values())
        stream = log.open_stream("iris", 1, compute_genesis(artifact), 3, lambda: files)
        for start in range(0, events, BATCH):
            log.append(
                [
                    Draft(
                        stream.number,
                        Kind.FEEDBACK,
                        b"%d" % one,
                        encode_rows(rows[one : one + 1], labels[one : one + 1], Targets.INDEX, 3),
                        0,
                    )
                    for one in range(start, min(start + BATCH, events))
                ]
            )


def wait_until_learned(service: Service, events: int) -> None:
    """Wait until a service serves what it has learned from so many events."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        if httpx.get(f"{service.url}/v1/models/iris").json()["seq"] == events:
            return
        time.sleep(PAUSE)
    raise SystemExit("the first replica has not learned all events")


def measure(events: int) -> dict[str, float]:
    """Return the seconds until the first replica has learned all events, and until the second one is ready."""
    with tempfile.TemporaryDirectory() as folder, empty_log() as address, contextlib.ExitStack() as stack:
        models = Path(folder) / "models"
        shutil.copytree(SHIPPED / "iris", models / "iris")
        fill_log(address, events)

        def start(name: str, **more: object) -> Service:
            scratch = Path(folder) / name
            scratch.mkdir()
            variables = {"SOFTSTEP_LOG": address, **more}
            # Under a command, so that the time has that of the imports.
            return stack.enter_context(serving(models, scratch, under=("env",), **variables))

        began = time.monotonic()
        wait_until_learned(start("first", SOFTSTEP_SERVE_UNLEARNED=True), events)
        learned = time.monotonic()
        service = start("second")
        ready = time.monotonic()
        seq = httpx.get(f"{service.url}/v1/models/iris").json()["seq"]
        if seq != events:
            raise SystemExit(f"it is ready at event {seq}")
    return {"events": events, "learned_seconds": round(learned - began, 2), "ready_seconds": round(ready - learned, 2)}


def main() -> None:
    """Measure and print."""
    options = read_options(__doc__, events=EVENTS)
    machine, found = describe(), measure(options.events)
    seconds = found["ready_seconds"]
    rows = [
        row(
            "P10: a new replica is ready",
            f"≤ {READY_SECONDS_MAX:g} s",
            f"{seconds:.1f} s",
            met=seconds <= READY_SECONDS_MAX,
        ),
        ["the first replica has folded all events", "", f"{found['learned_seconds']:.1f} s", ""],
    ]
    report("joining", ABOUT.format(events=options.events), rows, machine, write=options.write)


if __name__ == "__main__":
    main()
