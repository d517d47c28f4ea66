"""How calls are answered on a connection: headers, message and trailers, or trailers alone.

    success    HEADERS, DATA with the framed message, HEADERS with grpc-status 0
    error      HEADERS with the status alone ("Trailers-Only"); the client is asked to send no more
    no gRPC    an HTTP response with a JSON body, to a request of another protocol

Source: gRPC over HTTP2, "Responses".
"""

from typing import Final

from ngh2 import NGH2Error
from uvicorn.server import ServerState

from service.log_events import logger
from service.serve.grpc.call_head import CallHead
from service.serve.grpc.call_status import error_trailers
from service.serve.grpc.grpc_state import GrpcState
from service.serve.grpc.http2_session import Http2Session
from service.serve.request_id import request_id
from service.serve.responses import BROKEN, Header, HttpResponse, error

HEADERS: Final = ((b":status", b"200"), (b"content-type", b"application/grpc"))
TRAILERS: Final = ((b"grpc-status", b"0"),)
SUCCESS: Final = 200
UNREAD: Final = error("overloaded", "The client does not read its answers; read them before further calls.")


class CallWriter(Http2Session):
    """Writes the responses of one connection.

    Args:
        state: The state that connections share.
        server_state: The connections and tasks of uvicorn's server.
    """

    def __init__(self, state: GrpcState, server_state: ServerState) -> None:
        super().__init__(state.worker.settings, state.configuration)
        self.state: Final = state
        self.server_state: Final = server_state

    def write_response(self, stream_id: int, head: CallHead, response: HttpResponse, *, ended: bool = True) -> None:
        """Write a response, unless its call was cancelled.

        Args:
            stream_id: The stream of the call.
            head: The head of the call.
            response: The response; the body of a success is the framed message.
            ended: Whether the whole request has arrived.
        """
        body = response.body
        if response.status != SUCCESS:
            self._write_error(stream_id, head, response, ended=ended)
            return
        session, size = self.session, len(body)
        try:
            if session.queued_body_size() + size > self.settings.grpc_unsent_bytes_max:
                self._write_error(stream_id, head, UNREAD, ended=ended)
                return
            session.send_response(stream_id, HEADERS)
            session.send_data(stream_id, body)
            session.send_trailers(stream_id, TRAILERS if head.request.request_id is None else self._named(head))
        except NGH2Error:  # the client has cancelled the call, or the connection is over
            return
        self.queued_bytes += size
        self.server_state.total_requests += 1
        self.state.worker.counters.statuses[SUCCESS] += 1

    @staticmethod
    def _named(head: CallHead) -> list[Header]:
        """Return the trailers of a success whose request has an id."""
        return [*TRAILERS, (b"x-request-id", request_id(head.request.request_id))]

    def _write_error(
        self, stream_id: int, head: CallHead, response: HttpResponse, *, ended: bool, identity: bytes | None = None
    ) -> None:
        """Write an error; `identity` is the id of its request if it is known."""
        identity = identity or request_id(head.request.request_id)
        try:
            if head.is_grpc:
                self.session.send_response(stream_id, [*HEADERS, *error_trailers(response, identity)], end_stream=True)
            else:
                headers = [
                    (b":status", b"%d" % response.status),
                    (b"content-type", response.content_type),
                    (b"content-length", b"%d" % len(response.body)),
                    *response.headers,
                    (b"x-request-id", identity),
                ]
                self.session.send_response(stream_id, headers)
                self.session.send_data(stream_id, response.body, end_stream=True)
        except NGH2Error:  # as above
            return
        if not ended:
            self.reset_later(stream_id)
        self.server_state.total_requests += 1
        self.state.worker.counters.count_response(response.status, response.code)

    def write_failure(self, stream_id: int, head: CallHead, failure: BaseException) -> None:
        """Log a fault of the service and answer with the id of that line."""
        identity = request_id(head.request.request_id)
        logger.event("request_failed", exc_info=failure, request_id=identity.decode())
        self._write_error(stream_id, head, BROKEN, ended=True, identity=identity)
