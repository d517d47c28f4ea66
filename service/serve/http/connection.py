"""One connection: its state, how a response is written to it, and how it ends.

    cycle    what uvicorn reads of the newest request: None, its own cycle, or a PendingRequest of the fast path

protocol.py parses the bytes and chooses between the fast path and FastAPI.
"""

import asyncio
from typing import TYPE_CHECKING, Any, Final, cast

from service.log_events import logger
from service.serve.access_log import ANSWERED_EARLY
from service.serve.http.response_forms import ResponseForm, join_headers
from service.serve.http.shared_state import ConnectionFlow, PendingRequest
from service.serve.http.timed_protocol import BODY, HEAD, IDLE, NEVER, TimedProtocol
from service.serve.models.endpoint import Endpoint
from service.serve.request_id import REQUEST_IDS, request_id
from service.serve.responses import BROKEN, HttpResponse, RequestHead, error

if TYPE_CHECKING:
    from service.serve.http.remembered_heads import CachedHead

# After a response that came before the end of its request, the client has this time to read it.
LINGER_SECONDS: Final = 2.0

SLOW: Final = error("request_timeout", "The request took too long to arrive; send it again on a new connection.")


class Connection(TimedProtocol):
    """The state of one connection, for the fast path and FastAPI alike."""

    endpoint: Endpoint | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # uvicorn's own arguments
        super().__init__(*args, **kwargs)
        self.kind = self.shared.usual_kind
        self.peer: str | None = None  # the address of the connection
        self.url = b""
        self.endpoint = None
        self.parts: list[bytes] = []
        self.held = 0  # body bytes of the newest request, counted in the shared state
        self.head_bytes = 0
        self.http_version = "1.1"  # of the newest request
        self.fields: dict[bytes, bytes] = {}  # the newest request's headers by name
        self.request = RequestHead()  # those of them that its response depends on, if the fast path answers
        self.message_ended = False
        self.chunk: bytes | None = None
        self.later: asyncio.Future[HttpResponse] | None = None  # the response that is being made
        self.cached: CachedHead | None = None  # of the newest request whose head was remembered

    # Callbacks of the transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Accept a connection, or close it at once if there are too many."""
        super().connection_made(transport)
        self.flow = ConnectionFlow(transport, self.pipeline)
        self._rest()
        self.peer = None if self.client is None else self.client[0]
        if not self.shared.admission.enter(self.peer):
            transport.abort()
        self.shared.is_draining()  # else the first request of a client that was queued could repeat a remembered head

    def connection_lost(self, exc: Exception | None) -> None:
        """Release what the connection held."""
        self.shared.admission.leave(self.peer)
        self.deadline = NEVER
        self._release()
        super().connection_lost(exc)
        if self.later is not None:
            self.later.cancel()  # a request that waits for its turn is dropped

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's own signature
        """Keep a half-closed connection open for a response that is still to come."""
        if self.phase == IDLE and self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
            return True
        return False

    # Responses

    def _write(self, response: HttpResponse, cycle: PendingRequest) -> None:
        """Write the response of a fast-path request and go on with the next one."""
        cycle.response_complete = True
        if self.transport.is_closing():
            return
        if cycle.request_id is None and cycle.keep_alive and not response.headers and cycle.method != b"HEAD":
            self._send_usual(response, cycle.form)
        else:
            self._send(
                response,
                cycle.form,
                cycle.request_id,
                closes=not cycle.keep_alive,
                has_body=cycle.method != b"HEAD",
            )
            if not cycle.keep_alive:
                self.transport.close()
        self.on_response_complete()

    def _send_usual(self, response: HttpResponse, form: ResponseForm) -> None:
        """Write a whole response as `_send` does, if it has no further headers and neither closes nor was named."""
        status, body, content_type, _, code = response
        self.transport.write(
            b"%b%d\r\nx-request-id: %b-%x\r\n\r\n%b"
            % (
                form.head(status, content_type, self.server_state.default_headers),
                len(body),
                REQUEST_IDS.series,
                next(form.numbers),
                body,
            )
        )
        counters = self.shared.counters
        counters.statuses[status] += 1
        if code:
            counters.count_refusal(code)

    def _send(
        self,
        response: HttpResponse,
        form: ResponseForm,
        sent_id: bytes | None,
        *,
        closes: bool,
        has_body: bool = True,
    ) -> None:
        """Write a whole response, its headers in the order in which uvicorn writes the application's.

        Args:
            response: The response.
            form: The form of responses to such a request.
            sent_id: The request's X-Request-Id.
            closes: Whether the connection is closed after the response.
            has_body: Whether the body is written; it is not for HEAD.
        """
        status, body, content_type, headers, code = response
        start = (form.last if closes else form).head(status, content_type, self.server_state.default_headers)
        closing = b"connection: close\r\n" if closes else b""
        text = b"%b%d\r\n%bx-request-id: %b\r\n%b\r\n%b" % (
            start,
            len(body),
            join_headers(headers),
            request_id(sent_id),
            closing,
            body if has_body else b"",
        )
        self.transport.write(text)
        counters = self.shared.counters
        counters.statuses[status] += 1
        if code:
            counters.count_refusal(code)

    def _log_failure(self, error: BaseException, cycle: PendingRequest) -> HttpResponse:
        """Log a fault of the service and return the response, which must have the id of that line."""
        cycle.request_id = request_id(cycle.request_id)
        logger.event("request_failed", exc_info=error, request_id=cycle.request_id.decode())
        return BROKEN

    def on_response_complete(self) -> None:
        """Go on after a response: with the next request in the pipeline, or wait."""
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
        """Set the deadline of a connection that waits for a request, or for the rest of one already answered."""
        if self.phase == IDLE:
            self.deadline = self.loop.time() + self.shared.settings.keep_alive_seconds
        elif self.phase == BODY and self.cycle is not None and self.cycle.response_complete:
            self.deadline = self.loop.time() + LINGER_SECONDS

    def _release(self) -> None:
        """Give the body bytes of the newest request back to the shared."""
        self.shared.body_bytes -= self.held
        self.held = 0

    # The end of a connection

    def _leave(self, response: HttpResponse) -> None:
        """Answer a request that cannot be read on, and end the connection once the client could read the response.

        Closing at once would reset the connection while the client still sends, and the response would be lost.
        """
        if self.leaving:
            return
        self.leaving = True
        self.deadline = self.loop.time() + LINGER_SECONDS
        if self.transport.is_closing():
            return
        cycle = self.cycle
        if self.phase == BODY and cycle is not None and cycle.response_complete:
            self._end_writing()  # the request was answered before its end: a second response would answer another one
            return
        if cycle is not None and not cycle.response_complete:
            if self.phase != BODY or self.pipeline or cycle.response_started:
                cycle.keep_alive = False  # an earlier response is unfinished: it will be the last
                return
            cycle.disconnected = True  # the application need not answer an incomplete request
            if self.endpoint is None:
                cast("Any", cycle.scope)[ANSWERED_EARLY] = True  # do not count the application's response too
            cycle.message_event.set()
        self._release()
        self.endpoint = None
        # Of a head that is not complete, the headers that have arrived count.
        fields = self.fields if self.phase == BODY else dict(self.headers or ()) if self.phase == HEAD else {}
        head = RequestHead.of(fields)
        is_head = self.url != b"" and self.parser.get_method() == b"HEAD"
        self._send(response, self.shared.form(head.origin), head.request_id, closes=True, has_body=not is_head)
        self.server_state.total_requests += 1
        self._end_writing()

    def _end_writing(self) -> None:
        """Tell the client that no further response comes; it may still send what is discarded."""
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def expire(self) -> None:
        """Close a connection whose time is over; answer first if a request has begun and none is in progress."""
        if self.leaving or self.flow.write_paused or self.transport.is_closing():
            self.transport.abort()
        elif self.phase == HEAD or (self.phase == BODY and not self.cycle.response_complete):
            self._leave(SLOW)
        else:
            self.deadline = NEVER
            self.transport.close()

    # The end of the service

    def begin_drain(self) -> None:
        """Make the newest request's response the last one; those of later requests are (`SharedState.is_draining`)."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete and not cycle.response_started:
            cycle.keep_alive = False

    def close_quiet(self) -> None:
        """Close a connection that waits for a request."""
        self.transport.close()

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        return int(self.transport.get_extra_info("socket").fileno())
