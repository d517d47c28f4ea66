"""Turns of the event loop, and the responses to requests that wait for theirs."""

import asyncio
import socket
import struct
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.serve.handlers import dispatcher
from service.serve.handlers.turns import LARGE_BYTES, Turns
from tests.support.http_connection import ClientConnection, Response
from tests.support.http_requests import infer, instances, request
from tests.support.server_pair import Pair

SMALL = request("GET", "/readyz")
PATHS = {"predict": "/v1/models/iris:predict", "infer": "/v2/models/iris/infer", "explain": "/v1/models/iris:explain"}
numbers = st.floats(-1e6, 1e6, width=32) | st.integers(-1000, 1000)
cells = numbers | st.sampled_from([None, True, "1", 1e39])
rows = st.lists(st.lists(numbers, min_size=4, max_size=4) | st.lists(cells, max_size=5), max_size=5)


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine on an event loop of its own, with a limit."""
    asyncio.run(asyncio.wait_for(coroutine, 10))


def test_one_step_runs_in_each_turn_and_others_run_in_between() -> None:
    """A callback that is due runs between any two steps, and the steps run in order."""
    seen: list[object] = []

    async def both() -> None:
        turns, loop = Turns(), asyncio.get_running_loop()

        def other() -> None:
            seen.append("other")
            if len(seen) < 12:
                loop.call_soon(other)

        loop.call_soon(other)
        later = [turns.call(lambda number=number: seen.append(number)) for number in range(4)]  # type: ignore[misc]
        await asyncio.gather(*later)

    run(both())
    places = [seen.index(number) for number in range(4)]
    assert all("other" in seen[early:late] for early, late in pairwise(places))


def test_results_and_errors_arrive() -> None:
    """A step returns a value, a future of one, or raises; the next step runs in any case."""

    async def steps() -> None:
        turns, loop = Turns(), asyncio.get_running_loop()
        promised: asyncio.Future[int] = loop.create_future()
        failing: asyncio.Future[int] = loop.create_future()
        makes: list[Callable[[], Any]] = [lambda: 1, lambda: 1 // 0, lambda: promised, lambda: failing, lambda: 5]
        later = [turns.call(make) for make in makes]
        assert await later[4] == 5
        promised.set_result(3)
        failing.set_exception(KeyError())
        results = await asyncio.gather(*later, return_exceptions=True)
        assert results[::2] == [1, 3, 5]
        assert [type(error) for error in results[1::2]] == [ZeroDivisionError, KeyError]

    run(steps())


def test_a_cancelled_step_is_dropped() -> None:
    """It never runs, and what it held is free before its turn."""

    async def cancel() -> None:
        turns = Turns()
        ran: list[int] = []
        first, second, third = (turns.call(lambda number=number: ran.append(number)) for number in range(3))  # type: ignore[misc]
        second.cancel()
        await asyncio.gather(first, third)
        assert ran == [0, 2]

    run(cancel())


def test_clients_that_wait_to_be_accepted_go_first() -> None:
    """A step waits for them, but not forever."""

    async def wait() -> None:
        turns = Turns()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            turns.watch([listener])
            with socket.create_connection(listener.getsockname()):
                later = turns.call(lambda: 1)
                for _ in range(5):
                    await asyncio.sleep(0)
                assert not later.done()
                listener.accept()[0].close()
                for _ in range(5):
                    await asyncio.sleep(0)
                assert later.done()
            with socket.create_connection(listener.getsockname()):
                assert await turns.call(lambda: 2) == 2
                turns.watch([])
                later = turns.call(lambda: 3)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                assert later.done()

    run(wait())


def test_a_large_body_waits_for_a_turn_before_it_is_parsed() -> None:
    """A small one is parsed at once."""

    async def wait() -> None:
        turns = Turns()
        seen: list[str] = []
        first = turns.call(lambda: seen.append("step"))
        await turns.wait(bytes(LARGE_BYTES - 1))
        seen.append("small")
        await turns.wait(bytes(LARGE_BYTES))
        seen.append("large")
        await first
        assert seen == ["small", "step", "large"]

    run(wait())


@given(body=rows, kind=st.sampled_from(sorted(PATHS)))
@settings(max_examples=60, deadline=None)
def test_a_request_that_waits_for_its_turn_has_the_same_response(pair: Pair, body: list[list[Any]], kind: str) -> None:
    """Size decides when a request is answered, and never how."""
    text = infer(body or [[0.0] * 4]) if kind == "infer" else instances(body)
    asked = request("POST", PATHS[kind], text)
    (at_once,) = pair.ask(asked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatcher, "LARGE_BYTES", 0)
        (in_turn,) = pair.ask(asked)
    assert in_turn == at_once


@pytest.mark.parametrize("fast", [True, False])
def test_small_requests_are_answered_between_large_ones(pair: Pair, *, fast: bool) -> None:
    """Of many large requests that have arrived together, few are answered before a later small one."""
    body = instances([[5.1, 3.5, 1.4, 0.2]] * 4000)
    assert len(body) > LARGE_BYTES
    target = PATHS["predict"] if fast else f"{PATHS['predict']}?cold"
    large = request("POST", target, body)
    order: list[str] = []

    async def ask(client: ClientConnection, data: bytes, name: str) -> Response:
        answer = await client.ask(data)
        order.append(name)
        return answer

    async def together() -> list[Response]:
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(pair.connect()) for _ in range(17)]
            goal = pair.received + 16 * len(large)
            tasks = [asyncio.create_task(ask(client, large, "large")) for client in clients[:16]]
            await pair.wait_received(goal)
            return [await ask(clients[16], SMALL, "small"), *await asyncio.gather(*tasks)]

    answers = pair.run(together(), 30)
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 2
    assert order.index("small") < 8


def test_a_client_that_resets_its_connection_gives_its_turn_up(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its request is not parsed, and nothing of it is held."""
    asked = []
    handler = pair.worker.dispatcher.handlers[0]

    def count(*arguments: Any) -> Any:
        asked.append(arguments)
        return handler(*arguments)

    monkeypatch.setattr(pair.worker.dispatcher, "handlers", (count, *pair.worker.dispatcher.handlers[1:]))
    monkeypatch.setattr(dispatcher, "LARGE_BYTES", 0)
    turns = pair.worker.turns

    async def leave() -> None:
        held = asyncio.Event()
        start = turns._start  # replaced, so that the step waits; there is no public way to delay turns
        monkeypatch.setattr(turns, "_start", held.set)
        async with pair.connect() as client:
            await client.send(request("POST", PATHS["predict"], instances([[1, 2, 3, 4]])))
            await held.wait()
            client.end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # reset, no half-close
        monkeypatch.setattr(turns, "_start", start)
        while pair.worker.shared.in_flight:  # noqa: ASYNC110  # there is no event to wait for
            await asyncio.sleep(0.01)
        turns._start()  # as above

    pair.run(leave())
    pair.run(pair.settled())
    assert asked == []
