"""`softstep serve --workers 2` runs for ten minutes under predictions, feedback with and without waiting, feedback by
token, states that are asked for by seq, forgets and rollbacks, while every two seconds one of its processes is killed
(-9): mostly a worker, often the learner, now and then the parent, which is then started again.

At the end every acknowledged event is there once, at the seq that was told, and the weights that are served are those
of a plain replay, to the bit. A prediction fails where it has no answer, though it was sent once more after its
connection had died, while the parent lives.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
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
from tests.support.processes import children
from tests.support.servers import ROOT, SHIPPED
from tests.torture.checker import EVENTS_MAX, state_of
from tests.torture.load_clients import Client, Weather, predict, teach, teach_tokens, turn
from tests.torture.results import Line

SECONDS = 600.0
PAUSE_SECONDS = 2.0
WAIT_SECONDS = 60.0
# Of so many kills: a worker, the learner, the parent.
WEIGHTS = (11, 7, 1)
NAMES = {"softstep-worker\n": "worker", "softstep-learn\n": "learner"}
TARGET_KILLS, TARGET_EVENTS, TARGET_PREDICTIONS = 200, 20_000, 50_000


class Running:
    """A service in processes of its own, which is started again where its parent dies."""

    def __init__(self, folder: Path) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port = int(free.getsockname()[1])
        self.data = folder / "data"
        self._models = folder / "models"
        self._errors = folder / "errors"
        shutil.copytree(SHIPPED / "iris", self._models / "iris")
        self.start()

    def start(self) -> None:
        """Start it, and again where the directory is still held by what has just died; it takes requests then."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SOFTSTEP_")}
        environment |= {"SOFTSTEP_PORT": str(self.port), "SOFTSTEP_DRAIN_SECONDS": "0"}
        command = [sys.executable, "-m", "service", "serve", "--models", str(self._models), "--data", str(self.data)]
        late = time.monotonic() + WAIT_SECONDS
        with self._errors.open("a") as errors:
            while time.monotonic() < late:
                self.process = subprocess.Popen(
                    [*command, "--workers", "2"], env=environment, cwd=ROOT, stdout=-3, stderr=errors
                )
                while self.process.poll() is None and time.monotonic() < late:
                    with suppress(httpx.TransportError):
                        if httpx.get(f"{self.url}/readyz").status_code == 200:
                            return
                    time.sleep(0.02)
        raise AssertionError("the service does not start")

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def named(self, name: str) -> list[int]:
        """The processes of that name."""
        found = []
        for pid in children(self.process.pid):
            with suppress(OSError):
                if NAMES.get(Path(f"/proc/{pid}/comm").read_text()) == name:
                    found.append(pid)
        return found

    def metadata(self) -> dict[str, Any]:
        """What the model tells of itself."""
        return dict(httpx.get(f"{self.url}/v1/models/iris", timeout=WAIT_SECONDS).json())

    def end(self) -> int:
        """Stop it; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def mixed(folder: Path, share: float) -> Iterator[Line]:
    """The campaign."""
    running = Running(folder)
    weather = Weather(running.port)
    clients = [
        Client(weather, seed, do) for seed, do in enumerate((predict, predict, teach, teach, teach_tokens, turn))
    ]
    violations: list[str] = []
    try:
        for client in clients:
            client.start()
        kills = _kill(running, weather, SECONDS * share)
        _calm(weather, clients)
        violations += _wrong(running, weather)
        if running.end() != 0:
            violations.append("the service does not end with 0")
    finally:
        weather.stop.set()
        running.process.kill()
        running.process.wait()
    events = weather.counts.get("events", 0) + weather.counts.get("events by token", 0)
    violations += [f"a client failed: {text}" for text in weather.failures if not text.startswith("prediction")]
    yield Line(
        "kill -9 of a worker, the learner or the parent of a service under mixed load", len(kills), TARGET_KILLS, 0,
        f"{_count(kills, 'worker')} workers, {_count(kills, 'learner')} learners, {_count(kills, 'parent')} parents; "
        + _accepted(kills, weather.posts),
    )  # fmt: skip
    told = {what: count for what, count in weather.counts.items() if "predictions" not in what}
    yield Line(
        "event acknowledged meanwhile", events, TARGET_EVENTS, len(violations),
        "; ".join([", ".join(f"{count} {what}" for what, count in sorted(told.items())), *violations[:3]]),
    )  # fmt: skip
    failed = [text for text in weather.failures if text.startswith("prediction")]
    again = weather.counts.get("predictions sent again", 0)
    yield Line(
        "prediction meanwhile", weather.counts.get("predictions", 0), TARGET_PREDICTIONS, len(failed),
        f"{again} were sent once more while the parent lived; the slowest took {weather.slowest:.2f} s",
    )  # fmt: skip


def _kill(running: Running, weather: Weather, seconds: float) -> list[tuple[float, str]]:
    """Kill something every two seconds; when, and what."""
    chance, end = random.Random(1), time.monotonic() + seconds
    kills = []
    while time.monotonic() < end:
        time.sleep(PAUSE_SECONDS)
        (name,) = chance.choices(("worker", "learner", "parent"), WEIGHTS)
        pids = [running.process.pid] if name == "parent" else running.named(name)
        if not pids:
            continue
        if name == "parent":
            weather.down, weather.outages = True, weather.outages + 1
        kills.append((time.monotonic(), name))
        with suppress(ProcessLookupError):
            os.kill(chance.choice(pids), signal.SIGKILL)
        if name == "parent":
            running.process.wait()
            running.start()
            weather.down = False
    return kills


def _calm(weather: Weather, clients: list[Client]) -> None:
    """Let the clients end what they are at."""
    time.sleep(PAUSE_SECONDS)
    weather.stop.set()
    for client in clients:
        client.join(WAIT_SECONDS)
        if client.is_alive():
            weather.failures.append(f"{client.name} has no answer")


def _wrong(running: Running, weather: Weather) -> list[str]:
    """What is not as it was acknowledged, and whether the weights are those of the log."""
    with closing(SqliteLog(DataDirectory(running.data).log)) as log:
        (stream,) = log.list_streams()
        last = log.stream_state(stream.number).seq
        late = time.monotonic() + WAIT_SECONDS
        while (told := running.metadata())["seq"] < last and time.monotonic() < late:
            time.sleep(0.05)
        events = log.read_events(stream.number, 0, EVENTS_MAX)
        wrong = _lost(events, weather)
        if [seq for _, (seq, _) in audit_log(log, EVENTS_MAX)] != [last]:
            wrong.append("the chain is not whole")
    fold = state_of(events)
    if (told["seq"], told["weights_sha256"]) != (last, hash_tensors(fold.state.served_parameters().tensors())):
        wrong.append("the weights that are served are not those of a replay")
    return wrong


def _lost(events: list[Event], weather: Weather) -> list[str]:
    """Events that are missing, doubled or elsewhere."""
    there: dict[str, set[int]] = {}
    for event in events:
        there.setdefault(event.id.decode(errors="replace"), set()).add(event.seq)
    wrong = [f"{name} is there twice" for name, seqs in there.items() if len(seqs) > 1]
    wrong += [f"{name} is not there as told" for name, seqs in weather.acked.items() if there.get(name) != seqs]
    feedback = {event.seq for event in events if event.kind == Kind.FEEDBACK}
    seqs_of_tokens = [seqs for seqs in weather.tokens.values() if len(seqs) == 1]
    wrong += ["a token is there twice"] * (len(weather.tokens) - len(seqs_of_tokens))
    by_token = [seq for (seq,) in seqs_of_tokens]
    taken = feedback - {seq for seqs in weather.acked.values() for seq in seqs}
    wrong += [f"event {seq} of a token is missing" for seq in by_token if seq not in taken]
    wrong += ["two tokens have one event"] * (len(by_token) - len(set(by_token)))
    if [event.seq for event in events] != list(range(1, len(events) + 1)):
        wrong.append("seqs are not 1, 2, 3, …")
    return wrong


def _count(kills: list[tuple[float, str]], name: str) -> int:
    return sum(one == name for _, one in kills)


def _accepted(kills: list[tuple[float, str]], posts: list[tuple[float, float]]) -> str:
    """How long feedback was not accepted: of each kill the longest wait of an event that it met, or that came soon."""
    parts = []
    for what, names in (("a child", {"worker", "learner"}), ("the parent", {"parent"})):
        waits = []
        for at, name in kills:
            if name in names:
                met = [done - max(began, at) for began, done in posts if began <= at + 1 and done >= at]
                waits.append(max(met, default=0.0))
        if waits:
            waits.sort()
            middle, p99, worst = waits[len(waits) // 2], waits[min(len(waits) - 1, len(waits) * 99 // 100)], waits[-1]
            parts.append(
                f"until feedback is accepted again after {what}: median {1e3 * middle:.0f} ms, "
                f"p99 {1e3 * p99:.0f} ms, at most {1e3 * worst:.0f} ms"
            )
    return "; ".join(parts)
