"""An open-loop client of one or several loads; each load sends one request on its own schedule.

Request k of a load is due at start + k / rate. It leaves then if one of the load's connections is free, else as soon as
one is; its latency is answer time minus due time in both cases. The loop spins on non-blocking sockets: the timers of
an event loop tick in milliseconds, which would send 20,000 requests/s as bursts of twenty. So it occupies its core. The
usual case is machine code (burst.py); this file handles the unusual ones.
"""

import gc
import select
import socket
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import burst
import httptools
import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

PERCENTILES = (50.0, 90.0, 99.0, 99.9)
GRACE_SECONDS = 5.0  # wait for answers after the last request was due
NS = 1_000_000_000
HIGHEST_NS = 3600 * NS
# More file descriptors than the connections and everything else open need.
DESCRIPTORS_MAX = 8192
clock = time.perf_counter_ns
OK, REDIRECT = 200, 300
COUNTS = ("rate", "seconds", "sent", "answered", "not_2xx", "broken", "unanswered")
READ_BYTES = 1 << 18


class Load(NamedTuple):
    """One request that is sent `rate` times a second over some connections."""

    request: bytes
    rate: float
    connections: int


@dataclass
class Outcome:
    """The measurements of one load in one run; latencies are nanoseconds from due time to last byte."""

    rate: float
    seconds: float
    sent: int = 0
    ended: int = 0  # finished requests, successful or not
    not_2xx: int = 0
    broken: int = 0  # connections closed under a request
    unanswered: int = 0
    late: int = 0  # requests that left late: no connection was free, or this client is saturated
    latencies_ns: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def answered(self) -> int:
        """Return the number of requests with a successful answer."""
        return len(self.latencies_ns)

    @property
    def errors(self) -> int:
        """Return the number of requests without a successful answer."""
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
    """Return the percentiles of a histogram in microseconds, and the histogram itself."""
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
        self.open()

    def open(self) -> None:
        """Connect, and discard any partial answer."""
        self.socket = socket.create_connection(self.address, timeout=GRACE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.poll.register(self.socket, select.EPOLLIN)
        self.rest = memoryview(b"")  # the part of the request that the socket has not accepted yet
        self.reset()

    def reset(self) -> None:
        """Expect the first byte of an answer."""
        self.parser, self.done = httptools.HttpResponseParser(self), False

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
        """Parse a part of an answer; return the status of the answer it completes, or 0 if more is to come."""
        if not data:
            raise ConnectionResetError
        self.parser.feed_data(data)
        if not self.done:
            return 0
        status = self.parser.get_status_code()
        self.reset()
        return int(status)

    def on_message_complete(self) -> None:
        """Note the end of an answer; the parser calls this."""
        self.done = True


class OpenLoop:
    """Send the request of each load again and again, each on its schedule."""

    def __init__(self, address: tuple[str, int], loads: list[Load]) -> None:
        self.loads, self.poll = loads, select.epoll()
        self.request = np.frombuffer(b"".join(load.request for load in loads), np.uint8)
        self.ends = np.cumsum([len(load.request) for load in loads])
        self.busy: dict[int, Connection] = {}
        self.load_of = np.full(DESCRIPTORS_MAX, -1)
        self.due, self.odd = np.full(DESCRIPTORS_MAX, -1), np.zeros(DESCRIPTORS_MAX, np.int64)
        for number, load in enumerate(loads):
            for _ in range(load.connections):
                self.adopt(Connection(address, self.poll), number)
        self.clock = np.zeros(burst.CLOCK_CELLS, np.int64)
        self.cells = np.zeros((len(loads), burst.LOAD_CELLS), np.int64)
        self.idle = np.zeros((len(loads), max(load.connections for load in loads)), np.int64)
        self.answer = np.empty(READ_BYTES, np.uint8)
        self.run(0.0)  # compiles

    def adopt(self, connection: Connection, number: int) -> int:
        """Add a connection to a load; return its file descriptor."""
        fd = connection.socket.fileno()
        self.busy[fd], self.load_of[fd] = connection, number
        self.due[fd], self.odd[fd] = -1, 0
        return fd

    def run(self, seconds: float) -> list[Outcome]:
        """Send each load for `seconds`, and wait for the last answers."""
        outcomes = [Outcome(load.rate, seconds) for load in self.loads]
        totals = [int(load.rate * seconds) for load in self.loads]
        latencies = np.zeros((len(totals), max(totals)), np.int64)
        self.prepare(totals, seconds)
        interval = np.array([NS / load.rate for load in self.loads])
        arrays = (interval, self.idle, self.due, self.odd, self.load_of, self.request, self.answer, latencies)
        while (why := burst.burst(self.clock, self.cells, *arrays)) != burst.DONE:
            self.handle(why, outcomes, latencies)
        for outcome, cells, good in zip(outcomes, self.cells.tolist(), latencies, strict=True):
            outcome.sent, outcome.ended, outcome.late = cells[burst.SENT], cells[burst.ENDED], cells[burst.LATE]
            outcome.latencies_ns = good[: cells[burst.ANSWERED]]
            outcome.unanswered = cells[burst.TOTAL] - outcome.ended
        return outcomes

    def prepare(self, totals: list[int], seconds: float) -> None:
        """Set every cell for a run that starts in a moment."""
        self.cells[:] = 0
        for number, total in enumerate(totals):
            ring = [fd for fd in self.busy if self.load_of[fd] == number]
            self.idle[number, : len(ring)] = ring
            self.cells[number, [burst.TOTAL, burst.TAIL, burst.ROOM]] = total, len(ring), len(ring)
            end = self.ends[number]
            self.cells[number, [burst.BEGIN, burst.END]] = end - len(self.loads[number].request), end
        start = clock() + NS // 1000
        self.clock[:] = 0
        self.clock[[burst.START, burst.EPOLL]] = start, self.poll.fileno()
        self.clock[burst.DEADLINE] = start + int((seconds + GRACE_SECONDS) * NS)

    def handle(self, why: int, outcomes: list[Outcome], latencies: NDArray[np.int64]) -> None:
        """Handle what the inner loop returned for one connection."""
        fd, count = int(self.clock[burst.FD]), int(self.clock[burst.COUNT])
        connection, number = self.busy[fd], int(self.load_of[fd])
        try:
            if why == burst.PART_SENT:
                connection.leave(memoryview(self.loads[number].request)[max(0, count) :])
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
            self.reopen(fd, outcomes[number])
            return
        self.odd[fd] = status == 0
        if status:
            self.finish(fd, status, outcomes[number], latencies[number])

    def finish(self, fd: int, status: int, outcome: Outcome, latencies: NDArray[np.int64]) -> None:
        """Note a complete answer and free its connection."""
        cells = self.cells[self.load_of[fd]]
        if OK <= status < REDIRECT:
            latencies[cells[burst.ANSWERED]] = clock() - self.due[fd]
            cells[burst.ANSWERED] += 1
        else:
            outcome.not_2xx += 1
        cells[burst.ENDED] += 1
        self.due[fd] = -1
        self.rest(fd)

    def rest(self, fd: int) -> None:
        """Let a connection send the next request."""
        number = self.load_of[fd]
        cells = self.cells[number]
        self.idle[number, cells[burst.TAIL] % cells[burst.ROOM]] = fd
        cells[burst.TAIL] += 1

    def reopen(self, fd: int, outcome: Outcome) -> None:
        """Replace a connection that the other side closed; a request under way on it is lost."""
        connection, number, was_busy = self.busy.pop(fd), int(self.load_of[fd]), self.due[fd] >= 0
        connection.socket.close()
        self.due[fd] = -1
        try:
            connection.open()
        except OSError as error:
            raise SystemExit(f"the server takes no more connections: {error}") from error
        other = self.adopt(connection, number)
        if was_busy:
            outcome.broken += 1
            self.cells[number, burst.ENDED] += 1
            self.rest(other)
        else:
            self.idle[number, self.idle[number] == fd] = other

    def close(self) -> None:
        """Close every connection."""
        for connection in self.busy.values():
            connection.socket.close()
        self.poll.close()


def measure(loop: OpenLoop, seconds: float, warmup: float) -> list[Outcome]:
    """Run one measurement after `warmup` seconds of the same loads that are not counted."""
    gc.disable()
    try:
        # A server that leaves the warm-up unanswered would answer it during the measurement.
        before = loop.run(warmup) if warmup > 0 else []
        return before if any(outcome.unanswered for outcome in before) else loop.run(seconds)
    finally:
        gc.enable()
        loop.close()
