"""Long calls in a thread of their own, one after another, so that no prediction waits for them."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from itertools import count, islice
from typing import Any, Final, TypeVar

from service.serve.responses import overloaded

T = TypeVar("T")


class LongWork:
    """Makes long calls in a thread, and refuses more while they wait for too long; used on the event loop's thread.

    Args:
        executor: The thread.
        queue_seconds: How long a call may wait until it begins.
    """

    def __init__(self, executor: Executor, queue_seconds: float) -> None:
        self._executor: Final = executor
        self._queue_seconds: Final = queue_seconds
        self._numbers: Final = count()
        self._since: Final[dict[int, float]] = {}  # when each call came, by its number; the first one runs

    def start(self, call: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:  # noqa: ANN401  # those of the call
        """Call a function in the thread; the future has its result. Cancel it, and a call that waits is dropped.

        Raises:
            OverloadedError: The next call has waited for too long.
        """
        loop = asyncio.get_running_loop()
        if any(loop.time() - since > self._queue_seconds for since in islice(self._since.values(), 1, 2)):
            raise overloaded()
        number = next(self._numbers)
        self._since[number] = loop.time()
        work = loop.run_in_executor(self._executor, call, *arguments)
        work.add_done_callback(partial(self._end, number))
        return work

    def _end(self, number: int, work: asyncio.Future[Any]) -> None:
        """Note that a call has ended or was dropped."""
        del self._since[number]
        if not work.cancelled():
            work.exception()  # asyncio would log one that nothing waits for
