"""Measure how long a new replica takes until it is ready behind a long log (P10).

    .venv/bin/python loadtest/joining.py [--events 1048575]

PostgreSQL is started on this machine. A first replica learns all events from an empty data directory; that time is
printed too. Then a second one starts with an empty data directory: from its first process until its worker is ready.
All processes share the machine's cores. The model is the shipped iris, with its default rule.
"""

import argparse
import contextlib
import json
import shutil
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np

from service.store.artifact.artifact import encode_artifact, read_artifact
from service.store.artifact.fingerprint import compute_genesis
from service.store.log.events import Draft, Kind
from service.store.log.feedback_payload import Targets, encode_rows
from service.store.log.postgres import PostgresLog
from service.store.log.postgres_schema import create_schema
from tests.support.paths import SHIPPED
from tests.support.postgres_servers import running_cluster
from tests.support.running_service import Service, serving

MIB = 1 << 20
BATCH = 4096
# The most that a new replica has to fold itself: one event less than a multiple of 65,536.
EVENTS = (1 << 20) - 1
PAUSE = 0.02
SECONDS = 600.0


def fill_log(address: str, events: int) -> None:
    """Make the stream of iris with so many events of one row."""
    artifact = read_artifact(SHIPPED / "iris" / "1", MIB)
    random = np.random.default_rng(1)
    labels = random.integers(0, 3, events)
    rows = (labels[:, None] + random.standard_normal((events, 4))).astype(np.float32)
    with contextlib.closing(PostgresLog(address, copies=1)) as log:
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
    with tempfile.TemporaryDirectory() as folder, running_cluster() as cluster, contextlib.ExitStack() as stack:
        models = Path(folder) / "models"
        shutil.copytree(SHIPPED / "iris", models / "iris")
        address = cluster.make_database(create_schema)
        fill_log(address, events)

        def start(name: str, **more: object) -> Service:
            scratch = Path(folder) / name
            scratch.mkdir()
            variables = {"SOFTSTEP_LOG": address, "SOFTSTEP_LOG_COPIES": 1, **more}
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=EVENTS)
    print(json.dumps(measure(parser.parse_args().events)))
