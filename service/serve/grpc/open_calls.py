"""The calls of one connection that are in progress, within the limits of their requests and of their times.

    open    their streams: the head alone until the call has to wait, then a GrpcCall

Most calls are answered in the turn of the event loop in which they arrive, and never wait.
"""

import asyncio
from functools import partial
from typing import Final

from uvicorn.server import ServerState

from service.serve.grpc.call_head import CallHead
from service.serve.grpc.call_status import uncoded_error
from service.serve.grpc.call_writer import CallWriter
from service.serve.grpc.grpc_call import GrpcCall
from service.serve.grpc.grpc_state import GrpcState
from service.serve.grpc.http2_session import NEVER
from service.serve.handlers.dispatcher import PendingResponse
from service.serve.responses import OVERLOADED, HttpResponse, error

SLOW: Final = error("request_timeout", "The request took too long to arrive; send it again.")
LATE: Final = uncoded_error(504, "The deadline of the call is over; allow more time, or send fewer rows.")


class OpenCalls(CallWriter):
    """Keeps the calls of one connection; a subclass answers them.

    Args:
        state: The state that connections share.
        server_state: The connections and tasks of uvicorn's server.
    """

    def __init__(self, state: GrpcState, server_state: ServerState) -> None:
        super().__init__(state, server_state)
        self.open: Final[dict[int, CallHead | GrpcCall]] = {}

    def is_busy(self) -> bool:
        """Whether a call is in progress."""
        return bool(self.open)

    def complete(self, stream_id: int, call: CallHead | GrpcCall, data: bytes) -> None:
        """Answer a call whose whole request has arrived."""
        raise NotImplementedError

    def respond(self, stream_id: int, call: CallHead | GrpcCall, response: PendingResponse) -> None:
        """Write a response, now or when it is made."""
        if isinstance(response, HttpResponse):
            self.open.pop(stream_id, None)
            if isinstance(call, GrpcCall):
                self._release(call)
                call = call.head
            self.write_response(stream_id, call, response)
            return
        call = self.wait_with(stream_id, call)
        call.deadline = NEVER
        call.pending = response
        self.state.worker.in_flight += 1
        response.add_done_callback(partial(self._on_done, call))

    def _on_done(self, call: GrpcCall, done: asyncio.Future[HttpResponse]) -> None:
        """Write a response that was waited for, unless the call is over."""
        self.state.worker.in_flight -= 1
        call.pending = None
        failure = asyncio.CancelledError() if done.cancelled() else done.exception()
        if self.open.pop(call.stream_id, None) is None:
            return
        self._release(call)
        if failure is None:
            self.write_response(call.stream_id, call.head, done.result())
        else:
            self.write_failure(call.stream_id, call.head, failure)
        self.end_calls()

    def end_calls(self) -> None:
        """Write what waits, after calls that ended by themselves."""
        if not self.open:
            self.rest()
        self.flush()

    def wait_with(self, stream_id: int, call: CallHead | GrpcCall) -> GrpcCall:
        """Return the call of a stream, from now on as one that waits."""
        if isinstance(call, GrpcCall):
            return call
        now = self.loop.time()
        waiting = self.open[stream_id] = GrpcCall(stream_id, call, now + self.settings.body_seconds)
        if call.seconds is not None:
            waiting.timer = self.loop.call_at(now + call.seconds, self._end_late, waiting)
        return waiting

    def wait_with_all(self) -> None:
        """Give times to all calls that are in progress."""
        for stream_id, call in list(self.open.items()):
            self.wait_with(stream_id, call)

    def receive_part(self, stream_id: int, call: CallHead | GrpcCall, data: bytes, *, ended: bool) -> None:
        """Keep a part of a request, as long as the limits allow."""
        call, worker = self.wait_with(stream_id, call), self.state.worker
        call.deadline += len(data) / self.settings.body_rate_min
        refusal = call.add(data, self.settings.body_bytes_max)
        worker.body_bytes += len(data)
        if refusal is None and worker.is_full(0, len(self.server_state.tasks)):
            refusal = OVERLOADED
        if refusal is not None:
            self.end(call, refusal, ended=ended)
        elif ended:
            self.end_request(stream_id)

    def end_request(self, stream_id: int) -> None:
        """Answer a call whose request has ended; its last part came before."""
        call = self.open.get(stream_id)
        if isinstance(call, GrpcCall) and call.pending is None:
            self.complete(stream_id, call, call.take_request())
        elif isinstance(call, CallHead):
            self.complete(stream_id, call, b"")

    def _end_late(self, call: GrpcCall) -> None:
        """End a call at the client's deadline."""
        self.end(call, LATE, ended=call.deadline == NEVER)
        self.end_calls()

    def end(self, call: GrpcCall, response: HttpResponse, *, ended: bool) -> None:
        """End a call before its answer is made, or before its request is complete; or end its stream of answers."""
        if self.open.pop(call.stream_id, None) is not None:
            self.drop(call)
            if call.is_streaming:
                self.end_stream(call.stream_id, call.head, response)
            else:
                self.write_response(call.stream_id, call.head, response, ended=ended)

    def drop(self, call: CallHead | GrpcCall) -> None:
        """Release a call that is over, and stop to make its answer."""
        if isinstance(call, GrpcCall):
            self._release(call)
            if call.pending is not None:
                call.pending.cancel()

    def _release(self, call: GrpcCall) -> None:
        self.state.worker.body_bytes -= call.held
        call.held = 0
        if call.timer is not None:
            call.timer.cancel()

    def is_late(self, now: float) -> bool:
        """Whether the connection's time is over; calls whose requests take too long end before."""
        late = [call for call in self.open.values() if isinstance(call, GrpcCall) and call.deadline < now]
        for call in late:
            self.end(call, SLOW, ended=False)
        if late:
            self.end_calls()
        return super().is_late(now)
