"""The parser of HTTP, fuzzed: a whole connection of the protocol without a socket, and without FastAPI."""

import asyncio
import os
import re
import tempfile
from pathlib import Path
from typing import Any, Final

from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from service.process.shared_memory import SharedMemory
from service.serve.asgi import Reply
from service.serve.models.served_model import ServedModel
from service.serve.responses import error
from service.serve.worker import Worker, config_of
from service.settings import Settings
from tests.fuzz.fuzzer import KIND_TEXT_MAX
from tests.support.http_requests import chunked, instances, request
from tests.support.paths import SHIPPED

CODE: Final = re.compile(rb'"code":"(\w+)"')
TURNS: Final = 6  # of the event loop; a refusal of the application needs three
NOT_FOUND: Final = error("not_found", "Not found: this application has no paths.")
IRIS: Final = instances([[5.1, 3.5, 1.4, 0.2]])
HEADS: Final = (
    request("POST", "/v1/models/iris:predict", IRIS),
    request("POST", "/v1/models/iris:predict", IRIS).replace(b"X-Request-Id: test\r\n", b"") * 2,
    request("POST", "/v1/models/iris:predict?cold", IRIS, [("Expect", "100-continue")]),
    chunked("POST", "/v2/models/iris/infer", [IRIS[:5], IRIS[5:]], trailers=b"A: b\r\n"),
    request("GET", "/healthz", None, [("Connection", "Upgrade"), ("Upgrade", "h2c"), ("X-API-Key", "softstep_a")]),
    request("HEAD", "/readyz", None, [("Connection", "close"), ("Origin", "https://a.example")]),
    request("POST", "/v1/models/iris:feedback", IRIS, version="1.0", headers=[("Connection", "keep-alive")]),
    request("OPTIONS", "/v1/models?a=b", None, [("Authorization", "Bearer a"), ("Content-Type", "text/csv")]) * 3,
)


class RecordingTransport(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 2), "sockname": ("127.0.0.1", 1)})
        self.written = bytearray()
        self._closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep bytes."""
        self.written += data

    def is_closing(self) -> bool:
        """Return whether the connection was closed."""
        return self._closing

    def close(self) -> None:
        """Close the connection."""
        self._closing = True

    abort = close

    def can_write_eof(self) -> bool:
        """Return that a half can be closed."""
        return True

    def write_eof(self) -> None:
        """Do nothing: nothing reads."""

    def pause_reading(self) -> None:
        """Do nothing: the bytes are there."""

    resume_reading = pause_reading


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """Read a body and refuse the request, in place of FastAPI."""
    while (await receive()).get("more_body"):
        pass
    await Reply(NOT_FOUND)(scope, receive, send)


class Connections:
    """Feeds bytes to connections of one worker."""

    def __init__(self) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="fuzz-")
        settings = Settings(models=SHIPPED, data=Path(self._scratch.name), learn=False)
        _, pipe = os.pipe()
        self._worker: Final = Worker(settings, SharedMemory(1, 64), 0, pipe, actor_key=bytes(32))
        self._config: Final = config_of(refuse, self._worker.protocol)  # type: ignore[arg-type]  # any application
        self._loop: Final = asyncio.new_event_loop()
        self._loop.run_until_complete(self._worker.load_unload.rescan_models())

    @property
    def served(self) -> ServedModel:
        """The model that the requests are for."""
        return self._worker.registry.now.find_served("iris", None)

    def feed(self, data: bytes) -> object:
        """Give bytes to a new connection, in one part and then in two; return what tells its answers apart."""
        whole = self._loop.run_until_complete(self._converse([data]))
        half = len(data) // 2
        parts = self._loop.run_until_complete(self._converse([data[:half], data[half:]]))
        assert statuses(whole)[:1] == statuses(parts)[:1], "the answer depends on how the bytes arrive"
        assert b"HTTP/1.1 500" not in whole, "an answer of 500"
        return b" ".join((*statuses(whole), *CODE.findall(whole)))[:KIND_TEXT_MAX].decode()

    async def _converse(self, parts: list[bytes]) -> bytes:
        """Return what one connection answers to bytes that arrive in parts."""
        transport, state = RecordingTransport(), ServerState()
        protocol: Any = self._worker.protocol(config=self._config, server_state=state, app_state={})  # type: ignore[call-arg]
        protocol.connection_made(transport)
        for part in parts:
            if not transport.is_closing():
                protocol.data_received(part)
            for _ in range(TURNS):
                await asyncio.sleep(0)
        protocol.connection_lost(None)
        for _ in range(TURNS):
            await asyncio.sleep(0)
        return bytes(transport.written)


def statuses(answers: bytes) -> tuple[bytes, ...]:
    """Return the statuses of answers."""
    return tuple(line[9:12] for line in answers.split(b"\r\n") if line.startswith(b"HTTP/1.1 "))
