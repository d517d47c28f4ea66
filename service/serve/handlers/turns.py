"""Take turns on the event loop: one long step in each, so that small requests and probes are answered in between.

Parsing a large body and writing a large response keep the interpreter for milliseconds, on whatever thread they run. If
many large requests arrived together and were answered together, everything else would wait for all of them. Here one
step runs, then the event loop looks for what has arrived meanwhile, and then the next step runs.

The event loop accepts one new client in each of its turns. So a step also waits while clients wait to be accepted, or
the last of many would wait for as many steps.
"""

import asyncio
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

T = TypeVar("T")
Step = Callable[[], None]

# A body of JSON from this size on is large: 64 KiB of short numbers take about 0.3 ms from the body to the response.
LARGE_BYTES: Final = 1 << 16
# Binary tensors are only copied: 4 MiB take as long.
LARGE_BINARY_BYTES: Final = 1 << 22
# The longest time that a step waits for new clients, so that a flood of them does not stop the steps.
CLIENTS_SECONDS: Final = 0.1


class Turns:
    """The long steps of one worker, in order; used on the event loop's thread."""

    def __init__(self) -> None:
        self._steps: deque[tuple[float, Step]] = deque()  # each with the time since which it waits
        self._is_running = False
        self._clients = select.poll()
        self._due = 0.0  # when the next step runs, even if clients wait

    def watch(self, listeners: Iterable[socket.socket]) -> None:
        """Accept the clients of these sockets before each step; of none, before the sockets close."""
        self._clients = select.poll()
        for listener in listeners:
            self._clients.register(listener, select.POLLIN)

    def call(self, make: Callable[[], "T | asyncio.Future[T]"]) -> "asyncio.Future[T]":
        """Call a function in a turn of its own, and return a future of its result.

        If the future is cancelled before, the function is dropped at once, with all that it holds.
        """
        later: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        waiting = [make]

        def step() -> None:
            if waiting:
                _settle(later, waiting.pop())

        def drop(_: object) -> None:
            waiting.clear()

        later.add_done_callback(drop)
        if not self._steps:
            self._due = time.monotonic() + CLIENTS_SECONDS
        self._steps.append((time.monotonic(), step))
        self._start()
        return later

    def oldest_seconds(self, now: float) -> float:
        """Return how long the next step has waited at a time of the monotonic clock; 0 if there is none."""
        return now - self._steps[0][0] if self._steps else 0.0

    async def wait(self, body: bytes) -> None:
        """Wait for a turn in which a body can be parsed, if it is large."""
        if len(body) >= LARGE_BYTES:
            await self.call(lambda: None)

    def _start(self) -> None:
        if not self._is_running:
            self._is_running = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        """Run one step, and leave the next one to the next turn of the event loop."""
        self._is_running = False
        if self._clients.poll(0) and time.monotonic() < self._due:
            self._start()
            return
        _, step = self._steps.popleft()
        step()
        self._due = time.monotonic() + CLIENTS_SECONDS
        if self._steps:
            self._start()


def _settle(later: "asyncio.Future[T]", make: Callable[[], "T | asyncio.Future[T]"]) -> None:
    """Call a function and settle a future with its result, or with that of the future that it returns."""
    try:
        made = make()
    except Exception as error:  # noqa: BLE001  # the caller waits for it
        later.set_exception(error)
        return
    if not isinstance(made, asyncio.Future):
        later.set_result(made)
        return

    def forward(done: "asyncio.Future[T]") -> None:
        reason = asyncio.CancelledError() if done.cancelled() else done.exception()
        if later.done():
            return
        if reason is None:
            later.set_result(done.result())
        elif done.cancelled():
            later.cancel()
        else:
            later.set_exception(reason)

    made.add_done_callback(forward)
