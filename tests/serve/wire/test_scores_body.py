"""`/v1/convert` returns all forms of scores for one form, and rejects invalid scores with one sentence."""

import json
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.serve.api import routes_convert
from service.serve.api.routes_convert import INLINE_BYTES
from service.serve.wire import scores_body as conversion
from service.settings import Settings
from service.softmax.scores import FORMS, compute_score_forms
from tests.support.budgets import examples
from tests.support.http_connection import Response
from tests.support.http_requests import request
from tests.support.server_pair import Pair

PATH = "/v1/convert"


def ask(pair: Pair, body: bytes) -> Response:
    """The response, which must be the same from both applications."""
    fast, plain = (pair.ask(request("POST", PATH, body), fast=fast)[0] for fast in (True, False))
    assert fast == plain
    return fast


def response_document(pair: Pair, **fields: Any) -> dict[str, Any]:
    answer = ask(pair, json.dumps(fields).encode())
    assert answer.status == 200, answer.body
    document: dict[str, Any] = answer.json
    return document


def test_logits_are_converted_to_all_forms(pair: Pair) -> None:
    """The numbers have the bits that softmax/scores.py computes."""
    Z = [[2.0, 0.5, -1.0], [100, -100, 0]]
    document = response_document(pair, logits=Z, temperature=1.5)
    assert list(document) == [*FORMS, "head", "temperature"]
    scores = compute_score_forms("logits", np.array(Z), sigmoid=False, temperature=1.5)
    for form in FORMS:
        assert document[form] == scores[form].tolist()
    assert (document["head"], document["temperature"]) == ("softmax", 1.5)


def test_nulls_mean_infinities(pair: Pair) -> None:
    """A null logit masks its class, and certain scores convert to null and back."""
    masked = response_document(pair, logits=[[1, None, 1]])
    assert masked["logits"] == [[1, None, 1]]
    assert masked["probabilities"] == [[0.5, 0, 0.5]]
    assert masked["log_probabilities"][0][1] is None
    certain = response_document(pair, probabilities=[[1, 0]])
    assert certain["odds"] == [[None, 0]]
    assert certain["log_probabilities"] == certain["logits"] == [[0, None]]
    assert response_document(pair, odds=[[None, 0]])["probabilities"] == [[1, 0]]
    assert response_document(pair, log_probabilities=[[0, None]])["probabilities"] == [[1, 0]]
    assert response_document(pair, probabilities=[[1, 0.5]], head="sigmoid")["logits"] == [[None, 0]]


def test_sigmoid_converts_each_class_independently(pair: Pair) -> None:
    document = response_document(pair, odds=[[3, 1, 0.25]], head="sigmoid")
    assert document["probabilities"] == [[0.75, 0.5, 0.2]]


def test_long_bodies_are_converted_in_a_thread(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread is one of the worker's; short bodies are converted on the event loop."""
    threads = []

    def converted(body: bytes, limits: Settings) -> bytes:
        threads.append(threading.current_thread().name)
        return conversion.convert_scores(body, limits)

    monkeypatch.setattr(routes_convert, "convert_scores", converted)
    short = json.dumps({"logits": [[1, 2]]}).encode()
    first = ask(pair, short)
    here, threads = set(threads), []
    assert ask(pair, short.ljust(INLINE_BYTES + 1)) == first
    assert {name.rsplit("_", 1)[0] for name in threads} == {"softstep-explain"}
    assert here.isdisjoint(threads)


def test_a_null_option_counts_as_missing(pair: Pair) -> None:
    """Null options have their defaults, and a null form is not there."""
    nulls = {"head": None, "temperature": None, "odds": None}
    assert response_document(pair, logits=[[1, 2]], **nulls) == response_document(pair, logits=[[1, 2]])


def test_a_row_is_converted_independently_of_the_others(pair: Pair) -> None:
    rows = np.random.default_rng(0).standard_normal((900, 3)).tolist()
    document = response_document(pair, logits=rows)
    for i in (0, 899):
        alone = response_document(pair, logits=rows[i : i + 1])
        assert [alone[form][0] for form in FORMS] == [document[form][i] for form in FORMS]


REFUSED: dict[str, tuple[Any, int, str]] = {
    "nothing": ({}, 422, "exactly one of logits"),
    "two forms": ({"logits": [[1]], "odds": [[1]]}, 422, "exactly one of logits"),
    "unknown field": ({"logits": [[1]], "scale": 2}, 422, 'unknown field, "scale"'),
    "no list": ({"logits": 1}, 422, '"logits" must be a list of at least one row'),
    "no rows": ({"logits": []}, 422, "at least one row"),
    "null": ({"logits": None}, 422, "exactly one of logits"),
    "no rows of rows": ({"logits": [1, 2]}, 422, "Row 0"),
    "empty row": ({"logits": [[]]}, 422, "Row 0"),
    "ragged": ({"logits": [[1, 2], [1]]}, 422, "Row 1"),
    "nested": ({"logits": [[1, 2], [1, [2]]]}, 422, "Row 1"),
    "text": ({"logits": [[1, "2"]]}, 422, "neither a number nor null"),
    "true": ({"logits": [[1, True]]}, 422, "neither a number nor null"),
    "head": ({"logits": [[1]], "head": "tanh"}, 422, "softmax or sigmoid"),
    "head a list": ({"logits": [[1]], "head": ["softmax"]}, 422, "softmax or sigmoid"),
    **{f"temperature {T}": ({"logits": [[1]], "temperature": T}, 422, "temperature") for T in (0, -1, "1", True)},
    "steep": ({"logits": [[1e300]], "temperature": 1e-300}, 422, "raise the temperature"),
    "flat": ({"probabilities": [[1e-300, 1]], "temperature": 1e307}, 422, "lower the temperature"),
    "all masked": ({"logits": [[1, 2], [None, None]]}, 422, "Row 1 has no possible class"),
    "null probability": ({"probabilities": [[1, None]]}, 422, "Row 0 has a null"),
    "null sigmoid logit": ({"logits": [[1], [None]], "head": "sigmoid"}, 422, "Row 1 has a null"),
    "outside": ({"probabilities": [[1.25, -0.25]]}, 422, "Row 0 has a probability outside"),
    "sum": ({"probabilities": [[0.5, 0.5], [0.5, 0.4]]}, 422, "Row 1 has probabilities that do not sum to 1"),
    "odds": ({"odds": [[-1]], "head": "sigmoid"}, 422, "below 0"),
    "logarithms": ({"log_probabilities": [[0.5]]}, 422, "above 1"),
    "no object": ([[1]], 400, "JSON object"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_invalid_scores_are_rejected(pair: Pair, name: str) -> None:
    """The response has a status and a sentence that says what to change."""
    document, status, word = REFUSED[name]
    answer = ask(pair, json.dumps(document).encode())
    assert (answer.status, list(answer.json)) == (status, ["error", "code"])
    assert word in answer.json["error"]


NO_JSON = [
    b"",
    b"\xff",
    b'{"logits": [[1]',
    b'{"logits": [[NaN]]}',
    b'{"logits": [[1]], "logits": [[2]]}',
    b'{"logits": [[1e999]]}',
    b'{"logits": ' + b"[" * 70 + b"]" * 70 + b"}",
]


@pytest.mark.parametrize("body", NO_JSON, ids=range(len(NO_JSON)))
def test_invalid_json_is_malformed(pair: Pair, body: bytes) -> None:
    assert ask(pair, body).status == 400


def test_other_content_types_are_rejected(pair: Pair) -> None:
    """The response is that of predictions."""
    for header in (("Content-Type", "text/csv"), ("Content-Encoding", "br")):
        (answer,) = pair.ask(request("POST", PATH, b'{"logits": [[1]]}', [header]))
        assert answer.status == 415
    (answer,) = pair.ask(request("GET", PATH))
    assert (answer.status, answer.header("allow")) == (405, "POST")


def test_limits_are_enforced(paired: Callable[..., Pair]) -> None:
    """The limits are of rows, and of the numbers of all four forms together."""
    pair = paired(rows_max=3, answer_cells_max=24)
    assert ask(pair, json.dumps({"logits": [[1, 2]] * 3}).encode()).status == 200
    for rows in ([[1]] * 4, [[1, 2, 3]] * 3, [[1] * 7]):
        answer = ask(pair, json.dumps({"logits": rows}).encode())
        assert (answer.status, list(answer.json)) == (413, ["error", "code"])


words = st.sampled_from(["softmax", "sigmoid", ""])
values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words


@settings(deadline=None, max_examples=examples(200))
@given(
    document=st.dictionaries(
        st.sampled_from([*FORMS, "head", "temperature", "x"]),
        st.lists(st.lists(values, min_size=1, max_size=3), max_size=3)
        | st.lists(st.lists(st.floats(-800, 800), min_size=2, max_size=2), min_size=1, max_size=3)
        | values,
        max_size=3,
    )
    | values
)
def test_any_body_gets_a_response(pair: Pair, document: Any) -> None:
    """Both applications respond the same, never with a server error, and without NaN."""
    answer = ask(pair, json.dumps(document).encode())
    assert answer.status in {200, 400, 413, 422}
    if answer.status == 200:
        assert set(answer.json) == {*FORMS, "head", "temperature"}
