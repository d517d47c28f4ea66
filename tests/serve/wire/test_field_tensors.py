"""v2 tensors by the names of the fields give the rows of `:predict`, as JSON and as binary data."""

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InputError
from service.serve.wire.field_tables import FieldTables
from service.serve.wire.field_tensors import FieldTensorCodec
from service.serve.wire.model_codec import make_codec
from service.serve.wire.model_tables import RowLimits, make_tables
from service.softmax.arrays import Floats
from tests.support.budgets import examples
from tests.support.field_artifacts import field_artifact
from tests.support.field_rows import NAMES, ROWS, binary_tensors, json_tensors, valid_rows
from tests.support.json_numbers import CANARY
from tests.support.json_reference import checked_message

ROWS_MAX = 40
NAMED = {"model_name": "m", "model_version": "1"}
orders = st.permutations(NAMES)
unhurried = settings(deadline=None, max_examples=examples(150))


def make_parsers(**fields: Any) -> tuple[FieldTables, FieldTensorCodec]:
    """Return the parser of the JSON bodies of a model with fields, and the codec of its tensors."""
    encoder = field_artifact(**fields).row_encoder
    assert encoder is not None
    tables = make_tables(encoder, np.dtype(np.float32), RowLimits(ROWS_MAX, 16))
    codec = make_codec(tables, NAMED, {"seq": 0}, ("a", "b", "c"))
    assert isinstance(tables, FieldTables)
    assert isinstance(codec, FieldTensorCodec)
    return tables, codec


TABLES, CODEC = make_parsers()


def inferred(document: dict[str, Any], binary: bytes | None = None) -> Floats:
    """Return the rows of a v2 body."""
    text = json.dumps(document).encode()
    if binary is None:
        return CODEC.parse_inference(text, None).X
    return CODEC.parse_inference(text + binary, b"%d" % len(text)).X


def refusal(document: dict[str, Any], binary: bytes | None = None) -> str:
    """Return the sentence of a refusal, which has nothing of the input."""
    with pytest.raises(InputError) as caught:
        inferred(document, binary)
    return checked_message(caught.value)


@unhurried
@given(valid_rows, orders, st.booleans())
def test_json_tensors_are_the_rows(rows: list[dict[str, Any]], order: list[str], deep: bool) -> None:  # noqa: FBT001
    """Texts, booleans and numbers, of shape [B] or [B, 1]; the order does not matter; a vector cannot be missing."""
    rows = [{**row, "country": str(row.get("country", "DE"))} for row in rows]
    given_names = [name for name in order if name != "picture" or all(row.get(name) for row in rows)]
    plain = [{name: row.get(name) for name in given_names} for row in rows]
    expected = TABLES.convert_instances(plain).tobytes()
    assert inferred(json_tensors(rows, given_names, deep=deep)).tobytes() == expected


@unhurried
@given(valid_rows, orders)
def test_binary_tensors_are_the_rows(rows: list[dict[str, Any]], order: list[str]) -> None:
    """BYTES, BOOL and numbers; NaN is a missing number, and other values are not missing."""
    full = [
        {
            **ROWS[0],
            **{name: value for name, value in row.items() if value is not None},
            "age": row.get("age"),
            "country": str(row.get("country", "DE")),
        }
        for row in rows
    ]
    text, binary = binary_tensors(full, order)
    found = CODEC.parse_inference(text + binary, b"%d" % len(text))
    assert found.X.tobytes() == TABLES.convert_instances(full).tobytes()


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "INT8", "INT64", "UINT16"])
def test_numbers_come_in_any_datatype(datatype: str) -> None:
    """Whole numbers are integers of a category, and numbers of a number, in each datatype."""
    dtype = {"FP16": "<f2", "FP32": "<f4", "INT8": "<i1", "INT64": "<i8", "UINT16": "<u2"}[datatype]
    raw = np.array([7, 5], dtype).tobytes()
    tensor = {"shape": [2], "datatype": datatype, "parameters": {"binary_data_size": len(raw)}}
    found = inferred({"inputs": [{"name": "age", **tensor}, {"name": "country", **tensor}]}, raw * 2)
    expected = TABLES.convert_columns({"age": [7, 5], "country": [7, 5]})
    assert found.tobytes() == expected.tobytes()


def test_a_field_without_a_tensor_is_missing() -> None:
    """As a key that is absent; names that are no field are refused, or ignored where the manifest says so."""
    tensor = {"name": "age", "shape": [1], "datatype": "INT32", "data": [3]}
    assert inferred({"inputs": [tensor]}).tobytes() == TABLES.convert_instances([{"age": 3}]).tobytes()
    body = {"inputs": [tensor, {"name": "more", "shape": [1], "datatype": "BYTES", "data": ["x"]}]}
    assert "no field" in refusal(body)
    _, ignoring = make_parsers(others="ignore")
    assert ignoring.parse_inference(json.dumps(body).encode(), None).X.shape == (1, TABLES.encoder.n_columns)


def test_json_may_have_nan_and_null() -> None:
    """Both are missing in a tensor."""
    text = b'{"inputs": [{"name": "age", "shape": [3], "datatype": "FP64", "data": [NaN, null, 1]}]}'
    expected = TABLES.convert_columns({"age": [None, None, 1]})
    assert CODEC.parse_inference(text, None).X.tobytes() == expected.tobytes()


def entry(name: str = "age", shape: Any = (1,), datatype: Any = "FP64", **members: Any) -> dict[str, Any]:
    """Return a v2 input."""
    return {"name": name, "shape": list(shape), "datatype": datatype, **members}


def sized(size: Any, name: str = "subject", shape: Any = (1,), datatype: str = "BYTES") -> dict[str, Any]:
    """Return a v2 input with binary data."""
    return entry(name, shape, datatype, parameters={"binary_data_size": size})


REFUSED: dict[str, tuple[list[Any], bytes | None, str]] = {
    "no inputs": ([], None, "at least one tensor object"),
    "no object": ([1], None, "at least one tensor object"),
    "no name": ([{"shape": [1]}], None, '"name" of an input'),
    "twice": ([entry(data=[1]), entry(data=[1])], None, 'an input twice, "age"'),
    "an unknown datatype": ([entry(datatype="STRING", data=[1])], None, '"datatype" must be one of'),
    "a datatype that is no text": ([entry(datatype=[1], data=[1])], None, '"datatype" must be one of'),
    "too wide": ([entry(shape=(1, 2), data=[1, 2])], None, 'Input "age" must have "shape"'),
    "too narrow": ([entry("picture", (1, 2), data=[1, 2])], None, "[rows, 3]"),
    "no rows": ([entry(shape=(0,), data=[])], None, "at least one row"),
    "too many rows": ([entry(shape=(ROWS_MAX + 1,), data=[1])], None, f"at most {ROWS_MAX} rows"),
    "other rows": ([entry(data=[1]), entry("member", (2,), "BOOL", data=[True] * 2)], None, "as many rows as"),
    "too few values": ([entry(shape=(2,), data=[1])], None, '"data"'),
    "ragged rows": ([entry("picture", (2, 3), data=[[1, 2, 3], [1]])], None, '"data"'),
    "no data": ([entry()], None, '"data"'),
    "a text as a number": ([entry(shape=(2,), data=[1, CANARY])], None, 'Row 1: "age" must be a number'),
    "a number as a text": ([entry("subject", datatype="BYTES", data=[3])], None, 'Row 0: "subject" must be a text'),
    "two as a boolean": ([entry("member", datatype="BOOL", data=[2])], None, "BOOL"),
    "a boolean as a number": ([entry(datatype="BOOL", data=[True])], None, 'Row 0: "age" must be a number or null.'),
    "no JSON of a bag": (
        [entry("basket", datatype="BYTES", data=[CANARY])],
        None,
        'Row 0: "basket" must be the JSON',
    ),
    "a bag of numbers": ([entry("basket", datatype="BYTES", data=["[1]"])], None, 'Row 0: "basket" must be an object'),
    "binary data without a length": ([sized(8)], None, "Inference-Header-Content-Length"),
    "binary data beside data": ([{**sized(8), "data": ["a"]}], b"\0" * 8, "not both"),
    "a size too small": ([sized(3)], b"\0" * 3, "at least 4"),
    "a size that is no number": ([sized("4")], b"\0" * 4, "at least 4"),
    "a size of numbers": ([sized(9, "age", (1,), "FP64")], b"\0" * 9, '"binary_data_size" must be 8'),
    "more binary data": ([sized(4)], b"\0" * 5, "5 bytes"),
    "a long element": ([sized(8)], struct.pack("<I", 9) + b"abcd", "longer than its binary data"),
    "a cut length": ([sized(8, shape=(2,))], struct.pack("<I", 2) + b"abcd", "longer than its binary data"),
    "bytes after the last": ([sized(8)], struct.pack("<I", 3) + b"abcd", "after its last element"),
    "no UTF-8": ([sized(5)], struct.pack("<I", 1) + b"\xff", 'Row 0: "subject" must be valid UTF-8.'),
    "three as a boolean": ([sized(1, "member", (1,), "BOOL")], b"\3", "BOOL"),
    "infinity": ([sized(8, "age", (1,), "FP64")], struct.pack("<d", np.inf), 'Row 0: "age" must be a finite number'),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    """One sentence that names the input, or the row and the field."""
    inputs, binary, sentence = REFUSED[name]
    assert sentence in refusal({"inputs": inputs}, binary)


def test_a_raw_tensor_has_no_names() -> None:
    """A body that is one tensor cannot say which fields it has."""
    with pytest.raises(InputError, match="no names of fields"):
        CODEC.parse_inference(b"\0" * 8, b"0")


@settings(deadline=None, max_examples=examples(300))
@given(st.binary(max_size=40), st.integers(0, 40), st.sampled_from([("subject", "BYTES"), ("age", "FP32")]))
def test_any_binary_data_is_parsed_or_refused(binary: bytes, size: int, field: tuple[str, str]) -> None:
    """Whatever the bytes and the declared size are."""
    name, datatype = field
    try:
        X = inferred({"inputs": [sized(size, name, (2,), datatype)]}, binary)
    except InputError as reason:
        checked_message(reason)
    else:
        assert np.isfinite(X).all()
