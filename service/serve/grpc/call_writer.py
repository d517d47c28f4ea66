"""How calls are answered on a connection: headers, message and trailers, or trailers alone.

    success    HEADERS, DATA with the framed message, HEADERS with grpc-status 0
    error      HEADERS with the status alone ("Trailers-Only"); the client is asked to send no more
    no gRPC    an HTTP response with a JSON body, to a request of another protocol

Source: gRPC over HTTP2, "Responses".
"""

from collections.abc import Iterable
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
REQUEST_ID: Final = b"x-request-id"
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
        if response.status != SUCCESS or response.headers or head.request.request_id is not None:
            self.write_named(stream_id, head, response, self.identify(head, response), ended=ended)
        elif self._write_success(stream_id, body, TRAILERS):
            self.server_state.total_requests += 1
            self.state.worker.counters.statuses[SUCCESS] += 1

    @staticmethod
    def identify(head: CallHead, response: HttpResponse) -> bytes:
        """Return the id of a request: the one that the application gave it, its own, or a new one."""
        return dict(response.headers).get(REQUEST_ID) or request_id(head.request.request_id)

    def _write_success(self, stream_id: int, body: bytes, trailers: Iterable[Header]) -> bool:
        """Write a success; return False if its call was cancelled, or if answers wait that the client does not read."""
        session = self.session
        try:
            if session.queued_body_size() + len(body) > self.settings.grpc_unsent_bytes_max:
                if self._write_error(stream_id, UNREAD, request_id(None)):
                    self.count_response(UNREAD)
                return False
            session.send_response(stream_id, HEADERS)
            session.send_data(stream_id, body)
            session.send_trailers(stream_id, trailers)
        except NGH2Error:  # the client has cancelled the call, or the connection is over
            return False
        self.queued_bytes += len(body)
        return True

    def write_named(
        self, stream_id: int, head: CallHead, response: HttpResponse, identity: bytes, *, ended: bool = True
    ) -> None:
        """Write a response with the id of its request; the arguments are those of `write_response`."""
        if response.status == SUCCESS:
            is_written = self._write_success(stream_id, response.body, [*TRAILERS, (REQUEST_ID, identity)])
        elif head.is_grpc:
            is_written = self._write_error(stream_id, response, identity)
        else:
            is_written = self._write_http(stream_id, response, identity)
        if is_written:
            if not ended:
                self.reset_later(stream_id)
            self.count_response(response)

    def _write_error(self, stream_id: int, response: HttpResponse, identity: bytes) -> bool:
        """Write an error; return False if its call was cancelled."""
        trailers = [*HEADERS, *error_trailers(response, identity)]
        try:
            self.session.send_response(stream_id, trailers, end_stream=True)
        except NGH2Error:  # as above
            return False
        return True

    def _write_http(self, stream_id: int, response: HttpResponse, identity: bytes) -> bool:
        """Write an error to a client that does not speak gRPC; return False if it has cancelled the request."""
        headers = [
            (b":status", b"%d" % response.status),
            (b"content-type", response.content_type),
            (b"content-length", b"%d" % len(response.body)),
            *response.headers,
            (REQUEST_ID, identity),
        ]
        try:
            self.session.send_response(stream_id, headers)
            self.session.send_data(stream_id, response.body, end_stream=True)
        except NGH2Error:  # as above
            return False
        return True

    def end_stream(self, stream_id: int, head: CallHead, response: HttpResponse) -> None:
        """End a stream of answers; `response` is the error, or any success."""
        trailers = list(TRAILERS)
        if response.status != SUCCESS:
            trailers = error_trailers(response, self.identify(head, response))
        try:
            self.session.send_trailers(stream_id, trailers)
        except NGH2Error:  # as above
            return
        self.count_response(response)

    def count_response(self, response: HttpResponse) -> None:
        """Count a response, unless the application has done so: then it has an id."""
        self.server_state.total_requests += 1
        if REQUEST_ID not in dict(response.headers):
            self.state.worker.counters.count_response(response.status, response.code)

    def write_failure(self, stream_id: int, head: CallHead, failure: BaseException) -> None:
        """Log a fault of the service and answer with the id of that line."""
        identity = request_id(head.request.request_id)
        logger.event("request_failed", exc_info=failure, request_id=identity.decode())
        self.write_named(stream_id, head, BROKEN, identity)
