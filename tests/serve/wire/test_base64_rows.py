"""Rows in base64 are the rows that the same numbers make as JSON, to the bit, or an error that says what to change."""

import base64
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InputError, TooLargeError, UnacceptableError
from service.serve.wire.base64_rows import decode_rows, parse_base64
from service.serve.wire.feature_columns import FeatureColumns
from service.serve.wire.json_lines import parse_json_lines
from service.serve.wire.predict_body import parse_predict_body
from service.serve.wire.rows import RowParser, parse_object
from service.serve.wire.table_rows import TableParser
from service.softmax.linear_model import LinearModel
from tests.support.budgets import examples
from tests.support.http_requests import as_base64, instances
from tests.support.json_numbers import CANARY
from tests.support.json_reference import checked_message

ROWS_MAX, DEPTH = 20, 16
NAMES = ("a", "b", "c", "d")
ROW = [5.1, -3.5, 0.0, 1e-3]
both_types = pytest.mark.parametrize("datatype", ["<f4", "<f2"])
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
every_width = st.integers(1, 7)  # texts with no padding, and with one and two characters of it, in both types


def make_tables(n_features: int = 4, dtype: Any = np.float32, names: tuple[str, ...] = ()) -> TableParser:
    """A parser of the tables of a model."""
    return TableParser(
        RowParser(n_features, np.dtype(dtype), ROWS_MAX, DEPTH), names or [f"x{i}" for i in range(n_features)]
    )


def parse_slowly(body: bytes, tables: TableParser) -> Any:
    """The rows of a body by the general parser."""
    return parse_predict_body(parse_object(body, DEPTH, ROWS_MAX), tables).X


def bits(X: Any) -> tuple[str, tuple[int, ...], bytes]:
    """What must be the same in equal arrays."""
    assert X.flags.carray
    return X.dtype.str, X.shape, X.tobytes()


def refusal(read: Callable[[], Any]) -> str:
    """The sentence of a refusal, which has nothing of the input."""
    with pytest.raises(UnacceptableError) as caught:
        read()
    return checked_message(caught.value)


def rows_of(datatype: str) -> st.SearchStrategy[list[list[float]]]:
    """Rows of one width, with numbers of a type."""
    largest = float(np.finfo(datatype).max)
    number = st.floats(-largest, largest, width=16 if datatype == "<f2" else 32)
    return every_width.flatmap(
        lambda width: st.lists(st.lists(number, min_size=width, max_size=width), min_size=1, max_size=5)
    )


@both_types
@both_dtypes
@settings(deadline=None, max_examples=60)
@given(data=st.data(), indent=st.sampled_from([None, 1]))
def test_the_rows_are_those_of_the_numbers_as_json(datatype: str, dtype: Any, data: st.DataObject, indent: Any) -> None:
    """Both parsers give the bits of the JSON numbers, for both types, both dtypes and every length of padding."""
    rows = data.draw(rows_of(datatype))
    tables = make_tables(len(rows[0]), dtype)
    expected = bits(tables.convert_instances(rows))
    body = json.dumps({"instances": as_base64(rows, datatype)}, indent=indent).encode()
    assert bits(tables.rows.parse_usual(body)) == expected
    assert bits(parse_slowly(body, tables)) == expected


@both_types
def test_every_pattern_of_bits_arrives(datatype: str) -> None:
    """Infinities, NaN, subnormal numbers and minus zero arrive; the model then rejects those that are not finite."""
    values = np.array([[np.inf, -np.inf, np.nan, -0.0], [6e-8, -6e-8, 65504, 1]], datatype)
    tables = make_tables()
    body = instances(as_base64(values, datatype))
    model = LinearModel("softmax", np.ones((4, 2), np.float32), np.zeros(2, np.float32))
    for X in (tables.rows.parse_usual(body), parse_slowly(body, tables)):
        assert X is not None
        np.testing.assert_array_equal(X, values.astype(np.float32))
        assert np.signbit(X[0, 3])
        with pytest.raises(UnacceptableError, match="finite"):
            model.predict(X)


@both_types
def test_many_rows_are_decoded_at_once(datatype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of one type need no step of their own in Python, whichever parser reads the body."""
    tables, rows = make_tables(), as_base64([ROW] * 3, datatype)
    expected = bits(tables.convert_instances([*rows, ROW])[:3])
    monkeypatch.setattr(FeatureColumns, "order_record", None)
    assert bits(tables.convert_instances(rows)) == expected
    monkeypatch.setattr(TableParser, "convert_instances", None)
    assert tables.rows.parse_usual(instances(rows)) is not None


def test_rows_of_several_forms_mix() -> None:
    """Rows in base64 of both types stand beside rows as lists and by name, in every form with rows."""
    row = [1.5, -2.0, 0.25, 8.0]
    single, half = as_base64([row], "<f4") + as_base64([row], "<f2")
    rows = [single, half, row, dict(zip(NAMES, row, strict=True)), {"features": row}]
    tables = make_tables(names=NAMES)
    lines = "\n".join(map(json.dumps, rows)).encode()
    for X in (
        tables.convert_instances(rows),
        tables.convert_columns({"features": rows}),
        tables.convert_instances(parse_json_lines(lines, DEPTH, ROWS_MAX)),
        parse_slowly(json.dumps({"inputs": rows, "min_seq": 1}).encode(), tables),
    ):
        assert X.tolist() == [row] * 5


def test_escapes_of_json_are_read() -> None:
    """A slash may be escaped, as PHP does it."""
    values = np.frombuffer(b"\xff\xff\x7f\x3f" * 4, "<f4")
    body = instances(as_base64([values]))
    assert b"//" in body
    tables = make_tables()
    assert bits(parse_slowly(body.replace(b"/", b"\\/"), tables)) == bits(tables.rows.parse_usual(body))


def test_a_feature_may_be_named_b64() -> None:
    """A number is the value of that feature, and a text is a row in base64."""
    one, two = make_tables(1, names=("b64",)), make_tables(2, names=("b64", "x"))
    assert one.convert_instances([{"b64": 1.5}, {"b64": [2]}, *as_base64([[3]])]).tolist() == [[1.5], [2], [3]]
    assert one.convert_instances(as_base64([[3], [4]])).tolist() == [[3], [4]]
    assert two.convert_instances([{"x": 1, "b64": 2}, *as_base64([[3, 4]])]).tolist() == [[2, 1], [3, 4]]
    assert refusal(lambda: two.convert_instances([{"x": 1, "b64": "AAAAAA=="}])).endswith('in column "b64".')
    assert refusal(lambda: one.convert_instances([{"b64": None}])).endswith('in column "b64".')


STANDARD = base64.b64encode(np.array(ROW, "<f4").tobytes()).decode()
NOT_STANDARD = 'The "b64" of row 1 is not standard base64 with padding (RFC 4648, section 4: "+" and "/").'


@pytest.mark.parametrize("text", [
    STANDARD.rstrip("="), STANDARD.rstrip("=") + "=", STANDARD + "=", STANDARD + "====", STANDARD + "\n",
    " " + STANDARD, STANDARD[:4] + "\r\n" + STANDARD[4:], STANDARD[:8] + "====" + STANDARD[12:],
    STANDARD[:-3] + "h==", STANDARD * 2, "-" + STANDARD[1:], "_" + STANDARD[1:], "ü" + STANDARD[2:],
    "\0" + STANDARD[1:], CANARY, "=", "A===", "A", "====",
])  # fmt: skip
def test_anything_but_standard_base64_is_refused(text: str) -> None:
    """Missing padding, white space, left-over bits and the URL-safe alphabet are refused, in a batch and alone."""
    tables = make_tables()
    rows = [{"b64": STANDARD}, {"b64": text}]
    assert refusal(lambda: tables.convert_instances(rows)) == NOT_STANDARD
    assert refusal(lambda: tables.convert_instances([ROW, rows[1]])) == NOT_STANDARD
    assert tables.rows.parse_usual(instances(rows)) is None


@pytest.mark.parametrize("size", [0, 1, 4, 7, 9, 12, 15, 17, 18, 20, 32])
def test_the_number_of_bytes_must_be_that_of_a_row(size: int) -> None:
    """Any number of bytes but 2 N and 4 N is refused, although its text may be as long as that of a row."""
    tables = make_tables()
    rows = [*as_base64([ROW]), {"b64": base64.b64encode(bytes(size)).decode()}]
    expected = f'The "b64" of row 1 has {size} bytes; this model takes 16 (float32) or 8 (float16).'
    assert refusal(lambda: tables.convert_instances(rows)) == expected
    assert tables.rows.parse_usual(instances(rows)) is None


def test_sizes_do_not_make_up_for_each_other() -> None:
    """Two rows of which one is a byte short and one a byte long are not two rows, though their texts are as long."""
    for n_features in range(1, 7):
        size = 2 * n_features
        short, long = (base64.b64encode(bytes(size + more)) for more in (-1, 1))
        assert decode_rows([short, long], n_features) is None
        assert decode_rows([base64.b64encode(bytes(size))] * 2, n_features) == (bytes(2 * size), "<f2")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"b64": 1}, 'an unknown column, "b64"'), ({"b64": None}, 'an unknown column, "b64"'),
        ({"b64": [STANDARD]}, 'an unknown column, "b64"'), ({"B64": STANDARD}, 'an unknown column, "B64"'),
        ({"b64": STANDARD, "x": 1}, '2 unknown columns, "b64", "x"'), ({"features": STANDARD}, '"features"'),
        ([STANDARD], "Row 0 has 1 values"), (STANDARD, "Row 0 must be a list"),
    ],
)  # fmt: skip
def test_other_objects_are_no_rows_in_base64(row: Any, words: str) -> None:
    """A row in base64 is an object with one member, "b64", which is a text."""
    assert words in refusal(lambda: make_tables().convert_instances([row]))


def test_too_many_rows_are_refused() -> None:
    """The limit of rows holds before anything is decoded."""
    tables = make_tables()
    most = instances(as_base64([ROW] * ROWS_MAX))
    assert tables.rows.parse_usual(most) is not None
    rows = as_base64([ROW] * (ROWS_MAX + 1))
    assert tables.rows.parse_usual(instances(rows)) is None
    with pytest.raises(TooLargeError, match=f"at most {ROWS_MAX} rows"):
        tables.convert_instances(rows)


def test_a_row_is_not_overwritten() -> None:
    """The rows of the general parser stay when the next body is read; the request may wait."""
    tables = make_tables()
    X = tables.convert_instances(as_base64([ROW]))
    before = X.copy()
    assert tables.rows.parse_usual(instances(as_base64([[9, 9, 9, 9]]))) is not None
    assert bits(X) == bits(before)


PIECES = [b"", b'"', b"{", b"}", b"[", b"]", b":", b",", b" ", b"\n", b"=", b"A", b"\\", b"\x0b", b"\0", b'"b64":"",']


@settings(deadline=None, max_examples=examples(400))
@given(data=st.data(), rows=st.integers(1, 3), indent=st.sampled_from([None, 1]))
def test_the_fast_parser_accepts_only_what_the_general_one_does(data: st.DataObject, rows: int, indent: Any) -> None:
    """Pieces of a body are moved, changed, removed or inserted; both parsers then give the same rows, or none."""
    body = json.dumps({"instances": as_base64([[1.5]] * rows)}, indent=indent).encode()
    tables = make_tables(1)
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.integers(0, len(body)))
        body = body[:at] + data.draw(st.sampled_from(PIECES)) + body[at + data.draw(st.integers(0, 2)) :]
    quick = tables.rows.parse_usual(body)
    if quick is not None:
        assert bits(quick) == bits(parse_slowly(body, tables))


def test_punctuation_does_not_move_between_strings() -> None:
    """A body whose punctuation is complete but elsewhere is not read by the fast parser."""
    text = as_base64([[1.5]])[0]["b64"]
    for body in (f'{{:"instances"[{{"b64":"{text}"}}]}}', f'{{"instances":[{{"b64""{text}":}}]}}'):
        assert parse_base64(body.encode(), 1, ROWS_MAX) is None


@settings(deadline=None, max_examples=examples(300))
@given(text=st.text(st.sampled_from("AQgw/+-_= \n")) | st.text(), n_features=every_width)
def test_any_text_is_one_encoding_of_a_row_or_refused(text: str, n_features: int) -> None:
    """A text that is accepted is the standard encoding of the row that it gives."""
    tables = make_tables(n_features)
    try:
        X = tables.convert_instances([{"b64": text}])
    except InputError as reason:
        checked_message(reason)
    else:
        encoded = (base64.b64encode(X.astype(datatype).tobytes()).decode() for datatype in ("<f4", "<f2"))
        assert text in encoded or np.isnan(X).any()
