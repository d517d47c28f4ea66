"""Rows arrive as one tensor or as one tensor for each feature, and both layouts give the same rows."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InputError, MalformedError, TooLargeError, UnacceptableError
from service.serve.wire.feature_columns import FeatureColumns
from service.serve.wire.oip_inputs import DATATYPES
from service.serve.wire.oip_tensors import TensorCodec
from service.serve.wire.rows import RowParser
from tests.support.budgets import examples
from tests.support.reference import DTYPES

FEATURES = ("width", "length", "Größe", 'a "quoted" name')
N = len(FEATURES)
ROWS_MAX = 400
NAMED = {"model_name": "m", "model_version": "1"}
unhurried = settings(deadline=None, max_examples=examples(200))


def codec(features: Sequence[str] = FEATURES, dtype: type = np.float32) -> TensorCodec:
    """The codec of a model with these features."""
    rows = RowParser(len(features), np.dtype(dtype), ROWS_MAX, 64)
    return TensorCodec(rows, FeatureColumns(features), NAMED, {"seq": 0}, ("x", "y"))


def column(name: str, values: Any, **fields: Any) -> dict[str, Any]:
    """An input of one feature with these fields; None removes a field."""
    merged = {"name": name, "shape": [len(values)], "datatype": "FP64", "data": values, **fields}
    return {key: value for key, value in merged.items() if value is not None}


def columns(count: int = 2) -> list[dict[str, Any]]:
    """An input for each feature."""
    return [column(name, [i + 0.5 * row for row in range(count)]) for i, name in enumerate(FEATURES)]


def parse(inputs: Any, reader: TensorCodec | None = None, **more: Any) -> Any:
    """The rows of a request in JSON."""
    return (reader or codec()).parse_inference(json.dumps({"inputs": inputs, **more}).encode(), None).X


def refused(inputs: Any, reader: TensorCodec | None = None) -> tuple[type[InputError], str]:
    """The class and the message of the error of a request in JSON."""
    with pytest.raises(InputError) as reason:
        parse(inputs, reader)
    return type(reason.value), str(reason.value)


# One input for each feature


@st.composite
def layouts(draw: st.DrawFn) -> tuple[list[int], list[dict[str, Any]], list[Any], list[bytes]]:
    """The order of the features, and an input for each with its values and its binary data; BOOL among them."""
    count = draw(st.integers(1, 3))
    order = draw(st.permutations(range(N)))
    inputs, values, parts = [], [], []
    for feature in order:
        datatype = draw(st.sampled_from([*DATATYPES, "BOOL"]))
        numbers = st.booleans() if datatype == "BOOL" else st.integers(0, 100)
        raw = draw(st.lists(numbers, min_size=count, max_size=count))
        flat = draw(st.booleans())
        entry = column(FEATURES[feature], raw, datatype=datatype, shape=[count] if flat else [count, 1])
        if draw(st.booleans()):
            part = np.array(raw).astype("?" if datatype == "BOOL" else DATATYPES[datatype]).tobytes()
            parts.append(part)
            entry = {**entry, "parameters": {"binary_data_size": len(part), "content_type": "np"}}
            del entry["data"]
        elif draw(st.booleans()):
            entry["data"] = [[value] for value in raw]
        inputs.append(entry)
        values.append(raw)
    return list(order), inputs, values, parts


@unhurried
@given(layout=layouts(), dtype=st.sampled_from(DTYPES))
def test_columns_in_any_order_and_form_are_the_rows(
    layout: tuple[list[int], list[dict[str, Any]], list[Any], list[bytes]], dtype: type
) -> None:
    """Each input may have its own datatype and shape, as JSON or as binary data, and stand in any place."""
    order, inputs, values, parts = layout
    expected = np.empty((len(values[0]), N), dtype)
    for feature, raw in zip(order, values, strict=True):
        expected[:, feature] = raw
    text = json.dumps({"inputs": inputs}).encode()
    reader, header = codec(dtype=dtype), b"%d" % len(text) if parts else None
    for _ in range(2):  # the second request finds a JSON part with binary data in the cache
        X = reader.parse_inference(text + b"".join(parts), header).X
        assert X.dtype == dtype
        assert X.flags.carray
        np.testing.assert_array_equal(X, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [1, 2, ROWS_MAX])
def test_columns_have_the_bits_of_one_tensor(count: int, dtype: type) -> None:
    """Decimals, exponents and integers of 64 bits become the same numbers in both layouts, as JSON and as binary."""
    rng = np.random.default_rng(3)
    matrix = rng.standard_normal((count, N)) * 10.0 ** rng.integers(-30, 30, (count, N))
    reader, width = codec(dtype=dtype), {"datatype": "FP64", "name": "x"}
    whole = parse([{**width, "shape": [count, N], "data": matrix.tolist()}], reader).copy()
    split = [column(name, matrix[:, i].tolist()) for i, name in enumerate(FEATURES)]
    np.testing.assert_array_equal(parse(split, reader), whole)
    raw = [matrix[:, i].astype("<f8").tobytes() for i in range(N)]
    sized = [column(name, [0] * count, data=None, parameters={"binary_data_size": 8 * count}) for name in FEATURES]
    text = json.dumps({"inputs": sized}).encode()
    X = reader.parse_inference(text + b"".join(raw), b"%d" % len(text)).X
    np.testing.assert_array_equal(X, whole)


def test_signaling_nans_and_overflows_of_columns_raise_no_warning() -> None:
    """The model rejects these numbers later, so a client cannot fill the log with warnings."""
    kinds = {"FP32": b"\x01\x00\x80\x7f", "FP64": b"\x01\x00\x00\x00\x00\x00\xf0\x7f"}
    entries = [
        column(FEATURES[0], [0], datatype="FP32", data=None, parameters={"binary_data_size": 4}),
        column(FEATURES[1], [0], data=None, parameters={"binary_data_size": 8}),
        *(column(name, [1e300]) for name in FEATURES[2:]),
    ]
    text = json.dumps({"inputs": entries}).encode()
    X = codec().parse_inference(text + b"".join(kinds.values()), b"%d" % len(text)).X
    assert np.isnan(X[0, :2]).all()
    assert np.isinf(X[0, 2:]).all()


QUOTED = r'"a \"quoted\" name"'
EACH = "A request of one input for each feature"
NAMES = "columns have the names of the model's features."
WRONG_COLUMNS: dict[str, tuple[list[Any], str]] = {
    "missing": (columns()[1:], f'{EACH} lacks a column, "width"; {NAMES}'),
    "missing, of another alphabet": (
        [*columns()[:2], columns()[3]], f"{EACH} lacks a column; {NAMES}",
    ),
    "all but one missing": (columns()[:1], f'{EACH} lacks 3 columns, "length", {QUOTED}; {NAMES}'),
    "unknown": ([*columns(), column("area", [1, 2])], f'{EACH} has an unknown column, "area"; {NAMES}'),
    "unknown in place of another": (
        [*columns()[:3], column("area", [1, 2])],
        f'{EACH} has an unknown column, "area", and lacks a column, {QUOTED}; {NAMES}',
    ),
    "unknown and long": (
        [*columns(), column("x" * 65, [1, 2])], f"{EACH} has an unknown column; {NAMES}",
    ),
    "unknown, with a control character": (
        [column("a\nb", [1, 2]), *columns()], f"{EACH} has an unknown column; {NAMES}",
    ),
    "unknown, of another alphabet": (
        [column("é", [1, 2]), *columns()], f"{EACH} has an unknown column; {NAMES}",
    ),
    "repeated": ([*columns(), columns()[0]], f'{EACH} has a column twice, "width"; {NAMES}'),
    "repeated in place of another": (
        [*columns()[:3], columns()[0]], f'{EACH} has a column twice, "width"; {NAMES}',
    ),
    "one of all features": (
        [{**column("width", []), "shape": [1, N], "data": [1] * N}, *columns()[1:]],
        '"shape" must be [rows, 1] or [rows] with at least one row.',
    ),
    "a number as the name": ([*columns()[:3], column(3, [1, 2])], '"name" of an input must be a string.'),
    "no name": ([*columns()[:3], {"shape": [2]}], '"name" of an input must be a string.'),
    "fewer rows": (
        [*columns()[:3], column(FEATURES[3], [1])], f"Input {QUOTED} must have as many rows as the other inputs.",
    ),
    "data of fewer rows": (
        [*columns()[:3], column(FEATURES[3], [1], shape=[2])],
        f'Input {QUOTED} must have "data": a list of one number for each row.',
    ),
    "no data": (
        [*columns()[:3], column(FEATURES[3], [1, 2], data=None)],
        f'Input {QUOTED} must have "data": a list of one number for each row.',
    ),
    "data a text": (
        [*columns()[:3], column(FEATURES[3], [1, 2], data="ab")],
        f'Input {QUOTED} must have "data": a list of one number for each row.',
    ),
    "null": (
        [*columns()[:3], column(FEATURES[3], [1, None])], f"Row 1 has a value that is not a number in column {QUOTED}.",
    ),
    "a boolean among numbers": (
        [*columns()[:3], column(FEATURES[3], [True, 1])], f"Row 0 has a value that is not a number in column {QUOTED}.",
    ),
    "a text among flags": (
        [*columns()[:3], column(FEATURES[3], [True, "1"], datatype="BOOL")],
        f"Row 1 has a value that is not a number in column {QUOTED}.",
    ),
    "two numbers in a row": (
        [*columns()[:3], column(FEATURES[3], [[1], [1, 2]])],
        f"Row 1 has a value that is not a number in column {QUOTED}.",
    ),
    "deeper": (
        [*columns()[:3], column(FEATURES[3], [[[1]], [[2]]])],
        f"Row 0 has a value that is not a number in column {QUOTED}.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_COLUMNS)
def test_wrong_columns_are_rejected_by_name(name: str) -> None:
    """A missing, unknown or repeated input is named if its name is short and printable ASCII, and counted if not."""
    inputs, sentence = WRONG_COLUMNS[name]
    assert refused(inputs) == (UnacceptableError, sentence)


@pytest.mark.parametrize("shape", [[], [0], [-1], [2, 2], [1, 2], [2, 1, 1], [2.0], [True, 1], ["2"], None, 2, [[2]]])
def test_other_shapes_of_columns_are_rejected(shape: Any) -> None:
    """The shape of an input of one feature is [rows] or [rows, 1]."""
    inputs = [{**column(FEATURES[0], [1, 2]), "shape": shape}, *columns()[1:]]
    leaf, sentence = refused(inputs)
    assert leaf is UnacceptableError
    assert '"shape"' in sentence


def test_columns_of_too_many_rows_are_rejected_by_their_shape() -> None:
    """No array is made for a large shape."""
    inputs = [column(name, [1, 2], shape=[2**62]) for name in FEATURES]
    assert refused(inputs)[0] is TooLargeError


@pytest.mark.parametrize("size", [0, 8, 15, 17, 2**62, "16", True])
def test_sizes_of_binary_columns_must_match(size: Any) -> None:
    """Each binary input announces its own size."""
    last = column(FEATURES[3], [1, 2], data=None, parameters={"binary_data_size": size})
    text = json.dumps({"inputs": [*columns()[:3], last]}).encode()
    with pytest.raises(MalformedError, match="must be 16"):
        codec().parse_inference(text + bytes(16), b"%d" % len(text))


def test_the_binary_data_of_columns_is_all_there() -> None:
    """The body has as many bytes after its JSON part as all inputs announce."""
    sized = [column(name, [1, 2], data=None, parameters={"binary_data_size": 16}) for name in FEATURES[:2]]
    text = json.dumps({"inputs": [*sized, *columns()[2:]]}).encode()
    for length in (0, 16, 31, 33):
        with pytest.raises(MalformedError, match=f"of 32, but the body has {length} bytes"):
            codec().parse_inference(text + bytes(length), b"%d" % len(text))
    with pytest.raises(MalformedError, match="needs the header"):
        codec().parse_inference(text, None)


def test_a_model_of_many_features_takes_columns() -> None:
    """The limit of lists and objects leaves room for an input of each feature."""
    features = [f"f{i}" for i in range(5000)]
    reader = codec(features)
    X = parse([column(name, [i], parameters={}) for i, name in enumerate(features)], reader)
    assert X.tolist() == [list(range(5000))]


@pytest.mark.parametrize("name", ["only", "features", "é", ""])
@pytest.mark.parametrize("shape", [[2], [2, 1]])
def test_the_input_of_one_feature_may_have_any_name(name: str, shape: list[int]) -> None:
    """A model of one feature takes it as a vector or as a matrix, flat or in rows, as JSON or as binary data."""
    reader = codec(["only"])
    for data in ([1.5, 2], [[1.5], [2]]):
        assert parse([column(name, [1, 2], shape=shape, data=data)], reader).tolist() == [[1.5], [2]]
    entry = column(name, [1, 2], shape=shape, data=None, parameters={"binary_data_size": 16})
    text = json.dumps({"inputs": [entry]}).encode()
    body = text + np.array([1.5, 2], "<f8").tobytes()
    assert reader.parse_inference(body, b"%d" % len(text)).X.tolist() == [[1.5], [2]]


# BOOL


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("data", [
    [True, False, False, True], [[True, False, False, True]], [1, 0, 0.0, 1.0], [[True, 0, False, 1]],
])  # fmt: skip
def test_flags_are_ones_and_zeros(data: Any, dtype: type) -> None:
    """A BOOL tensor has true, false, 1 or 0 in JSON, and bytes of 1 and 0 as binary data."""
    reader = codec(dtype=dtype)
    entry = {"name": "x", "shape": [1, N], "datatype": "BOOL"}
    expected = np.array([[1, 0, 0, 1]], dtype)
    X = parse([{**entry, "data": data}], reader)
    assert X.dtype == dtype
    np.testing.assert_array_equal(X, expected)
    text = json.dumps({"inputs": [{**entry, "parameters": {"binary_data_size": N}}]}).encode()
    np.testing.assert_array_equal(reader.parse_inference(text + b"\1\0\0\1", b"%d" % len(text)).X, expected)


@pytest.mark.parametrize("count", [1, ROWS_MAX])
def test_large_tensors_of_flags_are_read_by_both_parsers(count: int) -> None:
    """A tensor of ones and zeros that is large enough for pysimdjson is read as one of true and false."""
    flags = np.random.default_rng(1).integers(0, 2, (count, N))
    entry = {"name": "x", "shape": [count, N], "datatype": "BOOL"}
    for data in (flags.tolist(), flags.astype(bool).tolist(), flags.ravel().tolist()):
        assert parse([{**entry, "data": data}]).tolist() == flags.tolist()


@pytest.mark.parametrize("count", [1, ROWS_MAX])
@pytest.mark.parametrize("value", [2, -1, 0.5, 1e-300])
def test_other_values_are_not_flags(value: float, count: int) -> None:
    """A BOOL tensor with another number is rejected, however large it is, in both layouts."""
    data = [0] * (count * N - 1) + [value]
    entry = {"name": "x", "shape": [count, N], "datatype": "BOOL", "data": data}
    sentence = "A BOOL input may only have true, false, 1 and 0; in binary data, bytes of 1 and 0."
    assert refused([entry]) == (UnacceptableError, sentence)
    flags = [column(name, [1] * (count - 1) + [value], datatype="BOOL") for name in FEATURES]
    assert refused(flags) == (UnacceptableError, sentence)


@pytest.mark.parametrize("byte", [2, 3, 127, 128, 255])
def test_other_bytes_are_not_flags(byte: int) -> None:
    """Binary data of a BOOL tensor with another byte is rejected in both layouts."""
    one = {"name": "x", "shape": [1, N], "datatype": "BOOL", "parameters": {"binary_data_size": N}}
    each = [column(name, [0], datatype="BOOL", data=None, parameters={"binary_data_size": 1}) for name in FEATURES]
    for inputs in ([one], each):
        text = json.dumps({"inputs": inputs}).encode()
        with pytest.raises(UnacceptableError, match="BOOL"):
            codec().parse_inference(text + bytes([1, byte, 0, 1]), b"%d" % len(text))


def test_booleans_are_no_numbers() -> None:
    """A tensor of numbers has no true and false."""
    entry = {"name": "x", "shape": [1, N], "datatype": "INT8", "data": [1, 0, True, 0]}
    assert refused([entry]) == (UnacceptableError, "Row 0 has a value that is not a number.")


# Members


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda below: st.lists(below, max_size=2) | st.dictionaries(st.text(max_size=3), below, max_size=2),
    max_leaves=5,
)
KNOWN = {"id", "model_name", "model_version", "parameters", "inputs", "outputs", "name", "shape", "datatype", "data"}
KNOWN |= {"binary_data_output", "binary_data", "binary_data_size", "classification"}
others = st.dictionaries(st.text(max_size=5).filter(lambda name: name not in KNOWN), anything, max_size=3)


@unhurried
@given(st.lists(others, min_size=6, max_size=6), st.booleans())
def test_unknown_members_change_nothing(more: list[dict[str, Any]], split: bool) -> None:  # noqa: FBT001
    """A request with unknown members of any value, in any of its objects, is the request without them."""
    inputs = columns(1) if split else [{"name": "x", "shape": [1, N], "datatype": "FP32", "data": [0, 1, 2, 3]}]
    output = {"name": "labels", "parameters": {"binary_data": True}}
    plain = {"id": "a", "inputs": inputs, "outputs": [output], "parameters": {"binary_data_output": False}}
    body = {
        **more[0],
        "id": "a",
        "inputs": [{**more[1], **entry, "parameters": more[2]} for entry in inputs],
        "outputs": [{**more[3], "name": "labels", "parameters": {**more[4], "binary_data": True}}],
        "parameters": {**more[5], "binary_data_output": False},
    }
    first = codec().parse_inference(json.dumps(plain).encode(), None)
    second = codec().parse_inference(json.dumps(body).encode(), None)
    assert (second.id, second.outputs, second.X.tolist()) == (first.id, first.outputs, first.X.tolist())


OPTIONAL: list[tuple[str, ...]] = [
    ("id",), ("model_name",), ("model_version",), ("parameters",), ("outputs",),
    ("parameters", "binary_data_output"),
    ("inputs", "parameters"), ("inputs", "parameters", "binary_data_size"),
    ("outputs", "parameters"), ("outputs", "parameters", "binary_data"), ("outputs", "parameters", "classification"),
]  # fmt: skip


@pytest.mark.parametrize("path", OPTIONAL, ids=".".join)
@pytest.mark.parametrize("split", [False, True])
def test_null_is_a_missing_member(path: tuple[str, ...], *, split: bool) -> None:
    """A request with null in place of an optional member is the request without it."""
    inputs = columns(1) if split else [{"name": "x", "shape": [1, N], "datatype": "FP64", "data": [0, 1, 2, 3]}]

    def request(*, null: bool) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(json.dumps({"inputs": inputs}))
        node = document
        for name in path[:-1]:
            node = node.setdefault(name, [{"name": "probabilities"}] if name == "outputs" else {})
            node = node[0] if isinstance(node, list) else node
        if null:
            node[path[-1]] = None
        return document

    one, two = (codec().parse_inference(json.dumps(request(null=null)).encode(), None) for null in (False, True))
    assert (one.id, one.outputs, one.X.tolist()) == (two.id, two.outputs, two.X.tolist())


@pytest.mark.parametrize("more", [
    {"model_name": "m"}, {"model_version": "1"}, {"model_version": 1}, {"model_version": ""}, {"model_name": ""},
    {"model_name": "m", "model_version": None, "id": "a"},
])  # fmt: skip
def test_the_model_of_the_path_may_be_repeated(more: dict[str, Any]) -> None:
    """KServe's client names the model in the body too, in JSON and before binary data."""
    entry = {"name": "x", "shape": [1, N], "datatype": "FP32"}
    assert parse([{**entry, "data": [1, 2, 3, 4]}], **more).tolist() == [[1, 2, 3, 4]]
    text = json.dumps({**more, "inputs": [{**entry, "parameters": {"binary_data_size": 16}}]}).encode()
    X = codec().parse_inference(text + np.float32([1, 2, 3, 4]).tobytes(), b"%d" % len(text)).X
    assert X.tolist() == [[1, 2, 3, 4]]


damaged = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "name": st.sampled_from([*FEATURES, "x"]) | anything,
            "shape": st.sampled_from([[1], [1, 1], [2], [1, N]]) | anything,
            "datatype": st.sampled_from([*DATATYPES, "BOOL"]) | anything,
            "data": st.sampled_from([[1], [True], [[1]], [1, 2], [1, 2, 3, 4]]) | anything,
            "parameters": st.builds(lambda size: {"binary_data_size": size}, st.sampled_from([1, 4, 8])) | anything,
        },
    ),
    max_size=N + 1,
)


@unhurried
@given(damaged, st.binary(max_size=16), st.booleans())
def test_any_inputs_are_parsed_or_rejected(inputs: list[Any], raw: bytes, announced: bool) -> None:  # noqa: FBT001
    """No request raises anything but an error of the input, and an accepted one has rows of the model."""
    text = json.dumps({"inputs": inputs}).encode()
    try:
        X = codec().parse_inference(text + raw if announced else text, b"%d" % len(text) if announced else None).X
    except InputError:
        return
    assert X.shape[1] == N
