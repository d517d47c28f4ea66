"""The list of a model's events: what each one is, who may see it, and in which form."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.access.scopes import Scope
from service.serve.handlers import event_list as handler
from service.store.log import tables
from service.store.states.losses import LossWriter
from service.store.states.report import write_report
from tests.support.api_keys import add_key, bearer
from tests.support.http_connection import Response
from tests.support.http_requests import request
from tests.support.reports import make_report
from tests.support.server_pair import Pair

ROW = [5.1, 3.5, 1.4, 0.2]
IRIS = "/v1/models/iris"
LINES = ("Accept", "application/x-ndjson")
Paired = Callable[..., Pair]


def ask(pair: Pair, query: str = "", *headers: tuple[str, str], path: str = IRIS) -> Response:
    return pair.ask(request("GET", f"{path}/events{query}", None, headers))[0]


def listed(pair: Pair, query: str = "") -> list[dict[str, Any]]:
    """Return the events that a query finds."""
    answer = ask(pair, query)
    assert answer.status == 200, answer.body
    events: list[dict[str, Any]] = answer.json["events"]
    return events


def post(pair: Pair, call: str, *headers: tuple[str, str], **body: Any) -> None:
    (answer,) = pair.ask(request("POST", f"{IRIS}:{call}", json.dumps(body).encode(), headers))
    assert answer.status == 202, answer.body


def teach(pair: Pair, *labels: int) -> None:
    """Send an event of one row for each label; the ids are their places, from e1."""
    for number, label in enumerate(labels, 1):
        post(pair, "feedback", instances=[ROW], labels=[label], id=f"e{number}")


def test_a_new_model_has_no_events(paired: Paired) -> None:
    """The lists are empty; an unknown model or version is an error."""
    pair = paired()
    for path in (IRIS, f"{IRIS}/versions/1"):
        assert ask(pair, path=path).json == {"events": [], "forgotten": []}
    assert ask(pair, path="/v1/models/absent").json["code"] == "model_not_found"
    assert ask(pair, path=f"{IRIS}/versions/9").json["code"] == "version_not_found"
    assert ask(paired(learn=False)).json["code"] == "learning_off"


def test_every_event_says_what_it_is_and_nothing_of_its_features(paired: Paired) -> None:
    """Feedback has rows and a label, a change its content, and a forgotten event its name alone."""
    pair = paired()
    teach(pair, 2, 1, 0, 0)
    post(pair, "feedback", instances=[ROW, ROW], labels=[0, 1], id="two")
    post(pair, "forget", ids=["e2", "e3"], id="forget")
    post(pair, "correct", ids=["e1"], labels=[["versicolor"]], id="correct")
    post(pair, "configure", paused=True, id="pause")
    post(pair, "rollback", seq=7, id="rollback")
    events = listed(pair)
    assert list(events[0]) == [
        "seq", "kind", "id", "time_ms", "actor", "removed", "rows", "label", "answer", "loss", "detail",
    ]  # fmt: skip
    assert all(event["time_ms"] > 1_700_000_000_000 for event in events)
    shown = ("seq", "kind", "id", "removed", "rows", "label", "detail")
    assert [tuple(event[name] for name in shown) for event in events] == [
        (9, "rollback", "rollback", None, None, None, {"seq": 7}),
        (8, "configure", "pause", "rolled_back", None, None, {"paused": True}),
        (7, "correct", "correct", None, 1, 1, {"seq": 1}),
        (6, "forget", "forget", None, None, None, {"count": 2}),
        (5, "feedback", "two", None, 2, None, None),
        (4, "feedback", "e4", None, 1, 0, None),
        (3, "feedback", "e3", "forgotten", None, None, None),
        (2, "feedback", "e2", "forgotten", None, None, None),
        (1, "feedback", "e1", None, 1, 1, None),
    ]
    assert ask(pair).json["forgotten"] == [[2, 3]]
    assert b"5.1" not in ask(pair).body


def test_a_list_is_read_in_parts(paired: Paired, monkeypatch: pytest.MonkeyPatch) -> None:
    """`before` and `limit` lead through all events; a wrong parameter is refused by its name."""
    monkeypatch.setattr(handler, "STRETCHES_MAX", 1)
    pair = paired()
    teach(pair, *[0] * 55)
    post(pair, "forget", ids=["e1", "e2", "e4"])
    seqs = [event["seq"] for event in listed(pair)]
    assert seqs == list(range(56, 6, -1))
    assert [event["seq"] for event in listed(pair, f"?before={seqs[-1]}")] == list(range(6, 0, -1))
    assert [event["seq"] for event in listed(pair, "?before=3&limit=1")] == [2]
    assert [event["seq"] for event in listed(pair, "?limit=200&kind=all")] == list(range(56, 0, -1))
    assert [event["seq"] for event in listed(pair, "?kind=admin&before=57")] == [56]
    assert listed(pair, "?kind=admin&before=56") == listed(pair, "?before=0") == []
    assert ask(pair).json["forgotten"] == [[4, 4]]
    for query in ("before=-1", "before=x", "limit=0", "limit=201", "limit=1_0", "kind=none", "kind="):
        answer = ask(pair, f"?{query}")
        assert (answer.status, answer.json["code"]) == (422, "invalid_parameter")
        assert answer.json["error"].startswith(f'"{query.partition("=")[0]}" must be ')


def test_an_export_has_a_line_for_each_event(paired: Paired) -> None:
    """The lines have the events of the list; a client that prefers JSON gets the list."""
    pair = paired()
    teach(pair, 0, 1)
    answer = ask(pair, "", LINES)
    assert answer.header("content-type") == "application/x-ndjson"
    assert [json.loads(line) for line in answer.body.splitlines()] == listed(pair)
    assert ask(pair, "?before=1", LINES).body == b""
    assert ask(pair, "", ("Accept", "application/x-ndjson;q=0.5, */*")).header("content-type") == "application/json"


def test_only_an_administrator_sees_who_sent_what(models: Path, tmp_path: Path) -> None:
    """A key with another scope gets 403, and one for other models too."""
    file = tmp_path / "keys.json"
    teacher, admin = (add_key(file, scope) for scope in (Scope.FEEDBACK, Scope.ADMIN))
    reader, other = add_key(file, Scope.PREDICT), add_key(file, Scope.ADMIN, models=("digits",))
    with Pair(models, keys_file=file) as pair:
        post(pair, "feedback", bearer(teacher), instances=[ROW], labels=[0])
        (event,) = ask(pair, "", bearer(admin)).json["events"]
        assert event["actor"].startswith("key:")
        for key, code in ((teacher, "scope_missing"), (reader, "scope_missing"), (other, "model_not_permitted")):
            assert ask(pair, "", bearer(key)).json["code"] == code


def test_the_most_surprising_rows_come_from_the_report(paired: Paired) -> None:
    """Each row has its own label, answer and loss; what was forgotten since, or does not exist, is left out."""
    pair = paired()
    assert listed(pair, "?kind=surprising") == []
    teach(pair, 0, 1, 2)
    post(pair, "forget", ids=["e2"])
    assert pair.worker.learning is not None
    folder = pair.worker.learning.data.stream_folder("iris", 1)
    folder.path.mkdir(parents=True, exist_ok=True)
    rows = [(9.0, 3, 2, 0), (8.0, 2, 1, 0), (7.0, 77, 1, 0), (6.0, 1, -1, -1), (5.0, 3, 1, 2)]
    losses, places = np.array([row[:1] for row in rows]), np.array([row[1:] for row in rows])
    write_report(folder.report, make_report(9, surprising=losses, surprising_rows=places))
    found = listed(pair, "?kind=surprising")
    shown = [(event["seq"], event["id"], event["label"], event["answer"], event["loss"]) for event in found]
    assert shown == [(3, "e3", 2, 0, 9.0), (1, "e1", None, None, 6.0), (3, "e3", 1, 2, 5.0)]
    assert [event["seq"] for event in listed(pair, "?kind=surprising&limit=1")] == [3]
    assert [event["seq"] for event in listed(pair, "?kind=surprising&before=3")] == [1]
    folder.report.write_bytes(b"damaged")
    assert listed(pair, "?kind=surprising") == []


def test_the_latest_rows_have_their_answers_and_losses(paired: Paired) -> None:
    """Of several rows there is the mean of the losses; a corrected, a forgotten and an older event has none."""
    pair = paired()
    teach(pair, 0, 1, 2, 2)
    post(pair, "feedback", instances=[ROW, ROW], labels=[0, 1], id="two")
    post(pair, "feedback", instances=[ROW, ROW], labels=[0, 1], id="cut")
    post(pair, "correct", ids=["e2"], labels=[["virginica"]])
    post(pair, "forget", ids=["e3"])
    assert pair.worker.learning is not None
    writer = LossWriter(pair.worker.learning.data.stream_folder("iris", 1).path / "losses")
    rows = [
        (1, 9.0, 0, 2), (1, 1.5, 0, 1), (2, 2.5, 1, 0), (3, 3.5, 2, 0), (5, 1.0, 0, 0), (5, 2.0, 1, 0), (6, 1.0, 1, 0),
    ]  # fmt: skip
    seqs, losses, labels, answers = (np.array(column) for column in zip(*rows, strict=True))
    writer.write_losses(seqs, losses, labels, answers)
    found = {event["seq"]: (event["label"], event["answer"], event["loss"]) for event in listed(pair)}
    assert found == {
        1: (0, 1, 1.5), 2: (2, 0, None), 3: (None, None, None), 4: (2, None, None), 5: (None, None, 1.5),
        6: (None, None, None), 7: (2, None, None), 8: (None, None, None),
    }  # fmt: skip
    writer.write_losses(np.array([4]), np.array([np.nan]), np.array([-1]), np.array([-1]))
    assert [event["loss"] for event in listed(pair, "?before=5&limit=1")] == [None]


def test_of_a_long_event_the_label_comes_from_the_answer(paired: Paired, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the start of its payload is read."""
    for name in ("PREVIEW_BYTES_MAX", "PREVIEW_START_BYTES"):
        monkeypatch.setattr(tables, name, 20)
    pair = paired()
    teach(pair, 1)
    assert pair.worker.learning is not None
    writer = LossWriter(pair.worker.learning.data.stream_folder("iris", 1).path / "losses")
    assert [(event["rows"], event["label"]) for event in listed(pair)] == [(1, None)]
    writer.write_losses(np.array([1]), np.array([0.5]), np.array([1]), np.array([0]))
    assert [(event["label"], event["answer"], event["loss"]) for event in listed(pair)] == [(1, 0, 0.5)]
