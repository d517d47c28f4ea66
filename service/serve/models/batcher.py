"""Batch the requests of one turn of the event loop into one kernel call.

A heavy model reads megabytes of weights for one row, and the same megabytes for sixteen rows. So requests for it that
arrive in one turn of the event loop, or during a call, share the next call. There is no timer: an idle server computes
a single request in the next turn. A row's bits do not depend on its batch (softmax/kernels/matmul.py).

A call that would block the event loop for too long runs in a thread; kernels release the interpreter lock.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final, NamedTuple

from service.softmax.arrays import Floats
from service.softmax.row_protocols import RowModel
from service.softmax.sparse_model import USUAL_ENTRIES
from service.softmax.sparse_rows import Rows, SparseRows, concatenate_rows, count_rows

Classification = tuple[Floats, list[int]]

# With a million bytes of float32 weights or more, the time of a single row is that of reading memory (31 us for
# (1, 768, 1000)), and a batch shares it (6 us for each of 16 rows). With fewer, a call takes less time than the rest of
# the response.
HEAVY_WEIGHTS: Final = 1 << 18
# The multiplications that an elementary function counts as: a polynomial and a division, where a product is one
# instruction of a lane. This overestimates; relu takes fewer.
FUNCTION_PRODUCTS: Final = 32
# Multiplications of a core in a microsecond: half of what was measured on an AVX-512 core, to overestimate durations.
PRODUCTS_PER_US: Final = 50_000


def is_heavy(model: RowModel) -> bool:
    """Return whether requests for a model gain from sharing a kernel call."""
    return model.row_work.products >= HEAVY_WEIGHTS


def inline_rows(model: RowModel, microseconds: int) -> int:
    """Return the rows of a kernel call that takes about that time, at least one."""
    work = model.row_work
    return max(1, microseconds * PRODUCTS_PER_US // (work.products + FUNCTION_PRODUCTS * work.functions))


def usual_rows(rows: Rows) -> int:
    """Return how many rows of a usual length take as long as these: sparse rows may have many entries."""
    if isinstance(rows, SparseRows):
        return max(rows.n_rows, len(rows.columns) // USUAL_ENTRIES)
    return len(rows)


class _QueuedRequest(NamedTuple):
    """Rows, the future of their classification, and since when they wait."""

    rows: Rows
    future: asyncio.Future[Classification]
    since: float


class Batcher:
    """Batches the requests of one model. Use it on the event loop's thread only.

    Args:
        model: The model.
        rows_max: The limit of rows of a shared call; a larger request has a call of its own.
        thread_after_us: The estimated duration above which a call runs in the executor.
        executor: The executor of long calls.
        classify: Calls the model, and may measure the call.
    """

    def __init__(
        self,
        model: RowModel,
        rows_max: int,
        thread_after_us: int,
        executor: Executor,
        classify: Callable[[RowModel, Rows], Classification],
    ) -> None:
        self._model = model
        self._rows_max = rows_max
        self._inline_rows = inline_rows(model, thread_after_us)
        self._executor = executor
        self._classify = classify
        self._queued: deque[_QueuedRequest] = deque()
        self._busy = False

    def submit(self, rows: Rows) -> asyncio.Future[Classification]:
        """Queue B rows, which must not change until the future is done.

        Returns:
            The future of the probabilities (B, K) and the labels.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Classification] = loop.create_future()
        self._queued.append(_QueuedRequest(rows, future, loop.time()))
        if not self._busy:
            self._busy = True
            loop.call_soon(self._flush)
        return future

    def oldest_seconds(self) -> float:
        """Return how long the next request has waited for a call that runs in a thread; 0 if there is none."""
        return asyncio.get_running_loop().time() - self._queued[0].since if self._queued else 0.0

    def _flush(self) -> None:
        """Process the queue, call by call, until it is empty or a call runs in a thread."""
        while self._queued:
            batch = self._next_batch()
            rows = concatenate_rows([request.rows for request in batch])
            try:
                if usual_rows(rows) > self._inline_rows:
                    self._run_in_thread(batch, rows)
                    return
                self._set_results(batch, self._classify(self._model, rows))
            except Exception as error:  # noqa: BLE001  # the requests of the batch receive it
                self._set_errors(batch, error)
        self._busy = False

    def _next_batch(self) -> list[_QueuedRequest]:
        batch = [self._queued.popleft()]
        count = count_rows(batch[0].rows)
        while self._queued and count + count_rows(self._queued[0].rows) <= self._rows_max:
            batch.append(self._queued.popleft())
            count += count_rows(batch[-1].rows)
        return batch

    def _run_in_thread(self, batch: list[_QueuedRequest], rows: Rows) -> None:
        """Run one call in a thread, and process the rest of the queue afterwards."""
        call = asyncio.get_running_loop().run_in_executor(self._executor, self._classify, self._model, rows)

        def on_done(call: asyncio.Future[Classification]) -> None:
            # An executor that shuts down cancels the calls that it has not started.
            error = asyncio.CancelledError() if call.cancelled() else call.exception()
            if error is None:
                self._set_results(batch, call.result())
            else:
                self._set_errors(batch, error)
            self._flush()

        call.add_done_callback(on_done)

    @staticmethod
    def _set_results(batch: list[_QueuedRequest], classified: Classification) -> None:
        P, labels = classified
        start = 0
        for rows, future, _ in batch:
            stop = start + count_rows(rows)
            if not future.done():
                future.set_result((P[start:stop], labels[start:stop]))
            start = stop

    def _set_errors(self, batch: list[_QueuedRequest], error: BaseException) -> None:
        """Report an error to the request that caused it; each request of a shared call is repeated on its own."""
        if len(batch) == 1:
            if not batch[0].future.done():
                batch[0].future.set_exception(error)
            return
        for request in batch:
            try:
                self._set_results([request], self._classify(self._model, request.rows))
            except Exception as own_error:  # noqa: BLE001  # the request receives it
                self._set_errors([request], own_error)
