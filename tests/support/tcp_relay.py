"""A TCP relay that delays, stalls and cuts connections, and counts them and their bytes."""

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Coroutine, Iterator

CHUNK_BYTES = 1 << 18
# Pieces that wait in each direction; then the sender is held.
QUEUE_LENGTH = 256


def reset(end: asyncio.StreamWriter) -> None:
    """Close a connection at once; its other end gets an error instead of an end of file."""
    if not end.is_closing():
        end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.transport.abort()


class TcpRelay:
    """One relay on an event loop in a thread. Attributes may be set from any thread at any time.

    Args:
        target: The host and port where connections go; a path goes to a Unix socket.
        delay: Seconds by which each direction is delayed.

    Attributes:
        target: As above. A change concerns new connections.
        delay: As above. A change concerns new bytes.
        port: The relay's own port on the loopback interface, once it runs.
        connections: The number of connections that were opened.
        sent: The number of bytes that went to the target.
        received: The number of bytes that came from the target.
    """

    def __init__(self, target: tuple[str, int] | str, delay: float = 0.0) -> None:
        self.target, self.delay = target, delay
        self.port = self.connections = self.sent = self.received = 0
        self._loop = asyncio.new_event_loop()
        self._open = True
        self._flows = asyncio.Event()
        self._flows.set()
        self._ends: set[asyncio.StreamWriter] = set()

    @contextlib.contextmanager
    def running(self) -> Iterator["TcpRelay"]:
        """Run the relay until the end of the block."""
        thread = threading.Thread(target=self._loop.run_forever)
        thread.start()
        try:
            self._run(self._start())
            yield self
        finally:
            self._run(self._stop())
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()

    def cut(self) -> None:
        """Reset all connections, and each new one at once, until `mend`."""
        self._open = False
        self._run(self._reset())

    def mend(self) -> None:
        """Take connections again."""
        self._open = True

    def stall(self) -> None:
        """Let no byte pass until `resume`; connections stay open, and new ones are accepted."""
        self._run(self._let_flow(flows=False))

    def resume(self) -> None:
        """Let bytes pass again, first those that have waited."""
        self._run(self._let_flow(flows=True))

    def _run(self, action: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(action, self._loop).result()

    async def _reset(self) -> None:
        for end in self._ends:
            reset(end)

    async def _let_flow(self, *, flows: bool) -> None:
        if flows:
            self._flows.set()
        else:
            self._flows.clear()

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        self._server.close()
        await self._reset()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._ends.add(writer)
        try:
            if not self._open:
                reset(writer)
                return
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._relay(reader, writer)
        finally:
            self._ends.discard(writer)
            reset(writer)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if isinstance(self.target, str):
            upstream, out = await asyncio.open_unix_connection(self.target)
        else:
            upstream, out = await asyncio.open_connection(*self.target)
        self._ends.add(out)
        try:
            async with asyncio.TaskGroup() as group:
                for source, end, counter in ((reader, out, "sent"), (upstream, writer, "received")):
                    queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUE_LENGTH)
                    group.create_task(self._read(source, queue))
                    group.create_task(self._write(end, queue, counter))
        except* OSError:
            pass  # a side that closed or reset its connection; `reset` ends the other one
        finally:
            self._ends.discard(out)
            reset(out)

    async def _read(self, source: asyncio.StreamReader, queue: "asyncio.Queue[tuple[float, bytes]]") -> None:
        """Put what comes from one end into a queue, with the time at which it is due; at last an empty piece."""
        piece = b"-"
        while piece:
            piece = await source.read(CHUNK_BYTES)
            await queue.put((time.monotonic() + self.delay, piece))

    async def _write(
        self, end: asyncio.StreamWriter, queue: "asyncio.Queue[tuple[float, bytes]]", counter: str
    ) -> None:
        """Write what is in a queue to the other end when it is due."""
        while True:
            due, piece = await queue.get()
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            await self._flows.wait()
            if not piece:
                end.write_eof()
                return
            end.write(piece)
            await end.drain()
            setattr(self, counter, getattr(self, counter) + len(piece))
