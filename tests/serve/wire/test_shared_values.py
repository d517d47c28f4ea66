"""Every form of a body has a value once that several fields read, and gives the rows of a model with copies."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.fields.object_plan import ObjectPlan
from service.serve.responses import RequestHead
from service.serve.wire.feedback_body import PostedEvent
from service.serve.wire.feedback_parsers import make_feedback_parser
from service.serve.wire.field_tables import FieldTables
from service.serve.wire.field_tensors import FieldTensorCodec
from service.serve.wire.invocation_body import parse_invocation
from service.serve.wire.invocation_form import read_invocation_form
from service.serve.wire.labels import LabelParser
from service.serve.wire.model_codec import make_codec
from service.serve.wire.model_tables import RowLimits, make_tables
from service.serve.wire.predict_body import parse_predict_body
from service.softmax.sparse_rows import Rows, sparse_rows
from tests.support.budgets import examples
from tests.support.field_rows import columns_of, to_csv
from tests.support.shared_values import (
    HASHED_VALUES,
    SHARED_FIELDS,
    SHARED_ROWS,
    VALUE_NAMES,
    copy_values,
    shared_artifacts,
    shared_rows,
    value_tensors,
)

FORMS = {"dense": SHARED_FIELDS, "sparse": SHARED_FIELDS + HASHED_VALUES}


def make_parsers(fields: tuple[dict[str, Any], ...]) -> list[FieldTables]:
    """Return the parser of a model of these fields, and of the same one with copies of shared values."""
    tables = []
    for artifact in shared_artifacts(fields):
        assert artifact.row_encoder is not None
        limits, objects = RowLimits(40, 16), ObjectPlan(artifact.row_encoder)
        sparse = artifact.has_sparse_rows
        tables.append(
            make_tables(artifact.row_encoder, np.dtype(np.float32), limits, None, objects=objects, is_sparse=sparse)
        )
    assert all(isinstance(one, FieldTables) for one in tables)
    return tables  # type: ignore[return-value]


PARSERS = {name: make_parsers(fields) for name, fields in FORMS.items()}
unhurried = settings(deadline=None, max_examples=examples(120))
kinds = st.sampled_from(list(FORMS))


def list_bits(rows: Rows) -> list[bytes]:
    """Return the bytes of rows."""
    return [rows.tobytes()] if isinstance(rows, np.ndarray) else [part.tobytes() for part in sparse_rows(rows)]


def predicted(tables: FieldTables, body: object) -> list[bytes]:
    """Return the rows of a body of `:predict`."""
    return list_bits(parse_predict_body(tables.parse_document(json.dumps(body).encode(), 40), tables).X)


def invoked(tables: FieldTables, body: bytes, kind: bytes) -> list[bytes]:
    """Return the rows of a body of `/invocations`."""
    return list_bits(parse_invocation(body, read_invocation_form(RequestHead(content_type=kind)), tables).X)


def list_forms(rows: list[dict[str, Any]], order: list[str]) -> dict[str, Any]:
    """Return rows in each member of a JSON body."""
    table = [[row.get(name) for name in order] for row in rows]
    lists = [[row.get(name) for name in VALUE_NAMES] for row in rows]
    return {
        "objects": {"instances": rows},
        "lists": {"instances": lists},
        "columns": {"inputs": columns_of(rows, order)},
        "split": {"dataframe_split": {"columns": order, "data": table}},
        "split without names": {"dataframe_split": {"columns": list(range(len(VALUE_NAMES))), "data": lists}},
        "records": {"dataframe_records": rows},
    }


@unhurried
@given(kinds, shared_rows, st.permutations(VALUE_NAMES))
def test_every_form_gives_the_rows_of_copies(kind: str, rows: list[dict[str, Any]], order: list[str]) -> None:
    """JSON in each member, one row in machine code, and feedback, which has one payload."""
    shared, alone = PARSERS[kind]
    copies = [copy_values(row, FORMS[kind]) for row in rows]
    expected = predicted(alone, {"instances": copies})
    beside = {"labels": ["a"] * len(rows), "id": "x"}
    events = {feedback(alone, {"instances": copies, **beside})}
    for name, body in list_forms(rows, order).items():
        assert predicted(shared, body) == expected, name
        events.add(feedback(shared, body | beside))
    assert len(events) == 1
    for row in rows:
        usual = shared.parse_usual(json.dumps({"instances": [row]}, ensure_ascii=False).encode())
        if usual is not None:
            assert list_bits(usual) == predicted(shared, {"instances": [row]})


def feedback(tables: FieldTables, body: object) -> PostedEvent:
    """Return the event of a body of feedback."""
    parser = make_feedback_parser(tables, LabelParser(("a", "b", "c"), multilabel=False))
    event = parser.parse_feedback(json.dumps(body).encode())
    assert isinstance(event, PostedEvent)
    return event


@pytest.mark.parametrize("kind", FORMS)
def test_machine_code_reads_a_shared_value(kind: str) -> None:
    """The usual row is not handed over, so the property above is about it too."""
    shared = PARSERS[kind][0]
    usual = [shared.parse_usual(json.dumps({"instances": [row]}).encode()) is not None for row in SHARED_ROWS]
    assert usual == [True, True, True, False]


@unhurried
@given(kinds, shared_rows, st.permutations(VALUE_NAMES))
def test_csv_has_one_column_for_a_value(kind: str, rows: list[dict[str, Any]], order: list[str]) -> None:
    """An empty text is a missing one."""
    shared = PARSERS[kind][0]
    rows = [{**row, "note": row.get("note") or None} for row in rows]
    expected = predicted(shared, {"instances": rows})
    assert invoked(shared, to_csv(rows, order), b"text/csv") == expected
    lines = to_csv(rows, VALUE_NAMES).partition(b"\r\n")[2]
    assert invoked(shared, lines, b"text/csv; header=absent") == expected


def test_a_whole_number_of_csv_keeps_its_digits() -> None:
    """A float64 has fewer, and a category would be another one."""
    shared = PARSERS["sparse"][0]
    for age in range(2**60 + 1, 2**60 + 9):
        expected = predicted(shared, {"instances": [{"age": age}]})
        assert invoked(shared, b"age\n%d\n" % age, b"text/csv") == expected


@unhurried
@given(kinds, shared_rows)
def test_v2_has_one_tensor_for_a_value(kind: str, rows: list[dict[str, Any]]) -> None:
    """Numbers, texts, booleans, bags and vectors; a value without a tensor is missing."""
    shared = PARSERS[kind][0]
    codec = make_codec(shared, {"model_name": "m", "model_version": "1"}, {"seq": 0}, ("a", "b", "c"))
    assert isinstance(codec, FieldTensorCodec)
    body = value_tensors(rows)
    names = [tensor["name"] for tensor in body["inputs"]]
    expected = predicted(shared, {"instances": [{name: row.get(name) for name in names} for row in rows]})
    assert list_bits(codec.parse_inference(json.dumps(body).encode(), None).X) == expected
