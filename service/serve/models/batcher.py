"""One kernel call for the requests of one event-loop turn.

A heavy model reads megabytes of weights for one row, and the same megabytes for sixteen; so requests for it that arrive
in one turn of the event loop, or while a call is under way, share the next call. There is no timer: an idle server
computes a single request in the turn it came in. A row's bits do not depend on its batch (softmax/kernels/matmul.py).

A call that would hold the event loop too long runs in a thread; kernels release the interpreter lock.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.softmax.classifier import Classifier

Floats = NDArray[np.floating[Any]]
Classification = tuple[Floats, list[int]]

# From a million bytes of float32 weights on, a single row waits for memory (31 us for (1, 768, 1000)) and shares it
# well (6 us a row for 16 rows); below, a call costs less than the answer around it.
HEAVY_WEIGHTS: Final = 1 << 18
# An activation counts as so many multiplications: a polynomial and a division, where a product is one instruction of a
# lane. It is an estimate on the safe side; relu takes fewer.
ACTIVATION_PRODUCTS: Final = 32
# Multiplications a core does in a microsecond, half of what was measured on an AVX-512 core, to stay on the safe side.
PRODUCTS_PER_US: Final = 50_000


def is_heavy(model: Classifier) -> bool:
    """Whether requests for a model gain from sharing a kernel call."""
    return sum(layer.inputs * layer.outputs for layer in model.layers) >= HEAVY_WEIGHTS


def inline_rows(model: Classifier, microseconds: int) -> int:
    """How many rows a kernel call may have to last about that long at most."""
    products = sum(layer.inputs * layer.outputs for layer in model.layers)
    products += ACTIVATION_PRODUCTS * sum(layer.outputs for layer in model.layers[:-1])
    return max(1, microseconds * PRODUCTS_PER_US // products)


class _Waiting(NamedTuple):
    X: Floats
    future: asyncio.Future[Classification]


class Batcher:
    """Gathers the requests of one model. Used by the event loop's thread alone.

    Args:
        model: What is called.
        rows_max: Rows that requests may share in one call; a larger request goes alone.
        thread_after_us: Estimated duration above which a call runs in the executor.
        executor: Where long calls run.
        classify: Calls the model; given so that the caller can time it.
    """

    def __init__(
        self,
        model: Classifier,
        rows_max: int,
        thread_after_us: int,
        executor: Executor,
        classify: Callable[[Classifier, Floats], Classification],
    ) -> None:
        self._model = model
        self._rows_max = rows_max
        self._inline_rows = inline_rows(model, thread_after_us)
        self._executor = executor
        self._classify = classify
        self._waiting: deque[_Waiting] = deque()
        self._busy = False

    def submit(self, X: Floats) -> asyncio.Future[Classification]:
        """Queue X (B, N), which must not change until the future is done."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Classification] = loop.create_future()
        self._waiting.append(_Waiting(X, future))
        if not self._busy:
            self._busy = True
            loop.call_soon(self._flush)
        return future

    def _flush(self) -> None:
        """Compute what waits, call by call, until nothing waits or a call has left for a thread."""
        while self._waiting:
            group = self._take()
            X = group[0].X if len(group) == 1 else np.concatenate([waiting.X for waiting in group])
            try:
                if len(X) > self._inline_rows:
                    self._leave(group, X)
                    return
                self._hand_out(group, self._classify(self._model, X))
            except Exception as error:  # noqa: BLE001  # it belongs to those who wait
                self._fail(group, error)
        self._busy = False

    def _take(self) -> list[_Waiting]:
        group = [self._waiting.popleft()]
        rows = len(group[0].X)
        while self._waiting and rows + len(self._waiting[0].X) <= self._rows_max:
            group.append(self._waiting.popleft())
            rows += len(group[-1].X)
        return group

    def _leave(self, group: list[_Waiting], X: Floats) -> None:
        """Run one call in a thread and go on with what waits when it is back."""
        call = asyncio.get_running_loop().run_in_executor(self._executor, self._classify, self._model, X)

        def back(call: asyncio.Future[Classification]) -> None:
            # A thread pool that shuts down calls off what it has not begun.
            error = asyncio.CancelledError() if call.cancelled() else call.exception()
            if error is None:
                self._hand_out(group, call.result())
            else:
                self._fail(group, error)
            self._flush()

        call.add_done_callback(back)

    @staticmethod
    def _hand_out(group: list[_Waiting], classified: Classification) -> None:
        P, labels = classified
        start = 0
        for X, future in group:
            stop = start + len(X)
            if not future.done():
                future.set_result((P[start:stop], labels[start:stop]))
            start = stop

    def _fail(self, group: list[_Waiting], error: BaseException) -> None:
        """Give an error to the request that caused it; of several that shared a call, each is tried alone."""
        if len(group) == 1:
            if not group[0].future.done():
                group[0].future.set_exception(error)
            return
        for waiting in group:
            try:
                self._hand_out([waiting], self._classify(self._model, waiting.X))
            except Exception as own:  # noqa: BLE001  # it belongs to the one who waits
                self._fail([waiting], own)
