"""A whole service, forked: parent, worker and learner as `softstep serve` makes them, on a socket of the machine."""

import argparse
import http.client
import json
import os
import signal
import time
from contextlib import redirect_stdout, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

from service.commands import serve
from service.errors import LogUnavailableError
from service.settings import Settings
from service.store.directory.data_directory import DataDirectory
from tests.support.processes import children, lives
from tests.support.servers import SHIPPED
from tests.torture.checker import Acked, check
from tests.torture.fault_injection import SECONDS_MAX, Child, Strike, Tell, Trace
from tests.torture.scenario import Asked, settings_of, story

TRY_SECONDS = 10.0
# How `ps` names the processes of a service.
NAMES = {"worker": "softstep-worker\n", "learn": "softstep-learn\n"}


def serve_struck(seed: int, strike: Strike, who: str, folder: Path, at: int) -> bool:
    """A service takes requests while one of its processes is struck; each request is sent until it is answered.

    The parent makes none of the calls while it waits, so it is killed behind the answer of that number.
    """
    (folder / "models").mkdir()
    (folder / "models" / "iris").symlink_to(SHIPPED / "iris")
    settings = settings_of(folder, models=folder / "models", port=0, drain_seconds=0.0)
    steps, acked = story(seed, turns=4), cast("Acked", {})
    child, port = begin(settings, folder)
    struck_one = child.pid if who == "parent" else process(child.pid, who)
    trace = None if who == "parent" else Trace(struck_one, strike._replace(at=at), folder / "trace")
    try:
        for number, one in enumerate((one for step in steps if step for one in step), 1):
            seq = ask(port, one, child)
            if seq is not None:
                acked.setdefault(one.post.id.decode(), set()).add(seq)
            if trace is None and number == at:
                os.kill(child.pid, signal.SIGKILL)
        time.sleep(0.03)  # for the learner, which publishes what came last
        hit = child.poll() or not lives(struck_one)
    finally:
        stop(child, settings)
    if trace is not None:
        trace.end()
    check(settings, acked, steps)
    return hit


class _Speech:
    """A standard output that is told line by line."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def write(self, text: str) -> None:
        if text.strip():
            self._tell(text)

    def flush(self) -> None:
        """Everything was told already."""


def begin(settings: Settings, folder: Path) -> tuple[Child, int]:
    """Start a service; returns its parent, and the port once a worker answers there."""
    child = Child(partial(_serve, settings, folder))
    child.go()
    late = time.monotonic() + SECONDS_MAX
    while time.monotonic() < late:
        for line in child.lines():
            if "http://" in line:
                port = int(line.split("http://")[1].split()[0].rpartition(":")[2])
                if call(port, "GET", "/readyz", None)[0] == 200:
                    return child, port
        assert not child.poll(), child.lines()
        time.sleep(0.005)
    raise AssertionError("the service does not start")


def _serve(settings: Settings, folder: Path, tell: Tell) -> None:
    errors = os.open(folder / "errors", os.O_WRONLY | os.O_CREAT)
    os.dup2(errors, 2)
    with redirect_stdout(cast("Any", _Speech(tell))):
        serve.run(settings, argparse.Namespace())


def process(parent: int, who: str) -> int:
    """The worker or the learner of a service."""
    late = time.monotonic() + SECONDS_MAX
    while time.monotonic() < late:
        for pid in children(parent):
            with suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text() == NAMES[who]:
                    return pid
        time.sleep(0.005)
    raise AssertionError("a process of the service is missing")


def stop(child: Child, settings: Settings) -> None:
    """End all of a service at once, and wait until the last of its processes has let go of the data directory."""
    with suppress(ProcessLookupError):
        os.kill(child.pid, signal.SIGKILL)
    child.wait()
    late = time.monotonic() + SECONDS_MAX
    while time.monotonic() < late:
        with suppress(LogUnavailableError):
            DataDirectory(settings.data).acquire_lock().close()
            return
        time.sleep(0.002)
    raise AssertionError("a process of the service outlives its parent")


def ask(port: int, one: Asked, child: Child) -> int | None:
    """Send an event until it is answered, always with its id; its seq, or None where it has none."""
    late = time.monotonic() + TRY_SECONDS
    while time.monotonic() < late and not child.poll():
        status, answer = call(port, "POST", f"/v1/models/iris:{one.kind.name.lower()}", one.body)
        if status in {200, 202}:
            return int(answer["seq"])
        if status and status != 503:
            assert status < 500, (status, answer)
            return None
        time.sleep(0.01)
    assert child.poll(), "an event is not taken any more"
    return None


def call(port: int, method: str, path: str, body: Any) -> tuple[int, Any]:
    """One request over a connection of its own; status 0 where no answer came."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"{}")
    except (OSError, http.client.HTTPException, json.JSONDecodeError):
        return 0, {}
    finally:
        connection.close()
