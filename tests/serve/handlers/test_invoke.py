"""`/invocations` and Vertex AI's route answer every form of a body as `:predict` answers its rows."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.support.http_connection import Response
from tests.support.http_requests import Headers, as_base64, instances, request
from tests.support.paths import SHIPPED
from tests.support.server_pair import Pair

FEATURES = json.loads((SHIPPED / "iris" / "1" / "model.json").read_text())["features"]
X = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]
VERTEX = "/v1/endpoints/1/deployedModels/2:predict"
TURNED = [row[::-1] for row in X]
RECORDS = [dict(zip(FEATURES[::-1], row, strict=True)) for row in TURNED]
COLUMNS = {name: [record[name] for record in RECORDS] for name in FEATURES[::-1]}
JSON_FORMS: dict[str, Any] = {
    "instances": {"instances": X},
    "objects": {"instances": RECORDS},
    "vectors": {"instances": [{"features": row} for row in X]},
    "base64": {"instances": as_base64(X)},
    "base64 among lists": {"instances": [*as_base64(X[:1]), X[1]]},
    "columns": {"inputs": COLUMNS},
    "array": {"inputs": X},
    "named array": {"inputs": {"features": X}},
    "split": {"dataframe_split": {"columns": FEATURES[::-1], "data": TURNED, "index": [7, "a"]}},
    "split without names": {"dataframe_split": {"columns": [0, 1, 2, 3], "data": X}},
    "records": {"dataframe_records": RECORDS},
    "params": {"dataframe_records": RECORDS, "params": {"a": [1]}},
    "nulls": {"instances": X, "inputs": None, "min_seq": None, "feedback_tokens": None, "params": None},
}


def text_of(rows: list[list[Any]]) -> bytes:
    """Return rows as CSV."""
    return "".join(",".join(map(str, row)) + "\n" for row in rows).encode()


BODIES: dict[str, tuple[str, bytes]] = {
    **{name: ("application/json", json.dumps(body).encode()) for name, body in JSON_FORMS.items()},
    "CSV": ("text/csv", text_of(X)),
    "CSV without a header": ("text/csv; header=absent", text_of(X)),
    "CSV with a header": ("text/csv; header=present", text_of([FEATURES[::-1], *TURNED])),
    "CSV with an index": ("text/csv", text_of([["", *FEATURES], *([i, *row] for i, row in enumerate(X))])),
    "JSON Lines": ("application/jsonlines", b"\n".join(json.dumps(row).encode() for row in X)),
    "JSON Lines of base64": ("application/jsonlines", b"\n".join(json.dumps(row).encode() for row in as_base64(X))),
    "JSON Lines of objects": ("application/jsonlines", b"\n".join(json.dumps(row).encode() for row in RECORDS)),
    "pandas-split": (
        "application/json; format=pandas-split",
        json.dumps({"columns": FEATURES[::-1], "data": TURNED}).encode(),
    ),
    "pandas-records": ("application/json; format=pandas-records", json.dumps(RECORDS).encode()),
}


@pytest.fixture(scope="module")
def served(models: Any) -> Iterator[Pair]:
    """Two servers whose default model is iris, with Vertex AI's route."""
    with Pair(models, default_model="iris", predict_route=VERTEX) as running:
        yield running


def ask(served: Pair, kind: str, body: bytes, headers: Headers = (), path: str = "/invocations") -> Response:
    """The response, which must be the same from both applications."""
    sent = request("POST", path, body, [("Content-Type", kind), *headers])
    fast, plain = (served.ask(sent, fast=fast)[0] for fast in (True, False))
    assert fast == plain
    return fast


@pytest.mark.parametrize("path", ["/invocations", VERTEX])
@pytest.mark.parametrize("name", BODIES)
def test_every_form_is_answered_like_its_rows(served: Pair, name: str, path: str) -> None:
    """The bytes of the response are those of `:predict`, on both paths."""
    (expected,) = served.ask(request("POST", "/v1/models/iris:predict", instances(X)))
    found = ask(served, *BODIES[name], path=path)
    assert (found.status, found.body) == (200, expected.body)


@pytest.mark.parametrize("name", BODIES)
def test_csv_has_the_label_and_then_the_probabilities(served: Pair, name: str) -> None:
    """Each line has the numbers of the JSON response, with the same digits; there is no header."""
    expected = ask(served, *BODIES[name])
    found = ask(served, *BODIES[name], headers=[("Accept", "text/csv")])
    headers = dict(found.headers)
    assert (found.status, headers["content-type"], headers["x-softstep-seq"]) == (200, "text/csv; charset=utf-8", "0")
    lines = list(csv.reader(io.StringIO(found.body.decode())))
    assert [line[0] for line in lines] == expected.json["labels"]
    numbers = expected.body.partition(b'{"predictions":[[')[2].partition(b"]]")[0]
    assert "],[".join(",".join(line[1:]) for line in lines) == numbers.decode()


def test_outputs_belong_to_the_predict_call(served: Pair) -> None:
    """With "inputs" `:predict` answers "outputs", as TensorFlow Serving does; otherwise the bytes are the same."""
    for inputs in (COLUMNS, X, {"features": X}):
        sent = request("POST", "/v1/models/iris:predict", json.dumps({"inputs": inputs}).encode())
        (found,), (plain,) = served.ask(sent), served.ask(sent, fast=False)
        (rows,) = served.ask(request("POST", "/v1/models/iris:predict", instances(X)))
        assert found == plain
        assert found.body == rows.body.replace(b"predictions", b"outputs")


@pytest.mark.parametrize("name", [name for name in JSON_FORMS if name != "params"])
@pytest.mark.parametrize("call", ["predict", "explain"])
def test_calls_of_a_model_take_every_form(served: Pair, call: str, name: str) -> None:
    """The bytes of the response are those of a list of rows, but for the name of its first member."""
    (expected,) = served.ask(request("POST", f"/v1/models/iris:{call}", instances(X)))
    body = json.dumps(JSON_FORMS[name]).encode()
    if call == "explain" and name == "nulls":
        body = body.replace(b'"feedback_tokens"', b'"top"').replace(b'"params"', b'"labels"')
    sent = request("POST", f"/v1/models/iris:{call}", body.replace(b'"params"', b'"parameters"'))
    (found,), (plain,) = served.ask(sent), served.ask(sent, fast=False)
    assert found == plain
    assert (found.status, found.body.replace(b"outputs", b"predictions")) == (200, expected.body)


def test_the_label_of_a_multilabel_model_is_a_list(models: Any, paired: Callable[..., Pair]) -> None:
    """A CSV cell has the labels as a JSON list; names with quotes and line ends come back."""
    rows = [[0, 1, 2], [3, -4, 5], [-9, 0, 0]]
    tags = paired(models / "tags" / "1")
    expected = tags.ask(request("POST", "/invocations", instances(rows)))[0].json
    found = ask(tags, "application/json", instances(rows), [("Accept", "text/csv")])
    lines = list(csv.reader(io.StringIO(found.body.decode(), newline="")))
    assert [json.loads(line[0]) for line in lines] == expected["labels"]
    assert [list(map(float, line[1:])) for line in lines] == expected["predictions"]


REFUSED: dict[str, tuple[str, Any, int, str]] = {
    "no form": ("application/json", {}, 422, "exactly one of dataframe_split, dataframe_records, instances, inputs"),
    "null form": ("application/json", {"instances": None}, 422, "exactly one of"),
    "two forms": ("application/json", {"instances": X, "inputs": X}, 422, "exactly one of"),
    "unknown field": ("application/json", {"instances": X, "extra": 1}, 422, 'unknown field, "extra"'),
    "list": ("application/json", X, 400, "must be a JSON object"),
    "records of another type": ("application/json; format=pandas-records", {}, 400, "must be a JSON list of rows"),
    "repeated column": (
        "application/json",
        b'{"inputs": {"a": [1], "a": [2]}}',
        400,
        'same key twice, "a"',
    ),
    "null cell": (
        "application/json",
        {"dataframe_split": {"columns": FEATURES, "data": [X[0], [1, None, 2, 3]]}},
        422,
        f'Row 1 has a value that is not a number in column "{FEATURES[1]}".',
    ),
    "NaN": (
        "application/json",
        json.dumps({"dataframe_split": {"columns": FEATURES, "data": [X[0], [1, 2, float("nan"), 3]]}}).encode(),
        422,
        f'Row 1 has a value that is not a number in column "{FEATURES[2]}".',
    ),
    "-Infinity": (
        "application/json",
        json.dumps({"inputs": {**COLUMNS, FEATURES[3]: [float("-inf"), 1]}}).encode(),
        422,
        f'Row 0 has a value that is not a number in column "{FEATURES[3]}".',
    ),
    "NaN beside the rows": ("application/json", b'{"instances": [[1, 2, 3, 4]], "params": NaN}', 400, "near character"),
    "NaN in a text": ("application/json", b'{"instances": [[1, 2, 3, 4]], "params": "NaN"', 400, "near character"),
    "NaN in JSON Lines": ("application/jsonlines", b"[1, 2, 3, NaN]", 422, f'in column "{FEATURES[3]}"'),
    "scalar line": ("application/jsonlines", b"1", 422, "Row 0 must be a list of 4 numbers"),
    "object line": ("application/jsonlines", instances(X), 422, 'Row 0 has an unknown column, "instances"'),
    "JSON as CSV": ("text/csv", instances(X), 422, "Row 0 has"),
    "empty CSV": ("text/csv", b"", 400, "empty"),
    "header": ("text/csv; header=maybe", text_of(X), 415, '"header"'),
    "charset": ("text/csv; charset=utf-16", text_of(X), 415, "utf-8"),
    "type": ("application/xml", b"<x/>", 415, "text/csv or application/jsonlines"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_bodies_are_refused(served: Pair, name: str) -> None:
    """The sentence says what to change, in JSON even if the client asks for CSV."""
    kind, body, status, words = REFUSED[name]
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    found = ask(served, kind, sent, [("Accept", "text/csv")])
    assert (found.status, found.header("content-type")) == (status, "application/json")
    assert words in found.json["error"]


def test_vertex_ignores_unknown_fields(served: Pair) -> None:
    """Vertex AI's route ignores what it does not know, but not a form that it knows."""
    body = {"instances": X, "extra": {"a": None}, "parameters": {"confidence": 0.5}}
    assert ask(served, "application/json", json.dumps(body).encode(), path=VERTEX).status == 200
    both = json.dumps({"instances": X, "inputs": X}).encode()
    assert ask(served, "application/json", both, path=VERTEX).status == 422


def test_tokens_come_as_json_alone(served: Pair) -> None:
    """A request for feedback tokens gets one for each row; as CSV there is no place for them."""
    body = json.dumps({"dataframe_records": RECORDS, "feedback_tokens": True}).encode()
    assert len(served.ask(request("POST", "/invocations", body))[0].json["feedback_tokens"]) == len(X)
    refused = ask(served, "application/json", body, [("Accept", "text/csv")])
    assert (refused.status, "feedback tokens" in refused.json["error"]) == (422, True)


def test_a_seq_that_was_not_reached_is_waited_for(models: Any, paired: Callable[..., Pair]) -> None:
    """`min_seq` works beside every form; without the event the answer is 409 after the limit."""
    pair = paired(models, default_model="iris", min_seq_seconds=0.05)
    body = json.dumps({"dataframe_records": RECORDS, "min_seq": 3}).encode()
    assert ask(pair, "application/json", body).json["code"] == "not_reached_yet"


def test_large_bodies_of_every_form_are_answered(served: Pair) -> None:
    """Thousands of rows in each form are those of `:predict`, to the bit."""
    rows = (np.random.default_rng(0).random((3000, 4)) * 7).round(3).tolist()
    records = [dict(zip(FEATURES, row, strict=True)) for row in rows]
    bodies: list[tuple[str, bytes]] = [
        ("application/json", json.dumps({"dataframe_records": records}).encode()),
        ("application/json", json.dumps({"dataframe_split": {"columns": FEATURES, "data": rows}}).encode()),
        ("application/json", json.dumps({"inputs": {name: [r[name] for r in records] for name in FEATURES}}).encode()),
        ("text/csv", text_of(rows)),
        ("application/jsonlines", b"\n".join(json.dumps(row).encode() for row in rows)),
    ]
    (expected,) = served.ask(request("POST", "/v1/models/iris:predict", instances(rows)))
    for kind, body in bodies:
        (found,) = served.ask(request("POST", "/invocations", body, [("Content-Type", kind)]))
        assert found.body == expected.body
