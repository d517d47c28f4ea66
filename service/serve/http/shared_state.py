"""What the connections of one worker share: the handler, the limits, the remembered heads and the counts.

A head that was parsed once is remembered with what it meant. Clients that keep a connection send the same head again
and again; the same bytes then mean the same without being parsed, and the body stands right behind them.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from service.process.shared_memory import BODY_BYTES, CONNECTIONS, IN_FLIGHT
from service.serve.asgi import Envelope, Reply
from service.serve.handlers.predict import PredictHandler
from service.serve.metrics.counters import WorkerCounters
from service.serve.models.served_model import Endpoint
from service.serve.request_id import REQUEST_IDS
from service.serve.responses import JSON, error
from service.settings import Settings

# Remembered heads of a worker, and the longest: a few MiB however many clients there are.
PLANS_MAX: Final = 4096
PLAN_BYTES_MAX: Final = 2048

# The body of the answer to a lone row begins so.
PREDICTIONS: Final = b'{"predictions":'

BUSY: Final = error("overloaded", "The server has too many requests in flight; try again in a moment.")


class NullEvent:
    """Stands in for the event that uvicorn sets on a cycle; nobody waits for a hot request's."""

    def set(self) -> None:
        """Do nothing."""


class PendingRequest:
    """A hot request from its headers to its answer, with the attributes that uvicorn reads of a cycle."""

    __slots__ = ("disconnected", "keep_alive", "response_complete", "url", "version")
    message_event = NullEvent()
    more_body = False
    response_started = False

    def __init__(self, url: bytes, version: str, *, keep_alive: bool) -> None:
        self.url = url
        self.version = version
        self.keep_alive = keep_alive
        self.response_complete = False
        self.disconnected = False


class CachedHead:
    """What a remembered head means.

    Attributes:
        head: The head's bytes, with the empty line behind it.
        size: The bytes of such a request: of the head, and of the body as long as the head says.
        endpoint: Who answers.
        tensor_header: The size of the body's JSON part, as the head says it.
        url: The path, for the access log.
        table: The plans of the models that were live; another table is in force when they are not any more.
    """

    __slots__ = ("endpoint", "head", "size", "table", "tensor_header", "url")

    def __init__(  # noqa: PLR0917  # a record
        self, head: bytes, size: int, endpoint: Endpoint, tensor_header: bytes | None, url: bytes, table: "Plans"
    ) -> None:
        self.head = head
        self.size = size
        self.endpoint = endpoint
        self.tensor_header = tensor_header
        self.url = url
        self.table = table


Plans = dict[bytes, CachedHead]


class ConnectionFlow(FlowControl):
    """Reading stops for two reasons, kept apart: what was read is not taken yet, and the client does not read.

    Not taken yet is a body, or a request in the pipeline.
    """

    def __init__(self, transport: asyncio.Transport, pipeline: deque[Any]) -> None:
        super().__init__(transport)
        self._transport = transport
        self._pipeline = pipeline

    def pause_reading(self) -> None:
        """Stop reading until a body is taken."""
        self.read_paused = True
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again, unless the client does not read either, or requests wait for their turn."""
        if self.read_paused and not self._pipeline:
            self.read_paused = False
            if not self.write_paused:
                self._transport.resume_reading()

    def pause_writing(self) -> None:
        """Stop reading what would only bring more answers."""
        super().pause_writing()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Read again, unless a body still waits to be taken."""
        was_paused = self.write_paused
        super().resume_writing()
        if was_paused and not self.read_paused and not self._transport.is_closing():
            self._transport.resume_reading()


class SharedState:
    """What the connections of one worker share: the handler, the limits, the remembered heads and the counts."""

    def __init__(self, answers: PredictHandler, meter: WorkerCounters, settings: Settings) -> None:
        self.answers = answers
        self.meter = meter
        self.settings = settings
        self.plans: Plans = {}
        self.numbers = REQUEST_IDS.numbers
        self.keep_alive_seconds = settings.keep_alive_seconds
        self.most = settings.requests_in_flight_max
        self.busy = Envelope(busy, meter.count_response)
        self.in_flight = 0
        self.body_bytes = 0
        self._default_headers: list[tuple[bytes, bytes]] | None = None
        self._heads: dict[tuple[int, bytes], bytes] = {}
        self._lone_form = b""
        answers.live.swapped.append(self.forget)

    def forget(self) -> None:
        """Let no remembered head count any more: the models have changed."""
        self.plans = {}

    def remember(self, head: bytes, size: int, endpoint: Endpoint, tensor_header: bytes | None, url: bytes) -> None:
        """Keep what a head meant."""
        if len(self.plans) >= PLANS_MAX:
            self.plans.clear()
        self.plans[head] = CachedHead(head, size, endpoint, tensor_header, url, self.plans)

    def head(self, status: int, content_type: bytes, default_headers: list[tuple[bytes, bytes]]) -> bytes:
        """An answer's head up to the value of Content-Length, joined once for each second."""
        if default_headers is not self._default_headers:
            self._renew(default_headers)
        head = self._heads.get((status, content_type))
        if head is None:
            lines = [*default_headers, (b"content-type", content_type)]
            head = STATUS_LINE[status] + b"".join([b"%b: %b\r\n" % line for line in lines]) + b"content-length: "
            self._heads[status, content_type] = head
        return head

    def lone_form(self, default_headers: list[tuple[bytes, bytes]]) -> bytes:
        """The answer to a lone row as a format of the body's length, the request's number and the body's two parts."""
        if default_headers is not self._default_headers:
            self._renew(default_headers)
        return self._lone_form

    def _renew(self, default_headers: list[tuple[bytes, bytes]]) -> None:
        self._default_headers = default_headers
        self._heads.clear()
        head = self.head(200, JSON, default_headers).replace(b"%", b"%%")
        self._lone_form = head + b"%d\r\nx-request-id: " + REQUEST_IDS.series + b"-%x\r\n\r\n" + PREDICTIONS + b"%b%b"

    def is_full(self, more_bytes: int, tasks: int) -> bool:
        """Whether one more request with a body of that size would be too much, beside the application's `tasks`."""
        settings = self.settings
        return (
            self.in_flight + tasks >= settings.requests_in_flight_max
            or self.body_bytes + more_bytes > settings.body_bytes_in_flight_max
        )

    def tick(self, connections: Iterable[Any], tasks: int, now: float) -> None:
        """Close the connections whose time is over, and publish the gauges; called a few times a second.

        `tasks` are the requests that the application works on.
        """
        count = 0
        for connection in list(connections):
            count += 1
            if connection.is_late(now):
                connection.expire()
        self.meter.now_ms[0] = time.time_ns() // 1_000_000
        self.meter.set_gauge(CONNECTIONS, count)
        self.meter.set_gauge(IN_FLIGHT, self.in_flight + tasks)
        self.meter.set_gauge(BODY_BYTES, self.body_bytes)


async def busy(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer in the application's place while the server has too much at hand."""
    await Reply(BUSY)(scope, receive, send)
