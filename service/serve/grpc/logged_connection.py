"""The connection of a gRPC client in a service with an access log.

The application writes the lines of the calls that it answers (route_calls.py), with the route and method of the HTTP
request; the lines of all others have the path of the call as their route.
"""

from typing import Final

from ngh2.events import RequestReceived
from uvicorn.server import ServerState

from service.access.client_certificate import ClientCertificate
from service.errors import MalformedError
from service.logs import AccessLog
from service.serve.access_log import AccessEntry
from service.serve.grpc.call_head import CallHead
from service.serve.grpc.call_writer import REQUEST_ID
from service.serve.grpc.grpc_call import GrpcCall
from service.serve.grpc.grpc_connection import KNOWN_PATHS, GrpcConnection
from service.serve.grpc.grpc_messages import InferRequest, parse_message
from service.serve.grpc.grpc_state import GrpcState
from service.serve.grpc.message_framing import FRAME_BYTES
from service.serve.grpc.unary_calls import MODEL_INFER
from service.serve.responses import HttpResponse


class LoggedConnection(GrpcConnection):
    """Writes the access log of the calls on one connection.

    Args:
        state: The state that connections share.
        server_state: The connections and tasks of uvicorn's server.
        certificate: The verified certificate of the client, or None.
        log: The access log.
    """

    def __init__(
        self, state: GrpcState, server_state: ServerState, certificate: ClientCertificate | None, *, log: AccessLog
    ) -> None:
        super().__init__(state, server_state, certificate)
        self._log: Final = log
        self._entries: Final[dict[int, AccessEntry]] = {}

    def begin(self, event: RequestReceived) -> None:
        """Begin the entry of a call."""
        fields = dict(event.headers)
        path = fields.get(b":path", b"")
        entry = AccessEntry(
            fields[b":method"].decode("ascii", "replace"), path.decode() if path in KNOWN_PATHS else None
        )
        if self.client is not None:
            entry.client = self.state.worker.proxies.client_of(self.client[0], event.headers)
        self._entries[event.stream_id] = entry
        super().begin(event)

    def complete(self, stream_id: int, call: CallHead | GrpcCall, data: bytes) -> None:
        """Note in the entry what the request is about."""
        entry = self._entries.get(stream_id)
        head = call if isinstance(call, CallHead) else call.head
        if entry is not None:
            entry.bytes_in = len(data)
            if head.path == MODEL_INFER:
                self._note_model(entry, data)
        super().complete(stream_id, call, data)

    def _note_model(self, entry: AccessEntry, data: bytes) -> None:
        """Note the state that answers a prediction, if there is one."""
        try:
            request = parse_message(InferRequest, data[FRAME_BYTES:])
        except MalformedError:
            return
        version = f"/versions/{request.model_version}" if request.model_version else ""
        path = f"/v2/models/{request.model_name}{version}/infer"
        endpoint = self.state.worker.registry.now.fast_endpoints.get(path.encode())
        entry.served = None if endpoint is None else endpoint.served

    def write_response(self, stream_id: int, head: CallHead, response: HttpResponse, *, ended: bool = True) -> None:
        """Write a response with the id that its line has."""
        self.write_named(stream_id, head, response, self.identify(head, response), ended=ended)

    def write_named(
        self, stream_id: int, head: CallHead, response: HttpResponse, identity: bytes, *, ended: bool = True
    ) -> None:
        """Write a response and its line."""
        super().write_named(stream_id, head, response, identity, ended=ended)
        self._write_line(stream_id, response, identity)

    def end_stream(self, stream_id: int, head: CallHead, response: HttpResponse) -> None:
        """End a stream of answers, and write its line."""
        super().end_stream(stream_id, head, response)
        self._write_line(stream_id, response, self.identify(head, response))

    def _write_line(self, stream_id: int, response: HttpResponse, identity: bytes) -> None:
        entry = self._entries.pop(stream_id, None)
        if entry is not None and REQUEST_ID not in dict(response.headers):
            entry.write(self._log, identity, response.status, len(response.body))

    def forget_stream(self, stream_id: int) -> None:
        """Forget a call that is closed."""
        self._entries.pop(stream_id, None)
        super().forget_stream(stream_id)
