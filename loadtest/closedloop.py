"""Closed-loop load: wrk keeps some connections busy and counts the answers; saturation is what it counts."""

import json
import subprocess
from pathlib import Path
from typing import Any

from environments import HERE, NotAvailableError
from loads import Load
from processes import CLIENT_CORE, Running, environment, pinned

CONNECTIONS = 16
WARMUP_SECONDS = 1
SPARE_SECONDS = 30


def saturate(server: Running, load: Load, seconds: int, scratch: Path) -> dict[str, Any]:
    """Return requests/s of `load` at saturation, its latency, and the processor time of one request.

    A figure made of failed requests would be none: any that is not answered with 2xx fails the measurement.
    """
    body = load.write(scratch)
    wrk(server.port, load, body, WARMUP_SECONDS)
    before = server.cpu_seconds()
    seen = wrk(server.port, load, body, seconds)
    after = server.cpu_seconds()
    bad = seen["not_2xx"] + seen["broken"]
    if bad or not seen["requests"]:
        raise NotAvailableError(f"{load.name}: {bad} of {seen['requests']} requests failed")
    user, system = (1e6 * (late - early) / seen["requests"] for early, late in zip(before, after, strict=True))
    rate = seen["requests"] / seen["seconds"]
    return {"per_s": rate, "p50_us": seen["p50_us"], "p99_us": seen["p99_us"], "user_us": user, "system_us": system}


def wrk(port: int, load: Load, body: Path, seconds: int) -> dict[str, Any]:
    """Run wrk once on the client's core and return what its script printed."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(HERE / "wrk" / "post.lua")]
    command += [f"http://127.0.0.1:{port}{load.path}", "--", str(body)]
    command += [word for pair in load.headers.items() for word in pair]
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
        raise NotAvailableError(f"{load.name}: wrk did not end") from error
    lines = [line.removeprefix("JSON ") for line in done.stdout.splitlines() if line.startswith("JSON ")]
    if not lines:
        raise NotAvailableError(f"{load.name}: wrk ended with code {done.returncode}: {done.stderr.strip()[-200:]}")
    return dict(json.loads(lines[0]))
