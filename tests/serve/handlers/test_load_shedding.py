"""Load shedding begins and ends by the time that requests wait, and refuses feedback first and predictions last."""

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from service.serve.handlers import load_shedding as module
from service.serve.handlers.load_shedding import BEGIN_SECONDS, END_SECONDS, STALLED_SECONDS, YIELD_SECONDS, LoadShedder
from service.serve.handlers.turns import Turns
from service.serve.metrics.counters import SHED, SHED_COUNTERS
from service.serve.models.endpoint import EXPLAIN, FEEDBACK, INFER, INVOKE, KINDS, PREDICT, READS, VERTEX
from tests.support.http_connection import Response
from tests.support.http_requests import instances, request
from tests.support.server_pair import Pair
from tests.support.waiting import wait_until

LIMIT = 0.4
ROW = [5.1, 3.5, 1.4, 0.2]
SHED_KINDS = (PREDICT, INFER, INVOKE, VERTEX, EXPLAIN, FEEDBACK)


class Rig:
    """A shedder whose clock and event loop are the test's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.oldest = 0.0
        turns: Any = SimpleNamespace(oldest_seconds=lambda _now: self.oldest)
        self.stalled = 0.0
        self.slept: list[float] = []
        writer: Any = SimpleNamespace(stalled_seconds=lambda _now: self.stalled)
        clock = SimpleNamespace(monotonic=lambda: self.now, sleep=self.slept.append)
        monkeypatch.setattr(module, "time", clock)
        self.later: list[Any] = []
        loop = SimpleNamespace(call_soon=self.later.append)
        monkeypatch.setattr(module, "asyncio", SimpleNamespace(get_running_loop=lambda: loop))
        self.counters = memoryview(bytearray(8 * 100)).cast("q")
        self.shedder = LoadShedder(turns, writer, LIMIT)

    def observe(self, seconds: float, turn: float) -> None:
        """Let turns of one length follow each other for some time, measured ten times a second."""
        end = self.now + seconds
        while self.now < end:
            self.now += 0.1
            self.shedder.observe_turn(self.now - turn)

    def refused(self, age: float, *, large: bool = False, kinds: Iterable[int] = SHED_KINDS) -> list[int]:
        """Return the kinds of requests that are refused so long after the first request of a turn was read."""
        endpoints: list[Any] = [
            SimpleNamespace(kind=kind, served=SimpleNamespace(counters=self.counters)) for kind in kinds
        ]
        assert large or not self.shedder.refuses(endpoints[0])
        self.now += age
        self.oldest = age
        ask = self.shedder.refuses_large if large else self.shedder.refuses
        refused = [endpoint.kind for endpoint in endpoints if ask(endpoint)]
        self.oldest = 0.0
        while self.later:
            self.later.pop()()
        return refused


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(monkeypatch)


def test_a_burst_is_no_overload(rig: Rig) -> None:
    """Turns that are long for less than a second, or short ones in between, do not begin to shed load."""
    for _ in range(3):
        rig.observe(BEGIN_SECONDS - LIMIT - 0.2, 1.1 * LIMIT)
        rig.observe(0.1, 0.01)
    assert not rig.shedder.is_shedding
    rig.observe(BEGIN_SECONDS + 0.1, 1.1 * LIMIT)
    assert rig.shedder.is_shedding
    assert rig.shedder.delay == pytest.approx(1.1 * LIMIT)


def test_one_long_turn_is_overload(rig: Rig) -> None:
    """A turn that takes longer than the limit and a second begins it alone."""
    rig.observe(0.1, BEGIN_SECONDS + 0.01)
    assert rig.shedder.is_shedding


def test_it_ends_when_nothing_was_refused_for_a_while(rig: Rig) -> None:
    """Load is shed as long as requests are refused, and for some seconds after that."""
    rig.observe(0.3, 2 * LIMIT)
    for _ in range(3):
        rig.observe(0.9 * END_SECONDS, 0.01)
        assert rig.shedder.is_shedding
        assert rig.refused(2 * LIMIT)
    rig.observe(END_SECONDS + 0.3, 0.01)
    assert not rig.shedder.is_shedding


@pytest.mark.parametrize("large", [False, True])
def test_predictions_come_before_explanations_and_those_before_feedback(rig: Rig, *, large: bool) -> None:
    """The longer requests have waited, the more kinds are refused, and each refusal is counted for its kind."""
    assert rig.refused(0.2 * LIMIT, large=large) == []
    assert rig.refused(0.3 * LIMIT, large=large) == [FEEDBACK]
    assert rig.refused(0.6 * LIMIT, large=large) == [EXPLAIN, FEEDBACK]
    assert rig.refused(1.1 * LIMIT, large=large) == list(SHED_KINDS)
    assert rig.counters[SHED : SHED + SHED_COUNTERS].tolist() == [4, 2, 3]


def test_a_kind_with_limits_is_refused_like_the_usual_one(rig: Rig) -> None:
    """Feedback of a key with limits is refused as early as that of others, and each refusal counts for its kind."""
    limited = [kind + KINDS for kind in SHED_KINDS]
    assert rig.refused(0.3 * LIMIT, kinds=limited) == [FEEDBACK + KINDS]
    assert rig.refused(0.6 * LIMIT, kinds=limited) == [EXPLAIN + KINDS, FEEDBACK + KINDS]
    assert rig.counters[SHED : SHED + SHED_COUNTERS].tolist() == [0, 1, 2]


def test_calls_that_read_are_never_refused(rig: Rig) -> None:
    """The console shows an overloaded service too."""
    assert rig.refused(9 * LIMIT, kinds=[*READS, *(kind + KINDS for kind in READS)]) == []


def test_a_batch_of_the_log_that_takes_long_gets_the_core(rig: Rig) -> None:
    """At the end of a turn the loop sleeps if events wait and nothing was reported for a while."""
    for stalled, slept in ((STALLED_SECONDS, []), (1.1 * STALLED_SECONDS, [YIELD_SECONDS])):
        rig.stalled = stalled
        assert not rig.refused(0.0)
        assert rig.slept == slept


def test_the_age_of_a_large_request_is_that_of_the_oldest() -> None:
    """Turns tell how long the next step has waited."""

    async def wait() -> None:
        turns = Turns()
        assert turns.oldest_seconds(time.monotonic()) == 0
        later = [turns.call(lambda: None) for _ in range(2)]
        assert 5 <= turns.oldest_seconds(time.monotonic() + 5) < 10
        await asyncio.gather(*later)
        assert turns.oldest_seconds(time.monotonic() + 5) == 0

    asyncio.run(wait())


@pytest.mark.parametrize("fast", [False, True])
def test_an_overloaded_worker_answers_at_once(iris_models: Path, *, fast: bool) -> None:
    """While load is shed, requests are refused with 503 by both paths, and are answered again afterwards."""
    calls = {
        "prediction": request("POST", "/v1/models/iris:predict", instances([ROW])),
        "explanation": request("POST", "/v1/models/iris:explain", instances([ROW])),
        "feedback": request("POST", "/v1/models/iris:feedback", instances([ROW], labels=[0])),
    }
    with Pair(iris_models) as pair:
        shedder, shared = pair.worker.load, pair.worker.shared

        def ask() -> list[Response]:
            return [pair.ask(call, fast=fast)[0] for call in calls.values()]

        def set_limit(seconds: float) -> None:
            shedder._queue_seconds = seconds  # type: ignore[misc]  # the clock is the real one
            shedder.is_shedding = seconds < 0
            wait_until(lambda: (shared.in_flight_max == 0) == shedder.is_shedding)

        assert [response.status for response in ask()] == [200, 200, 202]
        set_limit(-1.0)  # every request has waited for longer
        for one in ask():
            assert (one.status, one.json["code"], one.header("retry-after")) == (503, "overloaded", "1")
        set_limit(1.0)
        assert [response.status for response in ask()] == [200, 200, 202]
