"""A paced load whose requests differ: they leave on a schedule over many connections, and each answer is kept.

openloop.py repeats the bytes of one request. Here each request may be another one, and a refusal is an answer too. A
request that is due while all connections wait for answers is not sent, but counted.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import uvloop

# The pause between two looks at the schedule.
TICK_SECONDS = 0.001
# The time for the last answers after the end of the schedule.
LAST_SECONDS = 10.0


class Answer(NamedTuple):
    """The answer to one request: its status, the seconds from its first byte sent, and what the request was."""

    status: int
    seconds: float
    tag: Any


@dataclass
class PacedLoad:
    """A load and its outcome.

    Attributes:
        rate: Requests a second; None to send the next one with each answer.
        connections: The number of connections.
        make: Makes the next request: its bytes, and a tag for its answer.
        answers: Every answer.
        unsent: The requests that were due while all connections were busy.
        broken: The connections that ended without an answer.
    """

    rate: float | None
    connections: int
    make: Callable[[], tuple[bytes, Any]]
    answers: list[Answer] = field(default_factory=list)
    unsent: int = 0
    broken: int = 0


class Client(asyncio.Protocol):
    """One connection, which waits for an answer or is in the list of the idle ones."""

    def __init__(self, load: PacedLoad, idle: list["Client"]) -> None:
        self._load, self._idle = load, idle
        self._transport: asyncio.Transport
        self._unread = b""
        self._sent: tuple[float, Any] | None = None
        self._ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be idle."""
        self._transport = cast("asyncio.Transport", transport)
        self._idle.append(self)

    def connection_lost(self, _error: Exception | None) -> None:
        """Count a connection that ends without an answer."""
        self._load.broken += self._sent is not None
        if self in self._idle:
            self._idle.remove(self)
        self._ended.set_result(None)

    async def close(self) -> None:
        """Close the connection."""
        self._transport.abort()
        await self._ended

    def send_next(self) -> None:
        """Send the next request of the load."""
        data, tag = self._load.make()
        self._sent = (time.perf_counter(), tag)
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        """Read an answer, and be idle again."""
        self._unread += data
        head, end, body = self._unread.partition(b"\r\n\r\n")
        if not end or self._sent is None:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        began, tag = self._sent
        self._unread, self._sent = body[length:], None
        self._load.answers.append(Answer(int(head[9:12]), time.perf_counter() - began, tag))
        self._idle.append(self)


async def _run_load(port: int, load: PacedLoad, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    idle: list[Client] = []
    clients = [
        (await loop.create_connection(lambda: Client(load, idle), "127.0.0.1", port))[1]
        for _ in range(load.connections)
    ]
    began, sent = time.perf_counter(), 0
    while (now := time.perf_counter() - began) < seconds:
        due = len(idle) if load.rate is None else int(now * load.rate) - sent
        sent += due
        for _ in range(due):
            if idle:
                idle.pop(0).send_next()
            else:
                load.unsent += 1
        await asyncio.sleep(0 if load.rate is None else TICK_SECONDS)
    end = time.perf_counter() + LAST_SECONDS
    while len(idle) + load.broken < load.connections and time.perf_counter() < end:  # noqa: ASYNC110  # no event
        await asyncio.sleep(TICK_SECONDS)
    for client in clients:
        await client.close()


def run_loads(port: int, loads: Sequence[PacedLoad], seconds: float) -> None:
    """Send some loads to a port of this machine at the same time."""

    async def run() -> None:
        await asyncio.gather(*(_run_load(port, load, seconds) for load in loads))

    uvloop.run(run())


def post(path: str, body: bytes, *headers: str) -> bytes:
    """Return the bytes of a request."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}"]).encode() + b"\r\n\r\n" + body
