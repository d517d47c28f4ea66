"""Long calls are made one after another, and more are refused while they wait for too long."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.errors import OverloadedError
from service.serve.handlers.long_work import LongWork
from service.serve.metrics.counters import SHED, SHED_EXPLANATIONS
from tests.support.http_requests import instances, request
from tests.support.server_pair import Pair

QUEUE_SECONDS = 0.1


def test_calls_wait_in_turn_and_then_no_longer() -> None:
    """While the next call has waited for too long, another one is refused; a call that is dropped is never made."""
    made: list[str] = []
    gate = threading.Event()

    async def talk() -> None:
        with ThreadPoolExecutor(1) as executor:
            work = LongWork(executor, QUEUE_SECONDS)
            first = work.start(gate.wait, 5)
            second, dropped = work.start(made.append, "second"), work.start(made.append, "dropped")
            dropped.cancel()
            await asyncio.sleep(1.5 * QUEUE_SECONDS)
            with pytest.raises(OverloadedError):
                work.start(made.append, "refused")
            gate.set()
            assert await first
            await second
            await work.start(made.append, "last")

    asyncio.run(talk())
    assert made == ["second", "last"]


def test_a_fault_that_no_client_waits_for_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A client that leaves does not make asyncio report the exception of its call."""

    async def talk() -> None:
        with ThreadPoolExecutor(1) as executor:
            LongWork(executor, QUEUE_SECONDS).start(int, "x")
            await asyncio.sleep(0.05)

    asyncio.run(talk())
    assert caplog.records == []


def test_all_long_calls_share_the_thread(iris_models: Path) -> None:
    """Explanations, trajectories and conversions are refused together, and are answered again afterwards."""
    row = [5.1, 3.5, 1.4, 0.2]
    scores = b'{"logits": [' + b",".join([b"[1, 2, 3]"] * 2000) + b"]}"
    calls = [
        request("POST", "/v1/models/iris:explain", instances([row] * 2000)),
        request("POST", "/v1/models/iris:trajectory", instances([row])),
        request("POST", "/v1/convert", scores),
    ]
    gate = threading.Event()
    with Pair(iris_models, queue_seconds=QUEUE_SECONDS) as pair:

        async def block() -> list[asyncio.Future[bool]]:
            started = [pair.worker.work.start(gate.wait, 5) for _ in range(2)]
            await asyncio.sleep(1.5 * QUEUE_SECONDS)
            return started

        async def end(started: list[asyncio.Future[bool]]) -> None:
            await asyncio.wait(started)

        started = pair.run(block())
        for fast in (True, False):
            for answer in pair.ask(*calls, fast=fast):
                assert (answer.status, answer.json["code"]) == (503, "overloaded")
        counters = pair.worker.registry.now.served["iris", 1].counters
        assert counters[SHED + SHED_EXPLANATIONS] == 4
        gate.set()
        pair.run(end(started))
        assert [answer.status for answer in pair.ask(*calls)] == [200] * 3
