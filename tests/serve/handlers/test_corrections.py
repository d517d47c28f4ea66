"""Corrections of labels: what is stored for each id, and what is refused without storing anything.

The plain server's routes answer, with a real log and without a learner.
"""

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.store.log.admin_payloads import dump_seq
from service.store.log.correction_payload import correct_payload, encode_correction
from service.store.log.events import Draft, Event, Kind
from service.store.log.feedback_payload import Targets, encode_rows, parse_layout
from service.store.log.sqlite import SqliteLog
from tests.support.error_bodies import check_error
from tests.support.http_connection import Response
from tests.support.http_requests import request
from tests.support.server_pair import Pair

ROW = [5.1, 3.5, 1.4, 0.2]
OTHER = [6.7, 3.0, 5.2, 2.3]


@pytest.fixture
def two(paired: Callable[..., Pair], versions: Path) -> Pair:
    return paired(versions)


def post(pair: Pair, path: str, model: str = "iris", **body: Any) -> Response:
    (answer,) = pair.ask(request("POST", f"/v1/models/{model}{path}", json.dumps(body).encode()))
    return answer


def teach(pair: Pair, id_: str, labels: list[Any], path: str = ":feedback", **more: Any) -> None:
    """Post feedback of one row for each label."""
    body = {"instances": [ROW, OTHER][: len(labels)], "labels": labels, "id": id_, **more}
    assert post(pair, path, **body).status == 202


def events(pair: Pair, model: str = "iris") -> dict[int, list[Event]]:
    """Everything in the log, by version."""
    learning = pair.worker.learning
    assert learning is not None

    async def read() -> dict[int, list[Event]]:
        return await learning.writer.call_with_log(
            lambda log: {
                stream.version: log.read_events(stream.number, 0, 100)
                for stream in log.list_streams()
                if stream.model == model
            }
        )

    return pair.run(read())


def test_each_id_becomes_an_event(two: Pair) -> None:
    """The events have the id of the call and that id with a number; a retry finds them, whatever came between."""
    teach(two, "a", ["setosa"])
    teach(two, "b", [0, 1], weights=[1.0, 2.0])
    call = {"ids": ["b", "a"], "labels": [[[0.25, 0.5, 0.25], "virginica"], [2]], "id": "fix"}
    first = post(two, ":correct", **call)
    stored = [{"id": "fix", "seq": 3, "duplicate": False}, {"id": "fix/2", "seq": 4, "duplicate": False}]
    assert (first.status, first.json) == (202, {"model_name": "iris", "model_version": "2", "events": stored})
    assert post(two, ":classes", add=["gigantea"]).status == 202
    again = post(two, ":correct", **call)
    assert again.json["events"] == [{**event, "duplicate": True} for event in stored]
    one, several, *corrections, _ = events(two)[2]
    assert [event.kind for event in corrections] == [Kind.CORRECT, Kind.CORRECT]
    X, h = np.array([ROW, OTHER], np.float32), np.array([1, 2], np.float32)
    soft = np.array([[0.25, 0.5, 0.25], [0, 0, 1]], np.float32)
    contents = [
        (event.payload or b"", correction.payload or b"")
        for event, correction in zip((several, one), corrections, strict=True)
    ]
    assert [correct_payload(*content) for content in contents] == [
        encode_rows(X, soft, Targets.DISTRIBUTION, 3, h),
        encode_rows(X[:1], np.array([2]), Targets.INDEX, 3),
    ]
    assert post(two, ":feedback", instances=[ROW], labels=["setosa"], id="a").json["duplicate"] is True
    assert post(two, ":feedback", instances=[ROW], labels=["virginica"], id="a").json["code"] == "id_taken"


def test_sets_of_classes_are_corrected(two: Pair) -> None:
    """A multi-label event gets sets, by name or index, in place of its sets."""
    body = {"instances": [[1, 2, 3]], "labels": [["a"]], "id": "t"}
    assert post(two, ":feedback", "tags", **body).status == 202
    assert post(two, ":correct", "tags", ids=["t"], labels=[[["b", 2]]]).status == 202
    event, correction = events(two, "tags")[1]
    layout = parse_layout(event.payload or b"")
    assert correction.payload == encode_correction(1, layout, Targets.SET, np.array([[0, 1, 1]]))
    assert post(two, ":correct", "tags", ids=["t"], labels=[["b"]]).status == 422


def test_events_are_corrected_in_whichever_versions_hold_them(two: Pair) -> None:
    """A version in the path limits the call to it, and `if_seq` is of one stream."""
    teach(two, "a", [0], "/versions/1:feedback")
    teach(two, "b", [0])
    call = {"ids": ["a", "b"], "labels": [[1], [2]], "id": "fix"}
    assert check_refused(two, "/versions/2:correct", 404, **call) == "unknown_id"
    assert check_refused(two, ":correct", 422, **call, if_seq=1) == "invalid_request"
    assert post(two, ":correct", **call).json["events"] == [
        {"id": "fix", "seq": 2, "duplicate": False, "model_version": "1"},
        {"id": "fix/2", "seq": 2, "duplicate": False},
    ]
    answer = post(two, "/versions/1:correct", ids=["a"], labels=[[2]], if_seq=2, id="again")
    assert answer.json == {
        "model_name": "iris",
        "model_version": "1",
        "events": [{"id": "again", "seq": 3, "duplicate": False}],
    }


def test_if_seq_holds_for_all_events_of_a_call(two: Pair) -> None:
    """All of them are stored if nothing came after that seq, and none otherwise."""
    for id_ in "abc":
        teach(two, id_, [0])
    call = {"ids": ["a", "b", "c"], "labels": [[1]] * 3}
    assert check_refused(two, ":correct", 409, **call, if_seq=2) == "seq_moved"
    answer = post(two, ":correct", **call, if_seq=3)
    assert [event["seq"] for event in answer.json["events"]] == [4, 5, 6]


def check_refused(pair: Pair, path: str, status: int, **body: Any) -> str:
    """Send a call of iris that is refused and stores nothing; return its code."""
    before = events(pair)
    response = post(pair, path, **body)
    assert response.status == status
    assert events(pair) == before
    return check_error(response.status, dict(response.headers), response.body)


@pytest.mark.parametrize("wrong", [["gigantea"], [3], [[0.1, 0.2, 0.3, 0.4]]], ids=["name", "index", "distribution"])
def test_a_class_that_was_added_later_is_refused(two: Pair, wrong: list[Any]) -> None:
    """The labels of an event are those of the classes that it was posted with; a later event can have the class."""
    teach(two, "early", [0])
    assert post(two, ":classes", add=["gigantea"]).status == 202
    assert check_refused(two, ":correct", 409, ids=["early"], labels=[wrong]) == "classes_changed"
    assert post(two, ":correct", ids=["early"], labels=[["versicolor"]]).status == 202


@pytest.mark.parametrize(
    ("call", "status", "sentence"),
    [
        ({"ids": ["a"], "labels": [["lily"]]}, 422, 'In item 0 of "labels": The label of row 0 is not one of'),
        ({"ids": ["b", "a"], "labels": [[0, 0], [-1]]}, 422, 'In item 1 of "labels": The label of row 0'),
        ({"ids": ["a"], "labels": [[True]]}, 422, "must be a class name, an index, or a distribution"),
        ({"ids": ["b"], "labels": [[0]]}, 422, '"labels" has 1 labels for 2 rows'),
        ({"ids": ["a"], "labels": [[[0.5, 0.5, 0.5]]]}, 422, "the sum 1"),
        ({"ids": ["a"], "labels": ["setosa"]}, 422, '"labels" must be a list of one list of labels for each of "ids".'),
        ({"ids": ["a", "b"], "labels": [[0]]}, 422, '"labels" must be a list of one list of labels for each of "ids".'),
        ({"ids": ["a", "a"], "labels": [[0], [1]]}, 422, "named twice"),
        ({"ids": [], "labels": []}, 422, '"ids" must be a list of 1 to 1000 ids'),
        ({"ids": ["a", "never"], "labels": [[1], [1]]}, 404, "names no feedback"),
        ({"ids": ["a", "pause"], "labels": [[1], [1]]}, 404, "names no feedback"),
        ({"ids": ["b", "a"], "labels": [[1, 1], [1]], "id": "a"}, 409, "used for another event"),
        ({"ids": ["b", "a"], "labels": [[1, 1], [1]], "id": "x"}, 409, "used for another event"),
        ({"ids": ["a", "b"], "labels": [[1], [1, 1]], "id": "i" * 127}, 422, 'a shorter "id"'),
        ({"ids": ["a"], "labels": [[1]], "weights": [[1]]}, 422, "known fields are id, if_seq, ids, labels"),
    ],
)
def test_all_is_corrected_or_nothing(two: Pair, call: dict[str, Any], status: int, sentence: str) -> None:
    """Labels that do not fit, an unknown id, or an id of the call that is taken changes nothing."""
    teach(two, "a", [0])
    teach(two, "b", [0, 1])
    teach(two, "x/2", [0])
    assert post(two, ":configure", paused=True, id="pause").status == 202
    check_refused(two, ":correct", status, **call)
    assert sentence in post(two, ":correct", **call).json["error"]


def test_only_feedback_of_the_state_is_corrected(paired: Callable[..., Pair], versions: Path, tmp_path: Path) -> None:
    """An event that was forgotten, skipped or rolled back refuses the call, and a rollback may bring it back."""
    two = paired(versions, data=tmp_path)
    for id_ in "abcd":
        teach(two, id_, [0])
    assert post(two, ":forget", ids=["a"]).status == 202
    with closing(SqliteLog(tmp_path / "log.sqlite")) as log:
        log.append([Draft(log.list_streams()[0].number, Kind.SKIP, b"skip", dump_seq(2), 0)])
    assert post(two, ":rollback", seq=3).status == 202
    codes = [check_refused(two, ":correct", 409, ids=["c", id_], labels=[[1], [1]]) for id_ in "abd"]
    assert codes == ["forgotten", "skipped", "rolled_back"]
    assert post(two, ":rollback", seq=4).status == 202
    assert post(two, ":correct", ids=["d", "c"], labels=[[1], [1]]).status == 202


def test_corrections_wait_for_a_learner_that_is_behind(paired: Callable[..., Pair], versions: Path) -> None:
    two = paired(versions, lag_events_max=1)
    teach(two, "a", [0])
    teach(two, "b", [0])
    assert check_refused(two, ":correct", 429, ids=["a"], labels=[[1]]) == "learner_behind"
