"""`:explain` of a model of sparse rows answers as the explainer does, and names what each row holds."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from service.errors import TooLargeError
from service.fields.entry_names import VALUE_CHARACTERS_MAX, EntryNames
from service.serve.handlers import sparse_explain_format
from service.serve.handlers.explain_body import ENTRY_CELLS, WIDE_FROM
from service.serve.handlers.sparse_explain_body import SparseExplainParser
from service.serve.models.served_model import ServedModel
from service.settings import Settings
from service.softmax.sparse_explainer import SparseExplainer, SparseExplanation
from service.softmax.sparse_rows import SparseRows
from service.store.artifact.artifact import Artifact, write_artifact
from service.store.artifact.repository import Version
from tests.support.budgets import examples
from tests.support.field_artifacts import SPARSE_FIELDS, field_artifact, plain_fields
from tests.support.field_rows import NAMES, ROWS, binary_tensors, json_forms, json_tensors, valid_rows
from tests.support.http_connection import Response
from tests.support.http_requests import request
from tests.support.paths import ROOT
from tests.support.server_pair import Pair

# Two classes with one logit, several labels, and a calibration are explained in their own ways.
HEADS: dict[str, dict[str, Any]] = {
    "softmax": {},
    "sigmoid": {"head": "sigmoid"},
    "multilabel": {"head": "multilabel"},
    "ovr": {"head": "ovr"},
    "cool": {"calibration": {"kind": "temperature", "temperature": 2.5}},
    "platt": {"head": "sigmoid", "calibration": {"kind": "platt", "a": 0.5, "b": -1.0}},
}
FULL: dict[str, Any] = {
    **ROWS[0],
    "city": "Porto",
    "body": "late refund",
    "tags": {"red": 2},
}
# The weights of the columns of the row on docs/explain.md.
PAGE_WEIGHTS = {
    "age": -0.2,
    "country=PT": 0.4,
    "message: refund": 1.9,
    "message: late": -0.6,
    "message: late refund": 2.4,
}
LABELS = {"multilabel": [["a"], ["a", "c"]]}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two servers of a sparse model of each head, and of one with weights that overflow."""
    root = tmp_path_factory.mktemp("sparse")
    for name, more in HEADS.items():
        write_artifact(root / name / "1", field_artifact(SPARSE_FIELDS, **more))
    small = field_artifact(({"name": "x", "kind": "number"}, SPARSE_FIELDS[6]))
    tensors = {**small.tensors, "weight": 4 * small.weights}
    write_artifact(root / "large" / "1", Artifact.from_fields(plain_fields(small.manifest), tensors))
    with Pair(root) as running:
        yield running


def post(served: Pair, path: str, body: object) -> Response:
    """The response, which must be the same from both applications."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = request("POST", path, data)
    (fast,), (plain,) = served.ask(sent), served.ask(sent, fast=False)
    assert fast == plain
    return fast


def explain(served: Pair, name: str, rows: Any, **more: Any) -> Any:
    """The document of a good response."""
    found = post(served, f"/v1/models/{name}:explain", {"instances": rows, **more})
    assert found.status == 200, found.body
    return found.json


def model_of(served: Pair, name: str) -> ServedModel:
    return served.worker.registry.now.served[name, 1]


def expected(served: Pair, name: str, rows: list[Any], Y: Any = None) -> tuple[SparseExplanation, list[list[str]]]:
    """The explanation of rows as arrays, and the name of each entry."""
    one = model_of(served, name)
    encoder = one.artifact.row_encoder
    assert encoder is not None
    encoded = encoder.to_model_rows(encoder.encode_objects(rows).rows, one.model.dtype)
    return SparseExplainer(one.sparse_model).explain(encoded, Y), [
        EntryNames(encoder).name_entries(row) for row in rows
    ]


def same(found: Any, array: Any) -> None:
    """JSON numbers that mean just these bits."""
    assert np.array(found, array.dtype).tobytes() == np.ascontiguousarray(array).tobytes()


@pytest.mark.parametrize("top", [None, 3])
@pytest.mark.parametrize("name", HEADS)
def test_an_answer_is_the_explanation(served: Pair, name: str, top: int | None) -> None:
    """Each row has its own columns, the largest contributions to its label first, with their names."""
    rows = [*ROWS, FULL]
    document = explain(served, name, rows, **({} if top is None else {"top": top}))
    (predicted,) = served.ask(request("POST", f"/v1/models/{name}:predict", json.dumps({"instances": rows}).encode()))
    found, names = expected(served, name, rows)
    assert "features" not in document
    assert document.get("calibration") == HEADS[name].get("calibration")
    assert [row["label"] for row in document["explanations"]] == predicted.json["labels"]
    assert [row["probabilities"] for row in document["explanations"]] == predicted.json["predictions"]
    for i, row in enumerate(document["explanations"]):
        at, columns = found.entries_of(i), [one["index"] for one in row["top"]]
        present = found.columns[at].tolist()
        places = [present.index(column) for column in columns]
        assert len(places) == min(len(present), top or WIDE_FROM)
        assert [one["feature"] for one in row["top"]] == [names[i][place] for place in places]
        same(row["logits"], found.logits[i])
        same(row["bias"], SparseExplainer(model_of(served, name).sparse_model).bias)
        same(row["contributions"], found.contributions[at][places].T)
        same(row["sensitivities"], found.sensitivities[at][places].T)
        label = int(found.probabilities[i].argmax())
        part = found.contributions[at].T[min(label, found.contributions.shape[1] - 1)]
        part = -part if found.contributions.shape[1] == 1 and label == 0 else part
        same([one["contribution"] for one in row["top"]], part[places] + 0)
        same([one["sensitivity"] for one in row["top"]], found.sensitivities[at][places, label])
        assert np.abs(part).tolist() == [] or np.abs(part[places]).tolist() == sorted(np.abs(part), reverse=True)[:top]
        if top is None:
            sums = np.array(row["bias"]) + np.array(row["contributions"]).sum(axis=1)
            np.testing.assert_allclose(sums, row["logits"], rtol=1e-4, atol=1e-4)


def test_columns_have_the_names_of_what_the_row_holds(served: Pair) -> None:
    """Categories, words, n-grams and products; of a missing value the column of its absence."""
    (row,) = explain(served, "softmax", [FULL])["explanations"]
    names = {one["feature"] for one in row["top"]}
    assert {"country=PT", "city=Porto", "subject: late", "tags: red", "country=PT * age", "picture[1]"} <= names
    assert any(name.startswith("body: ") and " lat" in name for name in names)
    (missing,) = explain(served, "softmax", [{}])["explanations"]
    assert {one["feature"] for one in missing["top"]} == {"age=missing", "member=missing"}


@pytest.mark.parametrize("form", json_forms(ROWS))
def test_every_form_has_the_same_names(served: Pair, form: str) -> None:
    """The rows of a body are named in whichever member they are, and whatever the order of its columns is."""
    fields = [field["name"] for field in SPARSE_FIELDS if field["kind"] != "cross"]
    rows = [*ROWS, FULL]
    body = json_forms(rows, fields[::-1])[form]
    if form in {"lists", "mixed", "split without names"}:  # these are in the order of all fields
        lists = [[row.get(name) for name in fields] for row in rows]
        body = {
            "lists": {"instances": lists},
            "mixed": {"instances": [lists[0], *rows[1:]]},
            "split without names": {"dataframe_split": {"data": lists, "columns": list(range(len(fields)))}},
        }[form]
    found = post(served, "/v1/models/softmax:explain", body)
    assert found.json == explain(served, "softmax", rows)


def test_a_table_without_columns_is_in_the_order_of_the_fields(served: Pair) -> None:
    """`columns` may be left out, or be null."""
    fields = [field["name"] for field in SPARSE_FIELDS if field["kind"] != "cross"]
    for more in ({}, {"columns": None}):
        table = {"dataframe_split": {"data": [[FULL.get(name) for name in fields]], **more}}
        found = post(served, "/v1/models/softmax:explain", table)
        assert found.json == explain(served, "softmax", [FULL])


@pytest.mark.parametrize("name", HEADS)
def test_labels_give_losses(served: Pair, name: str) -> None:
    """The loss of the answer, and its gradient in the columns that the row lists."""
    head = HEADS[name].get("head")
    given = LABELS.get(name, ["a", "b"])
    Y = {"sigmoid": np.array([[0.0], [1.0]]), "multilabel": np.array([[1.0, 0, 0], [1, 0, 1]])}.get(
        str(head), np.eye(3)[:2]
    )
    found, _ = expected(served, name, ROWS[:2], Y)
    assert found.losses is not None
    assert found.loss_gradients is not None
    for i, row in enumerate(explain(served, name, ROWS[:2], labels=given, top=4)["explanations"]):
        at = found.entries_of(i)
        columns = found.columns[at].tolist()
        assert row["loss"] == found.losses[i]
        same(row["loss_gradient"], found.loss_gradients[at][[columns.index(one["index"]) for one in row["top"]]])
    refused = post(served, f"/v1/models/{name}:explain", {"instances": ROWS[:2], "labels": ["a"]})
    assert refused.status == 422


@settings(deadline=None, max_examples=examples(40))
@given(rows=valid_rows)
def test_any_rows_are_explained(served: Pair, rows: list[Any]) -> None:
    """The probabilities are those of `:predict`, and the contributions sum to the logits."""
    document = explain(served, "softmax", rows)
    predicted = post(served, "/v1/models/softmax:predict", {"instances": rows}).json
    assert [row["probabilities"] for row in document["explanations"]] == predicted["predictions"]
    for row in document["explanations"]:
        assert len(row["top"]) == len(row["contributions"][0]) == len(row["sensitivities"][0])
        sums = np.array(row["bias"]) + np.array(row["contributions"]).sum(axis=1)
        np.testing.assert_allclose(sums, row["logits"], rtol=1e-3, atol=1e-3 * max(map(abs, row["logits"])))


def test_many_rows_are_explained_in_blocks(served: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row is explained as alone, also one that has more columns than a block."""
    rows = [*ROWS, FULL, {}] * 5
    document = explain(served, "softmax", rows)
    monkeypatch.setattr(served.worker.explain.parts_of(model_of(served, "softmax")).format, "_block_columns", 12)
    assert explain(served, "softmax", rows) == document
    assert explain(served, "softmax", [FULL])["explanations"] == document["explanations"][4:5]
    ends = np.array([0, 5, 12, 12, 40, 41])
    parts = sparse_explain_format.split_rows(ends, 12)
    assert [(part.start, part.stop) for part in parts] == [(0, 4), (4, 5), (5, 6)]


def test_a_row_that_overflows_is_explained_in_float64(served: Pair) -> None:
    """Its numbers fit into JSON; other rows of the request have the bits of before."""
    rows: list[dict[str, Any]] = [{"x": 1e38, "city": "Rome"}, {"x": 3e38, "city": "Rome"}, {"city": "Rome"}]
    one, two, three = explain(served, "large", rows, labels=["a"] * 3)["explanations"]
    assert max(map(abs, two["logits"])) > 3.5e38
    assert [one, three] == [explain(served, "large", [row], labels=["a"])["explanations"][0] for row in rows[::2]]
    predicted = post(served, "/v1/models/large:predict", {"instances": rows}).json
    assert [row["probabilities"] for row in (one, two, three)] == predicted["predictions"]
    outputs = post(served, "/v2/models/large/infer", {**tensor(3e38), "outputs": [{"name": "logits"}]})
    assert (outputs.status, "overflow" in outputs.json["error"]) == (400, True)
    fitting = post(served, "/v2/models/large/infer", {**tensor(1e38), "outputs": [{"name": "logits"}]})
    np.testing.assert_allclose(fitting.json["outputs"][0]["data"], explain_x(served, 1e38), rtol=1e-6)


def tensor(x: float) -> dict[str, Any]:
    """A v2 body with one number."""
    return {"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [x]}]}


def explain_x(served: Pair, x: float) -> Any:
    """The logits of a row with one number."""
    return explain(served, "large", [{"x": x}])["explanations"][0]["logits"]


@pytest.mark.parametrize("name", HEADS)
def test_v2_answers_logits_and_no_matrices(served: Pair, name: str) -> None:
    """Logits are those of `:explain`, as JSON and from binary tensors; matrices of all columns are refused."""
    body = json_tensors(ROWS[:2], [field for field in NAMES if field != "picture"])
    found = post(served, f"/v2/models/{name}/infer", {**body, "outputs": [{"name": "logits"}]})
    rows = [{key: value for key, value in row.items() if key != "picture"} for row in ROWS[:2]]
    logits = [z for row in explain(served, name, rows)["explanations"] for z in row["logits"]]
    assert found.json["outputs"][0]["data"] == logits
    for output in ("contributions", "sensitivities"):
        refused = post(served, f"/v2/models/{name}/infer", {**body, "outputs": [{"name": "logits"}, {"name": output}]})
        assert (refused.status, refused.json["code"]) == (400, "invalid_request")
        assert "too many columns" in refused.json["error"]


def test_v2_takes_binary_tensors(served: Pair) -> None:
    """A single row that arrives in binary has the logits of the same row as an object."""
    text, binary = binary_tensors(ROWS[:1])
    text = json.dumps({**json.loads(text), "outputs": [{"name": "logits"}]}).encode()
    headers = [("Inference-Header-Content-Length", str(len(text)))]
    (found,) = served.ask(request("POST", "/v2/models/softmax/infer", text + binary, headers))
    assert found.json["outputs"][0]["data"] == explain(served, "softmax", ROWS[:1])["explanations"][0]["logits"]


@pytest.mark.parametrize("more", [{"top": 0}, {"top": True}, {"seq": 3}, {"seq": 0, "min_seq": 0}, {"tokens": []}])
def test_bad_options_are_refused(served: Pair, more: dict[str, Any]) -> None:
    """As for a model whose rows are dense."""
    found = post(served, "/v1/models/softmax:explain", {"instances": ROWS, **more})
    assert found.status == (404 if more == {"seq": 3} else 422)


@pytest.mark.parametrize("labels", [[], ["a"]])
@pytest.mark.parametrize("top", [None, 2, 999])
def test_the_numbers_of_an_answer_are_limited(served: Pair, labels: list[str], top: int | None) -> None:
    """Those of the listed columns count, and their names by the longest that they may be."""
    row = {"body": "a b", "tags": ["red", "blue"]}
    more = ({} if top is None else {"top": top}) | ({"labels": labels} if labels else {})
    entries = len(expected(served, "softmax", [row])[0].columns)
    listed = min(entries, top or WIDE_FROM)
    name = (len("country and age") + VALUE_CHARACTERS_MAX + 1) // 10
    cells = 9 + listed * (6 + len(labels) + ENTRY_CELLS + name)
    body = json.dumps({"instances": [row], **more}).encode()
    parser_of(served, max(cells, -(-entries * (12 + name) // 16))).parse_explain(body)
    for limit in (cells - 1, entries * (12 + name) // 16 - 1):
        with pytest.raises(TooLargeError):
            parser_of(served, limit).parse_explain(body)


def parser_of(served: Pair, cells: int) -> SparseExplainParser:
    """Return the parser of a model with another limit of numbers."""
    # A model with other settings needs the registry's other resources, which are private.
    resources = served.worker.registry._resources._replace(settings=Settings(answer_cells_max=cells))
    artifact = model_of(served, "softmax").artifact
    return SparseExplainParser(
        ServedModel(Version("sized", 1, artifact, None), artifact, resources), resources.settings
    )


def test_the_rows_of_a_past_state_are_named(served: Pair) -> None:
    """The state at seq 0 is the artifact, which is served; one that is not learned does not exist."""
    assert explain(served, "softmax", [FULL], seq=0) == explain(served, "softmax", [FULL])


def test_other_names_of_a_lenient_model_are_ignored(paired: Callable[..., Pair], tmp_path: Path) -> None:
    """In columns, tables and objects; a column of another name need not be one value for each row."""
    write_artifact(tmp_path / "lenient" / "1", field_artifact(SPARSE_FIELDS, others="ignore"))
    running = paired(tmp_path)
    plain = explain(running, "lenient", [{"city": "Porto"}])
    for body in (
        {"inputs": {"other": 7, "city": ["Porto"]}},
        {"instances": [{"city": "Porto", "other": 7}]},
        {"dataframe_split": {"columns": ["other", "city"], "data": [[7, "Porto"]]}},
    ):
        assert post(running, "/v1/models/lenient:explain", body).json == plain


def test_rows_are_not_those_of_a_matrix(served: Pair) -> None:
    """The parts of sparse explanations take no dense rows."""
    one = model_of(served, "softmax")
    with pytest.raises(TypeError, match="sparse"):
        _ = one.dense_model
    rows = SparseRows(np.zeros(1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))
    found = served.worker.explain.parts_of(one).format.compute_outputs(rows, {"logits"})
    same(found[2]["logits"].tolist(), SparseExplainer(one.sparse_model).bias[None])


def test_the_example_of_the_page(paired: Callable[..., Pair], tmp_path: Path) -> None:
    """The model on docs/explain.md, whose weights are set by the names of columns, gives the answer on it."""
    text = (ROOT / "docs" / "explain.md").read_text()
    blocks = dict(re.findall(r"^```json (fields|body|answer)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))
    (row,) = json.loads(blocks["body"])["instances"]
    plain = field_artifact(
        tuple(json.loads(blocks["fields"])), head="sigmoid", classes=["question", "complaint"], seed=None
    )
    assert plain.row_encoder is not None
    columns = plain.row_encoder.encode_objects([row]).rows.columns
    weight = plain.weights.copy()
    for name, column in zip(EntryNames(plain.row_encoder).name_entries(row), columns.tolist(), strict=True):
        weight[column] = PAGE_WEIGHTS[name]
    tensors = {"weight": weight, "bias": np.full(1, -1, np.float32)}
    write_artifact(tmp_path / "tickets" / "1", Artifact.from_fields(plain_fields(plain.manifest), tensors))
    found = post(paired(tmp_path), "/v1/models/tickets:explain", blocks["body"].encode())
    assert found.body.decode() == blocks["answer"].strip()
