"""One kernel call for the requests of one turn: what is shared, what stays apart, and what never changes."""

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
from service.serve.models.batcher import Batcher, Classification, inline_rows
from service.softmax.linear_model import LinearModel

Floats = NDArray[np.floating[Any]]
RANDOM = np.random.default_rng(3)
MODEL = LinearModel("softmax", RANDOM.standard_normal((16, 5), np.float32), np.zeros(5, np.float32))
LONG_US = 1_000_000
SECONDS = 20.0


class Spy:
    """A batcher whose calls are counted and may be made to wait."""

    def __init__(self, *, rows_max: int = 64, thread_after_us: int = LONG_US) -> None:
        self.sizes: list[int] = []
        self.threads: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.executor = ThreadPoolExecutor(1, "kernel")
        self.batcher = Batcher(MODEL, rows_max, thread_after_us, self.executor, self._classify)

    def _classify(self, model: LinearModel, X: Floats) -> Classification:
        self.sizes.append(len(X))
        self.threads.append(threading.current_thread().name)
        assert self.gate.wait(SECONDS)
        return model.classify(X)

    def run(self, talk: Callable[["Spy"], Coroutine[Any, Any, None]]) -> "Spy":
        """Let a coroutine use the batcher, in limited time."""
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
    """Whether an answer has the very bits of a call for its rows alone."""
    P, labels = MODEL.classify(X)
    return shared[0].tobytes() == P.tobytes() and shared[1] == labels


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(1, 64), st.sampled_from([1, LONG_US]))
def test_shared_calls_give_each_request_the_bits_it_gets_alone(sizes: list[int], rows_max: int, after_us: int) -> None:
    """In order, every row once, however the requests were put together and wherever the calls ran."""
    requests = [rows(size) for size in sizes]

    async def talk(spy: Spy) -> None:
        answers = await asyncio.gather(*map(spy.batcher.submit, requests))
        assert all(same(answer, X) for answer, X in zip(answers, requests, strict=True))

    spy = Spy(rows_max=rows_max, thread_after_us=after_us).run(talk)
    assert sum(spy.sizes) == sum(sizes)
    assert all(size <= rows_max or size in sizes for size in spy.sizes)


def test_the_requests_of_one_turn_share_a_call() -> None:
    """And the next turn's have another one; nobody waits for a timer."""

    async def talk(spy: Spy) -> None:
        await asyncio.gather(*(spy.batcher.submit(rows(2)) for _ in range(5)))
        await asyncio.gather(*(spy.batcher.submit(rows(1)) for _ in range(3)))

    assert Spy().run(talk).sizes == [10, 3]


def test_a_request_alone_is_computed_in_the_next_turn() -> None:
    """An idle server adds no delay."""

    async def talk(spy: Spy) -> None:
        future = spy.batcher.submit(rows(1))
        await asyncio.sleep(0)
        assert future.done()

    assert Spy().run(talk).threads == ["MainThread"]


def test_a_call_is_never_larger_than_the_limit_but_for_one_request() -> None:
    """A larger request goes alone, and those behind it keep their order."""

    async def talk(spy: Spy) -> None:
        await asyncio.gather(*(spy.batcher.submit(rows(size)) for size in (3, 4, 20, 1, 8)))

    assert Spy(rows_max=8).run(talk).sizes == [7, 20, 1, 8]


@pytest.mark.parametrize("after_us", [1, LONG_US])
def test_an_error_hits_the_request_that_caused_it(after_us: int) -> None:
    """Those who shared its call are answered, and so is who comes next."""
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


def test_a_long_call_leaves_the_loop_free() -> None:
    """It runs in a thread; what comes meanwhile waits and shares the next call."""

    async def talk(spy: Spy) -> None:
        spy.gate.clear()
        first = spy.batcher.submit(rows(1))
        turns = 0
        while turns < 20:
            await asyncio.sleep(0.001)
            turns += 1
        later = [spy.batcher.submit(rows(4)) for _ in range(3)]
        await asyncio.sleep(0.01)
        assert (first.done(), spy.sizes) == (False, [1])
        spy.gate.set()
        await asyncio.gather(first, *later)

    spy = Spy(thread_after_us=1)
    spy.batcher._inline_rows = 0
    assert spy.run(talk).sizes == [1, 12]
    assert all(name.startswith("kernel") for name in spy.threads)


def test_a_request_that_was_given_up_costs_the_others_nothing() -> None:
    """Cancelled before its call or during it, in a call that works or in one that fails."""
    keep = rows(2)

    async def talk(spy: Spy) -> None:
        first, second = spy.batcher.submit(rows(2)), spy.batcher.submit(keep)
        first.cancel()
        assert same(await second, keep)
        bad, good = spy.batcher.submit(rows(2, np.nan)), spy.batcher.submit(keep)
        bad.cancel()
        assert same(await good, keep)
        spy.batcher._inline_rows = 0
        spy.gate.clear()
        away, stays = spy.batcher.submit(rows(2)), spy.batcher.submit(keep)
        await asyncio.sleep(0.01)
        away.cancel()
        spy.gate.set()
        assert same(await stays, keep)

    Spy().run(talk)


def test_threads_that_are_gone_fail_the_request_and_not_the_batcher() -> None:
    """While a worker stops, its executor refuses calls; whoever asks gets that error and does not wait for ever."""

    async def talk(spy: Spy) -> None:
        spy.batcher._inline_rows = 1
        spy.executor.shutdown()
        for _ in range(2):
            with pytest.raises(RuntimeError):
                await spy.batcher.submit(rows(2))
        X = rows(1)
        assert same(await spy.batcher.submit(X), X)

    Spy().run(talk)


def test_a_call_that_was_called_off_fails_its_request() -> None:
    """An executor that shuts down cancels what it has not begun."""

    async def talk(spy: Spy) -> None:
        spy.batcher._inline_rows = 0
        spy.gate.clear()
        blocker = spy.executor.submit(spy.gate.wait, SECONDS)
        future = spy.batcher.submit(rows(1))
        await asyncio.sleep(0.01)
        spy.executor.shutdown(wait=False, cancel_futures=True)
        await asyncio.wait([future])
        assert isinstance(future.exception(), asyncio.CancelledError)
        spy.gate.set()
        assert await asyncio.wrap_future(blocker)

    assert Spy().run(talk).sizes == []


def test_longer_calls_are_estimated_from_the_size_of_the_weights() -> None:
    """One row may always be tried."""
    assert inline_rows(MODEL, 1) >= 1
    assert inline_rows(MODEL, 400) > inline_rows(MODEL, 200)
