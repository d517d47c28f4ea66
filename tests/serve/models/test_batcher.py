"""The requests of one turn of the loop share kernel calls, and each gets the bits and errors of its own rows."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.errors import UnacceptableError
from service.learn.state import LearnerState
from service.serve.models.batcher import Batcher, Classification, inline_rows
from service.softmax.linear_model import LinearModel
from tests.support.artifacts import artifact

Floats = NDArray[np.floating[Any]]
RANDOM = np.random.default_rng(3)
MODEL = LinearModel("softmax", RANDOM.standard_normal((16, 5), np.float32), np.zeros(5, np.float32))
LONG_US = 1_000_000
SECONDS = 20.0


class Spy:
    """A batcher that records its calls and can block them."""

    def __init__(self, *, rows_max: int = 64, thread_after_us: int = LONG_US) -> None:
        self.sizes: list[int] = []
        self.threads: list[str] = []
        self.released = threading.Event()
        self.released.set()
        self.executor = ThreadPoolExecutor(1, "kernel")
        self.batcher = Batcher(MODEL, rows_max, thread_after_us, self.executor, self._classify)

    def _classify(self, model: LinearModel, X: Floats) -> Classification:
        self.sizes.append(len(X))
        self.threads.append(threading.current_thread().name)
        assert self.released.wait(SECONDS)
        return model.classify(X)

    def run(self, talk: Callable[["Spy"], Coroutine[Any, Any, None]]) -> "Spy":
        """Run a coroutine with the batcher, with a time limit."""
        with self.executor:
            asyncio.run(asyncio.wait_for(talk(self), SECONDS))
        return self


def rows(count: int, fill: float | None = None) -> Floats:
    """X (count, 16)."""
    X = RANDOM.standard_normal((count, 16), np.float32)
    if fill is not None:
        X[:] = fill
    return X


def same(shared: Classification, X: Floats) -> bool:
    """Whether a result has the bits of a call with its rows only."""
    P, labels = MODEL.classify(X)
    return shared[0].tobytes() == P.tobytes() and shared[1] == labels


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(1, 64), st.sampled_from([1, LONG_US]))
def test_shared_calls_do_not_change_bits(sizes: list[int], rows_max: int, after_us: int) -> None:
    """Every request gets its own rows in order, however calls are shared and wherever they run."""
    requests = [rows(size) for size in sizes]

    async def talk(spy: Spy) -> None:
        answers = await asyncio.gather(*map(spy.batcher.submit, requests))
        assert all(same(answer, X) for answer, X in zip(answers, requests, strict=True))

    spy = Spy(rows_max=rows_max, thread_after_us=after_us).run(talk)
    assert sum(spy.sizes) == sum(sizes)
    assert all(size <= rows_max or size in sizes for size in spy.sizes)


def test_the_requests_of_one_turn_share_a_call() -> None:
    """The requests of the next turn share another call, without a timer."""

    async def talk(spy: Spy) -> None:
        await asyncio.gather(*(spy.batcher.submit(rows(2)) for _ in range(5)))
        await asyncio.gather(*(spy.batcher.submit(rows(1)) for _ in range(3)))

    assert Spy().run(talk).sizes == [10, 3]


def test_a_single_request_is_computed_in_the_next_turn() -> None:
    """An idle server does not delay a request."""

    async def talk(spy: Spy) -> None:
        future = spy.batcher.submit(rows(1))
        await asyncio.sleep(0)
        assert future.done()

    assert Spy().run(talk).threads == ["MainThread"]


def test_only_a_single_request_exceeds_the_limit_of_rows() -> None:
    """A larger request has its own call, and later requests keep their order."""

    async def talk(spy: Spy) -> None:
        await asyncio.gather(*(spy.batcher.submit(rows(size)) for size in (3, 4, 20, 1, 8)))

    assert Spy(rows_max=8).run(talk).sizes == [7, 20, 1, 8]


@pytest.mark.parametrize("after_us", [1, LONG_US])
def test_an_error_is_reported_to_the_request_that_caused_it(after_us: int) -> None:
    """The other requests of the call, and later ones, get their results."""
    good = [rows(20), rows(20)]

    async def talk(spy: Spy) -> None:
        batch = [good[0], rows(20, np.nan), good[1]]
        answers = await asyncio.gather(*map(spy.batcher.submit, batch), return_exceptions=True)
        assert isinstance(answers[1], UnacceptableError)
        for answer, X in zip((answers[0], answers[2]), good, strict=True):
            assert not isinstance(answer, BaseException)
            assert same(answer, X)
        with pytest.raises(UnacceptableError):
            await spy.batcher.submit(rows(1, np.inf))
        assert same(await spy.batcher.submit(good[0]), good[0])

    Spy(thread_after_us=after_us).run(talk)


def test_a_long_call_does_not_block_the_loop() -> None:
    """A long call runs in a thread, and requests that arrive meanwhile share the next call."""

    async def talk(spy: Spy) -> None:
        spy.released.clear()
        first = spy.batcher.submit(rows(1))
        iterations = 0
        while iterations < 20:
            await asyncio.sleep(0.001)
            iterations += 1
        later = [spy.batcher.submit(rows(4)) for _ in range(3)]
        await asyncio.sleep(0.01)
        assert (first.done(), spy.sizes) == (False, [1])
        spy.released.set()
        await asyncio.gather(first, *later)

    spy = Spy(thread_after_us=1)
    # The batcher sets at least 1; with 0 every call runs in the executor.
    spy.batcher._inline_rows = 0
    assert spy.run(talk).sizes == [1, 12]
    assert all(name.startswith("kernel") for name in spy.threads)


def test_a_cancelled_request_does_not_affect_others() -> None:
    """A request may be cancelled before or during a call that succeeds or fails."""
    keep = rows(2)

    async def talk(spy: Spy) -> None:
        first, second = spy.batcher.submit(rows(2)), spy.batcher.submit(keep)
        first.cancel()
        assert same(await second, keep)
        bad, good = spy.batcher.submit(rows(2, np.nan)), spy.batcher.submit(keep)
        bad.cancel()
        assert same(await good, keep)
        # The batcher sets at least 1; with 0 every call runs in the executor.
        spy.batcher._inline_rows = 0
        spy.released.clear()
        away, stays = spy.batcher.submit(rows(2)), spy.batcher.submit(keep)
        await asyncio.sleep(0.01)
        away.cancel()
        spy.released.set()
        assert same(await stays, keep)

    Spy().run(talk)


def test_an_executor_that_has_shut_down_fails_only_the_request() -> None:
    """A request gets the error of an executor that rejects calls, and the batcher still works."""

    async def talk(spy: Spy) -> None:
        # The batcher estimates it; with 1, a call of two rows runs in the executor.
        spy.batcher._inline_rows = 1
        spy.executor.shutdown()
        for _ in range(2):
            with pytest.raises(RuntimeError):
                await spy.batcher.submit(rows(2))
        X = rows(1)
        assert same(await spy.batcher.submit(X), X)

    Spy().run(talk)


def test_a_cancelled_call_fails_its_request() -> None:
    """An executor that shuts down cancels the calls that it has not started."""

    async def talk(spy: Spy) -> None:
        # The batcher sets at least 1; with 0 every call runs in the executor.
        spy.batcher._inline_rows = 0
        spy.released.clear()
        blocker = spy.executor.submit(spy.released.wait, SECONDS)
        future = spy.batcher.submit(rows(1))
        await asyncio.sleep(0.01)
        spy.executor.shutdown(wait=False, cancel_futures=True)
        await asyncio.wait([future])
        assert isinstance(future.exception(), asyncio.CancelledError)
        spy.released.set()
        assert await asyncio.wrap_future(blocker)

    assert Spy().run(talk).sizes == []


def test_the_duration_of_a_call_is_estimated_from_the_weights() -> None:
    """At least one row may run on the event loop."""
    assert inline_rows(MODEL, 1) >= 1
    assert inline_rows(MODEL, 400) > inline_rows(MODEL, 200)


def test_the_cost_of_a_mixture_counts_features_and_experts() -> None:
    """A row takes the products of 256 features and of each expert, also of an offset, and their functions."""
    work = {}
    for kind in ("zero", "trained"):
        state = LearnerState(artifact(kind, N=64, K=10, learning={"rule": "mixture"}))
        state.fold_rows(RANDOM.standard_normal((1, 64), np.float32), np.zeros(1, np.int64))
        model = state.served_parameters().build_model()
        work[kind] = model.row_work
        assert inline_rows(model, 200) == 200 * 50_000 // (model.row_work.products + 32 * model.row_work.functions)
    # The weights of "zero" are zero, but its bias is an offset too.
    products = 64 * 256 + 10 * (321 + 65 + 65) + 64 * 10
    assert work["zero"] == (products, 256 + 64 + 10 * 8)
    assert work["trained"] == (products + 10 * 321, 256 + 64 + 10 * 10)
