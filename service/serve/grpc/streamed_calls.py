"""The calls of one connection whose answers are streams: Watch of the health protocol, and server reflection.

    Watch                   the status at once, and again when it changes, until the client or the service ends it
    ServerReflectionInfo    an answer to each message, until the client ends its own stream

The first is sent ten times a second at most, when the server looks at its connections.
"""

import contextlib
from typing import Final

from ngh2 import NGH2Error
from uvicorn.server import ServerState

from service.errors import AccessError, MalformedError
from service.serve.grpc.call_head import CallHead
from service.serve.grpc.call_writer import HEADERS
from service.serve.grpc.grpc_call import NO_MESSAGE, GrpcCall
from service.serve.grpc.grpc_messages import parse_message
from service.serve.grpc.grpc_state import GrpcState
from service.serve.grpc.health_answers import WATCH, CheckRequest, frame_status, status_of
from service.serve.grpc.http2_session import NEVER
from service.serve.grpc.message_framing import FRAME_BYTES
from service.serve.grpc.open_calls import OpenCalls
from service.serve.grpc.reflection_answers import REFLECTION_PATHS, answer_reflection
from service.serve.responses import OVERLOADED, V2, HttpResponse, error, refusal

STREAMED_PATHS: Final = frozenset((WATCH, *REFLECTION_PATHS))
# The longest message of these protocols, and how many of them one call of reflection may have: each answer has up to
# some 10 KB, and a client asks for a few names.
MESSAGE_BYTES_MAX: Final = 1 << 14
MESSAGES_MAX: Final = 256
OPEN: Final = "open"
READY: Final = 200

TOO_MANY: Final = error("request_too_large", f"The call has more than {MESSAGES_MAX} messages; make several calls.")
STOPPING: Final = error("not_ready", "The server stops; watch another one.")
DONE: Final = HttpResponse(200, b"")


class StreamedCalls(OpenCalls):
    """Answers those calls of one connection.

    Args:
        state: The state that connections share.
        server_state: The connections and tasks of uvicorn's server.
    """

    def __init__(self, state: GrpcState, server_state: ServerState) -> None:
        super().__init__(state, server_state)
        self._watches: Final[dict[int, tuple[str, int]]] = {}  # the service and the last status of each stream

    def refuse_stream(self, head: CallHead) -> HttpResponse | None:
        """Return why a call is refused, or None; reflection needs a key where the OpenAPI document needs one."""
        if head.path == WATCH:
            return None
        if self.state.worker.is_full(0, len(self.server_state.tasks)):
            return OVERLOADED
        if self.settings.openapi_access != OPEN:
            try:
                self.state.worker.dispatcher.authorizer.principal_of(head.request)
            except AccessError as reason:
                return refusal(reason, V2)
        return None

    def receive_part(self, stream_id: int, call: CallHead | GrpcCall, data: bytes, *, ended: bool) -> None:
        """Answer the messages of reflection that are complete; keep a part of any other request."""
        head = call.head if isinstance(call, GrpcCall) else call
        if head.path not in REFLECTION_PATHS:
            super().receive_part(stream_id, call, data, ended=ended)
            return
        call = self._begin_stream(stream_id, call)
        call.deadline = self.loop.time() + self.settings.body_seconds
        failure = call.add(data, MESSAGE_BYTES_MAX)
        self.state.worker.body_bytes += len(data)
        before = call.held
        messages = call.take_messages()
        self.state.worker.body_bytes -= before - call.held
        call.messages += len(messages)
        if call.messages > MESSAGES_MAX:
            failure = TOO_MANY
        for message in messages if failure is None else ():
            try:
                self._send(call, answer_reflection(message))
            except MalformedError as reason:
                failure = refusal(reason, V2)
                break
        if failure is None and ended:
            failure = NO_MESSAGE if call.held else DONE
        if failure is not None:
            self.end(call, failure, ended=ended)

    def end_request(self, stream_id: int) -> None:
        """Answer a call whose request has ended; its last part came before."""
        call = self.open.get(stream_id)
        if isinstance(call, GrpcCall) and call.is_streaming:
            self.end(call, NO_MESSAGE if call.held else DONE, ended=True)
        else:
            super().end_request(stream_id)

    def begin_watch(self, stream_id: int, call: CallHead | GrpcCall, data: bytes) -> None:
        """Answer a call of Watch whose request is complete."""
        try:
            service = parse_message(CheckRequest, data[FRAME_BYTES:]).service
        except MalformedError as reason:
            self.respond(stream_id, call, refusal(reason, V2))
            return
        call = self._begin_stream(stream_id, call)
        call.deadline = NEVER
        status = self._status_of(service)
        self._watches[stream_id] = service, status
        self._send(call, frame_status(status))

    def _status_of(self, service: str) -> int:
        return status_of(service, is_ready=self.state.health.ready().status == READY)

    def _begin_stream(self, stream_id: int, call: CallHead | GrpcCall) -> GrpcCall:
        """Send the headers of a stream of answers, unless they were sent."""
        call = self.wait_with(stream_id, call)
        if not call.is_streaming:
            call.is_streaming = True
            with contextlib.suppress(NGH2Error):  # the client has cancelled it
                self.session.send_response(stream_id, HEADERS)
        return call

    def _send(self, call: GrpcCall, frame: bytes) -> None:
        """Send one answer."""
        with contextlib.suppress(NGH2Error):  # as above
            self.session.send_data(call.stream_id, frame)
            self.queued_bytes += len(frame)

    def drop(self, call: CallHead | GrpcCall) -> None:
        """Release a call that is over."""
        if isinstance(call, GrpcCall):
            self._watches.pop(call.stream_id, None)
        super().drop(call)

    def is_late(self, now: float) -> bool:
        """Whether the connection's time is over; a status that has changed is sent before."""
        for stream_id, (service, last) in list(self._watches.items()):
            status, call = self._status_of(service), self.open.get(stream_id)
            if status != last and isinstance(call, GrpcCall):
                self._watches[stream_id] = service, status
                self._send(call, frame_status(status))
                self.flush()
        return super().is_late(now)

    def is_quiet(self, since: float) -> bool:
        """Whether the connection has waited for a call since a time; one that watches waits too."""
        if self.transport.is_closing() or len(self.open) > len(self._watches):
            return False
        return self.deadline - self.settings.keep_alive_seconds <= since

    def close_quiet(self) -> None:
        """End what watches, and close the connection."""
        for stream_id in list(self._watches):
            call = self.open.get(stream_id)
            if isinstance(call, GrpcCall):
                self.end(call, STOPPING, ended=True)
        self.flush()
        super().close_quiet()
