"""TLS between the socket of a connection and HTTP: `ssl` computes, this module carries the bytes.

It has what event loops leave to themselves, and what a server on an open network needs: a limit of clients before their
handshakes, the newest certificate for each, pauses and ends as without TLS, and the true number of unsent bytes.
"""

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

from service.access.client_certificate import ClientCertificate, read_certificate
from service.serve.http.admission import Admission
from service.serve.watched_files import WatchedFiles

# The most that one record holds.
RECORD_BYTES: Final = 1 << 14

MakeProtocol = Callable[[ClientCertificate | None], asyncio.Protocol]
"""Makes the protocol of HTTP for a client, given its verified certificate."""


class TlsListener:
    """Accepts the clients of one port.

    Args:
        files: The TLS context of new connections.
        admission: The limits of connections.
        make_protocol: Makes the protocol of HTTP once a handshake is complete.

    Attributes:
        files: As above.
        admission: As above.
        make_protocol: As above.
        handshakes: The clients whose handshake is in progress.
    """

    def __init__(self, files: WatchedFiles[ssl.SSLContext], admission: Admission, make_protocol: MakeProtocol) -> None:
        self.files: Final = files
        self.admission: Final = admission
        self.make_protocol: Final = make_protocol
        self.handshakes: Final[set[TlsTransport]] = set()
        self._waiting: Final[deque[TlsTransport]] = deque()  # those with messages that no step has read

    def accept(self) -> "TlsTransport":
        """Return the protocol of a client that has connected."""
        return TlsTransport(self)

    def queue_step(self, client: "TlsTransport") -> None:
        """Take the next step of a client's handshake soon.

        A turn of the event loop takes one step: a signature costs as much as many requests, and clients that have a
        connection do not wait for a crowd of new ones.
        """
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._take_step)
        self._waiting.append(client)

    def _take_step(self) -> None:
        """Take the step of the client that waits longest, and others in the next turns."""
        client = self._waiting.popleft()
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._take_step)
        client.continue_handshake()

    def end_handshakes(self, since: float) -> None:
        """End the handshakes that began before a time.

        Args:
            since: Seconds of the event loop's clock.
        """
        for client in [client for client in self.handshakes if client.began <= since]:
            client.abort()


class TlsTransport(asyncio.Transport, asyncio.Protocol):
    """One client: a protocol to the transport of its socket, and the transport of HTTP.

    Args:
        listener: The port by which it came.

    Attributes:
        began: When it has connected, in seconds of the event loop's clock.
    """

    def __init__(self, listener: TlsListener) -> None:
        super().__init__()
        self.began: Final = asyncio.get_running_loop().time()
        self._listener: Final = listener
        self._incoming: Final = ssl.MemoryBIO()
        self._outgoing: Final = ssl.MemoryBIO()
        self._tls: Final = listener.files.value.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._protocol: asyncio.Protocol | None = None  # HTTP, from the end of the handshake on
        self._has_said_end = False

    # From the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the client's first message, unless there are too many clients."""
        self._socket = cast("asyncio.Transport", transport)
        address = transport.get_extra_info("peername")
        self._peer: str | None = address[0] if address else None  # it may have left already
        self._listener.handshakes.add(self)
        if not self._listener.admission.enter(self._peer):
            self._socket.abort()

    def data_received(self, data: bytes) -> None:
        """Continue the handshake soon, or pass on what the client has sent."""
        self._incoming.write(data)
        if self._protocol is not None:
            self._read(self._protocol)
        else:
            self._socket.pause_reading()
            self._listener.queue_step(self)

    def eof_received(self) -> bool | None:
        """Let HTTP decide whether to answer a client that has closed its direction, as without TLS."""
        return False if self._protocol is None else self._protocol.eof_received()

    def pause_writing(self) -> None:
        """Tell HTTP that the client does not read."""
        if self._protocol is not None:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Tell HTTP that the client reads again."""
        if self._protocol is not None:
            self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell HTTP that the connection has ended."""
        self._end_handshake()
        if self._protocol is not None:
            self._protocol.connection_lost(exc)

    def continue_handshake(self) -> None:
        """Read the client's messages, and begin HTTP at the end of the handshake."""
        if self._socket.is_closing():
            return
        self._socket.resume_reading()
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError:  # no TLS, no common version or cipher, or a certificate that is not valid
            self._flush()  # the alert
            self._socket.close()
        else:
            self._flush()
            self._end_handshake()
            self._begin_http()

    def _begin_http(self) -> None:
        """Give the connection to HTTP, with what the client has sent behind its handshake."""
        try:
            self._protocol = self._listener.make_protocol(read_certificate(self._tls.getpeercert()))
            self._protocol.connection_made(self)
            self._read(self._protocol)
        except BaseException:
            self._socket.abort()
            raise

    def _end_handshake(self) -> None:
        """Leave the clients without HTTP, which counts the connection from its beginning on."""
        if self in self._listener.handshakes:
            self._listener.handshakes.remove(self)
            self._listener.admission.leave(self._peer)

    def _read(self, protocol: asyncio.Protocol) -> None:
        """Pass on all complete records at once, so that a request in several records is one piece."""
        incoming, tls = self._incoming, self._tls
        data, has_ended = b"", False
        try:
            with contextlib.suppress(ssl.SSLWantReadError):  # the rest of a record is still to come
                while not has_ended and (incoming.pending or tls.pending()):
                    part = tls.read(RECORD_BYTES)
                    has_ended = not part
                    data = data + part if data else part
        except ssl.SSLError:  # a record that is not valid, or an alert
            self._flush()
            self._socket.abort()
            return
        if self._outgoing.pending:  # such as the answer to an update of keys
            self._flush()
        if data:
            protocol.data_received(data)
        if has_ended and not protocol.eof_received():
            self.close()

    def _flush(self) -> None:
        """Send what TLS has to say."""
        data = self._outgoing.read()
        if data:
            self._socket.write(data)

    # From HTTP

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send bytes; none after the end was said, or after the client has sent what is no TLS."""
        if data and not self._has_said_end and not self._socket.is_closing():
            self._tls.write(data)
            self._socket.write(self._outgoing.read())

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Encrypt and send some parts."""
        self.write(b"".join(list_of_data))

    def _say_end(self) -> None:
        """Tell the client that nothing follows; the client's own end is not waited for."""
        if not self._has_said_end:
            self._has_said_end = True
            with contextlib.suppress(ssl.SSLError):  # the client has not said its end
                self._tls.unwrap()
            self._flush()

    def can_write_eof(self) -> bool:
        """Return whether one direction can be closed."""
        return True

    def write_eof(self) -> None:
        """Close the direction to the client."""
        self._say_end()
        self._socket.write_eof()

    def close(self) -> None:
        """Close the connection once all is sent."""
        if self._protocol is not None:
            self._say_end()
        self._socket.close()

    def abort(self) -> None:
        """Close the connection at once."""
        self._socket.abort()

    def is_closing(self) -> bool:
        """Return whether the connection is closing or closed."""
        return self._socket.is_closing()

    def pause_reading(self) -> None:
        """Read nothing; all that was read is passed on already."""
        self._socket.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self._socket.resume_reading()

    def is_reading(self) -> bool:
        """Return whether the connection is read."""
        return self._socket.is_reading()

    def get_write_buffer_size(self) -> int:
        """Return the number of encrypted bytes that the client has not read."""
        return self._socket.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set when writing pauses and resumes."""
        self._socket.set_write_buffer_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return when writing pauses and resumes."""
        return self._socket.get_write_buffer_limits()

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol of HTTP, or this one before it begins."""
        return self._protocol or self

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Set the protocol of HTTP."""
        self._protocol = cast("asyncio.Protocol", protocol)

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401  # asyncio's own signature
        """Return a property of the connection: those of TLS, or those of the socket."""
        if name == "ssl_object":
            return self._tls
        if name == "sslcontext":
            return self._tls.context
        return self._socket.get_extra_info(name, default)
