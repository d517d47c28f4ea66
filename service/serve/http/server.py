"""The server of one worker: it serves its ports until SIGTERM, and then loses no request that a client has sent.

    SIGTERM        each answer is the last one on its connection; connections that say nothing stay open
    end of drain   the kernel ignores new clients; connections that it has completed are accepted; the listener closes
    after that     connections that were quiet for a while are closed; requests in progress end

A client that sends while its server closes the connection gets no answer, and HTTP has no way to prevent that. So a
quiet connection is closed at the end of the drain only: by then busy clients have had an answer that closed theirs. A
connection that has just been accepted or answered is not quiet yet, because its client's next request may be under way.
"""

import asyncio
import contextlib
import select
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple, Protocol, cast

import uvicorn
from uvicorn.server import ServerState

from service.access.client_certificate import ClientCertificate
from service.process.listener import BACKLOG, ignore_new_clients
from service.process.shared_memory import SharedMemory
from service.serve.http.connection import Connection
from service.serve.http.shared_state import SharedState
from service.serve.http.tls_transport import MakeProtocol, TlsListener
from service.serve.metrics.busy_time import BusyTime
from service.serve.watched_files import WatchedFiles
from service.settings import Settings

NEVER: Final = float("inf")
# Handshakes of TCP that have begun end within this time, unless the client is farther away than most.
HANDSHAKE_SECONDS: Final = 0.1
# Those of TLS take two more round trips and some computing.
TLS_HANDSHAKE_SECONDS: Final = 1.0
# A connection on which nothing has happened for this time is quiet.
QUIET_SECONDS: Final = 0.3
# Pause between two looks at the connections that are still open.
POLL_SECONDS: Final = 0.02
# The server's share of shutdown_seconds, so that the parent need not kill.
GRACE_SHARE: Final = 0.8


class OpenConnection(Protocol):
    """A connection of any protocol, at the end of the service."""

    def begin_drain(self) -> None:
        """Have the client make further requests on another connection."""

    def is_quiet(self, since: float) -> bool:
        """Whether the connection has waited for a request since a time."""

    def close_quiet(self) -> None:
        """Close a connection that waits for a request."""

    def fileno(self) -> int:
        """Return the descriptor of the socket."""


class OtherPort(NamedTuple):
    """A port with another protocol than HTTP/1.1.

    Attributes:
        connect: Makes the protocol of a new connection, given the server's state and the client's certificate.
        tls: The TLS context of new connections, or None to serve without TLS.
    """

    connect: Callable[[ServerState, ClientCertificate | None], asyncio.Protocol]
    tls: WatchedFiles[ssl.SSLContext] | None


class Server(uvicorn.Server):
    """Uvicorn's server with deadlines, a drain, and a shutdown that answers all requests.

    Args:
        config: Uvicorn's configuration.
        settings: The times of the drain and of the shutdown.
        memory: The memory that the processes share.
        shared: The state that the connections share.
        tls: The TLS context of new connections, or None to serve without TLS.
        grpc: The port of gRPC, whose socket is the last one; None if there is none.
    """

    def __init__(  # noqa: PLR0917  # the parts of a server
        self,
        config: uvicorn.Config,
        settings: Settings,
        memory: SharedMemory,
        shared: SharedState,
        tls: WatchedFiles[ssl.SSLContext] | None = None,
        grpc: OtherPort | None = None,
    ) -> None:
        super().__init__(config)
        self._tls = tls
        self._grpc = grpc
        self._tls_listeners: list[TlsListener] = []
        self._settings = settings
        self._memory = memory
        self._shared = shared
        self._drain_end = NEVER
        self._busy: BusyTime | None = None  # known once the loop runs, because it is that of one thread

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: SIGTERM ends a worker that does not serve yet, and `startup` handles it from then on."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to serve, and to drain on SIGTERM.

        Args:
            sockets: The listening sockets: the only one, or the public one and then that of all calls; then that of
                gRPC, if there is one.
        """
        await super().startup([])
        self._busy = BusyTime()
        listeners = sockets or []
        last = len(listeners) - (1 if self._grpc is None else 2)
        for number, listener in enumerate(listeners):
            if number <= last:
                make = partial(self._make_connection, number < last)
                self.servers.append(await self._listen(listener, self._tls, make))
            elif self._grpc is not None:
                make_grpc = partial(self._grpc.connect, self.server_state)
                self.servers.append(await self._listen(listener, self._grpc.tls, make_grpc))
        self._shared.dispatcher.turns.watch(listeners)
        if threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.begin_drain)

    async def _listen(
        self, listener: socket.socket, files: WatchedFiles[ssl.SSLContext] | None, make_protocol: MakeProtocol
    ) -> "asyncio.base_events.Server":
        """Accept connections from a socket.

        Args:
            listener: The listening socket.
            files: The TLS context of new connections, or None to serve without TLS.
            make_protocol: Makes the protocol of a connection, given the client's certificate.
        """
        loop = asyncio.get_running_loop()
        if files is not None:
            tls = TlsListener(files, self._shared.admission, make_protocol)
            self._tls_listeners.append(tls)
            return await loop.create_server(tls.accept, sock=listener, backlog=BACKLOG)
        return await loop.create_server(partial(make_protocol, None), sock=listener, backlog=BACKLOG)

    def _make_connection(self, is_public: bool, certificate: ClientCertificate | None) -> Connection:  # noqa: FBT001
        """Return the protocol of a new connection, given the port by which it came and the client's certificate."""
        make: type[Any] = self.config.http_protocol_class
        connection: Connection = make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
        connection.kind = self._shared.heads.kind(certificate, is_public=is_public)
        return connection

    def begin_drain(self) -> None:
        """Make each answer the last one on its connection, and stop when the drain is over.

        The parent has set the end if the whole service stops. Else only this worker was asked to.
        """
        end = self._memory.drain_end or time.monotonic() + self._settings.drain_seconds
        self._drain_end = min(self._drain_end, end)
        self._shared.begin_drain()
        for connection in self._connections():
            connection.begin_drain()

    def _connections(self) -> list[OpenConnection]:
        """Return the open connections; every one has a protocol of the service's own."""
        return cast("list[OpenConnection]", list(self.server_state.connections))

    async def on_tick(self, counter: int) -> bool:
        """Check deadlines, publish gauges and look whether the drain is over, ten times a second."""
        self._tick()
        asyncio.get_running_loop().call_soon(self._shared.dispatcher.load.observe_turn, time.monotonic())
        return await super().on_tick(counter) or self._drain_end <= time.monotonic()

    def _tick(self) -> None:
        state, now = self.server_state, asyncio.get_running_loop().time()
        self._shared.tick(state.connections, len(state.tasks))
        if self._busy is not None:
            self._shared.counters.count_busy(self._busy.passed())
        self._end_slow_handshakes(now - self._settings.header_seconds)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept what waits, close the listener and quiet connections, let requests end, and end the lifespan."""
        self.begin_drain()
        listeners = sockets or []
        loop = asyncio.get_running_loop()
        end = loop.time() + self._settings.shutdown_seconds * GRACE_SHARE
        if self._memory.draining:  # else other processes go on to accept from the same queue
            await _accept_queued(listeners)
        self._shared.dispatcher.turns.watch([])
        for server in self.servers:
            server.close()
        for listener in listeners:
            listener.close()
        await asyncio.sleep(POLL_SECONDS)  # a connection that was accepted just now is known in the loop's next turn
        while self._is_busy() and loop.time() < end:
            self._close_quiet_connections(loop.time() - QUIET_SECONDS)
            self._end_slow_handshakes(loop.time() - TLS_HANDSHAKE_SECONDS)
            self._tick()
            await asyncio.sleep(POLL_SECONDS)
        for task in list(self.server_state.tasks):
            task.cancel()
        if self._busy is not None:
            self._busy.close()
        await self.lifespan.shutdown()

    def _is_busy(self) -> bool:
        """Whether a client is connected or a request in progress."""
        state = self.server_state
        return bool(state.connections or state.tasks) or any(listener.handshakes for listener in self._tls_listeners)

    def _close_quiet_connections(self, since: float) -> None:
        """Close the connections that have been quiet since a time, unless a request has arrived but is not read."""
        quiet = {connection.fileno(): connection for connection in self._connections() if connection.is_quiet(since)}
        poll = select.poll()
        for fd in quiet:
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(0):
            del quiet[fd]
        for connection in quiet.values():
            connection.close_quiet()

    def _end_slow_handshakes(self, since: float) -> None:
        """End the TLS handshakes that began before a time."""
        for listener in self._tls_listeners:
            listener.end_handshakes(since)


async def _accept_queued(listeners: list[socket.socket]) -> None:
    """Ignore new clients, and wait until the event loop has accepted all that the kernel has queued."""
    for listener in listeners:
        ignore_new_clients(listener)
    await asyncio.sleep(HANDSHAKE_SECONDS)
    while select.select(listeners, [], [], 0)[0]:  # noqa: ASYNC110  # the loop accepts without an event
        await asyncio.sleep(POLL_SECONDS)
