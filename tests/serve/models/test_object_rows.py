"""A single row of names and values is answered and stored from machine code as the general path does it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InputError
from service.process.shared_memory import SharedMemory
from service.serve.metrics.counters import WorkerCounters
from service.serve.models.single_row import SingleRow
from service.serve.wire.feedback_body import FeedbackParser, PostedEvent
from service.serve.wire.feedback_parsers import make_feedback_parser
from service.serve.wire.labels import LabelParser
from service.serve.wire.model_tables import RowLimits, make_tables
from service.softmax.kernels.heads import NOT_FINITE
from service.softmax.sparse_model import SparseModel
from service.softmax.sparse_rows import SparseRows
from service.softmax.sparse_weights import SparseWeights
from service.store.artifact.artifact import Artifact, write_artifact
from service.store.artifact.model_factory import initial_parameters
from tests.support.budgets import examples
from tests.support.field_artifacts import DENSE_FIELDS, SPARSE_FIELDS, field_artifact
from tests.support.field_rows import ROWS, valid_rows
from tests.support.http_connection import Response
from tests.support.server_pair import Pair

ARTIFACTS: dict[str, Artifact] = {
    "dense": field_artifact(),
    "wide": field_artifact(DENSE_FIELDS, dtype="float64"),
    "sparse": field_artifact(SPARSE_FIELDS),
    "binary": field_artifact(SPARSE_FIELDS, head="sigmoid"),
    "tags": field_artifact(SPARSE_FIELDS, head="ovr"),
}
USUAL = {"age": 41, "member": True, "country": "FR", "subject": "a late refund", "picture": [1, 2, 3]}


@pytest.fixture(scope="module")
def fields_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both servers with the models above."""
    models = tmp_path_factory.mktemp("models")
    for name, artifact in ARTIFACTS.items():
        write_artifact(Path(models, name, "1"), artifact)
    with Pair(models) as running:
        yield running


def post(path: str, body: bytes) -> bytes:
    """A request without an id, whose head the protocol remembers."""
    head = b"POST /v1/models/%b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    return head % (path.encode(), len(body)) + body


def plain(answer: Response) -> tuple[Any, ...]:
    """A response without its request id, which is unique."""
    return answer.status, [header for header in answer.headers if header[0] != "x-request-id"], answer.body


def count_fields(pair: Pair) -> dict[str, float]:
    """The counters of missing and unknown values, by their labels."""
    (answer,) = pair.ask(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    lines = [line for line in answer.body.decode().splitlines() if line.startswith("softstep_field")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def single_row_of(artifact: Artifact) -> SingleRow:
    """The shortest path of an artifact."""
    worker = WorkerCounters(SharedMemory(1, 2), 0)
    plan = initial_parameters(artifact).build_model().single_row_plan()
    assert plan is not None
    return SingleRow(plan, worker.model_counters("m", 1), worker, artifact.object_plan)


@pytest.mark.parametrize("name", ARTIFACTS)
@settings(max_examples=examples(120), deadline=None)
@given(rows=valid_rows, before=st.binary(max_size=9))
def test_a_single_row_has_the_bits_of_the_model(name: str, rows: list[dict[str, Any]], before: bytes) -> None:
    """The probabilities and the label are those of `classify`, wherever the body begins in the data."""
    artifact = ARTIFACTS[name]
    single, model = single_row_of(artifact), initial_parameters(artifact).build_model()
    encoder, dtype = artifact.row_encoder, artifact.manifest.dtype
    assert encoder is not None
    for row in rows:
        body = json.dumps({"instances": [row]}, ensure_ascii=False).encode()
        label = single.predict_row(before + body, len(before))
        if label < 0:
            continue
        encoded = encoder.to_model_rows(encoder.encode_objects([row]).rows, np.dtype(dtype))
        P, labels = model.classify(encoded if artifact.has_sparse_rows else encoded.to_matrix(encoder.n_columns))
        assert (single.P.tobytes(), label) == (P.tobytes(), labels[0])


@pytest.mark.parametrize("name", ARTIFACTS)
def test_one_row_leaves_nothing_in_the_next(name: str) -> None:
    """Columns that the row before had are 0 again."""
    single = single_row_of(ARTIFACTS[name])
    bodies = [json.dumps({"instances": [row]}).encode() for row in (USUAL, {}, USUAL)]
    first, empty, again = ((single.predict_row(body, 0), single.P.tobytes()) for body in bodies)
    assert first == again
    assert first != empty


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": [{"age": 1}]', b'{"instances": [{"age": 1}]}}', b'{"instances": [{"age": 1}], "min_seq": 1}',
        b'{"instances": [[1]]}', b'{"instances": [{"age": 1}, {"age": 1}]}', b'{"instances": {"age": 1}}', b"{}", b"",
        b'{"inputs": [{"age": 1}]}', b'{"instances": [{"age": "1"}]}', b'[{"instances": [{"age": 1}]}]',
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["dense", "sparse"])
def test_other_bodies_are_left_to_the_general_path(name: str, body: bytes) -> None:
    """Other members, several rows, and values that are refused."""
    assert single_row_of(ARTIFACTS[name]).predict_row(body, 0) < NOT_FINITE


def test_values_that_overflow_the_dtype_are_left_to_the_general_path() -> None:
    """A number that is infinite in float32 is refused by row and field; a logit that is, is computed in float64."""
    for name in ("dense", "sparse"):
        body = b'{"instances": [{"picture": [1, 1e22, 1e22]}]}'
        assert single_row_of(ARTIFACTS[name]).predict_row(body, 0) >= 0
        assert single_row_of(ARTIFACTS[name]).predict_row(b'{"instances": [{"basket": {"milk": 1e22}}]}', 0) >= 0
    fields = ({"name": "x", "kind": "number", "scale": 1e-24}, {"name": "y", "kind": "category", "bits": 3})
    for some in (fields[:1], fields):
        single = single_row_of(field_artifact(some))
        assert single.predict_row(b'{"instances": [{"x": 9007199254740992}]}', 0) < NOT_FINITE
        assert single.predict_row(b'{"instances": [{"x": 1}]}', 0) >= 0
    steep = SparseModel(
        "softmax", SparseWeights.from_matrix(np.full((8, 2), 1e38, np.float32), np.zeros(2, np.float32))
    )
    artifact = field_artifact(fields[1:])
    plan, worker = steep.single_row_plan(), WorkerCounters(SharedMemory(1, 2), 0)
    assert plan is not None
    single = SingleRow(plan, worker.model_counters("m", 1), worker, artifact.object_plan)
    assert single.predict_row(b'{"instances": [{"y": "a"}]}', 0) >= 0
    rows = SparseRows(np.array([1]), np.array([1], np.int32), np.array([100], np.float32))
    assert not np.isfinite(steep.logits(rows)).all()


@pytest.mark.parametrize("name", ARTIFACTS)
@settings(max_examples=examples(60), deadline=None)
@given(data=st.data())
def test_responses_to_repeated_heads_match_the_application(fields_pair: Pair, name: str, data: st.DataObject) -> None:
    """The first response, the repeated one and that of the FastAPI application are the same, for any row."""
    (row, *_) = data.draw(valid_rows)
    changed = {
        **row,
        data.draw(st.sampled_from(["age", "country", "else"])): data.draw(st.sampled_from([True, "x", []])),
    }
    body = json.dumps({"instances": [data.draw(st.sampled_from([row, row, changed]))]}).encode()
    sent = post(f"{name}:predict", body[: data.draw(st.sampled_from([len(body)] * 4 + [len(body) - 3]))])
    (expected,) = fields_pair.ask(sent, fast=False)
    assert [plain(answer) for answer in fields_pair.ask(sent, sent, sent)] == [plain(expected)] * 3


def test_missing_and_unknown_values_are_counted_as_on_the_general_path(fields_pair: Pair) -> None:
    """Each request counts once, and a refused one not at all."""
    body = json.dumps({"instances": [{"age": None, "country": "FR", "basket": ["tea", "tea"]}]}).encode()
    sent = post("dense:predict", body)
    refused = post("dense:predict", b'{"instances": [{"age": "x", "country": "FR"}]}')
    start = count_fields(fields_pair)
    assert {answer.status for answer in fields_pair.ask(sent, refused, fast=False)} == {200, 422}
    after_one = count_fields(fields_pair)
    assert {answer.status for answer in fields_pair.ask(sent, sent, refused)} == {200, 422}
    after_three = count_fields(fields_pair)
    one = {name: after_one[name] - start.get(name, 0) for name in after_one}
    assert {name: after_three[name] - after_one[name] for name in after_three} == {
        name: 2 * count for name, count in one.items()
    }
    assert sum(one.values()) == 1 + 1 + 2 + 3  # age, country and basket; member, subject and picture are absent


def make_parser(artifact: Artifact, *, fast: bool) -> FeedbackParser:
    """The parser of feedback for an artifact, with the encoder in machine code or without it."""
    encoder = artifact.row_encoder
    assert encoder is not None
    objects, dtype = artifact.object_plan if fast else None, np.dtype(artifact.manifest.dtype)
    tables = make_tables(encoder, dtype, RowLimits(9, 9), objects=objects, is_sparse=artifact.has_sparse_rows)
    return make_feedback_parser(tables, LabelParser(artifact.manifest.classes, multilabel=False))


PARSERS = {name: [make_parser(artifact, fast=fast) for fast in (True, False)] for name, artifact in ARTIFACTS.items()}


def outcome(parser: FeedbackParser, body: bytes) -> Any:
    """The event of a body, or the sentence that refuses it."""
    try:
        return parser.parse_feedback(body)
    except InputError as error:
        return str(error)


@pytest.mark.parametrize("name", ARTIFACTS)
@settings(max_examples=examples(300), deadline=None)
@given(data=st.data())
def test_feedback_has_the_bytes_of_the_general_parser(name: str, data: st.DataObject) -> None:
    """The rows and the other members of a body, in any order, and bodies that are refused."""
    rows = data.draw(st.sampled_from([valid_rows, st.sampled_from([[row] for row in ROWS])]).flatmap(lambda one: one))
    members = {
        "instances": rows[: data.draw(st.sampled_from([1, 1, 1, 2]))],
        "labels": [data.draw(st.sampled_from(["a", "b", 0, 1, "z", True, None]))],
        "id": data.draw(st.sampled_from(["evt", 'a "instances": []', "", "ü", 7])),
        "weights": [data.draw(st.sampled_from([1, 0.5, 0, "x"]))],
        "parameters": {"instances": [1]},
    }
    names = data.draw(
        st.permutations(["instances", "labels", "id", *data.draw(st.sampled_from([[], [], ["weights"]]))])
    )
    names += data.draw(st.sampled_from([[], [], [], ["parameters"]]))
    body = json.dumps({member: members[member] for member in names}, ensure_ascii=data.draw(st.booleans())).encode()
    body = body[: data.draw(st.sampled_from([len(body)] * 5 + [len(body) - 2]))]
    fast, general = (outcome(parser, body) for parser in PARSERS[name])
    assert fast == general


@pytest.mark.parametrize("name", ["dense", "sparse", "binary"])
@pytest.mark.parametrize(
    "members",
    [
        b'"labels":[true]', b'"labels":{"a":1}', b'"labels":"a"', b'"labels":[1.0]', b'"labels":[]',
        b'"labels":["a","a"]', b'"labels":[2]', b'"labels":[-1]', b'"labels":["d"]', b'"labels":[["a"]]',
        b'"labels":[{"a":1}]', b'"labels":[0.5]', b'"labels":[0],"id":""', b'"labels":[0],"id":"\\u0061"',
        b'"labels":[0],"id":1', b'"labels":[0],"instances":null', b'"labels":[0],"weights":[2]',
        b'"labels":[0],"weights":null', b'"labels":[0],"labels":[1]', b'"labels":[0],"x":1',
        b'"labels":[0],"tokens":["a"]', b'"labels":[0],"inputs":{"age":[1]}', b'"id":"a"', b'"labels":null',
    ],
)  # fmt: skip
def test_unusual_feedback_has_the_outcome_of_the_general_parser(name: str, members: bytes) -> None:
    """Labels of other types, repeated and other members: the same event, or the same refusal."""
    row = json.dumps(USUAL).encode()
    for body in (b'{"instances":[%b],%b}' % (row, members), b'{%b,"instances":[%b]}' % (members, row)):
        fast, general = (outcome(parser, body) for parser in PARSERS[name])
        if isinstance(fast, PostedEvent) and b'"id"' not in members:
            assert isinstance(general, PostedEvent)
            fast, general = fast[1:], general[1:]  # each has an id of its own
        assert fast == general


@pytest.mark.parametrize("name", ARTIFACTS)
def test_usual_feedback_is_read_in_machine_code(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The general parser is not asked."""
    expected = PARSERS[name][1].parse_feedback(
        body := json.dumps({"id": "e", "instances": [USUAL], "labels": ["a"]}).encode()
    )
    monkeypatch.setattr(FeedbackParser, "parse_feedback", None)
    event = PARSERS[name][0].parse_feedback(body)
    assert isinstance(event, PostedEvent)
    assert event == expected
