"""Measure a service that receives feedback over HTTP: how fast it acknowledges, serves, restarts and replays.

The worker has the server's core to itself; its learner shares the client's core with the client.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from closedloop import FEEDBACK_CONNECTIONS, feedback, saturate_feedback
from contenders import RAW, SOFTSTEP
from environments import CLIENT, HERE, ROOT, NotAvailableError
from loads import PIXEL_MAX
from processes import CLIENT_CORE, Running, environment, pinned
from schedule import pool

# The figures that this module measures.
FEEDBACK_NUMBERS = ("L5", "L6", "L7", "L8", "L9", "L10")
EVENTS = 1_000_000
PYTHON = ROOT / ".venv" / "bin" / "python"
ROW = b'{"instances":[[5.1,3.5,1.4,0.2]],"labels":[0]}'
PREDICTION = b'{"instances":[[5.1,3.5,1.4,0.2]]}'
PREDICT, FEEDBACK = "/v1/models/iris:predict", "/v1/models/iris:feedback"
DIGITS_ROWS, DIGITS_CLASSES = 32, 10
# A few thousand predictions a second, far from saturation.
PREDICT_RATE, PREDICT_CONNECTIONS = 5000, 16
TURNS, TURN_SECONDS = 10, 1
# One client measures when its event is served, while others send feedback.
SAMPLES, OTHER_CLIENTS = 300, 4
WAIT_SECONDS, CHILD_SECONDS = 120.0, 600


class FeedbackService:
    """One run; each method measures one figure, round by round."""

    def __init__(self, models: Path, scratch: Path, rounds: int, seconds: int, progress: Any) -> None:  # noqa: ANN401
        self.models, self.scratch = models, scratch
        self.rounds, self.seconds, self.progress = rounds, seconds, progress
        self.row, self.prediction, self.digits = (scratch / f"{name}.json" for name in ("row", "prediction", "digits"))
        self.row.write_bytes(ROW)
        self.prediction.write_bytes(PREDICTION)
        rng = np.random.default_rng(0)
        X = rng.integers(0, PIXEL_MAX + 1, (DIGITS_ROWS, 64)).tolist()
        y = rng.integers(0, DIGITS_CLASSES, DIGITS_ROWS).tolist()
        self.digits.write_text(json.dumps({"instances": X, "labels": y}, separators=(",", ":")))

    def run(self, numbers: tuple[str, ...]) -> dict[str, list[float]]:
        """Measure everything that the requested figures need."""
        found: dict[str, list[float]] = {}
        if {"L5", "L6", "L8", "L9"} & set(numbers):
            data = self.history()
            with self.restarted(data) as server:
                found |= self.saturation(server)
                if "L8" in numbers:
                    found |= self.during_feedback(server, median(found["single_per_s"]) / 2)
                if "L9" in numbers:
                    found |= self.freshness(server)
        if "L7" in numbers:
            found |= self.syncs(self.history())
        if "L10" in numbers:
            found |= self.restart(self.history())
            found |= self.replay()
        return found

    def history(self, rule: str | None = None) -> Path:
        """Return a data directory with 10⁶ events, made once; that of the shipped model also has a checkpoint."""
        data = self.scratch / f"history-{rule}"
        if not data.exists():
            self.progress(f"writing {EVENTS:,} events")
            command = [str(PYTHON), str(HERE / "history.py"), str(self.scratch / f"models-{rule}"), str(data)]
            command += ["--rows", str(EVENTS), *(["--rule", rule] if rule else [])]
            run(command)
            if rule is None:
                with self.server(data) as server:
                    wait_until_served(server.port)
        return data

    @contextmanager
    def server(self, data: Path, under: Sequence[str] = ()) -> Iterator[Running]:
        """Run Softstep over a data directory, its learner on the client's core; `under` precedes its command."""
        with SOFTSTEP.running(self.models, self.scratch, data, under) as server:
            for pid in server.pids():
                if Path(f"/proc/{pid}/comm").read_text().strip() == "softstep-learn":
                    os.sched_setaffinity(pid, {CLIENT_CORE})
            yield server

    @contextmanager
    def restarted(self, history: Path, under: Sequence[str] = ()) -> Iterator[Running]:
        """Run Softstep over a copy of a history, once everything in it is served."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            data = Path(shutil.copytree(history, Path(folder) / "data"))
            with self.server(data, under) as server:
                wait_until_served(server.port)
                yield server

    def saturation(self, server: Running) -> dict[str, list[float]]:
        """Measure single rows, the raw application with the same requests, and requests of 32 rows, in turns."""
        found: dict[str, list[float]] = {
            name: [] for name in ("single_ratio", "single_per_s", "single_p99_ms", "rows_per_s")
        }
        with RAW.running(self.models, self.scratch) as raw:
            for turn in range(self.rounds):
                self.progress(f"round {turn + 1}/{self.rounds}: feedback at saturation")
                ours = saturate_feedback(server, FEEDBACK, self.row, self.seconds)
                theirs = saturate_feedback(raw, FEEDBACK, self.row, self.seconds)
                rows = saturate_feedback(server, "/v1/models/digits:feedback", self.digits, self.seconds)
                found["single_ratio"].append(ours["per_s"] / theirs["per_s"])
                found["single_per_s"].append(ours["per_s"])
                found["single_p99_ms"].append(ours["p99_us"] / 1000)
                found["rows_per_s"].append(DIGITS_ROWS * rows["per_s"])
                wait_until_served(server.port, "digits")
        return found

    def syncs(self, history: Path) -> dict[str, list[float]]:
        """Return the number of calls that wait for the disk, of all processes together, per event.

        Strace filters for these calls in the kernel: if it stopped at every call, the worker would get its events one
        by one.
        """
        found = []
        for turn in range(self.rounds):
            self.progress(f"round {turn + 1}/{self.rounds}: disk syncs")
            out = self.scratch / "strace"
            traced = ["strace", "-f", "--seccomp-bpf", "-c", "-e", "trace=fdatasync,fsync", "-o", str(out)]
            with self.restarted(history, traced) as server:
                seen = feedback(server.port, FEEDBACK, self.row, FEEDBACK_CONNECTIONS, self.seconds)
            calls = [int(line.split()[3]) for line in out.read_text().splitlines() if re.search(r"f(data)?sync$", line)]
            if not calls:
                raise NotAvailableError("strace counted nothing")
            found.append(sum(calls) / seen["requests"])
        return {"syncs_per_event": found}

    def during_feedback(self, server: Running, rate: float) -> dict[str, list[float]]:
        """Return p99 of predictions during feedback at a rate ÷ p99 of the same predictions alone."""
        ratios = []
        for turn in range(self.rounds):
            self.progress(f"round {turn + 1}/{self.rounds}: predictions during {rate:,.0f} events/s")
            turns: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
            for _ in range(TURNS):
                for has_feedback, some in turns.items():
                    some.append(self.predictions(server, rate if has_feedback else 0))
            with_feedback, without = (pool(some)["latency_us"]["p99"] for some in turns.values())
            ratios.append(with_feedback / without)
        return {"predict_p99_ratio": ratios}

    def predictions(self, server: Running, feedback_rate: float) -> dict[str, Any]:
        """Run the open-loop client once, on the client's core."""
        out = self.scratch / "openloop.json"
        command = [str(CLIENT.python), str(HERE / "openloop.py"), f"http://127.0.0.1:{server.port}{PREDICT}"]
        command += ["--rate", str(PREDICT_RATE), "--connections", str(PREDICT_CONNECTIONS)]
        command += ["--seconds", str(TURN_SECONDS), "--body", str(self.prediction), "--json", str(out)]
        if feedback_rate:
            command += ["--beside", FEEDBACK, str(self.row), f"{feedback_rate:.0f}", "64"]
        run(pinned(command, CLIENT_CORE))
        return dict(json.loads(out.read_text()))

    def freshness(self, server: Running) -> dict[str, list[float]]:
        """Return the p99 of the time from an acknowledgement to the first answer whose state includes the event."""
        found = []
        for turn in range(self.rounds):
            self.progress(f"round {turn + 1}/{self.rounds}: acknowledged to served")
            wait_until_served(server.port)
            seconds = []
            others = pinned(feedback_clients(server.port, self.row), CLIENT_CORE)
            with subprocess.Popen(others, env=environment(), stdout=subprocess.DEVNULL) as process:
                connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
                for _ in range(SAMPLES):
                    seq = send(connection, FEEDBACK, ROW)["seq"]
                    acked = time.perf_counter()
                    while send(connection, PREDICT, PREDICTION)["seq"] < seq:
                        pass
                    seconds.append(time.perf_counter() - acked)
                connection.close()
                process.terminate()
            found.append(float(np.percentile(seconds, 99)) * 1000)
        return {"served_p99_ms": found}

    def restart(self, history: Path) -> dict[str, list[float]]:
        """Return the seconds from the start of a process until it is ready."""
        found = []
        for turn in range(self.rounds):
            self.progress(f"round {turn + 1}/{self.rounds}: restart")
            with self.restarted(history) as server:
                found.append(server.start_seconds)
        return {"restart_s": found}

    def replay(self) -> dict[str, list[float]]:
        """Return events per second of a whole replay."""
        return {"replayed_per_s": measure_replay(self.history("ftrl"), "iris", self.rounds, self.progress)}


def measure_replay(data: Path, model: str, rounds: int, progress: Any) -> list[float]:  # noqa: ANN401
    """Return events per second of a replay by round, without the time that the same command takes for one event."""
    found = []
    for turn in range(rounds):
        progress(f"round {turn + 1}/{rounds}: replay")
        seconds = []
        for more in (["--seq", "1"], []):
            began = time.perf_counter()
            run(pinned([str(PYTHON), "-m", "service", "replay", model, "--data", str(data), *more], CLIENT_CORE))
            seconds.append(time.perf_counter() - began)
        found.append((EVENTS - 1) / (seconds[1] - seconds[0]))
    return found


def feedback_clients(port: int, body: Path) -> list[str]:
    """Return the command that sends feedback over a few connections until it is ended."""
    command = ["wrk", "-t1", f"-c{OTHER_CLIENTS}", f"-d{WAIT_SECONDS:.0f}s", "-s", str(HERE / "wrk" / "feedback.lua")]
    return [*command, f"http://127.0.0.1:{port}{FEEDBACK}", "--", str(body), str(time.time_ns() % 2**31)]


def send(connection: HTTPConnection, path: str, body: bytes | None = None) -> dict[str, Any]:
    """Send a request that must succeed, and return the answer."""
    connection.request("GET" if body is None else "POST", path, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = response.read()
    if response.status >= 300:  # noqa: PLR2004 - no success
        raise NotAvailableError(f"{path} answered {response.status}: {answer[:120].decode(errors='replace')}")
    return dict(json.loads(answer))


def wait_until_served(port: int, name: str = "iris", seconds: float = WAIT_SECONDS) -> None:
    """Wait until every committed event is served."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    deadline = time.monotonic() + seconds
    try:
        while send(connection, f"/v1/models/{name}")["lag_events"]:
            if time.monotonic() > deadline:
                raise NotAvailableError(f"{name} has not served all events after {seconds:.0f} s")
            time.sleep(0.05)
    finally:
        connection.close()


def run(command: list[str]) -> None:
    """Run one process to its end."""
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False, timeout=600
    )
    if done.returncode:
        raise NotAvailableError((done.stderr.strip().splitlines() or [f"code {done.returncode}"])[-1][:200])
