"""Open-loop load: requests leave on a fixed schedule, whatever the server does, and latency counts from that schedule.

    python loadtest/openloop.py http://127.0.0.1:8000/v1/models/iris:predict --rate 5000 --seconds 10 --body row.json

A closed-loop client waits for each answer before it asks again, so a stalled server is asked less and its stall is
hardly seen (coordinated omission). Here request k is due at start + k / rate. It leaves then if a connection is free,
else as soon as one is; either way its latency is answer time minus due time.

The loop spins on non-blocking sockets instead of sleeping: timers of an event loop tick in milliseconds, which would
send 20,000 requests/s as bursts of twenty. It therefore occupies its core; pin it away from the server.
"""

import argparse
import gc
import ipaddress
import json
import select
import socket
import sys
import time
from array import array
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import httptools
import numpy as np
from hdrh.histogram import HdrHistogram

PERCENTILES = (50.0, 90.0, 99.0, 99.9)
RATE_MAX, SECONDS_MAX, CONNECTIONS_MAX = 200_000, 600, 1024
GRACE_SECONDS = 5.0  # how long unanswered requests are waited for after the last one was due
NS = 1_000_000_000
HIGHEST_NS = 3600 * NS
LATE_NS = 100_000
clock = time.perf_counter_ns
OK, REDIRECT = 200, 300
COUNTS = ("rate", "seconds", "sent", "answered", "not_2xx", "broken", "unanswered")
# One buffer for every connection: a fresh one for each read costs more than the read.
BUFFER = bytearray(1 << 18)


@dataclass
class Outcome:
    """What one run saw. A latency is the time (ns) from when a request was due to the last byte of its answer."""

    rate: float
    seconds: float
    sent: int = 0
    ended: int = 0  # requests that are over, well or not
    not_2xx: int = 0
    broken: int = 0  # connections closed under a request
    unanswered: int = 0
    late: int = 0  # requests that left long after they were due: no connection was free, or this client is saturated
    latencies_ns: "array[int]" = field(default_factory=lambda: array("q"))

    @property
    def answered(self) -> int:
        """Return how many requests got a good answer."""
        return len(self.latencies_ns)

    @property
    def errors(self) -> int:
        """Return how many requests got no good answer."""
        return self.not_2xx + self.broken + self.unanswered

    def answer(self, status: int, latency_ns: int) -> None:
        """Count one answer."""
        self.ended += 1
        if OK <= status < REDIRECT:
            self.latencies_ns.append(latency_ns)
        else:
            self.not_2xx += 1

    def histogram(self) -> HdrHistogram:
        """Return the latencies as an HDR histogram of nanoseconds with three digits."""
        histogram = HdrHistogram(1, HIGHEST_NS, 3)
        values, counts = np.unique(np.frombuffer(self.latencies_ns, np.int64), return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            histogram.record_value(max(1, value), count)
        return histogram

    def summary(self) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        histogram = self.histogram()
        latency = {f"p{p:g}": histogram.get_value_at_percentile(p) / 1000 for p in PERCENTILES}
        latency |= {"max": histogram.get_max_value() / 1000, "mean": histogram.get_mean_value() / 1000}
        counts = {name: getattr(self, name) for name in COUNTS}
        late_share = self.late / max(self.sent, 1)
        return counts | {"late_share": late_share, "latency_us": latency, "hdr": histogram.encode().decode()}


class Connection:
    """One keep-alive connection with at most one request under way."""

    def __init__(self, address: tuple[str, int], poll: select.epoll) -> None:
        self.address, self.poll = address, poll
        self.due = -1  # when the request under way was due (ns); -1 while idle
        self.rest = memoryview(b"")  # what of the request the socket did not take yet
        self.size = 0  # bytes of the last whole answer
        self.open()

    def open(self) -> None:
        """Connect, and forget any half-read answer."""
        self.socket = socket.create_connection(self.address, timeout=GRACE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.poll.register(self.socket, select.EPOLLIN)
        self.due = -1
        self.reset()

    def reset(self) -> None:
        """Expect the first byte of an answer."""
        self.parser, self.seen, self.done = httptools.HttpResponseParser(self), 0, False

    def send(self, request: bytes, due: int) -> None:
        """Send `request`, which was due at `due`; what the socket does not take now leaves when it can."""
        self.due = due
        sent = self.socket.send(request)
        if sent < len(request):
            self.rest = memoryview(request)[sent:]
            self.poll.modify(self.socket, select.EPOLLIN | select.EPOLLOUT)

    def resume(self) -> None:
        """Send more of a long request."""
        self.rest = self.rest[self.socket.send(self.rest) :]
        if not self.rest:
            self.poll.modify(self.socket, select.EPOLLIN)

    def receive(self) -> int:
        """Read what has come and return the status of the answer it completes, or 0 while more is to come."""
        count = self.socket.recv_into(BUFFER)
        # Most answers arrive whole, with the length of the one before: those need no parsing.
        if count == self.size and self.seen == 0 and BUFFER.startswith(b"HTTP/1.1 200"):
            return OK
        if count == 0:
            raise ConnectionResetError
        self.parser.feed_data(bytes(BUFFER[:count]))
        self.seen += count
        if not self.done:
            return 0
        status, self.size = self.parser.get_status_code(), self.seen
        self.reset()
        return int(status)

    def on_message_complete(self) -> None:
        """Note the end of an answer; called by the parser."""
        self.done = True


class OpenLoop:
    """Sends one request again and again, on a fixed schedule, over several connections."""

    def __init__(self, address: tuple[str, int], request: bytes, connections: int) -> None:
        self.request, self.poll = request, select.epoll()
        made = [Connection(address, self.poll) for _ in range(connections)]
        self.busy = {connection.socket.fileno(): connection for connection in made}
        self.idle = deque(made)

    def run(self, rate: float, seconds: float) -> Outcome:
        """Send `rate` requests/s for `seconds`; wait a while for the last answers."""
        outcome = Outcome(rate, seconds)
        total, interval, poll, idle = int(rate * seconds), NS / rate, self.poll.poll, self.idle
        start = due = clock() + NS // 1000
        deadline = start + int((seconds + GRACE_SECONDS) * NS)
        while (now := clock()) < deadline and outcome.ended < total:
            while due <= now and idle and outcome.sent < total:
                self.send(idle.popleft(), due, outcome)
                outcome.late += now - due > LATE_NS
                outcome.sent += 1
                due = start + int(outcome.sent * interval)
            for fd, event in poll(0):
                self.receive(fd, event, outcome)
        outcome.unanswered = total - outcome.ended
        return outcome

    def send(self, connection: Connection, due: int, outcome: Outcome) -> None:
        """Send the request that was due at `due`."""
        try:
            connection.send(self.request, due)
        except OSError:
            self.reopen(connection, outcome)

    def receive(self, fd: int, event: int, outcome: Outcome) -> None:
        """Handle what happened to the socket `fd`."""
        connection = self.busy[fd]
        try:
            if event & select.EPOLLOUT:
                connection.resume()
            status = connection.receive() if event & ~select.EPOLLOUT else 0
        except BlockingIOError:
            return
        except (OSError, httptools.HttpParserError):
            self.reopen(connection, outcome)
            return
        if status:
            outcome.answer(status, clock() - connection.due)
            connection.due = -1
            self.idle.append(connection)

    def reopen(self, connection: Connection, outcome: Outcome) -> None:
        """Replace a connection that the other side closed; a request under way on it is lost."""
        del self.busy[connection.socket.fileno()]
        connection.socket.close()
        if connection.due >= 0:
            outcome.broken += 1
            outcome.ended += 1
            self.idle.append(connection)
        try:
            connection.open()
        except OSError as error:
            raise SystemExit(f"the server takes no more connections: {error}") from error
        self.busy[connection.socket.fileno()] = connection

    def close(self) -> None:
        """Close every connection."""
        for connection in self.busy.values():
            connection.socket.close()
        self.poll.close()


def encode_request(url: SplitResult, body: bytes, headers: list[str], method: str) -> bytes:
    """Return the bytes of the request."""
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    lines = [f"{method} {path} HTTP/1.1", f"Host: {url.netloc}", *headers]
    if body and not any(header.lower().startswith("content-type:") for header in headers):
        lines.append("Content-Type: application/json")
    lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def loopback_address(url: SplitResult) -> tuple[str, int]:
    """Return where `url` points to, and refuse what is not this machine: load is for one's own servers."""
    if url.scheme != "http" or url.hostname is None:
        raise SystemExit("the URL must start with http:// and name a host")
    try:
        address = socket.gethostbyname(url.hostname)
    except OSError as error:
        raise SystemExit(f"{url.hostname} has no address: {error}") from error
    if not ipaddress.ip_address(address).is_loopback:
        raise SystemExit(f"{url.hostname} is not a loopback address; this client loads its own machine only")
    return address, url.port or 80


def measure(loop: OpenLoop, rate: float, seconds: float, warmup: float) -> Outcome:
    """Run one measurement after `warmup` seconds of the same load that are not counted."""
    gc.disable()
    try:
        # A server that leaves the warm-up unanswered would answer it in the midst of the measurement.
        if warmup > 0 and (before := loop.run(rate, warmup)).unanswered:
            return before
        return loop.run(rate, seconds)
    finally:
        gc.enable()
        loop.close()


def show(outcome: Outcome) -> None:
    """Print one outcome for people."""
    summary = outcome.summary()
    print(
        f"{outcome.answered} answers at {outcome.rate:.0f}/s, late {summary['late_share']:.2%}, errors {outcome.errors}"
    )
    for name, value in summary["latency_us"].items() if outcome.answered else ():
        print(f"  {name:>6} {value:10.1f} us")


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--rate", type=float, default=1000, help="requests per second")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--warmup", type=float, default=0.5, help="seconds of load that are not counted")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--method", default="POST")
    parser.add_argument("--body", type=Path, help="file with the request body")
    parser.add_argument("--header", action="append", default=[], help="a header line, 'Name: value'")
    parser.add_argument("--json", type=Path, help="file for the outcome with its HDR histogram")
    args = parser.parse_args()
    if not (0 < args.rate <= RATE_MAX and 0 < args.seconds <= SECONDS_MAX and 0 < args.connections <= CONNECTIONS_MAX):
        raise SystemExit(
            f"at most {RATE_MAX} requests/s, {SECONDS_MAX} s and {CONNECTIONS_MAX} connections, all above 0"
        )
    request = encode_request(urlsplit(args.url), args.body.read_bytes() if args.body else b"", args.header, args.method)
    loop = OpenLoop(loopback_address(urlsplit(args.url)), request, args.connections)
    outcome = measure(loop, args.rate, args.seconds, args.warmup)
    show(outcome)
    if args.json:
        args.json.write_text(json.dumps(outcome.summary(), indent=2) + "\n")
    if outcome.errors:
        sys.exit(1)


if __name__ == "__main__":
    main()
