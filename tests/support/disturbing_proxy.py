"""A proxy before a service that disturbs some answers: it cuts, delays or drops them after the service has given them.

Each answer is disturbed with a probability, in one of four ways:

- cut: the connection is closed before the first byte;
- half: the connection is closed after half of the answer;
- late: the answer comes after a client has given up;
- dropped: it never comes, and the connection stays open until the client closes it.
"""

import asyncio
import contextlib
import random
import threading
from collections import Counter
from collections.abc import Iterator

WAYS = ("cut", "half", "late", "dropped")
LENGTH = b"content-length:"


class DisturbingProxy:
    """One proxy on an event loop in a thread.

    Args:
        address: The host and port of the service.
        share: The probability that an answer is disturbed.
        late_seconds: The delay of a late answer.
        seed: Of the generator that chooses.

    Attributes:
        answers: The number of answers of the service.
        disturbed: How many of them were disturbed, by way.
    """

    def __init__(self, address: tuple[str, int], share: float, late_seconds: float, seed: int = 1) -> None:
        self._address, self._share, self._late = address, share, late_seconds
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()
        self.answers = 0
        self.disturbed: Counter[str] = Counter()

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        """Run the proxy until the end of the block; its value is the proxy's URL."""
        thread = threading.Thread(target=self._loop.run_forever)
        thread.start()
        try:
            port = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
            yield f"http://127.0.0.1:{port}"
        finally:
            asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()

    async def _start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for end in self._ends:
            end.transport.abort()
        await asyncio.gather(*(task for task in asyncio.all_tasks() if task is not asyncio.current_task()))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, out = await asyncio.open_connection(*self._address)
        self._ends |= {out, writer}
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    out.write(await read_message(reader))
                    await self._answer(await read_message(upstream), reader, writer)
        finally:
            out.close()
            writer.close()
            self._ends -= {out, writer}

    async def _answer(self, answer: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass an answer on; raise ConnectionError if that ends the connection."""
        self.answers += 1
        way = self._random.choice(WAYS) if self._random.random() < self._share else None
        if way is None:
            writer.write(answer)
            return
        self.disturbed[way] += 1
        if way == "dropped":
            await reader.read()
        elif way == "half":
            writer.write(answer[: len(answer) // 2])
            await writer.drain()
        elif way == "late":
            await asyncio.sleep(self._late)
            writer.write(answer)
            return
        raise ConnectionError


async def read_message(reader: asyncio.StreamReader) -> bytes:
    """Read one HTTP message whose body has a Content-Length, or that has no body."""
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [line[len(LENGTH) :] for line in head.lower().split(b"\r\n") if line.startswith(LENGTH)]
    return head + (await reader.readexactly(int(lengths[0])) if lengths else b"")
