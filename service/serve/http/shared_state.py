"""State that the connections of one worker share: the dispatcher, the limits, the remembered heads and the counts."""

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl

from service.access.exposure import requires_certificates
from service.logs import AccessLog
from service.process.shared_memory import BODY_BYTES, CONNECTIONS, IN_FLIGHT, QUEUE_NANOSECONDS, SHEDDING, SharedMemory
from service.serve.access_log import AccessEntry, LoggedApplication
from service.serve.asgi import Envelope, Reply
from service.serve.client_address import Proxies
from service.serve.handlers.dispatcher import Dispatcher
from service.serve.handlers.probes import Probes
from service.serve.http.admission import Admission
from service.serve.http.remembered_heads import RememberedHeads
from service.serve.http.response_forms import ResponseForm
from service.serve.metrics.counters import WorkerCounters
from service.serve.models.registry import ModelRegistry
from service.serve.responses import KEEP_ALIVE, OVERLOADED, Header
from service.settings import Settings

# Connections that are looked at in one turn of the event loop, and of those the ones that are closed: each number takes
# some tenth of a millisecond (measured by hand), so that requests do not wait for thousands of slow clients.
CHECKED_PER_TURN: Final = 64
CLOSED_PER_TURN: Final = 2


class NullEvent:
    """Stands in for the event that uvicorn sets on a cycle; the fast path waits for none."""

    def set(self) -> None:
        """Do nothing."""


class PendingRequest:
    """A fast-path request from its headers to its response, with the attributes that uvicorn reads of a cycle.

    Attributes:
        entry: Its entry of the access log; set only if there is one.
    """

    __slots__ = ("disconnected", "entry", "form", "keep_alive", "request_id", "response_complete")
    message_event = NullEvent()
    method = b"POST"
    more_body = False
    response_started = False
    entry: AccessEntry

    def __init__(self, form: ResponseForm, request_id: bytes | None = None, *, keep_alive: bool) -> None:
        self.form = form
        self.request_id = request_id
        self.keep_alive = keep_alive
        self.response_complete = False
        self.disconnected = False


class PendingGet(PendingRequest):
    """The same for a request without a body."""

    __slots__ = ()
    method = b"GET"


class PendingHead(PendingRequest):
    """The same for a request whose response has no body either."""

    __slots__ = ()
    method = b"HEAD"


class ConnectionFlow(FlowControl):
    """Pauses reading for two independent reasons: unconsumed input, and a client that does not read.

    Unconsumed input is a body, or a request in the pipeline.
    """

    def __init__(self, transport: asyncio.Transport, pipeline: deque[Any]) -> None:
        super().__init__(transport)
        self._transport = transport
        self._pipeline = pipeline

    def pause_reading(self) -> None:
        """Stop reading until a body is consumed."""
        self.read_paused = True
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again, unless the client does not read either, or requests wait in the pipeline."""
        if self.read_paused and not self._pipeline:
            self.read_paused = False
            if not self.write_paused:
                self._transport.resume_reading()

    def pause_writing(self) -> None:
        """Stop reading requests that would only cause more responses."""
        super().pause_writing()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Read again, unless a body is still unconsumed."""
        was_paused = self.write_paused
        super().resume_writing()
        if was_paused and not self.read_paused and not self._transport.is_closing():
            self._transport.resume_reading()


class SharedState:
    """State that the connections of one worker share.

    Args:
        registry: The models that are served.
        dispatcher: Picks the handler of a request.
        probes: Answers each path of liveness and readiness.
        counters: The worker's counters.
        settings: The limits.
        memory: The shared memory, which shows whether the service stops.
        access_log: Where each response gets a line, or None.

    Attributes:
        heads: The remembered heads.
        proxies: The proxies whose headers are trusted.
        admission: Decides which clients may connect.
        usual_kind: The kind of connections by the only port, and without a certificate.
        usual_form: The form of the responses to requests that come from no web page.
    """

    def __init__(
        self,
        registry: ModelRegistry,
        dispatcher: Dispatcher,
        probes: Probes,
        counters: WorkerCounters,
        settings: Settings,
        *,
        memory: SharedMemory,
        access_log: AccessLog | None = None,
    ) -> None:
        self.registry = registry
        self.dispatcher = dispatcher
        self.probes = probes
        self.counters = counters
        self.settings = settings
        self.heads = RememberedHeads()
        self.usual_kind = self.heads.kind()
        self._memory = memory
        self._unchecked: deque[Any] = deque()  # connections whose times are still to be looked at
        self._draining = False
        self.keep_alive_seconds = settings.keep_alive_seconds
        self.in_flight_max = settings.requests_in_flight_max
        proxies = Proxies(settings.proxies, settings.proxy_header)
        self.proxies = proxies
        self.admission = Admission(settings, proxies)
        busy_app: ASGIApp = Envelope(busy, counters.count_response, counters.count_route, dispatcher.origins)
        self.busy = busy_app if access_log is None else LoggedApplication(busy_app, access_log, proxies)
        self.in_flight = 0
        self.body_bytes = 0
        self.usual_form = ResponseForm(dispatcher.origins.headers(None))
        self._forms: dict[tuple[Header, ...], ResponseForm] = {}
        self._is_local_without_keys = not (settings.open or requires_certificates(settings))
        registry.on_change.append(self.heads.forget)

    @property
    def is_local(self) -> bool:
        """Whether only requests for this machine are answered: no keys and no certificates, and not SOFTSTEP_OPEN."""
        return self._is_local_without_keys and self.dispatcher.authorizer.is_open

    def begin_drain(self) -> None:
        """Make every response the last one on its connection."""
        self._draining = True
        self.heads.forget()

    def is_draining(self) -> bool:
        """Return whether each response is the last one on its connection; ask for each new head and each new client.

        The service stops when its memory says so; the worker's own signal comes a moment later. No head is remembered
        meanwhile, so a request whose head is remembered need not ask.
        """
        if not self._draining and self._memory.draining:
            self.begin_drain()
        return self._draining

    def form(self, origin: bytes | None, *, keep_alive_asked: bool = False) -> ResponseForm:
        """Return the form of the responses to requests from an origin; there are two for each allowed one.

        Args:
            origin: The origin, or None.
            keep_alive_asked: Whether an old client asks to keep the connection, and must know that it is kept.
        """
        headers = self.dispatcher.origins.headers(origin) + ((KEEP_ALIVE,) if keep_alive_asked else ())
        form = self._forms.get(headers)
        if form is None:
            form = self._forms[headers] = ResponseForm(headers)
        return form

    def is_full(self, more_bytes: int, tasks: int) -> bool:
        """Whether one more request with a body of that size would pass a limit, beside the application's `tasks`."""
        settings = self.settings
        return (
            self.in_flight + tasks >= settings.requests_in_flight_max
            or self.body_bytes + more_bytes > settings.body_bytes_in_flight_max
        )

    def tick(self, connections: Iterable[Any], tasks: int) -> None:
        """Close the connections whose time is over, and publish the gauges; called ten times a second.

        Args:
            connections: The open connections.
            tasks: The number of requests that the application works on.
        """
        waiting = list(connections)
        if not self._unchecked:
            self._unchecked.extend(waiting)
            self._check_some()
        load = self.dispatcher.load
        # While load is shed no request passes the first test of `data_received`, and the second one asks `refuses`.
        self.in_flight_max = 0 if load.is_shedding else self.settings.requests_in_flight_max
        self.counters.set_gauge(QUEUE_NANOSECONDS, int(load.delay * 1e9))
        self.counters.set_gauge(SHEDDING, int(load.is_shedding))
        self.counters.now_ms[0] = time.time_ns() // 1_000_000
        self.counters.set_gauge(CONNECTIONS, len(waiting))
        self.counters.set_gauge(IN_FLIGHT, self.in_flight + tasks)
        self.counters.set_gauge(BODY_BYTES, self.body_bytes)

    def _check_some(self) -> None:
        """Close those of some connections whose time is over, and look at the others in the next turns of the loop."""
        loop, late = asyncio.get_running_loop(), 0
        now, unchecked = loop.time(), self._unchecked
        for _ in range(min(len(unchecked), CHECKED_PER_TURN)):
            connection = unchecked.popleft()
            if connection.is_late(now):
                connection.expire()
                late += 1
                if late == CLOSED_PER_TURN:
                    break
        if unchecked:
            loop.call_soon(self._check_some)


async def busy(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer in the application's place while the server is overloaded."""
    await Reply(OVERLOADED)(scope, receive, send)
