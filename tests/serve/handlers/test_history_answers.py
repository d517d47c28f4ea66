"""The calls that show how a model has learned answer from its report, and with nothing where there is none."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.serve.handlers.history_answers import ROUTES, HistoryHandler
from service.serve.metrics.counters import V1, histogram_of, sum_counters
from service.serve.models.endpoint import PULSE
from service.store.log.events import SEQ_MAX
from service.store.states.report import Report, write_report
from tests.support.budgets import examples
from tests.support.http_connection import ClientConnection, Response
from tests.support.http_requests import instances, request
from tests.support.paths import SHIPPED
from tests.support.reports import make_report
from tests.support.server_pair import Pair

IRIS = "/v1/models/iris"
CLASSES = ("setosa", "versicolor", "virginica")


@pytest.fixture(scope="module")
def served() -> Iterator[Pair]:
    """A server of the shipped models, whose reports the tests write."""
    with Pair(SHIPPED) as running:
        yield running


def folder_of(pair: Pair, model: str = "iris") -> Path:
    folder = pair.settings.data / "streams" / model / "1"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def get(pair: Pair, path: str, model: str = "iris") -> dict[str, Any]:
    """Ask both servers and check that they agree on all but times."""
    answers = [pair.ask(request("GET", f"/v1/models/{model}/{path}"), fast=fast)[0] for fast in (True, False)]
    assert [answer.status for answer in answers] == [200, 200]
    one, other = (answer.json for answer in answers)
    assert one == other
    document: dict[str, Any] = one
    return document


def write(pair: Pair, report: Report, model: str = "iris") -> None:
    write_report(folder_of(pair, model) / "report", report)


def trajectory(pair: Pair, *rows: list[float], model: str = "iris") -> Response:
    return pair.ask(request("POST", f"/v1/models/{model}:trajectory", instances(rows)))[0]


@pytest.mark.parametrize("damaged", [None, b"", b"x" * 200])
def test_without_a_report_there_is_nothing(served: Pair, damaged: bytes | None) -> None:
    """A missing or damaged report is answered with empty lists and null, and never fails."""
    if damaged is not None:
        (folder_of(served, "phishing") / "report").write_bytes(damaged)
    history, drift, quality, pulse = (
        get(served, path, "phishing") for path in ("history", "drift", "quality?seq=3", "pulse?since=1")
    )
    assert (history["until"], history["seq"], history["loss"], history["labels"]) == (None, [], [], None)
    assert (drift["until"], drift["shift"], drift["training"]["rows"] > 0) == (None, None, True)
    assert (quality["seq"], quality["rows"], quality["loss"], quality["confusion"]) == (None, 0, None, None)
    assert (pulse["history"], pulse["log_seq"], pulse["learner"]) == (None, 0, {"state": "following"})


def test_a_service_that_does_not_learn_has_no_history(paired: Callable[..., Pair]) -> None:
    """Its pulse has the counters, and null where the log would be read."""
    pair = paired(SHIPPED, learn=False)
    history, drift, quality, pulse = (get(pair, path) for path in ("history", "drift", "quality?seq=9", "pulse"))
    assert (history["until"], drift["shift"], quality["rows"]) == (None, None, 0)
    assert {pulse[name] for name in ("learner", "log_seq", "lag_events", "lag_seconds", "admin_seq", "history")} == {
        None
    }
    assert pulse["counters"]["requests"] == 0


def test_the_history_is_that_of_the_report(served: Pair) -> None:
    """Sums of losses are exact, and counts are whole numbers."""
    report = make_report(1300, CLASSES, 4)
    write(served, report)
    history = get(served, "history")
    assert (history["until"], history["from"], history["bucket"], history["epoch"]) == (1300, 0, 4, 0)
    assert history["seq"] == [*range(4, 1301, 4)]
    columns = ("rows", "loss", "loss_max", "hits", "frozen_rows", "frozen_loss", "frozen_hits", "both_hits")
    assert [history[name] for name in columns] == report.history.T.tolist()
    assert {type(n) for n in history["hits"]} == {int}
    assert report.labels is not None
    assert history["labels"] == report.labels.tolist()


def test_a_new_report_is_served_at_once(served: Pair) -> None:
    """The pulse has the buckets with events since the client's last one, and of another epoch all."""
    write(served, make_report(20, CLASSES, 4))
    assert get(served, "pulse?since=15&epoch=0&bucket=1")["history"]["seq"] == [16, 17, 18, 19, 20]
    write(served, make_report(22, CLASSES, 4))
    assert get(served, "pulse?since=20&epoch=0&bucket=1")["history"]["seq"] == [21, 22]
    assert get(served, "pulse?since=22&epoch=0&bucket=1")["history"]["seq"] == []
    write(served, make_report(22, CLASSES, 4, epoch=1))
    assert len(get(served, "pulse?since=22&epoch=0&bucket=1")["history"]["seq"]) == 22
    (folder_of(served) / "report").unlink()
    assert get(served, "pulse")["history"] is None


def test_a_loss_that_is_not_finite_is_null(served: Pair) -> None:
    """JSON has no number for it."""
    report = make_report(2, CLASSES, 4)
    table = report.history.copy()
    table[0, 1:3] = np.inf
    write(served, make_report(2, CLASSES, 4, history=table))
    assert get(served, "history")["loss"] == [None, report.history[1, 1]]


def test_drift_is_that_of_the_report(served: Pair) -> None:
    """The training statistics are those of the manifest."""
    report = make_report(300, CLASSES, 4)
    write(served, report)
    drift = get(served, "drift")
    assert report.drift is not None
    assert drift["shift"] == (report.drift / report.quality[:, :1]).tolist()
    assert (drift["bucket"], drift["seq"][0], drift["seq"][-1]) == (8, 8, 300)
    manifest = json.loads((SHIPPED / "iris" / "1" / "model.json").read_text())
    assert drift["training"] == manifest["training"]


def test_quality_is_over_the_latest_rows_or_the_past_ones(served: Pair) -> None:
    """Both come from the same report."""
    report = make_report(3000, CLASSES, 4)
    write(served, report)
    now, past = get(served, "quality"), get(served, "quality?seq=2000")
    assert (now["seq"], now["rows"], past["seq"], past["rows"]) == (3000, 1000, 1984, 1024)
    assert now["loss"] == pytest.approx(report.recent[:, 0].mean())
    assert np.sum(past["confusion"]) == 1024
    assert past["accuracy"] == report.quality[15:31, 3].sum() / 1024


def test_the_counters_are_those_of_all_workers(served: Pair) -> None:
    """Predictions of both protocols count, and their durations."""
    before = get(served, "pulse", "digits")["counters"]
    for _ in range(3):
        served.ask(request("POST", "/v1/models/digits:predict", instances([[1.0] * 64] * 2)))
    served.ask(request("POST", "/v1/models/digits:predict", b"{"))
    after = get(served, "pulse", "digits")["counters"]
    assert [after[name] - before[name] for name in ("requests", "rows", "failures", "events")] == [3, 6, 1, 0]
    bounds, counts = zip(*after["duration_buckets"], strict=True)
    assert (bounds[0], bounds[-1], counts[-1]) == (5e-05, None, after["requests"])
    assert list(counts) == sorted(counts)


def test_a_pulse_knows_each_event_at_once(served: Pair) -> None:
    """A stored event is in the next pulse, though a pulse reads the log only if something was written."""
    for number in (1, 2, 3):
        feedback = (":feedback", instances([[0.0] * 30], labels=[1]))
        call, body = (":configure", b'{"paused": false}') if number == 2 else feedback
        assert served.ask(request("POST", f"/v1/models/breast-cancer{call}", body))[0].status == 202
        pulse = served.ask(request("GET", "/v1/models/breast-cancer/pulse"))[0].json
        assert (pulse["log_seq"], pulse["lag_events"], pulse["admin_seq"]) == (number, number, 2 if number > 1 else 0)


def test_a_steady_pulse_is_small(served: Pair) -> None:
    """It has at most 2 KB."""
    write(served, make_report(5000, CLASSES, 4))
    target = f"{IRIS}/pulse?since=5000&epoch=0&bucket=16"
    assert len(served.ask(request("GET", target))[0].body) <= 2048


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("pulse?since=-1", '"since" must be the seq of an event, an integer from 0 to 1099511627775.'),
        ("pulse?epoch=1.5", '"epoch" must be an integer from 0 to 1099511627775.'),
        ("pulse?bucket=", '"bucket" must be an integer from 0 to 1099511627775.'),
        ("quality?seq=now", '"seq" must be the seq of an event, an integer from 0 to 1099511627775.'),
    ],
)
def test_a_wrong_query_is_refused(served: Pair, query: str, sentence: str) -> None:
    """The sentence names the parameter."""
    answer = served.ask(request("GET", f"{IRIS}/{query}"))[0]
    assert (answer.status, answer.json["error"]) == (422, sentence)


# Texts that are numbers for the service, and others.
NUMBERS = ["0", "3", "0015", str(SEQ_MAX)]
OTHERS = ["", "1_0", "+1", "-1", "1.0", "x", "%31", "%d9%a1", "1" * 5000]
PARAMETERS = st.tuples(
    st.sampled_from(["since", "epoch", "bucket", "seq"] * 3 + ["se%71", "Seq", ""]),
    st.sampled_from(["="] * 6 + ["", "=="]),
    st.sampled_from(NUMBERS * 3 + OTHERS),
).map("".join)
QUERIES = st.lists(PARAMETERS, max_size=3).flatmap(
    lambda parts: st.sampled_from(["&", "&", "&&", ";"]).map(lambda sign: sign.join(parts))
)


@settings(max_examples=examples(150), deadline=None)
@given(
    call=st.sampled_from(["pulse", "history", "drift", "quality", "versions/1/pulse", "versions/2/pulse"]),
    query=st.one_of(st.none(), QUERIES),
    end=st.sampled_from(["", "", "", "#1", "?", "&"]),
    method=st.sampled_from(["GET", "GET", "HEAD"]),
)
@example(call="pulse", query=f"since={SEQ_MAX + 1}", end="", method="GET")
@example(call="quality", query="seq=x&seq=3", end="", method="GET")
def test_the_fast_answer_is_the_plain_one(served: Pair, call: str, query: str | None, end: str, method: str) -> None:
    """Every query has the same answer from FastAPI, from the fast path, and from its remembered head."""
    target = f"{IRIS}/{call}{'' if query is None else '?' + query}{end}"
    data = request(method, target).replace(b"X-Request-Id: test\r\n", b"")

    async def ask(client: ClientConnection) -> list[tuple[int, Any, bytes]]:
        answers = [await client.ask(data) for _ in range(3)]
        named = [[field for field in answer.headers if field[0] != "x-request-id"] for answer in answers]
        return [(answer.status, fields, answer.body) for answer, fields in zip(answers, named, strict=True)]

    plain = served.talk(ask, fast=False)
    assert plain[0] == plain[1] == plain[2]
    assert served.talk(ask) == plain


def test_a_usual_query_needs_no_framework(served: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the report is read, the fast path answers by itself; FastAPI answers other queries."""
    write(served, make_report(20, CLASSES, 4))
    usual = [
        "pulse",
        "pulse?since=3&epoch=0&bucket=1",
        "history",
        "drift",
        "quality",
        "quality?seq=7",
        "versions/1/pulse",
    ]
    for call in usual:
        get(served, call)

    async def refuse(*_: object) -> None:
        raise RuntimeError("on purpose")

    monkeypatch.setattr(HistoryHandler, "answer", refuse)
    requests = [request("GET", f"{IRIS}/{call}") for call in [*usual, "quality?seq=%37"]]
    assert [answer.status for answer in served.ask(*requests)] == [200] * len(usual) + [500]


def test_each_answer_counts_for_its_route(served: Pair) -> None:
    """The metrics have the duration of each answer, from the fast path and from FastAPI; refusals have none."""

    def count() -> int:
        return histogram_of(sum_counters(served.shared_memory)[ROUTES[PULSE]], V1).total

    get(served, "pulse")
    before = count()
    for target in ("pulse", "pulse?since=4", "pulse?since=x", "versions/1/pulse"):
        for fast in (True, False):
            served.ask(request("GET", f"{IRIS}/{target}"), fast=fast)
    assert count() - before == 6


def test_a_trajectory_has_the_probabilities_of_every_state(served: Pair) -> None:
    """It goes from the artifact over the keyframes that are on disk to the served state."""
    model = served.worker.registry.now.served["digits", 1]
    row = [float(i % 16) for i in range(64)]
    assert trajectory(served, row, model="digits").json == {
        "seq": [0],
        "probabilities": served.ask(request("POST", "/v1/models/digits:predict", instances([row])))[0].json[
            "predictions"
        ],
    }
    assert model.learned is None
    for wrong, sentence in ((([1.0],), "Row 0 has 1 values; this model takes 64."), ((row, row), "must have one row")):
        answer = trajectory(served, *wrong, model="digits")
        assert answer.status == 422
        assert sentence in answer.json["error"]
