"""Every form of a body gives the same encoded rows, and a refusal names the row and the field but never the value."""

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InputError, MalformedError
from service.serve.responses import RequestHead
from service.serve.wire.feedback_body import FeedbackParser, PostedEvent
from service.serve.wire.feedback_parsers import make_feedback_parser
from service.serve.wire.field_tables import MATRIX_CELLS_MAX, FieldTables
from service.serve.wire.invocation_body import parse_invocation
from service.serve.wire.invocation_form import read_invocation_form
from service.serve.wire.labels import LabelParser
from service.serve.wire.model_tables import RowLimits, make_tables
from service.serve.wire.nan_literals import replace_nan
from service.serve.wire.predict_body import parse_predict_body
from service.softmax.arrays import Floats
from tests.support.budgets import examples
from tests.support.field_artifacts import DENSE_COLUMNS, DENSE_FIELDS, field_artifact
from tests.support.field_rows import NAMES, ROWS, columns_of, json_forms, to_csv, valid_rows
from tests.support.json_numbers import CANARY
from tests.support.json_reference import checked_message

ROWS_MAX, DEPTH = 40, 16
ARTIFACT = field_artifact()
IGNORING = field_artifact(others="ignore")
orders = st.permutations(NAMES)
unhurried = settings(deadline=None, max_examples=examples(150))


def make_parser(artifact: Any = ARTIFACT, dtype: str = "float32", rows_max: int = ROWS_MAX) -> FieldTables:
    """Return the parser of the bodies of an artifact with fields."""
    tables = make_tables(artifact.row_encoder, np.dtype(dtype), RowLimits(rows_max, DEPTH))
    assert isinstance(tables, FieldTables)
    return tables


def predicted(body: bytes, tables: FieldTables | None = None) -> Floats:
    """Return the rows of a body of `:predict`."""
    tables = make_parser() if tables is None else tables
    return parse_predict_body(tables.parse_document(body, ROWS_MAX), tables).X


def invoked(body: bytes, kind: str, tables: FieldTables | None = None) -> Floats:
    """Return the rows of a body of `/invocations`."""
    form = read_invocation_form(RequestHead(content_type=kind.encode()))
    return parse_invocation(body, form, make_parser() if tables is None else tables).X


def make_feedback() -> FeedbackParser:
    """Return the parser of feedback."""
    return make_feedback_parser(make_parser(), LabelParser(("a", "b", "c"), multilabel=False))


def refusal(call: Any, *arguments: Any) -> str:
    """Return the sentence of a refusal, which has nothing of the input."""
    with pytest.raises(InputError) as caught:
        call(*arguments)
    return checked_message(caught.value)


def test_columns_are_those_of_the_fields() -> None:
    """A row of each kind of value, by the table of kinds: scaled, flagged, one-hot, tf-idf, names and a vector."""
    X = predicted(json.dumps({"instances": ROWS}).encode())
    assert (X.shape, X.dtype) == ((len(ROWS), DENSE_COLUMNS), np.float32)
    assert X[0, :9].tolist() == [pytest.approx(0.1), 0, 1, 0, 0, 1, 0, 0, 0]
    assert X[1, :9].tolist() == [0, 1, 0, 1, 0, 0, 0, 0, 1]
    assert X[2, :9].tolist() == [-3, 0, 0, 0, 0, 0, 1, 0, 0]
    assert X[3, :9].tolist() == [0, 1, 0, 1, 0, 0, 0, 1, 0]
    np.testing.assert_allclose(X[0, 9:12], np.array([1, 2.5, 0]) / np.sqrt(7.25), rtol=1e-6)
    assert X[:, 12:15].tolist() == [[1, 0, 0], [0, 0, 2.5], [0, 0, 0], [0, 2, 1]]
    assert X[:, 15:].tolist() == [[0.5, 1, 14], [0, 0.25, 4], [0, 0, 0], [0, 0, 0]]


@unhurried
@given(valid_rows, orders)
def test_every_form_gives_the_same_bits(rows: list[dict[str, Any]], order: list[str]) -> None:
    """JSON in each member, JSON Lines and MLflow 1's bodies; the order of the columns and of the keys is free."""
    expected = predicted(json.dumps({"instances": rows}).encode()).tobytes()
    forms = json_forms(rows, order)
    for name, body in forms.items():
        assert predicted(json.dumps(body).encode()).tobytes() == expected, name
        assert invoked(json.dumps(body | {"params": {}}).encode(), "application/json").tobytes() == expected, name
    for lines in (rows, forms["lists"]["instances"]):
        text = b"\r\n".join(json.dumps(row).encode() for row in lines)
        assert invoked(text, "application/jsonlines").tobytes() == expected
    split = json.dumps(forms["split"]["dataframe_split"]).encode()
    assert invoked(split, "application/json; format=pandas-split").tobytes() == expected
    assert invoked(json.dumps(rows).encode(), "application/json; format=pandas-records").tobytes() == expected


@unhurried
@given(valid_rows, orders)
def test_feedback_is_one_event_in_every_form(rows: list[dict[str, Any]], order: list[str]) -> None:
    """The payload has what the encoder gave, so it is the same; no text enters it."""
    parser, beside = make_feedback(), {"labels": [0] * len(rows), "id": "a"}
    events = [parser.parse_feedback(json.dumps(body | beside).encode()) for body in json_forms(rows, order).values()]
    assert {type(event) for event in events} == {PostedEvent}
    assert len(set(events)) == 1


CATEGORIES = ["PT", 7, True, "another", None]


@unhurried
@given(valid_rows, orders, st.sampled_from(CATEGORIES))
def test_csv_gives_the_same_bits(rows: list[dict[str, Any]], order: list[str], country: object) -> None:
    """An empty cell is missing; numbers, booleans, texts and JSON are read by the kind of their field."""
    plain = [{**row, "subject": row.get("subject") or None, "country": country} for row in rows]
    expected = predicted(json.dumps({"instances": plain}).encode()).tobytes()
    for kind in ("text/csv", "text/csv; header=present"):
        assert invoked(to_csv(plain, order), kind).tobytes() == expected
    lines = to_csv(plain).partition(b"\r\n")[2]
    assert invoked(lines, "text/csv; header=absent").tobytes() == expected


@pytest.mark.parametrize("kind", ["text/csv", "text/csv; header=present"])
def test_a_csv_index_is_ignored(kind: str) -> None:
    """pandas writes an unnamed first column."""
    X = invoked(b",age,country\n0,41,PT\n1,,DE\n", kind)
    assert X.tobytes() == predicted(b'{"inputs": {"age": [41, null], "country": ["PT", "DE"]}}').tobytes()


CELLS = {
    "a spaced number": ("age", " 41 ", 41),
    "an exponent": ("age", "4.1e1", 41),
    "upper case": ("member", "TRUE", True),
    "a whole number": ("country", "7.0", 7),
    "a boolean": ("country", "True", True),
    "spaces of a text": ("subject", "  late  refund", "late refund"),
    "a list": ("basket", '"[""milk""]"', ["milk"]),
    "an object": ("basket", '"{""milk"": 2}"', {"milk": 2}),
    "a vector": ("picture", '"[1, 2, 3]"', [1, 2, 3]),
    "nothing": ("picture", '""', None),
}


@pytest.mark.parametrize("name", CELLS)
def test_cells_are_read_by_the_kind_of_their_field(name: str) -> None:
    """A cell is what the field takes."""
    field, cell, value = CELLS[name]
    X = invoked(f"{field},age\n{cell},1\n".encode() if field != "age" else f"age\n{cell}\n".encode(), "text/csv")
    beside = {} if field == "age" else {"age": 1}
    assert X.tobytes() == predicted(json.dumps({"instances": [{field: value, **beside}]}).encode()).tobytes()


@pytest.mark.parametrize("kind", ["predict", "lines", "split", "records"])
def test_nan_is_missing(kind: str) -> None:
    """Python's clients write it; in a text it is a text, and infinity is no number."""
    expected = predicted(b'{"instances": [{"age": null, "subject": "NaN late"}, {"age": 2}]}').tobytes()
    rows = [{"age": float("nan"), "subject": "NaN late"}, {"age": 2, "subject": None}]
    text = json.dumps(rows)
    found = {
        "predict": lambda: predicted(json.dumps({"dataframe_records": rows}).encode()),
        "lines": lambda: invoked("\n".join(map(json.dumps, rows)).encode(), "application/jsonlines"),
        "split": lambda: invoked(
            b'{"columns": ["age", "subject"], "data": [[NaN, "NaN late"], [2, null]]}',
            "application/json; format=pandas-split",
        ),
        "records": lambda: invoked(text.encode(), "application/json; format=pandas-records"),
    }[kind]()
    assert found.tobytes() == expected
    with pytest.raises(MalformedError):
        predicted(b'{"instances": [{"age": Infinity}]}')


TEXTS = {
    "none": (b'{"a": 1}', None),
    "in a text": (b'{"a": "NaN", "NaN": 1}', None),
    "after an escape": (b'["\\"NaN\\\\", NaN]', b'["\\"NaN\\\\", null]'),
    "many": (b"[NaN,NaN, 1, NaN]", b"[null,null, 1, null]"),
    "an escaped quote": (b'["a\\"", NaN, "\\\\"]', b'["a\\"", null, "\\\\"]'),
    "short": (b"NaN", b"null"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_nan_is_replaced_outside_of_texts(name: str) -> None:
    """Only tokens become null."""
    text, replaced = TEXTS[name]
    assert replace_nan(text) == replaced


@unhurried
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists))
def test_texts_keep_their_nan(value: Any) -> None:
    """The replaced text has the same value, with None for each NaN."""
    text = json.dumps([value, "NaN"]).encode()
    replaced = replace_nan(text)

    def without_nan(one: Any) -> Any:
        if isinstance(one, list):
            return list(map(without_nan, one))
        return None if isinstance(one, float) and one != one else one  # noqa: PLR0124  # what NaN is

    assert json.loads(text if replaced is None else replaced) == without_nan([value, "NaN"])


REFUSED: dict[str, tuple[Any, str]] = {
    "a number": ({"instances": [{}, {"age": CANARY}]}, 'Row 1: "age" must be a number or null.'),
    "a boolean": ({"instances": [{"age": True}]}, 'Row 0: "age" must be a number or null.'),
    "a one for true": ({"inputs": {"member": [1]}}, 'Row 0: "member" must be true, false or null.'),
    "half a category": ({"inputs": {"country": ["DE", 7.5]}}, 'Row 1: "country" must be'),
    "a text": ({"dataframe_split": {"columns": ["subject"], "data": [["a"], [3]]}}, 'Row 1: "subject" must be a text'),
    "a bag of texts": ({"dataframe_records": [{"basket": {"a": "b"}}]}, 'Row 0: "basket" must be an object'),
    "a short vector": ({"instances": [{"picture": [1, 2]}]}, 'Row 0: "picture" must be a list of 3 numbers or null.'),
    "a number that is too large": ({"instances": [{"basket": {"milk": 1e300}}]}, 'Row 0: "basket" has a number'),
    "an unknown name": ({"instances": [{"age": 1, CANARY: 2}]}, "Row 0 has a name that is no field; the fields are"),
    "an unknown column": ({"inputs": {"age": [1], CANARY: [2]}}, "A column has a name that is no field"),
    "a short row": ({"instances": [[1, 2]]}, "Row 0 has 2 values; this model takes 6."),
    "no row": ({"instances": [3]}, "Row 0 must be an object"),
    "no rows": ({"instances": []}, '"instances" must be a list of at least one row.'),
    "no columns": ({"inputs": {}}, "at least one column"),
    "an empty column": ({"inputs": {"age": []}}, "at least one value"),
    "a short column": ({"inputs": {"age": [1], "member": [True, None]}}, "as many values as each other"),
    "a column that is no list": ({"inputs": {"age": 3}}, '"age" must be a list'),
    "rows that are no rows": ({"inputs": 3}, '"inputs" must be a list'),
    "a short line of a table": (
        {"dataframe_split": {"columns": ["age", "member"], "data": [[1]]}},
        "Row 0 must be a list",
    ),
    "a column twice": ({"dataframe_split": {"columns": ["age", "age"], "data": [[1, 2]]}}, 'twice, "age"'),
    "a numbered column too few": ({"dataframe_split": {"columns": [0], "data": [[1]]}}, "no field"),
    "no table": ({"dataframe_split": [1]}, '"columns" and "data"'),
    "a table without rows": ({"dataframe_split": {"columns": ["age"]}}, '"data" must be a list'),
    "columns that are no names": ({"dataframe_split": {"columns": [[1]], "data": [[1]]}}, "not a string"),
    "two forms": ({"instances": [{}], "inputs": {"age": [1]}}, "exactly one of"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_row_and_the_field(name: str) -> None:
    """One sentence, and nothing of the value."""
    body, sentence = REFUSED[name]
    assert sentence in refusal(predicted, json.dumps(body).encode())


CSV_REFUSED = {
    "nothing": (b"", "The body is empty"),
    "a header alone": (b"age,member\n", "no rows"),
    "a short line": (b"age,member\n1\n", "Row 0 must have as many values"),
    "a column twice": (b"age,age\n1,2\n", 'twice, "age"'),
    "an unknown column": (b"age,%b\n1,2\n" % CANARY.encode(), "no field"),
    "no number": (b"age\n1\n%b\n" % CANARY.encode(), 'Row 1: "age" must be a number or null.'),
    "no boolean": (b"member\nyes\n", 'Row 0: "member" must be true, false or null.'),
    "no JSON": (b"picture\n1;2;3\n", 'Row 0: "picture" must be a list of 3 numbers'),
    "an underscore": (b"age\n1_0\n", 'Row 0: "age"'),
    "bytes": (b"subject\n\xff\n", "UTF-8"),
}


@pytest.mark.parametrize("name", CSV_REFUSED)
def test_csv_is_refused_by_row_and_field(name: str) -> None:
    """A cell of another kind is refused as in JSON."""
    body, sentence = CSV_REFUSED[name]
    assert sentence in refusal(invoked, body, "text/csv")


def test_other_names_may_be_ignored() -> None:
    """With `others`, names that are no field do not matter, in any form."""
    tables = make_parser(IGNORING)
    expected = predicted(b'{"instances": [{"age": 3}]}').tobytes()
    for body in (
        {"instances": [{"age": 3, "more": {"a": [1]}}]},
        {"inputs": {"more": ["x"], "age": [3]}},
        {"dataframe_split": {"columns": ["more", "age"], "data": [[None, 3]]}},
    ):
        assert predicted(json.dumps(body).encode(), tables).tobytes() == expected
    assert invoked(b"more,age\nx,3\n", "text/csv", tables).tobytes() == expected


TEXT = st.text(st.characters(codec="utf-8"))
any_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)


@settings(deadline=None, max_examples=examples(400))
@given(st.sampled_from(NAMES), any_json, st.sampled_from(["instances", "inputs", "dataframe_split"]))
def test_any_value_is_encoded_or_refused(name: str, value: Any, form: str) -> None:
    """Whatever stands in a field gives finite numbers, or one sentence with row and field."""
    body = {
        "instances": {"instances": [{}, {name: value}]},
        "inputs": {"inputs": {name: [None, value]}},
        "dataframe_split": {"dataframe_split": {"columns": [name], "data": [[None], [value]]}},
    }[form]
    try:
        X = predicted(json.dumps(body).encode())
    except InputError as reason:
        sentence = checked_message(reason)
    else:
        sentence = f'Row 1: "{name}" '
        assert X.shape == (2, DENSE_COLUMNS)
        assert np.isfinite(X).all()
    assert sentence.startswith(f'Row 1: "{name}" ')


@settings(deadline=None, max_examples=examples(200))
@given(any_json, st.sampled_from(["instances", "inputs", "dataframe_split", "dataframe_records"]))
def test_any_body_is_parsed_or_refused(value: Any, form: str) -> None:
    """Whatever stands in a form is rows or refused in one sentence; so it is with feedback."""
    for parse in (predicted, make_feedback().parse_feedback):
        try:
            parse(json.dumps({form: value}).encode())
        except InputError as reason:
            checked_message(reason)


def test_missing_and_unknown_values_are_counted() -> None:
    """Each field counts on its own; a refused request counts nothing."""
    counted: list[list[list[int]]] = []
    encoder = ARTIFACT.row_encoder
    assert encoder is not None
    tables = FieldTables(
        encoder, np.dtype(np.float32), ROWS_MAX, DEPTH, lambda *both: counted.append([one.tolist() for one in both])
    )
    predicted(json.dumps({"instances": ROWS}).encode(), tables)
    assert counted == []
    for _ in range(2):  # they are counted when the request is accepted, once
        tables.count_values()
    assert counted == [[[2, 2, 0, 2, 0, 2], [0, 0, 1, 0, 2, 0]]]
    refusal(predicted, b'{"instances": [{"age": "a"}]}', tables)
    assert len(counted) == 1


def test_rows_are_limited() -> None:
    """More rows than the limit, and more lists and objects than they need, are refused before they are encoded."""
    many = [{"age": 1}] * (ROWS_MAX + 1)
    for body in json_forms(many).values():
        assert f"at most {ROWS_MAX} rows" in refusal(predicted, json.dumps(body).encode())
    assert f"at most {ROWS_MAX} rows" in refusal(invoked, to_csv(many), "text/csv")
    wide = field_artifact(({"name": "v", "kind": "vector", "size": 4096},))
    assert make_parser(wide, rows_max=1 << 20).rows_max == MATRIX_CELLS_MAX // 4096
    assert (
        predicted(json.dumps({"instances": [{"basket": ["milk"], "picture": [1] * 3}] * ROWS_MAX}).encode()) is not None
    )


def test_hostile_bodies_cost_no_memory() -> None:
    """A body with too many lists is refused before its objects are made."""
    tables = make_parser(rows_max=1000)
    body = b'{"instances": [%b]}' % b",".join([b'{"basket": [[],[],[],[],[],[],[],[]]}'] * 20_000)
    tracemalloc.start()
    try:
        assert "lists and objects" in refusal(predicted, body, tables)
        # The text without escapes, but none of its 180,000 lists.
        assert tracemalloc.get_traced_memory()[1] < 4 * len(body)
    finally:
        tracemalloc.stop()


def test_a_model_without_texts_takes_columns_of_numbers() -> None:
    """Columns may be arrays, as v2 gives them."""
    fields = tuple(field for field in DENSE_FIELDS if field["name"] in {"age", "picture"})
    tables = make_parser(field_artifact(fields))
    rows = [{"age": row.get("age"), "picture": row.get("picture")} for row in ROWS[:2]]
    arrays = {"age": np.array([41, np.nan]), "picture": np.array([[1, 2, 3], [0.5] * 3], np.float32)}
    found = tables.convert_columns(arrays)
    assert found.tobytes() == tables.convert_columns(columns_of(rows, list(arrays))).tobytes()
