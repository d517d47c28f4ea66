"""A client of raw HTTP/2 for gRPC: it sends frames as they are, and reads what a server answers."""

import contextlib
import socket
import ssl
import struct
from collections.abc import Iterator, Sequence
from typing import Any, Self

from ngh2 import Configuration, Connection, NGH2Error, Role
from ngh2.events import ConnectionClosed, DataReceived, GoAwayReceived, ResponseReceived, StreamReset, TrailersReceived

from tests.support.waiting import SECONDS

INFER = "/inference.GRPCInferenceService/ModelInfer"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame of HTTP/2."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def call_headers(path: str = INFER, *more: tuple[str, str], **replaced: str) -> list[tuple[bytes, bytes]]:
    """Return the headers of a call, some of them replaced: `content_type` is content-type, `method` is :method."""
    fields = {
        ":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost",
        "content-type": "application/grpc", "te": "trailers",
    }  # fmt: skip
    for name, value in replaced.items():
        fields[f":{name}" if f":{name}" in fields else name.replace("_", "-")] = value
    return [(name.encode(), value.encode()) for name, value in [*fields.items(), *more]]


class Http2Client:
    """One connection.

    Args:
        address: The host and port.
        context: The context of TLS, or None to connect without.
        settings: The settings that are sent first.
        limits: Those of libnghttp2, as of `Configuration`.

    Attributes:
        connection: The state of HTTP/2.
        end: The socket.
        headers: The headers of each stream's answer.
        data: The body of each stream's answer.
        trailers: The trailers of each stream's answer, or its headers if it has nothing else.
        resets: The error code of each stream that the server has reset.
        goaways: The last stream and the error code of each GOAWAY.
        is_closed: Whether the server has closed the connection.
    """

    def __init__(
        self,
        address: tuple[str, int],
        context: ssl.SSLContext | None = None,
        settings: dict[int, int] | None = None,
        **limits: Any,
    ) -> None:
        self.end: socket.socket = socket.create_connection(address, SECONDS)
        if context is not None:
            self.end = context.wrap_socket(self.end, server_hostname=address[0])
        self.connection = Connection(Role.CLIENT, Configuration(**limits))
        self.headers: dict[int, dict[bytes, bytes]] = {}
        self.data: dict[int, bytes] = {}
        self.trailers: dict[int, dict[bytes, bytes]] = {}
        self.resets: dict[int, int] = {}
        self.goaways: list[tuple[int, int]] = []
        self.is_closed = False
        self.connection.initiate_connection(settings)
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end.close()

    def flush(self) -> None:
        """Send what HTTP/2 has to say."""
        with contextlib.suppress(NGH2Error):
            self.send(self.connection.data_to_send())

    def send(self, data: bytes) -> None:
        """Send bytes as they are, unless the server has closed the connection."""
        with contextlib.suppress(OSError):
            self.end.sendall(data)

    def begin(self, headers: Sequence[tuple[bytes, bytes]], data: bytes | None = None, *, ended: bool = True) -> int:
        """Begin a call, with the first part of its request or none; return its stream."""
        stream = self.connection.send_request(headers, end_stream=data is None and ended)
        if data is not None:
            self.connection.send_data(stream, data, end_stream=ended)
        self.flush()
        return stream

    def read(self, *streams: int, seconds: float = SECONDS) -> None:
        """Read until these streams have ended, or the server has closed the connection."""
        self.end.settimeout(seconds)
        while not self.is_closed and not all(stream in self.trailers or stream in self.resets for stream in streams):
            self.read_some()

    def read_some(self) -> None:
        """Read what comes next; raise TimeoutError if nothing comes in time."""
        try:
            data = self.end.recv(1 << 18)
        except ConnectionResetError:
            data = b""
        if not data:
            self.is_closed = True
            return
        self.connection.receive_data(data)
        for event in self.connection.events():
            self._note(event)
        self.flush()

    def read_to_end(self) -> None:
        """Read until the server closes the connection."""
        self.end.settimeout(SECONDS)
        while not self.is_closed:
            self.read_some()

    def _note(self, event: Any) -> None:
        match event:
            case ResponseReceived():
                self.headers[event.stream_id] = dict(event.headers)
                if event.end_stream:
                    self.trailers[event.stream_id] = dict(event.headers)
            case DataReceived():
                self.data[event.stream_id] = self.data.get(event.stream_id, b"") + event.data
                if event.end_stream:
                    self.trailers[event.stream_id] = {}
            case TrailersReceived():
                self.trailers[event.stream_id] = dict(event.headers)
            case StreamReset():
                self.resets[event.stream_id] = event.error_code
            case GoAwayReceived():
                self.goaways.append((event.last_stream_id, event.error_code))
            case ConnectionClosed():
                pass

    def status(self, stream: int) -> tuple[int, str]:
        """Return the status of gRPC and the code of an error that a stream has ended with."""
        trailers = self.trailers[stream]
        return int(trailers[b"grpc-status"]), trailers.get(b"softstep-code", b"").decode()

    def ask(self, headers: Sequence[tuple[bytes, bytes]], data: bytes | None) -> tuple[int, str]:
        """Make a call and return how it ends."""
        stream = self.begin(headers, data)
        self.read(stream)
        assert stream in self.trailers, (self.resets, self.goaways, self.is_closed)
        return self.status(stream)


@contextlib.contextmanager
def raw_client(address: tuple[str, int]) -> Iterator[socket.socket]:
    """Open a connection on which HTTP/2 has begun, for frames that no client would send."""
    with socket.create_connection(address, SECONDS) as end:
        end.sendall(PREFACE + frame(SETTINGS, 0, 0))
        yield end


def read_frames(end: socket.socket) -> list[tuple[int, int, int, bytes]]:
    """Read to the end of a connection; return the kind, flags, stream and payload of each frame."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while part := end.recv(1 << 18):
            data += part
    found = []
    while data:
        size = int.from_bytes(data[:3], "big")
        found.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + size]))
        data = data[9 + size :]
    return found
