"""Open-loop load: requests leave on a fixed schedule, whatever the server does, and latency counts from that schedule.

    python loadtest/openloop.py http://127.0.0.1:8000/v1/models/iris:predict --rate 5000 --seconds 10 --body row.json

A closed-loop client waits for each answer before it asks again, so a stalled server is asked less and its stall is
hardly seen (coordinated omission). Here request k is due at start + k / rate. It leaves then if a connection is free,
else as soon as one is; either way its latency is answer time minus due time.

The loop spins on non-blocking sockets instead of sleeping: timers of an event loop tick in milliseconds, which would
send 20,000 requests/s as bursts of twenty. It therefore occupies its core; pin it away from the server. Its usual turn
is machine code (burst.py); this file does what is unusual.
"""

import argparse
import gc
import ipaddress
import json
import select
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import burst
import httptools
import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

PERCENTILES = (50.0, 90.0, 99.0, 99.9)
RATE_MAX, SECONDS_MAX, CONNECTIONS_MAX = 200_000, 600, 1024
GRACE_SECONDS = 5.0  # how long unanswered requests are waited for after the last one was due
NS = 1_000_000_000
HIGHEST_NS = 3600 * NS
# More file descriptors than the connections and whatever else is open need.
DESCRIPTORS_MAX = 8192
clock = time.perf_counter_ns
OK, REDIRECT = 200, 300
COUNTS = ("rate", "seconds", "sent", "answered", "not_2xx", "broken", "unanswered")
READ_BYTES = 1 << 18


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
    latencies_ns: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def answered(self) -> int:
        """Return how many requests got a good answer."""
        return len(self.latencies_ns)

    @property
    def errors(self) -> int:
        """Return how many requests got no good answer."""
        return self.not_2xx + self.broken + self.unanswered

    def histogram(self) -> HdrHistogram:
        """Return the latencies as an HDR histogram of nanoseconds with three digits."""
        histogram = HdrHistogram(1, HIGHEST_NS, 3)
        values, counts = np.unique(self.latencies_ns, return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            histogram.record_value(max(1, value), count)
        return histogram

    def summary(self) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        counts = {name: getattr(self, name) for name in COUNTS}
        return counts | {"late_share": self.late / max(self.sent, 1)} | latency_of(self.histogram())


def latency_of(histogram: HdrHistogram) -> dict[str, Any]:
    """Return the percentiles of a histogram, in microseconds, and the histogram itself."""
    latency = {f"p{p:g}": histogram.get_value_at_percentile(p) / 1000 for p in PERCENTILES}
    latency |= {"max": histogram.get_max_value() / 1000, "mean": histogram.get_mean_value() / 1000}
    return {"latency_us": latency, "hdr": histogram.encode().decode()}


def pool(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the summaries of several turns of one load as one: the percentiles of all their requests together."""
    histogram = HdrHistogram(1, HIGHEST_NS, 3)
    for turn in turns:
        histogram.add(HdrHistogram.decode(turn["hdr"]))
    late = sum(turn["late_share"] for turn in turns) / len(turns)
    return {"answered": sum(turn["answered"] for turn in turns), "late_share": late} | latency_of(histogram)


class Connection:
    """One keep-alive connection with at most one request under way."""

    def __init__(self, address: tuple[str, int], poll: select.epoll) -> None:
        self.address, self.poll = address, poll
        self.size = 0  # bytes of the last whole answer
        self.open()

    def open(self) -> None:
        """Connect, and forget any half-read answer."""
        self.socket = socket.create_connection(self.address, timeout=GRACE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.poll.register(self.socket, select.EPOLLIN)
        self.rest = memoryview(b"")  # what of the request the socket did not take yet
        self.reset()

    def reset(self) -> None:
        """Expect the first byte of an answer."""
        self.parser, self.seen, self.done = httptools.HttpResponseParser(self), 0, False

    def leave(self, rest: memoryview) -> None:
        """Send more of a request when the socket can take it."""
        self.rest = rest
        self.poll.modify(self.socket, select.EPOLLIN | select.EPOLLOUT)

    def resume(self) -> None:
        """Send more of a long request."""
        self.rest = self.rest[self.socket.send(self.rest) :]
        if not self.rest:
            self.poll.modify(self.socket, select.EPOLLIN)

    def take(self, data: bytes) -> int:
        """Read a part of an answer and return the status of the answer it completes, or 0 while more is to come."""
        if not data:
            raise ConnectionResetError
        self.parser.feed_data(data)
        self.seen += len(data)
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
        self.request, self.poll = np.frombuffer(request, np.uint8), select.epoll()
        made = [Connection(address, self.poll) for _ in range(connections)]
        self.busy = {connection.socket.fileno(): connection for connection in made}
        self.state = np.zeros(burst.CELLS, np.int64)
        self.idle = np.array(list(self.busy), np.int64)
        self.due = np.full(DESCRIPTORS_MAX, -1)
        self.size, self.odd = np.zeros(DESCRIPTORS_MAX, np.int64), np.zeros(DESCRIPTORS_MAX, np.int64)
        self.answer = np.empty(READ_BYTES, np.uint8)
        self.run(1.0, 0.0)  # compiles

    def run(self, rate: float, seconds: float) -> Outcome:
        """Send `rate` requests/s for `seconds`; wait a while for the last answers."""
        outcome, state, total = Outcome(rate, seconds), self.state, int(rate * seconds)
        latencies = np.zeros(total, np.int64)
        self.idle[:] = list(self.busy)
        start = clock() + NS // 1000
        state[:] = 0
        state[[burst.TAIL, burst.EPOLL, burst.TOTAL]] = self.idle.size, self.poll.fileno(), total
        state[[burst.START, burst.DEADLINE]] = start, start + int((seconds + GRACE_SECONDS) * NS)
        arrays = (self.idle, self.due, self.size, self.odd, self.request, self.answer, latencies)
        while (why := burst.burst(state, NS / rate, *arrays)) != burst.DONE:
            self.handle(why, outcome, latencies)
        outcome.sent, outcome.ended, outcome.late = (int(state[cell]) for cell in (burst.SENT, burst.ENDED, burst.LATE))
        outcome.latencies_ns = latencies[: state[burst.ANSWERED]]
        outcome.unanswered = total - outcome.ended
        return outcome

    def handle(self, why: int, outcome: Outcome, latencies: NDArray[np.int64]) -> None:
        """Do what the inner loop left to be done for one connection."""
        fd, count = int(self.state[burst.FD]), int(self.state[burst.COUNT])
        connection = self.busy[fd]
        try:
            if why == burst.PART_SENT:
                connection.leave(memoryview(self.request)[max(0, count) :])
                self.odd[fd] = 1
                return
            if why == burst.ODD_EVENT and count & select.EPOLLOUT:
                connection.resume()
            if why == burst.ODD_EVENT and not count & ~select.EPOLLOUT:
                return
            is_read = why == burst.ODD_ANSWER and count >= 0
            status = connection.take(self.answer[:count].tobytes() if is_read else connection.socket.recv(READ_BYTES))
        except BlockingIOError:
            return
        except (OSError, httptools.HttpParserError):
            self.reopen(fd, outcome)
            return
        self.odd[fd] = status == 0
        if status:
            self.finish(fd, status, outcome, latencies)

    def finish(self, fd: int, status: int, outcome: Outcome, latencies: NDArray[np.int64]) -> None:
        """Note a whole answer, and let its connection rest."""
        state = self.state
        if OK <= status < REDIRECT:
            latencies[state[burst.ANSWERED]] = clock() - self.due[fd]
            state[burst.ANSWERED] += 1
        else:
            outcome.not_2xx += 1
        state[burst.ENDED] += 1
        self.due[fd], self.size[fd] = -1, self.busy[fd].size
        self.rest(fd)

    def rest(self, fd: int) -> None:
        """Let a connection take the next request."""
        self.idle[self.state[burst.TAIL] % self.idle.size] = fd
        self.state[burst.TAIL] += 1

    def reopen(self, fd: int, outcome: Outcome) -> None:
        """Replace a connection that the other side closed; a request under way on it is lost."""
        connection = self.busy.pop(fd)
        connection.socket.close()
        try:
            connection.open()
        except OSError as error:
            raise SystemExit(f"the server takes no more connections: {error}") from error
        other = connection.socket.fileno()
        self.busy[other] = connection
        was_busy = self.due[fd] >= 0
        self.due[[fd, other]], self.size[[fd, other]], self.odd[[fd, other]] = -1, 0, 0
        if was_busy:
            outcome.broken += 1
            self.state[burst.ENDED] += 1
            self.rest(other)
        else:
            self.idle[self.idle == fd] = other

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
