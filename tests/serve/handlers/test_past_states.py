"""States of the past explain rows as they did when they were served, and a trajectory leads from state to state."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.learn.publish import snapshot_contents
from service.learn.replay import StreamReplay
from service.serve.handlers.explain_body import DenseExplainParser, ExplainBody
from service.serve.handlers.past_states import PastStates
from service.store.states.report import write_report
from service.store.states.snapshots import write_snapshot
from tests.support.data_directories import History, iris_artifact
from tests.support.http_connection import Response
from tests.support.http_requests import instances, request
from tests.support.paths import SHIPPED
from tests.support.reports import make_report
from tests.support.server_pair import Pair
from tests.support.waiting import wait_until

ROW = [6.0, 2.7, 5.1, 1.6]
LAST = 13


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A server of iris after 12 events and a new class, with states and keyframes on disk, and without a learner."""
    data = tmp_path_factory.mktemp("past") / "data"
    history = History(data)
    history.add_feedback(*range(8))
    history.add_class("other")
    assert history.add_feedback(*range(8, 12), classes=4) == LAST
    for seq, folders in ((4, "history keyframes"), (6, "history"), (8, "keyframes"), (LAST, "snapshots keyframes")):
        write_state(history, seq, *folders.split())
    # The keyframe at 9 was deleted.
    write_report(
        history.folder.report, make_report(12, ("a", "b", "c", "d"), 4, seq=LAST, keyframes=(0, 4, 8, 9, LAST))
    )
    history.close()
    with Pair(SHIPPED, data=data) as running:
        yield running


def write_state(history: History, seq: int, *folders: str) -> None:
    """Fold the state at a seq, and write it into folders of the stream."""
    replay = StreamReplay(history.stream, iris_artifact(), history.log)
    list(replay.fold_to(seq))
    for folder in folders:
        contents = snapshot_contents(replay.fold, replay.position_fields())
        write_snapshot(getattr(history.folder, folder), seq, *contents, durable=False)


def post(pair: Pair, call: str, *, fast: bool = True, **body: object) -> Response:
    return pair.ask(request("POST", f"/v1/models/iris:{call}", instances([ROW], **body)), fast=fast)[0]


def history_of(pair: Pair) -> History:
    return History.open(pair.settings.data)


def probabilities(pair: Pair, seq: int) -> list[float]:
    """Return the probabilities of the row according to a fold of the events up to a seq."""
    history = history_of(pair)
    P = history.replay(seq).state.served_parameters().build_model().predict(np.array([ROW], np.float32))
    history.close()
    return [float(str(p)) for p in P[0]]


def test_the_event_loop_parses_questions_about_the_past(learned: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsers are for one thread: those of all states of a version share buffers."""
    parse, threads = DenseExplainParser.parse_explain, []

    def note(parser: DenseExplainParser, body: bytes) -> ExplainBody:
        threads.append(threading.current_thread())
        return parse(parser, body)

    monkeypatch.setattr(DenseExplainParser, "parse_explain", note)
    assert post(learned, "explain", seq=4).status == 200
    assert threads[0] is threads[-1]
    assert len(threads) == 2


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("seq", [0, 4, 6, 8, LAST])
def test_a_past_state_explains_as_it_did(learned: Pair, seq: int, *, fast: bool) -> None:
    """The explanation has the classes, probabilities and seq of that state."""
    answer = post(learned, "explain", seq=seq, fast=fast)
    assert answer.status == 200
    assert answer.json["seq"] == seq
    assert len(answer.json["classes"]) == (3 if seq < 9 else 4)
    (one,) = answer.json["explanations"]
    assert one["probabilities"] == probabilities(learned, seq)
    contributions = np.array(one["contributions"])
    np.testing.assert_allclose(contributions.sum(1) + one["bias"], one["logits"], rtol=1e-4)


def test_now_is_a_seq_too(learned: Pair) -> None:
    """The served seq answers as a request without one."""
    assert post(learned, "explain", seq=LAST).body == post(learned, "explain").body


def test_a_past_state_knows_the_classes_of_then(learned: Pair) -> None:
    """A label that came later is refused, and an older one has its loss."""
    refused = post(learned, "explain", seq=4, labels=["other"])
    assert (refused.status, refused.json["code"]) == (422, "invalid_request")
    assert post(learned, "explain", seq=4, labels=["virginica"]).json["explanations"][0]["loss"] > 0


def test_a_state_that_is_not_on_disk_is_folded(learned: Pair) -> None:
    """The client gets 202 with a time to ask again, and then the exact answer."""
    pending = post(learned, "explain", seq=7)
    assert (pending.status, pending.json["code"]) == (202, "state_pending")
    assert dict(pending.headers)["retry-after"] == "1"
    assert learned.worker.learning is not None
    # No call of the service waits for the process that folds a past state.
    (task,) = learned.worker.learning.past_states._replays.values()
    wait_until(task.done, 60)
    answer = post(learned, "explain", seq=7)
    assert answer.json["explanations"][0]["probabilities"] == probabilities(learned, 7)


def test_one_past_state_after_the_other_is_in_memory(learned: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests for states of the past take turns, so that many of them need the memory of one."""
    find, running, most = PastStates.find, 0, 0

    async def counted(*arguments: Any) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        found = await find(*arguments)
        running -= 1
        return found

    async def ask(seq: int) -> Response:
        async with learned.connect() as client:
            return await client.ask(request("POST", "/v1/models/iris:explain", instances([ROW], seq=seq)))

    async def ask_all() -> list[Response]:
        return await asyncio.gather(*map(ask, [4, 6, 8, 0] * 2))

    monkeypatch.setattr(PastStates, "find", counted)
    assert [(answer.status, answer.json["seq"]) for answer in learned.run(ask_all())] == [
        (200, seq) for seq in [4, 6, 8, 0] * 2
    ]
    assert most == 1


def test_a_request_that_waits_too_long_for_a_past_state_is_refused(learned: Pair) -> None:
    """It is refused like any other explanation of an overloaded worker, and the next one is answered."""
    turn = learned.worker.explain._past_turn  # nothing else takes so long a turn
    learned.run(turn.acquire())
    refused = post(learned, "explain", seq=4)
    assert (refused.status, refused.json["code"]) == (503, "overloaded")
    learned.loop.call_soon_threadsafe(turn.release)
    assert post(learned, "explain", seq=4).status == 200


def folded_models(data: Path) -> list[str]:
    """Return the model version that each running process folds for a service with this data directory."""
    arguments = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            arguments.append(process.read_bytes().decode().split("\0"))
    return sorted(words[4] for words in arguments if words[2:4] == ["service", "replay"] and str(data) in words)


def test_a_worker_folds_one_state_at_a_time(tmp_path: Path) -> None:
    """Predictions ask for states of three models, and one is folded; an administrator does not wait for it.

    The processes end with the service.
    """
    data = tmp_path / "data"
    with Pair(SHIPPED, data=data) as pair:
        for model, features in (("iris", 4), ("segment", 18), ("digits", 64)):
            row = instances([[0.5] * features], labels=[0])
            assert pair.ask(request("POST", f"/v1/models/{model}:feedback", row))[0].status == 202
            past = request("POST", f"/v1/models/{model}:explain", instances([[0.5] * features], seq=1))
            assert pair.ask(past)[0].status == 202
        wait_until(lambda: folded_models(data) == ["iris/1"])
        assert pair.ask(request("GET", "/v1/models/digits/weights?seq=1"))[0].status == 202
        wait_until(lambda: folded_models(data) == ["digits/1", "iris/1"])
    assert folded_models(data) == []


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"seq": 99}, 404, "seq_not_found"),
        ({"seq": -1}, 422, "invalid_request"),
        ({"seq": True}, 422, "invalid_request"),
        ({"seq": 1 << 40}, 422, "invalid_request"),
        ({"seq": 4, "min_seq": 4}, 422, "invalid_request"),
    ],
)
def test_a_seq_without_a_state_is_refused(learned: Pair, body: dict[str, int], status: int, code: str) -> None:
    """The sentence says what to change."""
    answer = post(learned, "explain", **body)
    assert (answer.status, answer.json["code"]) == (status, code)


def test_a_service_that_does_not_learn_has_one_state(tmp_path: Path) -> None:
    """It is the artifact, at seq 0."""
    with Pair(SHIPPED, data=tmp_path, learn=False) as pair:
        assert post(pair, "explain", seq=0).body == post(pair, "explain").body
        assert post(pair, "explain", seq=1).json["code"] == "seq_not_found"
        assert post(pair, "trajectory").json["seq"] == [0]


def test_a_trajectory_leads_over_the_keyframes(learned: Pair) -> None:
    """It begins with the artifact, ends with the served state, and leaves out keyframes that were deleted."""
    answer = post(learned, "trajectory")
    assert answer.json["seq"] == [0, 4, 8, LAST]
    assert answer.json["probabilities"] == [probabilities(learned, seq) for seq in (0, 4, 8, LAST)]


def test_a_forgotten_event_takes_its_states_with_it(learned: Pair) -> None:
    """States that it was part of are gone, though a file is still there; those before it and without it explain on."""
    assert post(learned, "explain", seq=6).status == 200
    having = probabilities(learned, LAST)
    history = history_of(learned)
    history.forget(5)
    write_state(history, LAST + 1, "history")
    history.close()
    gone = post(learned, "explain", seq=6)
    assert (gone.status, gone.json["code"]) == (410, "state_forgotten")
    assert post(learned, "explain", seq=4).status == 200
    without = post(learned, "explain", seq=LAST + 1).json["explanations"][0]["probabilities"]
    assert without == probabilities(learned, LAST + 1) != having
