"""The limits of feedback: what is stored is charged once, and what is not stored is given back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from service.access.key_file import LimitsRecord
from service.errors import QueueFullError
from tests.support.api_keys import add_key, bearer
from tests.support.http_connection import Response
from tests.support.http_requests import request
from tests.support.server_pair import Pair

ROW = [5.1, 3.5, 1.4, 0.2]
EVENTS, IMPORTANCE = 4, 10


class Client:
    """A client with a key, which may send EVENTS events and IMPORTANCE an hour."""

    def __init__(self, pair: Pair, key: str, *, fast: bool) -> None:
        self.pair, self._header, self._fast = pair, bearer(key), fast

    def post(self, call: str, **body: Any) -> Response:
        data = request("POST", f"/v1/models/iris:{call}", orjson.dumps(body), [self._header])
        return self.pair.ask(data, fast=self._fast)[0]

    def feed(self, id_: str, rows: int = 1, **more: Any) -> Response:
        return self.post("feedback", id=id_, instances=[ROW] * rows, labels=[0] * rows, **more)


@pytest.fixture(params=[True, False], ids=["fast", "plain"])
def client(request: pytest.FixtureRequest, iris_models: Path, tmp_path: Path) -> Iterator[Client]:
    limits = LimitsRecord(feedback_events_per_hour=EVENTS, importance_per_hour=IMPORTANCE)
    key = add_key(tmp_path / "data" / "keys.json", limits=limits)
    with Pair(iris_models, data=tmp_path / "data", wait_seconds=0.1) as pair:
        yield Client(pair, key, fast=request.param)


def test_a_duplicate_costs_nothing(client: Client) -> None:
    """An event that is sent again is answered as before, as often as the client likes, and other events still fit."""
    for _ in range(3 * EVENTS):
        assert client.feed("a").status == 202
    statuses = [client.feed(id_).status for id_ in "bcde"]
    assert statuses == [202, 202, 202, 429]
    assert client.feed("e").json["code"] == "too_much_feedback"


def test_a_refused_event_costs_nothing(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Feedback that the log refuses, or that finds the queue full, leaves the hour as it was."""
    assert client.feed("a").status == 202
    for _ in range(2 * EVENTS):
        assert client.feed("a", rows=2).json["code"] == "id_taken"
        assert client.post("feedback", tokens=["forged"], labels=[0]).json["code"] == "invalid_token"
    assert client.pair.worker.learning is not None

    def refuse(*_: object, **_more: object) -> None:
        raise QueueFullError("Feedback arrives faster than it can be written; send it again in a moment.")

    with monkeypatch.context() as patch:
        patch.setattr(client.pair.worker.learning.writer, "send_events", refuse)
        for _ in range(2 * EVENTS):
            assert client.feed("b").json["code"] == "feedback_queue_full"
    assert [client.feed(id_).status for id_ in "bcde"] == [202, 202, 202, 429]


def test_importance_is_that_of_all_rows(client: Client) -> None:
    """The weights of rows are charged, or one for each row; what does not fit is not stored."""
    assert client.feed("a", rows=2, weights=[3.0, 4.5]).status == 202
    refused = client.feed("b", rows=3)
    assert (refused.status, refused.json["code"]) == (429, "too_much_importance")
    assert int(str(refused.header("retry-after"))) in {179, 180}
    assert client.feed("c", rows=2).json["seq"] == 2
    assert client.feed("d", rows=11).json["code"] == "request_too_large"


def test_tokens_are_events_of_their_own(client: Client) -> None:
    """Each token is an event with its weight; those that were stored before are given back."""
    tokens = client.post("predict", instances=[ROW] * 3, feedback_tokens=True).json["feedback_tokens"]
    body = {"tokens": tokens[:2], "labels": [0, 1], "weights": [2.0, 3.0]}
    for _ in range(3):
        assert client.post("feedback", **body).status == 202
    some = client.post("feedback", tokens=[*tokens, "forged"], labels=[0, 1, 2, 0], weights=[2.0, 3.0, 1.0, 1.0])
    # Two events of the hour are left, so a request of four does not fit, whatever they are.
    assert (some.status, some.json["code"]) == (429, "too_much_feedback")
    some = client.post("feedback", tokens=[tokens[2], "forged"], labels=[2, 0])
    assert (some.json["code"], some.json["accepted"]) == ("some_refused", 1)
    assert [client.feed(id_).status for id_ in "ab"] == [202, 429]


def test_waiting_feedback_is_charged_too(client: Client) -> None:
    """An event of wait=true is charged even if it is not served in time, because it is stored."""
    for id_ in "abcd":
        assert client.post("feedback?wait=true", id=id_, instances=[ROW], labels=[0]).json["code"] == "not_reached_yet"
    assert client.feed("e").json["code"] == "too_much_feedback"
    assert client.feed("a", rows=2).json["code"] == "too_much_feedback"
