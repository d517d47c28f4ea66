"""A whole service, forked: parent, worker and learner as `softstep serve` makes them, on a local socket."""

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
from service.store.directory.directory_lock import acquire_lock
from tests.support.paths import SHIPPED
from tests.support.processes import children, is_running
from tests.torture.checker import Acknowledged, check
from tests.torture.fault_injection import SECONDS_MAX, Child, Emit, Injection, Strace
from tests.torture.scenario import Request, make_scenario, scenario_settings

TRY_SECONDS = 10.0
# The file that takes the standard output of a service, with its address.
OUTPUT = "output"
# The names that the processes of a service set for themselves, as `ps` prints them.
NAMES = {"worker": "softstep-worker\n", "learner": "softstep-learn\n"}


def serve_injected(seed: int, injection: Injection, victim: str, folder: Path, at: int) -> bool:
    """Send requests to a service while a fault meets one of its processes; retry each request until it is answered.

    The parent makes no system calls while it waits. So it is killed after the answer with the number `at`.

    Args:
        seed: The seed of the scenario.
        injection: The fault; its number is replaced by `at`.
        victim: "parent", "worker" or "learner".
        folder: An empty folder.
        at: The number of the call, or of the answer for the parent.

    Returns:
        Whether the fault met a call.
    """
    (folder / "models").mkdir()
    (folder / "models" / "iris").symlink_to(SHIPPED / "iris")
    settings = scenario_settings(folder, models=folder / "models", port=0, drain_seconds=0.0)
    steps, acknowledged = make_scenario(seed, batches=4, has_key=False), cast("Acknowledged", {})
    child, port = start_service(settings, folder)
    target = child.pid if victim == "parent" else wait_for_process(child.pid, victim)
    strace = None if victim == "parent" else Strace(target, injection._replace(at=at), folder / "trace")
    try:
        for number, request in enumerate((request for step in steps if step for request in step), 1):
            seq = post_until_answered(port, request, child)
            if seq is not None:
                acknowledged.setdefault(request.post.id.decode(), set()).add(seq)
            if strace is None and number == at:
                os.kill(child.pid, signal.SIGKILL)
        time.sleep(0.03)  # for the learner, which publishes the last events
        hit = child.has_ended() or not is_running(target)
    finally:
        kill_service(child, settings)
    if strace is not None:
        strace.read_trace()
    check(settings, acknowledged, steps)
    return hit


def start_service(settings: Settings, folder: Path) -> tuple[Child, int]:
    """Start a service; return its parent, and the port once a worker answers there."""
    output = folder / OUTPUT
    output.unlink(missing_ok=True)
    child = Child(partial(_serve, settings, folder))
    child.start()
    deadline = time.monotonic() + SECONDS_MAX
    while time.monotonic() < deadline:
        text = output.read_text() if output.exists() else ""
        if text.endswith("\n"):
            port = int(text.split("http://")[1].split()[0].rpartition(":")[2])
            if send_request(port, "GET", "/readyz", None)[0] == 200:
                return child, port
        assert not child.has_ended(), child.lines()
        time.sleep(0.005)
    raise AssertionError("the service does not start")


def _serve(settings: Settings, folder: Path, _emit: Emit) -> None:
    errors = os.open(folder / "errors", os.O_WRONLY | os.O_CREAT)
    os.dup2(errors, 2)
    with (folder / OUTPUT).open("w") as output, redirect_stdout(output):
        serve.run(settings, argparse.Namespace())


def process_ids(parent: int, name: str) -> list[int]:
    """Return the children of a service's parent with a name of NAMES."""
    found = []
    for pid in children(parent):
        with suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text() == NAMES[name]:
                found.append(pid)
    return found


def wait_for_process(parent: int, name: str) -> int:
    """Wait until a worker or the learner of a service runs, and return its pid."""
    deadline = time.monotonic() + SECONDS_MAX
    while time.monotonic() < deadline:
        for pid in process_ids(parent, name):
            return pid
        time.sleep(0.005)
    raise AssertionError("a process of the service is missing")


def kill_service(child: Child, settings: Settings) -> None:
    """Kill the parent, and wait until the last of its children has released the data directory."""
    with suppress(ProcessLookupError):
        os.kill(child.pid, signal.SIGKILL)
    child.wait()
    deadline = time.monotonic() + SECONDS_MAX
    while time.monotonic() < deadline:
        with suppress(LogUnavailableError):
            acquire_lock(DataDirectory(settings.data)).close()
            return
        time.sleep(0.002)
    raise AssertionError("a process of the service outlives its parent")


def post_until_answered(port: int, request: Request, child: Child) -> int | None:
    """Post an event with its id until it is answered; return its seq, or None if it is rejected or the parent ends."""
    deadline = time.monotonic() + TRY_SECONDS
    while time.monotonic() < deadline and not child.has_ended():
        status, answer = send_request(port, "POST", f"/v1/models/iris:{request.kind.name.lower()}", request.body)
        if status in {200, 202}:
            return int(answer["seq"])
        if status and status != 503:
            assert status < 500, (status, answer)
            return None
        time.sleep(0.01)
    assert child.has_ended(), "the service no longer accepts events"
    return None


def send_request(port: int, method: str, path: str, body: Any) -> tuple[int, Any]:
    """Send one request over a connection of its own; the status is 0 if no answer came."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"{}")
    except (OSError, http.client.HTTPException, json.JSONDecodeError):
        return 0, {}
    finally:
        connection.close()
