"""Measure good traffic beside slow clients, and when those are disconnected (figure K5).

    python loadtest/slow_clients.py [--seconds 40] [--idle 1000] [--heads 1000] [--bodies 200] [--write]

Idle clients connect and say nothing. Slow heads send one byte of a request's headers each second, slow bodies one byte
of a body. Beside them good clients send predictions on a fixed schedule, each on a connection that it keeps. The
service has one worker on one core with default settings. All clients share the other core. The slow ones have a
process of their own with the lowest priority, so that good clients wait for the service and not for them.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import resource
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import quantiles
from typing import Any

from certificate import write_certificate
from environments import ROOT
from machine import describe
from operations import report, row
from processes import CLIENT_CORE, environment, free_port, pinned, serving
from tls import softstep_command, trusting

GOOD_CLIENTS = 16
# Requests of each good client in a second: together some percent of what a core answers.
GOOD_RATE = 50.0
HEAD_SECONDS_MAX, BODY_SECONDS_MAX = 10.0, 30.0
RATIO_MAX = 2.0
# New slow clients in a second: all of them are there after 11 s, while the first slow heads end.
CONNECTS_PER_SECOND = 200.0
PAUSE_SECONDS = 1.0
# Files that the clients have open beside their connections.
SPARE_FILES = 100
BODY = json.dumps({"instances": [[5.1, 3.5, 1.4, 0.2]]}).encode()
HEAD = b"POST /v1/models/iris:predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
GOOD = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
SLOW_BODY = HEAD + b"Content-Length: 1000\r\n\r\n"
OK = b"HTTP/1.1 200 "
ABOUT = (
    "One worker with default settings on one core, the clients on another; {idle:,} idle clients, {heads:,} that send "
    "a byte of a head each second and {bodies:,} that send a byte of a body. Good traffic: {rate:,.0f} predictions/s "
    "over {clients} connections."
)


def allow_files(count: int) -> None:
    """Allow this process to open that many files, or end it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise SystemExit(f"{count} open files are needed, and the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))


async def connect(port: int, context: ssl.SSLContext | None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the service."""
    return await asyncio.open_connection("127.0.0.1", port, ssl=context)


async def trickle(port: int, context: ssl.SSLContext | None, start: bytes, delay: float) -> float:
    """Send some bytes, and then one a second; return the time from the first one to the end of the connection."""
    await asyncio.sleep(delay)
    reader, writer = await connect(port, context)
    began = time.monotonic()
    writer.write(start)
    ended = asyncio.ensure_future(reader.read())
    with contextlib.suppress(ConnectionError):
        while not ended.done():
            writer.write(b"x")
            await asyncio.wait([ended], timeout=PAUSE_SECONDS)
    seconds = time.monotonic() - began
    writer.transport.abort()
    with contextlib.suppress(ConnectionError):
        await ended
    return seconds


async def idle(port: int, context: ssl.SSLContext | None, seconds: float, delay: float) -> None:
    """Connect, and send no request."""
    await asyncio.sleep(delay)
    _, writer = await connect(port, context)
    await asyncio.sleep(max(seconds - delay, 0.0))
    writer.transport.abort()


async def attack(options: argparse.Namespace) -> dict[str, float]:
    """Run all slow clients; return the longest times of those with slow heads and bodies."""
    port, context = options.port, trusting(options.certificate)
    delays = (number / CONNECTS_PER_SECOND for number in itertools.count())
    bodies = [trickle(port, context, SLOW_BODY, next(delays)) for _ in range(options.bodies)]
    quiet = asyncio.gather(*(idle(port, context, options.seconds, next(delays)) for _ in range(options.idle)))
    heads = [trickle(port, context, HEAD + b"X-Slow: ", next(delays)) for _ in range(options.heads)]
    times = [asyncio.gather(*heads), asyncio.gather(*bodies)]
    longest = [max(await one, default=0.0) for one in times]
    await quiet
    return {"heads": longest[0], "bodies": longest[1]}


async def good_client(port: int, context: ssl.SSLContext | None, seconds: float, delay: float) -> list[float]:
    """Send predictions on a schedule over one connection; return the times from when they were due, in ms."""
    reader, writer = await connect(port, context)
    times, due = [], time.monotonic() + delay
    end = due + seconds
    while due < end:
        await asyncio.sleep(due - time.monotonic())
        writer.write(GOOD)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(OK):
            raise SystemExit(f"a good request was refused: {head[:40]!r}")
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        await reader.readexactly(size)
        times.append(1000 * (time.monotonic() - due))
        due += 1 / GOOD_RATE
    writer.close()
    return times


async def good_traffic(port: int, context: ssl.SSLContext | None, seconds: float) -> list[float]:
    """Run all good clients, evenly spread over the time between two requests."""
    delays = [number / GOOD_CLIENTS / GOOD_RATE for number in range(GOOD_CLIENTS)]
    clients = [good_client(port, context, seconds, delay) for delay in delays]
    return [value for times in await asyncio.gather(*clients) for value in times]


def measure(options: argparse.Namespace, certificate: Path | None, scratch: Path) -> list[list[str]]:
    """Return the rows of one service, with TLS or without."""
    port, context = free_port(), trusting(certificate)
    with serving(softstep_command(port, scratch, certificate), port, "/readyz", scratch / "log", context=context):
        before = asyncio.run(good_traffic(port, context, options.seconds))
        counts = [f"--{name}={getattr(options, name)}" for name in ("seconds", "idle", "heads", "bodies")]
        command = [sys.executable, __file__, "--port", str(port), *counts]
        command += [] if certificate is None else ["--certificate", str(certificate)]
        with subprocess.Popen(
            ["nice", "-n", "19", *pinned(command, CLIENT_CORE)],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        ) as attackers:
            beside = asyncio.run(good_traffic(port, context, options.seconds))
            output, _ = attackers.communicate()
    if attackers.returncode:
        raise SystemExit("the slow clients failed")
    longest: dict[str, float] = json.loads(output)
    p99, p99_before = (quantiles(times, n=100)[-1] for times in (beside, before))
    name = "with TLS" if certificate else "without TLS"
    ratio = p99 / p99_before
    rows = [
        (f"slow heads are disconnected, {name}", HEAD_SECONDS_MAX, longest["heads"]),
        (f"slow bodies are disconnected, {name}", BODY_SECONDS_MAX, longest["bodies"]),
    ]
    return [
        *(row(f"K5: {title}", f"≤ {most:g} s", f"{value:.1f} s", met=0 < value <= most) for title, most, value in rows),
        row(
            f"K5: p99 of good traffic beside them ÷ before, {name}; none refused",
            f"≤ {RATIO_MAX:g}",
            f"{ratio:.2f}: {p99:.2f} ms and {p99_before:.2f} ms of {len(beside):,}",
            met=ratio <= RATIO_MAX,
        ),
    ]


def parse_options() -> argparse.Namespace:
    """Return the options of the command line; those without help are for the process of the slow clients."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--idle", type=int, default=1000)
    parser.add_argument("--heads", type=int, default=1000)
    parser.add_argument("--bodies", type=int, default=200)
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks/operations.md")
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--certificate", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure and print, or be the slow clients."""
    options = parse_options()
    allow_files(options.idle + options.heads + options.bodies + GOOD_CLIENTS + SPARE_FILES)
    if options.port is not None:
        print(json.dumps(asyncio.run(attack(options))))
        return
    machine: dict[str, Any] = describe()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for certificate in (None, write_certificate(Path(name))):
            folder = Path(name) / ("plain" if certificate is None else "tls")
            folder.mkdir()
            rows += measure(options, certificate, folder)
    about = ABOUT.format(**vars(options), clients=GOOD_CLIENTS, rate=GOOD_CLIENTS * GOOD_RATE)
    report("slow_clients", about, rows, machine, write=options.write)


if __name__ == "__main__":
    main()
