"""Processes of a service are killed under a mixed load.

`softstep serve --workers 2` runs for ten minutes under predictions, feedback with and without waiting, feedback by
token, predictions with `min_seq`, forgets, corrections and rollbacks. Every two seconds one of its processes is killed
(-9): mostly a worker, often the learner, sometimes the parent, which is then started again.

At the end every acknowledged event must be there once, at its seq, and the served weights must be those of a replay, to
the bit. A prediction fails if it has no answer while the parent runs, even after one retry over a new connection.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx

from service.store.artifact.hashing import hash_tensors
from service.store.directory.data_directory import DataDirectory
from service.store.log.audit import audit_log
from service.store.log.events import Event, Kind
from service.store.log.sqlite import SqliteLog
from tests.support.paths import SHIPPED
from tests.support.running_service import start
from tests.torture.checker import EVENTS_MAX
from tests.torture.load_clients import Client, LoadState, post_admin, post_by_token, post_feedback, predict
from tests.torture.reference_state import fold_lineage
from tests.torture.results import ResultRow
from tests.torture.scenario import ARTIFACT
from tests.torture.whole_service import process_ids

SECONDS = 600.0
PAUSE_SECONDS = 2.0
WAIT_SECONDS = 60.0
# Relative frequency of kills: a worker, the learner, the parent.
WEIGHTS = (11, 7, 1)
TARGET_KILLS, TARGET_EVENTS, TARGET_PREDICTIONS = 200, 20_000, 50_000


class RunningService:
    """A service in processes of its own, whose parent can be started again on the same port and data."""

    def __init__(self, folder: Path) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port = int(free.getsockname()[1])
        self.data = folder / "data"
        self._models = folder / "models"
        self._errors = folder / "errors"
        shutil.copytree(SHIPPED / "iris", self._models / "iris")
        self.start()

    def start(self) -> None:
        """Start the service and wait until it is ready; retry while a dying process still holds the data directory."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SOFTSTEP_")}
        environment |= {"SOFTSTEP_PORT": str(self.port), "SOFTSTEP_DRAIN_SECONDS": "0"}
        arguments = ["serve", "--models", str(self._models), "--data", str(self.data), "--workers", "2"]
        deadline = time.monotonic() + WAIT_SECONDS
        with self._errors.open("a") as errors:
            while time.monotonic() < deadline:
                self.process = start(arguments, environment, errors)
                assert self.process.stdout is not None
                with self.process.stdout:  # it writes its address there, and nothing once it is ready
                    while self.process.poll() is None and time.monotonic() < deadline:
                        with suppress(httpx.TransportError):
                            if httpx.get(f"{self.url}/readyz").status_code == 200:
                                return
                        time.sleep(0.02)
        raise AssertionError("the service does not start")

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}"

    def metadata(self) -> dict[str, Any]:
        """Return the metadata of the model."""
        return dict(httpx.get(f"{self.url}/v1/models/iris", timeout=WAIT_SECONDS).json())

    def stop(self) -> int:
        """Stop the service and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def run_campaign(folder: Path, share: float) -> Iterator[ResultRow]:
    """Run a share of the campaign in a folder."""
    service = RunningService(folder)
    load = LoadState(service.port)
    actions = (predict, predict, post_feedback, post_feedback, post_by_token, post_admin)
    clients = [Client(load, seed, action) for seed, action in enumerate(actions)]
    violations: list[str] = []
    try:
        for client in clients:
            client.start()
        kills = _kill_processes(service, load, SECONDS * share)
        _stop_clients(load, clients)
        violations += _find_violations(service, load)
        if service.stop() != 0:
            violations.append("the exit code of the service is not 0")
    finally:
        load.stop.set()
        service.process.kill()
        service.process.wait()
    violations += [f"a client failed: {text}" for text in load.failures if not text.startswith("prediction")]
    yield from _rows(load, kills, violations)


def _rows(load: LoadState, kills: list[tuple[float, str]], violations: list[str]) -> Iterator[ResultRow]:
    yield ResultRow(
        "kill -9 of a worker, the learner or the parent of a service under mixed load", len(kills), TARGET_KILLS, 0,
        f"{_count(kills, 'worker')} workers, {_count(kills, 'learner')} learners, {_count(kills, 'parent')} parents; "
        + _recovery_times(kills, load.posts),
    )  # fmt: skip
    events = load.counts.get("events", 0) + load.counts.get("events by token", 0)
    posted = {kind: count for kind, count in load.counts.items() if "predictions" not in kind}
    yield ResultRow(
        "event acknowledged under that load", events, TARGET_EVENTS, len(violations),
        "; ".join([", ".join(f"{count} {kind}" for kind, count in sorted(posted.items())), *violations[:3]]),
    )  # fmt: skip
    failed = [text for text in load.failures if text.startswith("prediction")]
    retried = load.counts.get("predictions sent again", 0)
    yield ResultRow(
        "prediction under that load", load.counts.get("predictions", 0), TARGET_PREDICTIONS, len(failed),
        f"{retried} were sent once more while the parent was running; the slowest took {load.slowest:.2f} s",
    )  # fmt: skip


def _kill_processes(service: RunningService, load: LoadState, seconds: float) -> list[tuple[float, str]]:
    """Kill a process every two seconds; return the time and the kind of process of each kill."""
    rng, end = random.Random(1), time.monotonic() + seconds
    kills = []
    while time.monotonic() < end:
        time.sleep(PAUSE_SECONDS)
        (name,) = rng.choices(("worker", "learner", "parent"), WEIGHTS)
        pids = [service.process.pid] if name == "parent" else process_ids(service.process.pid, name)
        if not pids:
            continue
        if name == "parent":
            load.down, load.outages = True, load.outages + 1
        kills.append((time.monotonic(), name))
        with suppress(ProcessLookupError):
            os.kill(rng.choice(pids), signal.SIGKILL)
        if name == "parent":
            service.process.wait()
            service.start()
            load.down = False
    return kills


def _stop_clients(load: LoadState, clients: list[Client]) -> None:
    """Let the clients finish their current requests."""
    time.sleep(PAUSE_SECONDS)
    load.stop.set()
    for client in clients:
        client.join(WAIT_SECONDS)
        if client.is_alive():
            load.failures.append(f"{client.name} has no answer")


def _find_violations(service: RunningService, load: LoadState) -> list[str]:
    """Compare the log with the acknowledgements, and the served weights with a replay of the log."""
    with closing(SqliteLog(DataDirectory(service.data).log)) as log:
        (stream,) = log.list_streams()
        last = log.stream_state(stream.number).seq
        deadline = time.monotonic() + WAIT_SECONDS
        while (metadata := service.metadata())["seq"] < last and time.monotonic() < deadline:
            time.sleep(0.05)
        events = log.read_events(stream.number, 0, EVENTS_MAX)
        violations = find_lost_events(events, load)
        if [seq for _, (seq, _) in audit_log(log, EVENTS_MAX)] != [last]:
            violations.append("the chain is broken")
    fold = fold_lineage(ARTIFACT, events, len(events))
    if (metadata["seq"], metadata["weights_sha256"]) != (last, hash_tensors(fold.state.served_parameters().tensors())):
        violations.append("the served weights are not those of a replay")
    return violations


def find_lost_events(events: list[Event], load: LoadState) -> list[str]:
    """Return a sentence for each event that is missing, duplicated or at another seq."""
    stored: dict[str, set[int]] = {}
    for event in events:
        stored.setdefault(event.id.decode(errors="replace"), set()).add(event.seq)
    found = [f"{name} is stored twice" for name, seqs in stored.items() if len(seqs) > 1]
    found += [f"{name} is not at its seq" for name, seqs in load.acknowledged.items() if stored.get(name) != seqs]
    feedback = {event.seq for event in events if event.kind == Kind.FEEDBACK}
    seqs_of_tokens = [seqs for seqs in load.tokens.values() if len(seqs) == 1]
    found += ["a token is stored twice"] * (len(load.tokens) - len(seqs_of_tokens))
    by_token = [seq for (seq,) in seqs_of_tokens]
    without_id = feedback - {seq for seqs in load.acknowledged.values() for seq in seqs}
    found += [f"event {seq} of a token is missing" for seq in by_token if seq not in without_id]
    found += ["two tokens have one event"] * (len(by_token) - len(set(by_token)))
    if [event.seq for event in events] != list(range(1, len(events) + 1)):
        found.append("seqs are not 1, 2, 3, …")
    return found


def _count(kills: list[tuple[float, str]], name: str) -> int:
    return sum(one == name for _, one in kills)


def _recovery_times(kills: list[tuple[float, str]], posts: list[tuple[float, float]]) -> str:
    """Summarize how long feedback was not accepted after a kill.

    The time of a kill is the longest wait of an event that was under way, or was posted within a second.
    """
    parts = []
    for victim, names in (("a child", {"worker", "learner"}), ("the parent", {"parent"})):
        waits = []
        for at, name in kills:
            if name in names:
                met = [done - max(sent, at) for sent, done in posts if sent <= at + 1 and done >= at]
                waits.append(max(met, default=0.0))
        if waits:
            waits.sort()
            median, p99, worst = waits[len(waits) // 2], waits[min(len(waits) - 1, len(waits) * 99 // 100)], waits[-1]
            parts.append(
                f"until feedback is accepted again after {victim}: median {1e3 * median:.0f} ms, "
                f"p99 {1e3 * p99:.0f} ms, at most {1e3 * worst:.0f} ms"
            )
    return "; ".join(parts)
