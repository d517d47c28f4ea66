"""Two servers of the same models on one event loop in a thread.

One has the service's own protocol, the fast one; the other has uvicorn's, the plain one. The client runs on that loop
too, so it can wait until a server has received each piece.
"""

import asyncio
import contextlib
import os
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, Self, TypeVar

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.process.shared_memory import HANDLED, STATUS_MAX, STATUSES, SharedMemory
from service.process.unload_list import publish_unload_list
from service.process.wakeup import Wakeup
from service.serve.api.app import make_app
from service.serve.http.server import Server
from service.serve.models.load_unload import LoadRequests
from service.serve.wire.feedback_tokens import TokenKeys
from service.serve.worker import Worker, WorkerLinks, config_of
from service.settings import Settings
from service.store.directory.data_directory import DataDirectory
from tests.support.http_connection import ClientConnection, Response
from tests.support.http_requests import request
from tests.support.waiting import SECONDS, wait_until

T = TypeVar("T")


class Pair:
    """Both servers on one event loop in a thread, with a log and without a learner.

    Attributes:
        worker: The parts of the fast server's worker.
        fast_listener: The listening socket of the service's own protocol.
        plain_listener: The listening socket of uvicorn's protocol.
        received: The number of bytes that both servers have received.
        loop: The event loop of servers and client.
        orders: The pipe's end that receives the worker's load and unload requests.
    """

    def __init__(self, models: Path, **settings: Any) -> None:
        self._scratch = tempfile.TemporaryDirectory()
        self.settings = Settings(models=models, **{"scan_seconds": 60.0, "data": Path(self._scratch.name), **settings})
        self.shared_memory = SharedMemory(1, 64)
        self.received = 0
        self.fast_listener, self.plain_listener = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
        self.loop = uvloop.new_event_loop()
        self.orders, self._pipe = os.pipe()
        self._load_requests = LoadRequests()
        links = None
        if self.settings.learn:
            links = WorkerLinks(DataDirectory(self.settings.data), TokenKeys([bytes(32)]), Wakeup(), (Wakeup(),))
        self.worker = Worker(self.settings, self.shared_memory, 0, self._pipe, links, actor_key=bytes(32))
        self._servers: list[uvicorn.Server] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(lambda: len(self._servers) == 2 and all(server.started for server in self._servers))
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.should_exit = True
        self._thread.join(3 * SECONDS)
        self.loop.close()
        for end in (self.orders, self._pipe):
            os.close(end)
        self._scratch.cleanup()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        worker = self.worker
        self.loop.add_reader(self.orders, self._carry)
        protocol = self._counting(worker.protocol)
        fast_app = make_app(worker.context, worker.counters, worker.lifespan)
        plain_app = make_app(worker.context, worker.counters)
        self._servers += [
            Server(config_of(fast_app, protocol), self.settings, self.shared_memory, worker.shared),
            uvicorn.Server(config_of(plain_app, self._counting(HttpToolsProtocol))),
        ]
        sockets = (self.fast_listener, self.plain_listener)
        await asyncio.gather(
            *(server.serve([listener]) for server, listener in zip(self._servers, sockets, strict=True))
        )
        self.loop.remove_reader(self.orders)

    @property
    def connections(self) -> set[Any]:
        """The open connections of the fast server."""
        return self._servers[0].server_state.connections

    @property
    def total_requests(self) -> int:
        """The requests that uvicorn counted at the fast server."""
        return self._servers[0].server_state.total_requests

    def statuses(self) -> dict[int, int]:
        """Return the number of responses by status."""
        counts = {status: self.shared_memory.sum_over_workers(STATUSES + status) for status in range(100, STATUS_MAX)}
        return {status: count for status, count in counts.items() if count}

    def _carry(self) -> None:
        """Carry out a worker's load or unload request as the parent process does."""
        for line in os.read(self.orders, 4096).splitlines():
            _, token, unload_list = self._load_requests.apply_line(line)
            publish_unload_list(self.shared_memory, unload_list)
            self.shared_memory.cells[self.shared_memory.slot(0) + HANDLED] = token

    def _counting(self, protocol: type[Any]) -> type[Any]:
        pair = self

        class Counting(protocol):  # type: ignore[misc]
            def data_received(self, data: bytes) -> None:
                pair.received += len(data)
                super().data_received(data)

        return Counting

    def run(self, coroutine: Coroutine[Any, Any, T], seconds: float = 12.0) -> T:
        """Run a coroutine on the servers' loop and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(seconds)

    def talk(self, conversation: Callable[[ClientConnection], Coroutine[Any, Any, T]], *, fast: bool = True) -> T:
        """Run a conversation over one connection and return its result."""

        async def connected() -> T:
            async with self.connect(fast=fast) as connection:
                return await conversation(connection)

        return self.run(connected())

    def ask(self, *requests: bytes, fast: bool = True) -> list[Response]:
        """Send requests one by one over one connection and return the responses."""

        async def talk(connection: ClientConnection) -> list[Response]:
            return [await connection.ask(request) for request in requests]

        return self.talk(talk, fast=fast)

    def list_posts(self) -> list[str]:
        """Return the targets of all documented calls that take a body, for iris version 1."""
        (document,) = self.ask(request("GET", "/openapi.json"))
        paths = [path for path, calls in document.json["paths"].items() if "post" in calls]
        assert len(paths) > 20
        return [path.replace("{name}", "iris").replace("{version}", "1") for path in paths]

    @contextlib.asynccontextmanager
    async def connect(self, *, fast: bool = True) -> AsyncIterator[ClientConnection]:
        """Connect to one of the servers until the end of the block."""
        listener = self.fast_listener if fast else self.plain_listener
        with socket.socket() as end:
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self.loop.sock_connect(end, listener.getsockname())
            yield ClientConnection(self, end)

    async def wait_received(self, count: int) -> None:
        """Wait until the servers have received this many bytes in total."""
        async with asyncio.timeout(SECONDS):
            while self.received < count:  # noqa: ASYNC110  # there is no event to wait for
                await asyncio.sleep(0)

    async def settled(self) -> tuple[int, int]:
        """Wait until no request is in flight; return the requests in flight and the body bytes that are held."""
        shared = self.worker.shared
        async with asyncio.timeout(SECONDS):
            while shared.in_flight or shared.body_bytes:  # noqa: ASYNC110  # there is no event to wait for
                await asyncio.sleep(0.01)
        return shared.in_flight, shared.body_bytes
