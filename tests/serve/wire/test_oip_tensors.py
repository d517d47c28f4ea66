"""Requests of the Open Inference Protocol are parsed or rejected, and responses are encoded, as the protocol says."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InputError, MalformedError, TooLargeError, UnacceptableError
from service.serve.wire import oip_tensors as tensors
from service.serve.wire import rows as rows_module
from service.serve.wire.feature_columns import FeatureColumns
from service.serve.wire.json_grammar import BYTE_ORDER_MARK
from service.serve.wire.oip_inputs import DATATYPES
from service.serve.wire.oip_request import BINARY_PROBABILITIES, JSON_PROBABILITIES, OutputRequest
from service.serve.wire.oip_response import InferenceBody
from service.serve.wire.oip_tensors import TensorCodec
from service.serve.wire.rows import RowParser
from service.softmax.linear_model import LinearModel
from tests.support.budgets import examples
from tests.support.json_numbers import CANARY
from tests.support.json_reference import checked_message
from tests.support.reference import DTYPES, Array

N = 3
ROWS_MAX = 400
NAMED = {"model_name": "m", "model_version": "1"}
FEATURES = FeatureColumns(("a", "b", "c"))
CLASSES = ("zero", "eins", "דוש")
ROW = [1.0, -2.5, 3.0]
both_dtypes = pytest.mark.parametrize("dtype", DTYPES)
unhurried = settings(deadline=None, max_examples=examples(300))


def served(dtype: type = np.float32) -> TensorCodec:
    """The codec of a model with N features and three classes."""
    return TensorCodec(RowParser(N, np.dtype(dtype), ROWS_MAX, 64), FEATURES, NAMED, {"seq": 7}, CLASSES)


def entry(**fields: Any) -> dict[str, Any]:
    """An input of one row with these fields; None removes a field."""
    merged = {"name": "features", "datatype": "FP32", "shape": [1, N], "data": ROW, **fields}
    return {name: value for name, value in merged.items() if value is not None}


def document(tensor: object = None, **more: Any) -> bytes:
    """A request without binary data."""
    return json.dumps({"inputs": [entry() if tensor is None else tensor], **more}).encode()


def announced(raw: bytes, tensor: dict[str, Any] | None = None, **more: Any) -> tuple[bytes, bytes]:
    """A request with binary data, and the value of its header."""
    fields = entry(data=None, parameters={"binary_data_size": len(raw)}) if tensor is None else tensor
    text = document(fields, **more)
    return text + raw, b"%d" % len(text)


def parse_result(reader: TensorCodec, body: bytes, header: bytes | None = None) -> tuple[Any, ...]:
    """The id, bits and outputs of a parsed request, or the class and message of the error."""
    try:
        request = reader.parse_inference(body, header)
    except InputError as reason:
        return type(reason), checked_message(reason)
    assert request.X.flags.carray
    return request.id, request.X.shape, request.X.dtype.str, request.X.tobytes(), request.outputs


@contextmanager
def generally(quick_from: int = 0) -> Iterator[None]:
    """Disable the parser of the usual single row, and use pysimdjson from this size on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensors, "_parse_usual_row", lambda *_: None)
        patch.setattr(rows_module, "SIMDJSON_BYTES_MIN", quick_from)
        yield


NEVER = 2**62


# Requests


@both_dtypes
@pytest.mark.parametrize("datatype", DATATYPES)
@pytest.mark.parametrize("count", [1, 2, 7])
def test_binary_data_of_every_datatype_is_parsed(count: int, datatype: str, dtype: type) -> None:
    """The data is little-endian and row-major, and each number is cast to the model's dtype."""
    values = np.random.default_rng(count).integers(0, 100, (count, N)).astype(DATATYPES[datatype])
    tensor = entry(datatype=datatype, shape=[count, N], data=None, parameters={"binary_data_size": values.nbytes})
    request = served(dtype).parse_inference(*announced(values.tobytes(), tensor))
    assert request.X.dtype == dtype
    assert np.array_equal(request.X, values.astype(dtype))


@both_dtypes
@pytest.mark.parametrize("datatype", DATATYPES)
@pytest.mark.parametrize("header", [False, True])
def test_json_data_of_every_datatype_is_parsed(datatype: str, dtype: type, *, header: bool) -> None:
    """The numbers are JSON, flat or in rows, with and without the header for binary data."""
    for values in ([[1, 2, 3]], [[1, 2, 3], [4, 5.5, -6e-7]], [[1, 2, 3]] * 300):
        for data in (values, [x for row in values for x in row]):
            body = document(entry(datatype=datatype, shape=[len(values), N], data=data))
            request = served(dtype).parse_inference(body, b"%d" % len(body) if header else None)
            assert request.X.dtype == dtype
            assert np.array_equal(request.X, np.array(values, dtype))


@pytest.mark.parametrize("values", [
    [127, -128, 0], [65504.0, -6e-8, 0.0], [2**31 - 1, -(2**31), 1], [2**63 - 1, -(2**63), 2**53 + 1],
    [3.4028234663852886e38, 1e-45, -0.0], [1e308, 5e-324, -0.0],
])  # fmt: skip
def test_extremes_keep_their_bits(values: list[float]) -> None:
    """The largest and smallest numbers of each datatype go to a float64 model as NumPy casts them."""
    for datatype, name in DATATYPES.items():
        with np.errstate(over="ignore", invalid="ignore"):
            raw = np.array(values).astype(name)
        tensor = entry(datatype=datatype, data=None, parameters={"binary_data_size": raw.nbytes})
        X = served(np.float64).parse_inference(*announced(raw.tobytes(), tensor)).X
        assert X.tobytes() == raw.astype(np.float64).tobytes()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e39, -1e308])
@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_the_model_rejects_numbers_that_are_not_finite(value: float, datatype: str) -> None:
    """Binary data with NaN, infinities or numbers beyond float32 is parsed, and the model rejects it."""
    model = LinearModel("softmax", np.ones((N, 3), np.float32), np.zeros(3, np.float32))
    with np.errstate(over="ignore"):
        raw = np.array([1, 2, value] * 2).astype(DATATYPES[datatype])
    tensor = entry(datatype=datatype, shape=[2, N], data=None, parameters={"binary_data_size": raw.nbytes})
    request = served().parse_inference(*announced(raw.tobytes(), tensor))
    with pytest.raises(UnacceptableError, match="finite"):
        model.predict(request.X)


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
@pytest.mark.parametrize("count", [1, 2])
def test_any_bits_are_parsed_without_a_warning(count: int, datatype: str) -> None:
    """Signaling NaNs raise no warning, so a client cannot fill the log."""
    kind = np.dtype(DATATYPES[datatype])
    one = {2: b"\x01\x7c", 4: b"\x01\x00\x80\x7f", 8: b"\x01\x00\x00\x00\x00\x00\xf0\x7f"}[kind.itemsize]
    raw = one * N * count
    tensor = entry(datatype=datatype, shape=[count, N], data=None, parameters={"binary_data_size": len(raw)})
    for dtype in DTYPES:
        assert np.isnan(served(dtype).parse_inference(*announced(raw, tensor)).X).all()


@both_dtypes
def test_a_raw_request_is_one_tensor(dtype: type) -> None:
    """With header length 0 the body is rows of the model's dtype, and the response is binary."""
    for count in (1, 2, ROWS_MAX):
        values = np.arange(count * N).reshape(count, N).astype(dtype)
        for header in (b"0", b"000"):
            request = served(dtype).parse_inference(values.tobytes(), header)
            assert np.array_equal(request.X, values)
            assert (request.id, request.outputs) == ("", BINARY_PROBABILITIES)


@pytest.mark.parametrize(("count", "leaf"), [
    (0, MalformedError), (1, MalformedError), (11, MalformedError), (13, MalformedError),
    (12 * ROWS_MAX + 12, TooLargeError),
])  # fmt: skip
def test_a_raw_request_has_whole_rows_and_not_too_many(count: int, leaf: type[InputError]) -> None:
    """Any other number of bytes is rejected."""
    assert parse_result(served(), b"\0" * count, b"0")[0] is leaf


@pytest.mark.parametrize("identity", ["", "a", "ü 🙂", 'quote " and \\ backslash', "\n", "\x7f", "x" * 5000, "0"])
def test_the_id_is_echoed(identity: str) -> None:
    """The id may be any string, in JSON and binary requests and responses, and is empty by default."""
    reader, P = served(), np.full((1, 3), 1 / 3, np.float32)
    for body, header in ((document(id=identity), None), announced(np.float32(ROW).tobytes(), id=identity)):
        request = reader.parse_inference(body, header)
        assert request.id == identity
        for outputs in (JSON_PROBABILITIES, BINARY_PROBABILITIES, (OutputRequest("labels", binary=False, top=0),)):
            text, size = reader.encode_inference(request._replace(outputs=outputs), P, [0])
            assert orjson.loads(text[:size])["id"] == identity
    assert reader.parse_inference(document(), None).id == ""


WISHES: dict[str, tuple[dict[str, Any], tuple[OutputRequest, ...]]] = {
    "nothing said": ({}, JSON_PROBABILITIES),
    "null outputs": ({"outputs": None}, JSON_PROBABILITIES),
    "no outputs": ({"outputs": []}, JSON_PROBABILITIES),
    "no outputs, binary": ({"outputs": [], "parameters": {"binary_data_output": True}}, BINARY_PROBABILITIES),
    "null parameters": ({"parameters": None}, JSON_PROBABILITIES),
    "null default": ({"parameters": {"binary_data_output": None}}, JSON_PROBABILITIES),
    "null parameters of an output": (
        {"outputs": [{"name": "probabilities", "parameters": None}], "parameters": {"binary_data_output": True}},
        BINARY_PROBABILITIES,
    ),
    "null choices": (
        {"outputs": [{"name": "probabilities", "parameters": {"binary_data": None, "classification": None}}]},
        JSON_PROBABILITIES,
    ),
    "unknown members": (
        {"outputs": [{"name": "probabilities", "x": [1], "parameters": {"y": {}}}], "z": "1"},
        JSON_PROBABILITIES,
    ),
    "binary by default": ({"parameters": {"binary_data_output": True}}, BINARY_PROBABILITIES),
    "not binary by default": ({"parameters": {"binary_data_output": False}}, JSON_PROBABILITIES),
    "other parameters": ({"parameters": {"priority": 1, "x": [{}]}}, JSON_PROBABILITIES),
    "probabilities": ({"outputs": [{"name": "probabilities"}]}, JSON_PROBABILITIES),
    "labels": ({"outputs": [{"name": "labels"}]}, (OutputRequest("labels", binary=False, top=0),)),
    "both, in their order": (
        {"outputs": [{"name": "labels"}, {"name": "probabilities"}]},
        (OutputRequest("labels", binary=False, top=0), OutputRequest("probabilities", binary=False, top=0)),
    ),
    "one binary": (
        {"outputs": [{"name": "labels", "parameters": {"binary_data": True}}, {"name": "probabilities"}]},
        (OutputRequest("labels", binary=True, top=0), OutputRequest("probabilities", binary=False, top=0)),
    ),
    "one not binary": (
        {
            "outputs": [{"name": "labels", "parameters": {"binary_data": False}}, {"name": "probabilities"}],
            "parameters": {"binary_data_output": True},
        },
        (OutputRequest("labels", binary=False, top=0), OutputRequest("probabilities", binary=True, top=0)),
    ),
    "classification": (
        {"outputs": [{"name": "probabilities", "parameters": {"classification": 2}}]},
        (OutputRequest("probabilities", binary=False, top=2),),
    ),
    "no classification": (
        {"outputs": [{"name": "labels", "parameters": {"classification": 0}}]},
        (OutputRequest("labels", binary=False, top=0),),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WISHES)
def test_output_requests_are_parsed(name: str) -> None:
    """An output's own parameter overrides the parameter of the request."""
    more, expected = WISHES[name]
    for body, header in ((document(**more), None), announced(np.float32(ROW).tobytes(), **more)):
        assert served().parse_inference(body, header).outputs == expected
    usual = next((one for one in (JSON_PROBABILITIES, BINARY_PROBABILITIES) if one == expected), None)
    assert usual is None or served().parse_inference(document(**more), None).outputs is usual


# Errors


SHAPES = [
    0, None, True, "1,3", {}, [], [3], [1], [1, 2], [1, 4], [3, 1], [0, 3], [-1, 3], [1, -3], [-1, -3], [1, 1, 3],
    [1, 3, 1], [[1, 3]], [1.0, 3], [1, 3.0], [True, 3], [1, "3"], [1, None], [1, 0], [2**63, 2**63], [2**64, 3],
    [10**400, 3],
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: str(shape)[:20])
def test_other_shapes_are_rejected(shape: Any) -> None:
    """A shape is [rows, N] in plain integers with at least one row."""
    text = document({**entry(), "shape": shape})
    assert parse_result(served(), text)[0] in {UnacceptableError, MalformedError}
    fields = {**entry(data=None, parameters={"binary_data_size": 12}), "shape": shape}
    assert parse_result(served(), *announced(b"\0" * 12, fields))[0] in {UnacceptableError, MalformedError}


@pytest.mark.parametrize("count", [ROWS_MAX + 1, 2**31, 2**62, 2**63 - 1, 2**64 - 1])
def test_too_many_rows_are_rejected_by_their_shape(count: int) -> None:
    """No array is made for a shape with a large product."""
    assert parse_result(served(), document(entry(shape=[count, N])))[0] is TooLargeError
    fields = entry(shape=[count, N], data=None, parameters={"binary_data_size": 12})
    assert parse_result(served(), *announced(b"\0" * 12, fields))[0] is TooLargeError


@pytest.mark.parametrize("header", [
    b"", b"-1", b"+1", b" 1", b"1 ", b"1.0", b"1e1", b"0x1", b"1_0", b"x", b"\xd9\xa1", b"\xb2",
    b"9" * 19, b"9" * 20, b"9" * 5000, b"0" * 20, b"1,1", b"\0", CANARY.encode(),
])  # fmt: skip
def test_other_header_lengths_are_rejected(header: bytes) -> None:
    """A valid length has at most 19 digits and is at most the size of the body."""
    leaf, message = parse_result(served(), announced(np.float32(ROW).tobytes())[0], header)
    assert leaf is MalformedError
    assert "Inference-Header-Content-Length" in message


def test_a_wrong_header_length_is_rejected() -> None:
    """Every other length cuts the JSON part or the binary data."""
    body, header = announced(np.float32(ROW).tobytes())
    for length in (*range(1, len(body) + 2), 10**18):
        refused = parse_result(served(), body, b"%d" % length)[0] is MalformedError
        assert refused == (length != int(header))


BINARY: dict[str, tuple[bytes, dict[str, Any] | None, str]] = {
    "no data": (b"", None, "binary_data_size"),
    "one byte less": (b"\0" * 11, entry(data=None, parameters={"binary_data_size": 12}), "of 12, but"),
    "one byte more": (b"\0" * 13, entry(data=None, parameters={"binary_data_size": 12}), "of 12, but"),
    "size of another datatype": (
        b"\0" * 12, entry(data=None, datatype="FP64", parameters={"binary_data_size": 12}), "must be 24",
    ),
    "size too small": (b"\0" * 11, entry(data=None, parameters={"binary_data_size": 11}), "must be 12"),
    "negative size": (b"\0" * 12, entry(data=None, parameters={"binary_data_size": -12}), "must be 12"),
    "zero size": (b"", entry(data=None, parameters={"binary_data_size": 0}), "must be 12"),
    "float size": (b"\0" * 12, entry(data=None, parameters={"binary_data_size": 12.0}), "must be 12"),
    "size as text": (b"\0" * 12, entry(data=None, parameters={"binary_data_size": "12"}), "must be 12"),
    "size as a boolean": (b"\0" * 12, entry(data=None, parameters={"binary_data_size": True}), "must be 12"),
    "huge size": (b"\0" * 12, entry(data=None, parameters={"binary_data_size": 2**70}), "must be 12"),
    "data and binary data": (b"\0" * 12, entry(parameters={"binary_data_size": 12}), "not both"),
    "no size": (b"\0" * 12, entry(), "no input has"),
}  # fmt: skip


@pytest.mark.parametrize("name", BINARY)
def test_binary_data_that_contradicts_the_json_part_is_malformed(name: str) -> None:
    """The sizes in the JSON part and of the binary data must match the shape and the datatype."""
    raw, fields, words = BINARY[name]
    leaf, message = parse_result(served(), *announced(raw, fields))
    assert leaf is MalformedError
    assert words in message


def test_binary_data_without_the_header_is_malformed() -> None:
    """A JSON part with a binary_data_size needs the data and the header."""
    body, _ = announced(np.float32(ROW).tobytes())
    assert parse_result(served(), body)[0] is MalformedError
    assert "needs the header" in parse_result(served(), body[:-12])[1]


UNACCEPTABLE: dict[str, tuple[bytes, str]] = {
    "no inputs": (b"{}", '"inputs"'),
    "null inputs": (b'{"inputs":null}', '"inputs"'),
    "empty inputs": (b'{"inputs":[]}', '"inputs"'),
    "object inputs": (b'{"inputs":{"name":"features"}}', '"inputs"'),
    "text inputs": (b'{"inputs":"f"}', '"inputs"'),
    "number input": (b'{"inputs":[1]}', '"inputs"'),
    "number id": (document(id=1), '"id"'),
    "another model": (document(model_name=CANARY), '"model_name"'),
    "another model, with an id": (document(id="a", model_name=CANARY), '"model_name"'),
    "a number as the model": (document(model_name=2), '"model_name"'),
    "another version": (document(model_version="2"), '"model_version"'),
    "another version as a number": (document(model_version=2), '"model_version"'),
    "a list as the version": (document(model_version=[CANARY]), '"model_version"'),
    "a boolean as the version": (document(model_version=True), '"model_version"'),
    "list id": (document(id=[CANARY]), '"id"'),
    "no name": (document(entry(name=None)), '"name"'),
    "number name": (document(entry(name=1)), '"name"'),
    "no datatype": (document(entry(datatype=None)), '"datatype"'),
    "unknown datatype": (document(entry(datatype=CANARY)), '"datatype"'),
    "BYTES": (document(entry(datatype="BYTES")), '"datatype"'),
    "small letters": (document(entry(datatype="fp32")), '"datatype"'),
    "NumPy's name": (document(entry(datatype="<f4")), '"datatype"'),
    "list datatype": (document(entry(datatype=["FP32"])), '"datatype"'),
    "no shape": (document(entry(shape=None)), '"shape"'),
    "no data": (document(entry(data=None)), '"data"'),
    "null data": (document({**entry(), "data": None}), '"data"'),
    "empty data": (document(entry(data=[])), '"data"'),
    "text data": (document(entry(data="123")), '"data"'),
    "object data": (document(entry(data={"0": 1})), '"data"'),
    "number data": (document(entry(data=1)), '"data"'),
    "too few": (document(entry(data=[1, 2])), "2 values"),
    "too many": (document(entry(data=[1, 2, 3, 4])), "4 values"),
    "too many rows": (document(entry(data=[ROW, ROW])), "2 rows"),
    "too few rows": (document(entry(shape=[2, N], data=[ROW])), "1 rows"),
    "ragged": (document(entry(shape=[2, N], data=[[1, 2], [3, 4, 5, 6]])), "Row 0 has 2 values"),
    "empty row": (document(entry(data=[[]])), "Row 0 has 0 values"),
    "deeper": (document(entry(data=[[ROW]])), "Row 0"),
    "mixed": (document(entry(shape=[2, N], data=[ROW, 1])), "Row 1"),
    "mixed, number first": (document(entry(data=[1, ROW, ROW])), "not a number"),
    "boolean": (document(entry(data=[1, 2, True])), "not a number"),
    "null": (document(entry(data=[1, 2, None])), "not a number"),
    "text": (document(entry(data=[1, 2, "3"])), "not a number"),
    "list parameters": (document(parameters=[]), '"parameters"'),
    "text parameters of the input": (document(entry(parameters=CANARY)), '"parameters"'),
    "text parameters of an output": (document(outputs=[{"name": "labels", "parameters": CANARY}]), '"parameters"'),
    "text binary_data_output": (document(parameters={"binary_data_output": "true"}), '"binary_data_output"'),
    "number binary_data_output": (document(parameters={"binary_data_output": 1}), '"binary_data_output"'),
    "object outputs": (document(outputs={"name": "labels"}), '"outputs"'),
    "text outputs": (document(outputs=["labels"]), '"outputs"'),
    "unknown output": (document(outputs=[{"name": CANARY}]), "probabilities and labels"),
    "unnamed output": (document(outputs=[{}]), "probabilities and labels"),
    "list output": (document(outputs=[{"name": ["labels"]}]), "probabilities and labels"),
    "output twice": (document(outputs=[{"name": "labels"}, {"name": "labels"}]), "twice"),
    "output twice, differently": (
        document(outputs=[{"name": "probabilities"}, {"name": "probabilities", "parameters": {"classification": 1}}]),
        "twice",
    ),
    "number binary_data": (document(outputs=[{"name": "labels", "parameters": {"binary_data": 1}}]), '"binary_data"'),
    "negative classification": (
        document(outputs=[{"name": "probabilities", "parameters": {"classification": -1}}]), '"classification"',
    ),
    "float classification": (
        document(outputs=[{"name": "probabilities", "parameters": {"classification": 1.0}}]), '"classification"',
    ),
    "boolean classification": (
        document(outputs=[{"name": "probabilities", "parameters": {"classification": True}}]), '"classification"',
    ),
    "classification of labels": (
        document(outputs=[{"name": "labels", "parameters": {"classification": 1}}]), '"classification"',
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNACCEPTABLE)
def test_invalid_fields_are_rejected(name: str) -> None:
    """Every parser reports the same error, with and without the header."""
    body, words = UNACCEPTABLE[name]
    leaf, message = parse_result(served(), body)
    assert leaf is UnacceptableError
    assert words in message
    assert parse_result(served(), body, b"%d" % len(body)) == (leaf, message)
    for quick_from in (0, NEVER):
        with generally(quick_from):
            assert parse_result(served(), body) == (leaf, message)


@pytest.mark.parametrize("body", [
    b"", b" ", b"x", b"[]", b"{", b'{"inputs":[{"data":[NaN]}]}', b'{"inputs":[{"data":[1e999]}]}',
    b'{"inputs":[],"inputs":[]}', document().replace(b'"data"', b'"data":[1,2,3],"data"'),
    document().replace(b'"data"', b'"data":[1,2,3],"\\u0064ata"'),
    document(id="a").replace(b'"id"', b'"id":"b","id"'), document() + b"x", 2 * BYTE_ORDER_MARK + document(),
    document().decode().encode("utf-16"), document(id="a").replace(b'"a"', b'"\\ud800"'),
    document(id="a").replace(b'"a"', b'"\xff"'), document(id="a").replace(b'"a"', b"[" * 100 + b"]" * 100),
])  # fmt: skip
def test_invalid_json_is_malformed(body: bytes) -> None:
    """The grammar is that of json_grammar.py, in a body and in a JSON part before binary data."""
    assert parse_result(served(), body)[0] is MalformedError
    if body:
        assert parse_result(served(), body + b"\0" * 12, b"%d" % len(body))[0] is MalformedError


# Agreement of the parsers


plain = st.one_of(
    st.integers(-5, 5), st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([True, None, "1"])
)
good_rows = st.lists(st.floats(-1e6, 1e6) | st.integers(-(2**60), 2**64), min_size=N, max_size=N)
values = st.one_of(
    plain, st.text(max_size=3), st.lists(plain, max_size=3), st.dictionaries(st.text(max_size=3), plain, max_size=2)
)
data_values = st.one_of(
    good_rows,
    good_rows.map(lambda row: [row]),
    st.lists(good_rows, min_size=2, max_size=3),
    st.lists(good_rows, min_size=2, max_size=2).map(lambda rows: rows[0] + rows[1]),
    st.lists(plain, max_size=N + 1),
    values,
)
shapes = st.one_of(st.just([1, N]), st.just([1, N]), st.just([2, N]), st.lists(plain, max_size=3), values)
datatypes = st.one_of(st.sampled_from([*DATATYPES, "BYTES"]), values)
entries = st.one_of(
    st.fixed_dictionaries(
        {
            "name": st.text(max_size=5),
            "shape": st.just([1, N]),
            "datatype": st.sampled_from([*DATATYPES]),
            "data": data_values,
        }
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "name": values,
            "shape": shapes,
            "datatype": datatypes,
            "data": data_values,
            "parameters": values,
            "x": plain,
        },
    ),
)
names = st.sampled_from(["m", "m", "x", "", None])
requests = st.one_of(
    st.fixed_dictionaries(
        {"inputs": entries.map(lambda one: [one])}, optional={"id": st.text(max_size=8), "model_name": names}
    ),
    st.fixed_dictionaries(
        {"inputs": st.lists(entries, max_size=2) | values},
        optional={"id": values, "outputs": values, "parameters": values, "x": values, "model_name": names | values},
    ),
)


@unhurried
@given(requests, st.booleans(), st.sampled_from(DTYPES))
def test_parsers_agree_on_a_usual_row(request: dict[str, Any], ascii_only: bool, dtype: type) -> None:  # noqa: FBT001
    """The parser of a usual single row, the general parser and pysimdjson give the same result."""
    body = json.dumps(request, ensure_ascii=ascii_only).encode("utf-8", "replace")
    expected = parse_result(served(dtype), body)
    for quick_from in (0, NEVER):
        with generally(quick_from):
            assert parse_result(served(dtype), body) == expected


def test_a_usual_row_has_a_parser_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A usual row is parsed even if the general parser is removed."""
    monkeypatch.setattr(tensors, "parse_inference_header", None)
    for body in (
        document(), document(id="a"), document(entry(data=[ROW])), document(entry(datatype="INT8"), id=""),
        document(id="a", model_name="m"),
    ):  # fmt: skip
        assert served().parse_inference(body, None).X.tolist() == [ROW]


KSERVE = '{"id":"ab","model_name":"m","inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2,3]}]}'
USUAL = '{"id":"ab","inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2,3]}]}'
TOKENS = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    '"id"',
    '"inputs"',
    '"data"',
    '"x"',
    '"m"',
    "1",
    "[1,2,3]",
    "\\",
    '"',
    "true",
    " ",
    "-",
    ".",
]


@unhurried
@given(
    st.sampled_from([USUAL, KSERVE]),
    st.lists(
        st.tuples(st.integers(0, len(KSERVE)), st.integers(0, 6), st.sampled_from(["", *TOKENS])),
        min_size=1,
        max_size=3,
    ),
)
def test_parsers_agree_on_a_damaged_usual_row(text: str, damages: list[tuple[int, int, str]]) -> None:
    """Repeated keys, escapes and broken text replace any part of the body."""
    for place, cut, token in damages:
        text = text[:place] + token + text[place + cut :]
    expected = parse_result(served(), text.encode())
    for quick_from in (0, NEVER):
        with generally(quick_from):
            assert parse_result(served(), text.encode()) == expected


json_parts = st.tuples(
    st.sampled_from([12, 24, 11, None]),
    st.sampled_from(["FP32", "FP64", "FP16", "INT32", "BOOL"]),
    st.sampled_from([1, 2, 0, ROWS_MAX + 1]),
    st.sampled_from(
        [{}, {"id": "a"}, {"id": 1}, {"outputs": [{"name": "labels"}]}, {"parameters": {"binary_data_output": True}}]
    ),
    st.sampled_from([6, 12, 24, 48]),
)  # fmt: skip


@unhurried
@given(st.lists(json_parts, min_size=1, max_size=12))
def test_cached_json_parts_give_the_same_result(parts: list[tuple[Any, ...]]) -> None:
    """A codec with a filled cache parses a request as a new codec does."""
    reader = served()
    for size, datatype, count, more, available in parts * 2:
        fields = entry(datatype=datatype, shape=[count, N], data=None, parameters={"binary_data_size": size})
        body, header = announced(bytes(range(available)), fields, **more)
        assert parse_result(reader, body, header) == parse_result(served(), body, header)


def test_a_repeated_json_part_is_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A repeated JSON part is found in the cache even if the parser is removed."""
    reader, (body, header) = served(), announced(np.float32(ROW).tobytes(), id="a")
    first = parse_result(reader, body, header)
    monkeypatch.setattr(tensors, "parse_inference_header", None)
    assert parse_result(reader, body, header) == first


def test_the_cache_of_json_parts_is_bounded() -> None:
    """The number and length of cached parts are limited; rejected parts and parts with data are not cached."""
    reader, raw = served(), np.float32(ROW).tobytes()
    for i in range(3 * tensors.CACHED_HEADERS_MAX):
        assert reader.parse_inference(*announced(raw, id=f"{i}")).id == f"{i}"
        # Only the cache itself shows that it is bounded.
        assert len(reader._headers) <= tensors.CACHED_HEADERS_MAX
    # Only the cache itself shows what was added.
    cached = dict(reader._headers)
    reader.parse_inference(*announced(raw, id="x" * tensors.CACHED_HEADER_BYTES_MAX))
    parse_result(reader, *announced(raw, entry(data=None, shape=[0, N], parameters={"binary_data_size": 12})))
    reader.parse_inference(document(), b"%d" % len(document()))
    assert reader._headers == cached  # as above


@both_dtypes
@pytest.mark.parametrize("flat", [False, True])
def test_both_parsers_agree_on_large_tensors(dtype: type, *, flat: bool) -> None:
    """pysimdjson and orjson give the same bits for decimals, integers and exponents."""
    rng = np.random.default_rng(5)
    exponents = rng.integers(-40, 38, (ROWS_MAX, N))
    matrix = (rng.standard_normal((ROWS_MAX, N)) * 10.0**exponents).tolist()
    matrix[7], matrix[8] = [0, -0.0, 2**63], [2**64 - 1, -(2**63), 16777217]
    body = document(entry(shape=[ROWS_MAX, N], data=[x for row in matrix for x in row] if flat else matrix), id="a")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows_module, "parse_object", None)
        quick = parse_result(served(dtype), body)
    with generally(NEVER):
        assert parse_result(served(dtype), body) == quick
    assert quick[3] == np.array(matrix, np.float64).astype(dtype).tobytes()


# Responses


def answer(request: InferenceBody, P: Array, labels: Any) -> dict[str, Any]:
    """The response as Python objects, with classification and labels computed independently."""
    outputs: list[dict[str, Any]] = []
    for output in request.outputs:
        if output.top:
            texts = [
                f"{P[i, k]!s}:{k}:{CLASSES[k]}"
                for i in range(len(P))
                for k in sorted(range(P.shape[1]), key=lambda k, i=i: (-P[i, k], k))[: output.top]  # type: ignore[misc]
            ]
            shape, datatype, data = [len(P), len(texts) // len(P)], "BYTES", texts
        elif output.name == "probabilities":
            shape, datatype, data = [*P.shape], {"float32": "FP32", "float64": "FP64"}[P.dtype.name], P.ravel()
        elif isinstance(labels, np.ndarray):
            shape, datatype, data = [*labels.shape], "BOOL", labels.ravel().tolist()
        else:
            shape, datatype, data = [len(labels)], "BYTES", [CLASSES[label] for label in labels]
        outputs.append({"name": output.name, "datatype": datatype, "shape": shape, "data": data})
    return {**NAMED, "id": request.id, "parameters": {"seq": 7}, "outputs": outputs}


def decoded(output: dict[str, Any], raw: bytes) -> tuple[list[Any], bytes]:
    """The flat values of one binary output, and the bytes after it."""
    part, rest = raw[: output["parameters"]["binary_data_size"]], raw[output["parameters"]["binary_data_size"] :]
    if output["datatype"] != "BYTES":
        kind = {"FP32": "<f4", "FP64": "<f8", "BOOL": "?"}[output["datatype"]]
        return np.frombuffer(part, kind).tolist(), rest
    texts = []
    while part:
        size = int.from_bytes(part[:4], "little")
        assert len(part) >= 4 + size
        texts.append(part[4 : 4 + size].decode())
        part = part[4 + size :]
    return texts, rest


@st.composite
def answers(draw: st.DrawFn) -> tuple[InferenceBody, Array, Any]:
    """A request, probabilities with ties among them, and labels of either kind."""
    dtype, count = draw(st.sampled_from(DTYPES)), draw(st.integers(1, 4))
    chances = st.sampled_from([0.0, 0.25, 0.1, 1.0, 1e-30, 1 / 3]) | st.floats(0, 1, width=32)
    P = np.array(draw(st.lists(st.lists(chances, min_size=3, max_size=3), min_size=count, max_size=count)), dtype)
    labels = [int(k) for k in P.argmax(axis=1)] if draw(st.booleans()) else P >= 0.2
    tops = st.sampled_from([0, 0, 1, 2, 3, 4, 2**62])
    outputs = draw(
        st.lists(
            st.one_of(
                st.builds(OutputRequest, st.just("probabilities"), st.booleans(), tops),
                st.builds(OutputRequest, st.just("labels"), st.booleans(), st.just(0)),
            ),
            min_size=1, max_size=2, unique_by=lambda output: output.name,
        )
    )  # fmt: skip
    known = draw(st.sampled_from([tuple(outputs), JSON_PROBABILITIES, BINARY_PROBABILITIES]))
    return (
        InferenceBody(draw(st.text(st.characters(codec="utf-8"), max_size=5)), np.zeros((count, N)), known),
        P,
        labels,
    )


@unhurried
@given(answers())
def test_responses_match_the_reference(case: tuple[InferenceBody, Array, Any]) -> None:
    """JSON matches byte for byte, and binary outputs follow in order and decode to the same values."""
    request, P, labels = case
    body, size = served(P.dtype.type).encode_inference(request, P, labels)
    expected = answer(request, P, labels)
    if size is None:
        assert not any(output.binary for output in request.outputs)
        assert body == orjson.dumps(expected, option=orjson.OPT_SERIALIZE_NUMPY)
        return
    fields, rest = orjson.loads(body[:size]), body[size:]
    for requested, plain_output, output in zip(request.outputs, expected["outputs"], fields["outputs"], strict=True):
        assert ("data" in output, "parameters" in output) == (not requested.binary, requested.binary)
        if requested.binary:
            output["data"], rest = decoded(output, rest)
            del output["parameters"]
            plain_output["data"] = np.array(plain_output["data"]).tolist()
    assert rest == b""
    assert orjson.dumps(fields) == orjson.dumps(orjson.loads(orjson.dumps(expected, option=orjson.OPT_SERIALIZE_NUMPY)))


def test_ties_are_classified_by_index() -> None:
    """The top k classes of each row are ordered by probability, then by index."""
    P = np.array([[0.25, 0.5, 0.25], [0.125, 0.125, 0.125], [0.2, 0.3, 0.5]], np.float32)
    request = served().parse_inference(
        document(outputs=[{"name": "probabilities", "parameters": {"classification": 2}}]), None
    )
    (output,) = orjson.loads(served().encode_inference(request, P, [1, 0, 2])[0])["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [3, 2])
    assert output["data"] == [
        "0.5:1:eins", "0.25:0:zero", "0.125:0:zero", "0.125:1:eins", f"0.5:2:{CLASSES[2]}", "0.3:1:eins",
    ]  # fmt: skip


def test_a_large_classification_returns_all_classes() -> None:
    """A classification of more classes than the model has returns each class."""
    request = served().parse_inference(
        document(outputs=[{"name": "probabilities", "parameters": {"classification": 2**63}}]), None
    )
    (output,) = orjson.loads(served().encode_inference(request, np.float32([[0.2, 0.3, 0.5]]), [2])[0])["outputs"]
    assert output["shape"] == [1, 3]


@both_dtypes
def test_probabilities_decode_to_their_bits(dtype: type) -> None:
    """JSON and binary data decode to the bits of any probabilities."""
    P = np.random.default_rng(9).random((50, 3)).astype(dtype) ** 20
    X = np.zeros((50, N), dtype)
    text, none = served(dtype).encode_inference(InferenceBody("", X, JSON_PROBABILITIES), P, [])
    assert none is None
    assert np.array_equal(np.array(orjson.loads(text)["outputs"][0]["data"], dtype), P.ravel())
    body, size = served(dtype).encode_inference(InferenceBody("", X, BINARY_PROBABILITIES), P, [])
    assert body[size:] == P.astype(P.dtype.newbyteorder("<")).tobytes()


def test_a_response_is_encoded_from_a_slice_of_a_batch() -> None:
    """The probabilities of a request may be a slice of those of a shared kernel call."""
    shared = np.random.default_rng(1).random((6, 3)).astype(np.float32)
    for outputs in (JSON_PROBABILITIES, BINARY_PROBABILITIES, (OutputRequest("probabilities", binary=True, top=2),)):
        request = InferenceBody("a", np.zeros((2, N), np.float32), outputs)
        assert served().encode_inference(request, shared[2:4], [0, 1]) == served().encode_inference(
            request, shared[2:4].copy(), [0, 1]
        )
