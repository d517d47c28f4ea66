"""Closed-loop load: wrk keeps its connections busy and counts the answers; that rate is the saturation."""

import json
import random
import subprocess
from pathlib import Path
from typing import Any

from environments import HERE, NotAvailableError
from loads import Load
from processes import CLIENT_CORE, Running, environment, pinned

CONNECTIONS = 16
FEEDBACK_CONNECTIONS = 64
WARMUP_SECONDS = 1
SPARE_SECONDS = 30
SEED_MAX = 1 << 31


def saturate(server: Running, load: Load, seconds: int, scratch: Path) -> dict[str, Any]:
    """Return requests/s of `load` at saturation, its latency, and the processor time of one request.

    A single request that is not answered with 2xx fails the measurement: a rate of failures means nothing.
    """
    body = load.write(scratch)
    return measure_load(server, lambda seconds: post(server.port, load, body, seconds), seconds)


def saturate_feedback(server: Running, path: str, body: Path, seconds: int) -> dict[str, Any]:
    """Return the same for feedback, each request with a new random id; the raw application ignores the path."""
    return measure_load(
        server, lambda seconds: feedback(server.port, path, body, FEEDBACK_CONNECTIONS, seconds), seconds
    )


def measure_load(server: Running, load: Any, seconds: int) -> dict[str, Any]:  # noqa: ANN401 - runs for some seconds
    """Return what a load measures after one second that is not counted."""
    load(WARMUP_SECONDS)
    before = server.cpu_seconds()
    seen = load(seconds)
    after = server.cpu_seconds()
    bad = seen["not_2xx"] + seen["broken"]
    if bad or not seen["requests"]:
        raise NotAvailableError(f"{bad} of {seen['requests']} requests failed")
    user, system = (1e6 * (late - early) / seen["requests"] for early, late in zip(before, after, strict=True))
    rate = seen["requests"] / seen["seconds"]
    return {"per_s": rate, "p50_us": seen["p50_us"], "p99_us": seen["p99_us"], "user_us": user, "system_us": system}


def post(port: int, load: Load, body: Path, seconds: int) -> dict[str, Any]:
    """Send one request again and again; its body is in a file."""
    words = [str(body), *(word for pair in load.headers.items() for word in pair)]
    timeout = load.seconds_max
    return wrk(port, load.path, "post.lua", words, connections=CONNECTIONS, seconds=seconds, timeout=timeout)


def feedback(port: int, path: str, body: Path, connections: int, seconds: int) -> dict[str, Any]:
    """Send one body again and again, each time with another id; each run has another seed, or ids would repeat."""
    seed = random.SystemRandom().randrange(SEED_MAX)
    return wrk(port, path, "feedback.lua", [str(body), str(seed)], connections=connections, seconds=seconds)


def wrk(  # the parts of a load
    port: int,
    path: str,
    script: str,
    words: list[str],
    *,
    connections: int,
    seconds: int,
    timeout: int = 2,
    scheme: str = "http",
) -> dict[str, Any]:
    """Run wrk once on the client's core and return the line that its script printed; `timeout` is of one request."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={timeout}s"]
    command += ["-s", str(HERE / "wrk" / script)]
    command += [f"{scheme}://127.0.0.1:{port}{path}", "--", *words]
    try:
        done = subprocess.run(
            pinned(command, CLIENT_CORE),
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds + SPARE_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise NotAvailableError(f"{path}: wrk did not end") from error
    lines = [line.removeprefix("JSON ") for line in done.stdout.splitlines() if line.startswith("JSON ")]
    if not lines:
        raise NotAvailableError(f"{path}: wrk ended with code {done.returncode}: {done.stderr.strip()[-200:]}")
    return dict(json.loads(lines[0]))
