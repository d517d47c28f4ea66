"""One connection of the front door, but for what it reads: its state, how an answer is written, and how it ends.

    phase       IDLE -> HEAD (first byte) -> BODY (headers complete) -> IDLE (message complete)
    cycle       what uvicorn reads of the newest request: None, its own cycle, or a Pending for a hot one
    deadline    when the connection is closed if nothing happens: idle, headers, body, and a client that does not read

door.py reads and decides who answers.
"""

import asyncio
from typing import Any, ClassVar, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.serve.asgi import ANSWERED_EARLY
from service.serve.http.shared_state import CachedHead, ConnectionFlow, PendingRequest, SharedState
from service.serve.models.served_model import Endpoint
from service.serve.request_id import REQUEST_IDS, request_id
from service.serve.responses import HttpResponse, RequestHead, error

IDLE, HEAD, BODY = range(3)
NEVER: Final = float("inf")
# Time for a client to read an answer that came before the end of its request, until the connection is closed.
LINGER_SECONDS: Final = 2.0

# The head of a request that has no id of its own.
NO_HEAD: Final = RequestHead(None, None, None, None)

SLOW: Final = error("request_timeout", "The request took too long to arrive.")


class Connection(HttpToolsProtocol):
    """What every connection is, whoever answers on it."""

    gate: ClassVar[SharedState]
    endpoint: Endpoint | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # uvicorn's own arguments
        super().__init__(*args, **kwargs)
        self.phase = IDLE
        self.deadline = NEVER
        self.paused_at = NEVER  # since when the client does not read
        self.url = b""
        self.leaving = False  # an answer said that the connection ends; what still comes is thrown away
        self.last = False  # the service stops: the next answer on this connection is its last
        self.endpoint = None
        self.parts: list[bytes] = []
        self.held = 0  # body bytes of the newest request, counted in the gate
        self.head_bytes = 0
        self.fields: dict[bytes, bytes] = {}  # the newest request's headers by name
        self.message_ended = False
        self.chunk: bytes | None = None
        self.plan: CachedHead | None = None  # of the newest request whose head was remembered

    # What the transport calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Take a connection, or close it at once where there are too many."""
        super().connection_made(transport)
        self.flow = ConnectionFlow(transport, self.pipeline)
        self._rest()
        if len(self.connections) > self.gate.settings.connections_max:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of what the connection held."""
        self.deadline = NEVER
        self._release()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's own signature
        """Keep half a connection open for an answer that is still to come."""
        if self.phase == IDLE and self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
            return True
        return False

    def pause_writing(self) -> None:
        """Give a client that does not read its answer a limited time; nothing is read from it meanwhile."""
        self.flow.pause_writing()
        self.paused_at = self.loop.time()

    def resume_writing(self) -> None:
        """Go on with a client that reads again; the pause was none of its time."""
        self.flow.resume_writing()
        self.deadline += self.loop.time() - self.paused_at

    # Answering

    def _write(self, answer: HttpResponse, cycle: PendingRequest, head: RequestHead) -> None:
        """Write the answer to a hot request and go on with what waits behind it."""
        cycle.response_complete = True
        if self.transport.is_closing():
            return
        self._send(answer, head, closes=not cycle.keep_alive)
        if self.access_log:
            self._log_access(b"POST", cycle.url, cycle.version, answer.status)
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _send(self, answer: HttpResponse, head: RequestHead, *, closes: bool) -> None:
        """Write one whole answer, its headers in the order in which uvicorn writes the application's."""
        status, body, content_type, headers = answer
        gate = self.gate
        start = gate.head(status, content_type, self.server_state.default_headers)
        if head is NO_HEAD and not headers and not closes:
            text = b"%b%d\r\nx-request-id: %b-%x\r\n\r\n%b" % (
                start,
                len(body),
                REQUEST_IDS.series,
                next(gate.numbers),
                body,
            )
        else:
            extra = b"".join([b"%b: %b\r\n" % header for header in headers])
            closing = b"connection: close\r\n" if closes else b""
            identity = request_id(head.request_id)
            text = b"%b%d\r\n%bx-request-id: %b\r\n%b\r\n%b" % (start, len(body), extra, identity, closing, body)
        self.transport.write(text)
        gate.meter.statuses[status] += 1

    def _log_access(self, method: bytes, url: bytes, version: str, status: int) -> None:
        client = f"{self.client[0]}:{self.client[1]}" if self.client else ""
        path = url.partition(b"?")[0].decode("ascii", "replace")
        self.access_logger.info('%s - "%s %s HTTP/%s" %d', client, method.decode(), path, version, status)

    def on_response_complete(self) -> None:
        """Go on after an answer: with the next request in the pipeline, or to rest."""
        self.server_state.total_requests += 1
        if self.held:
            self._release()
        if self.transport.is_closing():
            return
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        else:
            self._rest()
        if self.flow.read_paused:
            self.flow.resume_reading()

    def _rest(self) -> None:
        """Set the deadline of a connection that waits: for a request, or for the rest of one already answered."""
        if self.phase == IDLE:
            self.deadline = self.loop.time() + self.gate.settings.keep_alive_seconds
        elif self.phase == BODY and self.cycle is not None and self.cycle.response_complete:
            self.deadline = self.loop.time() + LINGER_SECONDS

    def _release(self) -> None:
        """Give the body bytes of the newest request back to the gate."""
        self.gate.body_bytes -= self.held
        self.held = 0

    # Leaving

    def _leave(self, answer: HttpResponse) -> None:
        """Answer what cannot be read on, and end the connection when the client has had time to read that.

        Closing at once would reset the connection while the client still sends, and the answer would be lost.
        """
        if self.leaving:
            return
        self.leaving = True
        self.deadline = self.loop.time() + LINGER_SECONDS
        if self.transport.is_closing():
            return
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if self.phase != BODY or self.pipeline or cycle.response_started:
                cycle.keep_alive = False  # an earlier answer is unfinished: it will be the last
                return
            cycle.disconnected = True  # the application need not answer what it did not get whole
            if self.endpoint is None:
                cast("Any", cycle.scope)[ANSWERED_EARLY] = (
                    True  # and what it answers all the same is not counted beside this answer
                )
            cycle.message_event.set()
        self._release()
        self.endpoint = None
        self._send(answer, RequestHead.of(self.fields), closes=True)
        if self.access_log:
            self._log_access(self.parser.get_method(), self.url, self.parser.get_http_version(), answer.status)
        self.server_state.total_requests += 1
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def is_late(self, now: float) -> bool:
        """Whether the time of the client is over."""
        if self.flow.write_paused and not self.leaving:
            return self.paused_at + self.gate.settings.write_seconds < now
        return self.deadline < now

    def expire(self) -> None:
        """Close a connection whose time is over, with an answer where a request has begun and none is under way."""
        if self.leaving or self.flow.write_paused:
            self.transport.abort()
        elif self.phase == HEAD or (self.phase == BODY and not self.cycle.response_complete):
            self._leave(SLOW)
        else:
            self.deadline = NEVER
            self.transport.close()

    def shutdown(self) -> None:
        """Close the connection as soon as no request is under way."""
        self.last = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
        elif self.phase == IDLE or self.leaving:
            self.transport.close()
