"""The handshakes of a port, in a real event loop with real sockets."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from service.serve.client_address import Proxies
from service.serve.http.admission import Admission
from service.serve.http.tls_transport import TlsListener, TlsTransport
from service.serve.watched_files import WatchedFiles
from service.settings import Settings
from tests.support.certificates import Authority

CLIENTS = 8
SECONDS = 30.0


class Client:
    """A client whose handshake goes over a socket step by step.

    Args:
        context: The context of its TLS.
        port: The port.
    """

    def __init__(self, context: ssl.SSLContext, port: int) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="127.0.0.1")
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.do_handshake()
        self.socket = socket.create_connection(("127.0.0.1", port), SECONDS)

    def send(self) -> None:
        """Send what TLS has to say."""
        self.socket.sendall(self.outgoing.read())

    def finish(self) -> None:
        """Read the answer to the first message, and end the handshake on this side."""
        while True:
            self.incoming.write(self.socket.recv(1 << 16))
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                continue
            return


class Upper(asyncio.Protocol):
    """Answers the bytes before the client's end in upper case."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer."""
        self.transport.write(data.upper())


def in_loop(folder: Path, act: Callable[[int, ssl.SSLContext], None], between: Callable[[], None]) -> None:
    """Serve a port; call `act` with it and a client's context in a thread, and `between` in each turn of the loop."""
    authority = Authority(folder)
    file = authority.sign("service")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)

    async def serve() -> None:
        admission = Admission(Settings(), Proxies([]))
        listener = TlsListener(WatchedFiles([], lambda: context, "tls"), admission, lambda _: Upper())
        loop = asyncio.get_running_loop()
        server = await loop.create_server(listener.accept, "127.0.0.1", 0)

        def turn() -> None:
            between()
            loop.call_soon(turn)

        turn()
        port = server.sockets[0].getsockname()[1]
        await asyncio.wait_for(asyncio.to_thread(act, port, authority.client()), SECONDS)
        server.close()

    uvloop.run(serve())


def test_a_turn_takes_one_step_of_one_handshake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests on other connections wait for one signature, not for those of a crowd; every handshake ends."""
    turns = [0]
    steps: list[int] = []
    take = TlsTransport.continue_handshake

    def record(client: TlsTransport) -> None:
        steps.append(turns[0])
        take(client)

    def count() -> None:
        turns[0] += 1

    def connect(port: int, context: ssl.SSLContext) -> None:
        clients = [Client(context, port) for _ in range(CLIENTS)]
        for message in (Client.send, Client.finish, Client.send):
            for client in clients:
                message(client)
        for client in clients:
            client.tls.write(b"hello")
            client.send()
            client.finish()
            while True:
                try:
                    assert client.tls.read(1 << 10) == b"HELLO"
                except ssl.SSLWantReadError:
                    client.incoming.write(client.socket.recv(1 << 16))
                    continue
                break
            client.socket.close()

    monkeypatch.setattr(TlsTransport, "continue_handshake", record)
    in_loop(tmp_path, connect, count)
    assert len(steps) >= 2 * CLIENTS
    assert len(steps) == len(set(steps))


def test_a_request_behind_the_handshake_and_the_end_is_answered(tmp_path: Path) -> None:
    """A client may send its last message of the handshake, a request and its end at once."""

    def connect(port: int, context: ssl.SSLContext) -> None:
        client = Client(context, port)
        client.send()
        client.finish()
        client.tls.write(b"hello")
        client.send()
        client.socket.shutdown(socket.SHUT_WR)
        answer = b""
        while part := client.socket.recv(1 << 16):
            client.incoming.write(part)
        while True:
            try:
                answer += client.tls.read(1 << 10)
            except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                break
        client.socket.close()
        assert answer == b"HELLO"

    in_loop(tmp_path, connect, lambda: None)
