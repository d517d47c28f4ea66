"""A client of raw HTTP that can send a request in pieces.

Every error that a client reads here is checked against the table of error codes (error_bodies.py).
"""

import asyncio
import json
import socket
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

from tests.support.error_bodies import check_error, is_error
from tests.support.http_requests import target_of
from tests.support.waiting import SECONDS


class Response(NamedTuple):
    """An HTTP response as received, without its date."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of a header, or None."""
        return dict(self.headers).get(name)

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


CLOSED = Response(0, (), b"")
# The body with which uvicorn's own protocol answers bytes that are not HTTP.
UVICORN_MALFORMED = b"Invalid HTTP request received."


def checked(response: Response, target: str | None = None, *, has_body: bool = True) -> Response:
    """Return a response; check it against the table of error codes if it is an error with a body."""
    if has_body and response.body != UVICORN_MALFORMED and is_error(response.status, response.body):
        check_error(response.status, dict(response.headers), response.body, target)
    return response


class Receivers(Protocol):
    """Servers on an event loop that count the bytes that they receive.

    Attributes:
        loop: The event loop.
        received: The number of bytes received so far.
    """

    loop: asyncio.AbstractEventLoop
    received: int

    async def wait_received(self, count: int) -> None:
        """Wait until the servers have received this many bytes in total."""


class ClientConnection:
    """A client's end of a connection, on the event loop of the servers.

    Args:
        servers: The servers, one of which is connected.
        end: The connected socket.
    """

    def __init__(self, servers: Receivers, end: socket.socket) -> None:
        self.servers = servers
        self.end = end
        self.unread = b""

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        await self.servers.loop.sock_sendall(self.end, data)

    async def send_pieces(self, pieces: Iterable[bytes]) -> None:
        """Send pieces, each after the server has received the previous one; nothing else may send meanwhile."""
        for piece in pieces:
            goal = self.servers.received + len(piece)
            await self.send(piece)
            await self.servers.wait_received(goal)

    async def ask(self, request: bytes) -> Response:
        """Send a request and read its response."""
        await self.send(request)
        return await self.read(target_of(request), has_body=not request.startswith(b"HEAD"))

    async def more(self) -> bool:
        """Read what has arrived; return False at the end of the connection."""
        try:
            async with asyncio.timeout(SECONDS):
                data = await self.servers.loop.sock_recv(self.end, 1 << 18)
        except ConnectionResetError:
            return False
        self.unread += data
        return bool(data)

    async def read(self, target: str | None = None, *, has_body: bool = True) -> Response:
        """Read one response, or CLOSED if the connection ends before it is complete; check errors.

        Args:
            target: The request's target, if it is known.
            has_body: False for the response to HEAD.
        """
        while b"\r\n\r\n" not in self.unread:
            if not await self.more():
                return CLOSED
        head, _, self.unread = self.unread.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        assert first.startswith("HTTP/1."), "the response before this one was longer than its head says"
        headers = tuple((name, value) for name, _, value in (line.partition(": ") for line in lines) if name != "date")
        length = int(dict(headers).get("content-length", 0)) if has_body else 0
        while len(self.unread) < length:
            if not await self.more():
                return CLOSED
        body, self.unread = self.unread[:length], self.unread[length:]
        return checked(Response(int(first.split()[1]), headers, body), target, has_body=has_body)

    async def ended(self) -> bool:
        """Return whether the connection ends without another byte."""
        return not self.unread and not await self.more()
