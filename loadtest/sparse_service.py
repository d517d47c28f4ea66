"""Measure a service with a sparse model: when feedback is served (F7), and the memory of a worker (F8)."""

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
from contenders import SOFTSTEP
from environments import HERE, NotAvailableError
from feedback_service import PYTHON, FeedbackService, run, send, wait_until_served
from processes import CLIENT_CORE, Running, environment, free_port, pinned, serving

# The figures that this module measures.
SPARSE_NUMBERS = ("F7", "F8")
NAMES = 30
SAMPLES = 300
# The shapes of the models whose memory is measured: bits of the hash, and classes.
SHAPES = ((18, 10), (24, 1))
WORKERS = 2
# After a model is loaded, the learner writes its first base within a second or two.
SETTLED_SECONDS, LOAD_SECONDS = 3.0, 60.0
EVENTS = 100
POLL_SECONDS = 0.001
KIB = 1024


class SparseService:
    """One run; each method measures one figure, round by round.

    Args:
        scratch: The folder of the run.
        rounds: Rounds of each figure.
        seconds: The length of one measurement.
        progress: Is called with lines of text.
    """

    def __init__(self, scratch: Path, rounds: int, seconds: int, progress: Callable[[str], None]) -> None:
        self.scratch, self.rounds, self.seconds, self.progress = scratch, rounds, seconds, progress
        self.models = scratch / "sparse-service"

    def write_model(self, bits: int, classes: int) -> tuple[Path, str]:
        """Return a models directory with one sparse model beside the shipped iris, and the name of the model."""
        folder, name = self.models / f"{bits}-{classes}", f"words-{bits}"
        if not folder.exists():
            command = [str(PYTHON), str(HERE / "sparse_model.py"), str(folder), name]
            run([*command, "--bits", str(bits), "--classes", str(classes)])
        return folder, name

    def freshness(self) -> dict[str, list[float]]:
        """Return the p99 from an acknowledgement to the first answer with the event, at half the fold's capacity.

        The capacity is the rows a second from the first request of a saturated client until all are served.
        """
        models, name = self.write_model(*SHAPES[0])
        service = FeedbackService(models / "with", self.scratch, self.rounds, self.seconds, self.progress)
        found: dict[str, list[float]] = {"served_p99_ms": [], "rows_per_s": []}
        for turn in range(self.rounds):
            self.progress(f"round {turn + 1}/{self.rounds}: acknowledged to served, {name}")
            with tempfile.TemporaryDirectory(dir=self.scratch) as folder, service.server(Path(folder)) as server:
                began = time.perf_counter()
                seen = json.loads(self.clients(server, name, None).communicate()[0])
                wait_until_served(server.port, name)
                seconds = time.perf_counter() - began
                found["rows_per_s"].append(seen["rows"] / seconds)
                found["served_p99_ms"].append(self.served_p99(server, name, seen["requests"] / seconds / 2))
        return found

    def clients(self, server: Running, name: str, rate: float | None) -> "subprocess.Popen[bytes]":
        """Start a client on the client's core; without a rate it sends its next request with each answer."""
        command = [str(PYTHON), str(HERE / "sparse_client.py"), str(server.port), name]
        command += ["--seconds", str(self.seconds)] if rate is None else ["--rate", str(rate), "--seconds", "120"]
        return subprocess.Popen(pinned(command, CLIENT_CORE), env=environment(), stdout=subprocess.PIPE)

    def served_p99(self, server: Running, name: str, rate: float) -> float:
        """Return the p99 in milliseconds of events of one row, among those of a client at a rate."""
        row = {"words": [f"name {n}" for n in range(NAMES)]}
        body, prediction = ({"instances": [row]} | more for more in ({"labels": [0]}, {}))
        seconds = []
        with self.clients(server, name, rate) as process:
            connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
            for _ in range(SAMPLES):
                seq = send(connection, f"/v1/models/{name}:feedback", json.dumps(body).encode())["seq"]
                acked = time.perf_counter()
                asked = json.dumps(prediction).encode()
                while send(connection, f"/v1/models/{name}:predict", asked)["seq"] < seq:
                    time.sleep(POLL_SECONDS)  # the learner shares this core
                seconds.append(time.perf_counter() - acked)
            connection.close()
            process.terminate()
        return float(np.percentile(seconds, 99)) * 1000

    def memory(self) -> dict[str, list[float]]:
        """Return the private memory in MB that a sparse model adds to a worker, loaded and after some feedback."""
        found: dict[str, list[float]] = {}
        for turn in range(self.rounds):
            self.progress(f"round {turn + 1}/{self.rounds}: private memory of a worker")
            for bits, classes in SHAPES:
                models, name = self.write_model(bits, classes)
                without = self.private_bytes(models / "without", "iris", [5.1, 3.5, 1.4, 0.2])
                more = self.private_bytes(models / "with", name, {"words": ["a", "b"]})
                for key, before, after in zip(("loaded", "taught"), without, more, strict=True):
                    found.setdefault(f"{key}_{bits}", []).append((after - before) / 1e6)
        return found

    def private_bytes(self, models: Path, name: str, row: Any) -> list[float]:  # noqa: ANN401 - a row as JSON
        """Return the mean private bytes of the workers of a service, after its start and after some feedback."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder, workers(models, Path(folder)) as server:
            wait_until_mapped(server, name)
            seen = [mean_private_bytes(server)]
            connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
            for number in range(EVENTS):
                body = {"id": f"event {number}", "instances": [row], "labels": [0]}
                send(connection, f"/v1/models/{name}:feedback", json.dumps(body).encode())
                send(connection, f"/v1/models/{name}:predict", json.dumps({"instances": [row]}).encode())
            connection.close()
            wait_until_served(server.port, name)
            time.sleep(SETTLED_SECONDS)
            return [*seen, mean_private_bytes(server)]


@contextmanager
def workers(models: Path, data: Path) -> Iterator[Running]:
    """Run Softstep with several workers, since pages that one process alone maps count as private."""
    port = free_port()
    command = [*SOFTSTEP.command(port, models, data)[:-1], str(WORKERS)]
    with serving(command, port, SOFTSTEP.ready, data / "log") as server:
        yield server


def worker_pids(server: Running) -> list[int]:
    """Return the workers of a service."""
    return [pid for pid in server.pids() if Path(f"/proc/{pid}/comm").read_text().strip() == "softstep-worker"]


def wait_until_mapped(server: Running, name: str) -> None:
    """Wait until every worker maps the first base of a model, if it is sparse, and has freed what it has read."""
    deadline = time.monotonic() + LOAD_SECONDS
    while name != "iris" and not all("/bases/" in Path(f"/proc/{pid}/maps").read_text() for pid in worker_pids(server)):
        if time.monotonic() > deadline:
            raise NotAvailableError(f"{name} is not mapped after {LOAD_SECONDS:.0f} s")
        time.sleep(0.1)
    time.sleep(SETTLED_SECONDS)


def mean_private_bytes(server: Running) -> float:
    """Return the mean of Private_Clean and Private_Dirty together, over the workers."""
    return float(np.mean([private_bytes(pid) for pid in worker_pids(server)]))


def private_bytes(pid: int) -> int:
    """Return the bytes that only this process maps."""
    fields = dict(line.split(":") for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return KIB * sum(int(fields[name].split()[0]) for name in ("Private_Clean", "Private_Dirty"))
