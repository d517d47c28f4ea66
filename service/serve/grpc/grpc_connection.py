"""The connection of a gRPC client: it reads the heads of calls, and chooses what answers them.

A request of ModelInfer that is remembered (infer_plan.py) is answered at once; unary_calls.py answers the others.
"""

import asyncio
from typing import Any, Final, cast

from ngh2.events import DataReceived, Event, PingAcknowledged, RequestReceived, StreamClosed, TrailersReceived
from uvicorn.server import ServerState

from service.access.client_certificate import ClientCertificate
from service.serve.grpc.call_head import CallHead
from service.serve.grpc.grpc_call import NO_MESSAGE, GrpcCall, check_message
from service.serve.grpc.grpc_state import GrpcState
from service.serve.grpc.health_answers import WATCH
from service.serve.grpc.infer_plan import InferPlans
from service.serve.grpc.reflection_answers import REFLECTION_PATHS
from service.serve.grpc.streamed_calls import MESSAGE_BYTES_MAX, STREAMED_PATHS, StreamedCalls
from service.serve.grpc.unary_calls import MODEL_INFER, PROBES, UNARY_PATHS, UnaryCalls
from service.serve.handlers.dispatcher import PendingResponse
from service.serve.host_header import is_host, is_loopback_host
from service.serve.responses import NOT_IN_ROLE, Header, HttpResponse, error

# Heads that a connection remembers, and the longest: a client has few methods and keys.
HEADS_MAX: Final = 8
HEAD_BYTES_MAX: Final = 4096

UNKNOWN_METHOD: Final = error("not_found", "This server has no such method; ask it for its services by reflection.")
NO_STREAM: Final = error("not_found", "ModelStreamInfer is not offered: models have no streams; call ModelInfer.")
WRONG_HOST: Final = error("malformed_http", "The call must have one valid :authority; send the host and the port.")
NOT_LOCAL: Final = error(
    "host_not_permitted",
    "Without keys this service answers calls for localhost only; use that name, or have its operator create a key.",
)
# What a learner answers.
HEALTH_PATHS: Final = frozenset((*PROBES, WATCH))
KNOWN_PATHS: Final = UNARY_PATHS | STREAMED_PATHS
STREAM_INFER: Final = MODEL_INFER.replace(b"Model", b"ModelStream")


class GrpcConnection(StreamedCalls):
    """The connection of a gRPC client.

    Args:
        state: The state that connections share.
        server_state: The connections and tasks of uvicorn's server.
        certificate: The verified certificate of the client, or None.

    Attributes:
        client: The address of the client, if it is known.
    """

    def __init__(self, state: GrpcState, server_state: ServerState, certificate: ClientCertificate | None) -> None:
        super().__init__(state, server_state)
        self._certificate: Final = certificate
        self._tasks: Final = server_state.tasks
        self._unary: Final = UnaryCalls(state, cast("set[asyncio.Task[Any]]", server_state.tasks))
        self._heads: Final[dict[tuple[Header, ...], CallHead]] = {}
        self._plans: Final[dict[tuple[object, ...], InferPlans]] = {}
        self.client: tuple[str, int] | None = None
        self._has_calls = False

    # Callbacks of the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept a connection, or close it at once if there are too many."""
        address = transport.get_extra_info("peername")
        self.client = (str(address[0]), int(address[1])) if address else None
        self.server_state.connections.add(cast("Any", self))
        if not self.state.worker.admission.enter(self._peer):
            cast("asyncio.Transport", transport).abort()
        super().connection_made(transport)

    @property
    def _peer(self) -> str | None:
        return None if self.client is None else self.client[0]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's own
        """Release what the connection held, and drop its calls."""
        self.state.worker.admission.leave(self._peer)
        self.server_state.connections.discard(cast("Any", self))
        calls = list(self.open.values())
        self.open.clear()
        for call in calls:
            self.drop(call)

    # Events

    def handle_events(self, events: list[Event]) -> None:
        """Handle the events of bytes that the client has sent."""
        opened = self.open
        for event in events:
            kind = type(event)
            if kind is RequestReceived:
                self.begin(cast("RequestReceived", event))
            elif kind is DataReceived:
                part = cast("DataReceived", event)
                call = opened.get(part.stream_id)
                if part.end_stream and type(call) is CallHead:
                    self.complete(part.stream_id, call, part.data)
                elif call is not None:
                    self.receive_part(part.stream_id, call, part.data, ended=part.end_stream)
            else:
                self._handle_other(event)
        if opened:
            self.wait_with_all()
        else:
            self.rest()
        if self._has_calls and self.state.worker.is_draining():
            self.begin_drain()

    def _handle_other(self, event: Event) -> None:
        """Handle an event that is neither the head nor a part of a request."""
        if isinstance(event, StreamClosed):
            self.forget_stream(event.stream_id)
        elif isinstance(event, TrailersReceived):
            self.end_request(event.stream_id)
        elif isinstance(event, PingAcknowledged):
            self.end_notice(event.opaque_data)

    def forget_stream(self, stream_id: int) -> None:
        """Forget a call that is closed; if it is not answered, its client has cancelled it."""
        call = self.open.pop(stream_id, None)
        if call is not None:
            self.drop(call)

    def begin(self, event: RequestReceived) -> None:
        """Begin a call, or refuse it."""
        head = self._heads.get(event.headers)
        if head is None:
            head = self._read_head(event.headers)
        if head.refusal is None and not event.end_stream:
            self.open[event.stream_id] = head
        elif head.refusal is None and head.path in REFLECTION_PATHS:  # a stream of no questions
            self.receive_part(event.stream_id, head, b"", ended=True)
        else:
            self.write_response(event.stream_id, head, head.refusal or NO_MESSAGE, ended=event.end_stream)

    def _read_head(self, headers: tuple[Header, ...]) -> CallHead:
        """Check the head of a call; remember it if it is that of a prediction."""
        self._has_calls = True
        head = CallHead(headers, self._certificate)
        if head.refusal is None and head.path not in KNOWN_PATHS:
            head.refusal = NO_STREAM if head.path == STREAM_INFER else UNKNOWN_METHOD
        if head.refusal is None and not self.settings.answers_models and head.path not in HEALTH_PATHS:
            head.refusal = NOT_IN_ROLE
        if head.refusal is None and not is_host(head.request.host or b""):
            head.refusal = WRONG_HOST
        if head.refusal is None and head.path in STREAMED_PATHS:
            head.refusal = self._refuse_other_host(head) or self.refuse_stream(head)
        elif head.refusal is None and head.path == MODEL_INFER:
            self._remember(headers, head)
        return head

    def _remember(self, headers: tuple[Header, ...], head: CallHead) -> None:
        """Remember the head of a prediction; those that differ in their ids and times share their requests."""
        for table in (self._heads, self._plans):
            if len(table) >= HEADS_MAX:
                table.clear()
        key = head.request._replace(request_id=None)[:-1]  # without the query, which gRPC has not
        plans = self._plans.get(key)
        if plans is None or plans.generation != self.state.generation:
            plans = self._plans[key] = InferPlans(self.state.generation)
        head.plans = plans
        if sum([len(name) + len(value) for name, value in headers]) <= HEAD_BYTES_MAX:
            self._heads[headers] = head

    def _forget(self) -> None:
        self._heads.clear()
        self._plans.clear()

    # Answers

    def complete(self, stream_id: int, call: CallHead | GrpcCall, data: bytes) -> None:
        """Answer a call whose whole request has arrived."""
        head = call if isinstance(call, CallHead) else call.head
        worker, plans = self.state.worker, head.plans
        try:
            if plans is not None:
                if plans.generation != self.state.generation:
                    self._forget()
                elif worker.in_flight + len(self._tasks) < worker.in_flight_max:
                    plan = plans.newest
                    if plan is None or len(data) != plan.size or not data.startswith(plan.prefix):
                        plan = plans.find(data)
                    if plan is not None:
                        self.respond(stream_id, call, plan.respond(data))
                        return
            if head.path in STREAMED_PATHS:
                self._complete_stream(stream_id, call, data)
            else:
                self.respond(stream_id, call, self._answer(head, data))
        except Exception as failure:  # noqa: BLE001  # logged with the request's id
            self.open.pop(stream_id, None)
            self.drop(call)
            self.write_failure(stream_id, head, failure)

    def _complete_stream(self, stream_id: int, call: CallHead | GrpcCall, data: bytes) -> None:
        """Answer a call whose answers are a stream, and whose whole request has arrived."""
        head = call if isinstance(call, CallHead) else call.head
        if head.path != WATCH:
            self.receive_part(stream_id, call, data, ended=True)
            return
        refusal = check_message(data, MESSAGE_BYTES_MAX)
        if refusal is None:
            self.begin_watch(stream_id, call, data)
        else:
            self.respond(stream_id, call, refusal)

    def _answer(self, head: CallHead, data: bytes) -> PendingResponse:
        """Return the response to a request that is not remembered."""
        refusal = check_message(data, self.settings.body_bytes_max)
        if refusal is not None:
            return refusal
        return self._refuse_other_host(head) or self._unary.respond(head, data, self.client)

    def _refuse_other_host(self, head: CallHead) -> HttpResponse | None:
        """Return the refusal of a call for another machine's name, if only this machine's are answered."""
        is_other = self.state.worker.is_local and not is_loopback_host(head.request.host or b"")
        return NOT_LOCAL if is_other else None
