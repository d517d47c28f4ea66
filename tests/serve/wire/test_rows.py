"""All parsers of rows agree with each other and with the JSON standard, on every bit and every error.

There are four paths: the scanner, pysimdjson, one row by orjson, and the general parser by orjson. The tests force each
path by making the earlier ones fall back.
"""

import importlib.util
import json
import math
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from annotated_types import Ge
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InputError, UnacceptableError
from service.serve.wire import oip_tensors as tensors
from service.serve.wire import rows as rows_module
from service.serve.wire.feature_columns import FeatureColumns
from service.serve.wire.json_grammar import BYTE_ORDER_MARK
from service.serve.wire.oip_tensors import TensorCodec
from service.serve.wire.row_scanner import FALLBACK
from service.serve.wire.rows import RowParser
from service.settings import Settings
from service.softmax.linear_model import LinearModel
from tests.support.budgets import examples
from tests.support.json_numbers import CANARY, NUMBERS
from tests.support.json_reference import checked_message, reject_constant, unique_keys

Verdict = tuple[Any, ...]
N = 3
DEPTH = 64
ROWS_MAX = 500
FEATURES = FeatureColumns(("p", "q", "r"))
FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
NEVER = 2**62
# Whether the scanner and pysimdjson may be used, and the size from which the latter is.
PATHS = {
    "as set": (True, True, rows_module.SIMDJSON_BYTES_MIN),
    "no pysimdjson": (True, False, rows_module.SIMDJSON_BYTES_MIN),
    "pysimdjson": (False, True, 0),
    "one row": (False, False, NEVER),
    "general": (False, False, 0),
}
both_dtypes = pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
unhurried = settings(deadline=None, max_examples=examples(400))


def fall_back(_text: bytes, _out: Any) -> int:
    """A scanner that always falls back."""
    return FALLBACK


@contextmanager
def reading(path: str, dtype: np.dtype[Any], width: int = N, depth_max: int = DEPTH) -> Iterator[RowParser]:
    """A parser of rows that uses one path."""
    scanner, quick, quick_from = PATHS[path]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows_module, "SIMDJSON_BYTES_MIN", quick_from)
        patch.setattr(tensors, "SIMDJSON_BYTES_MIN", quick_from)
        if not scanner:
            patch.setattr(rows_module, "scan_instances", fall_back)
        if not quick:
            patch.setattr(rows_module, "simdjson", None)
        yield RowParser(width, dtype, ROWS_MAX, depth_max)


def verdict(read: Callable[[], Any]) -> Verdict:
    """The shape and bits of the parsed array, or the class and message of the error."""
    try:
        X = read()
    except InputError as reason:
        return type(reason).__name__, checked_message(reason)
    assert X.flags.carray
    return "rows", X.shape, X.dtype.str, X.tobytes()


def v1(body: bytes, dtype: np.dtype[Any] = FLOAT32, path: str = "as set", depth_max: int = DEPTH) -> Verdict:
    """The verdict of one path on a v1 body."""
    with reading(path, dtype, depth_max=depth_max) as rows:
        return verdict(lambda: rows.parse_instances(body))


def v2(body: bytes, dtype: np.dtype[Any] = FLOAT32, path: str = "as set", depth_max: int = DEPTH) -> Verdict:
    """The verdict of one path on a v2 body, with the id and the outputs."""
    found: list[Any] = []
    with reading(path, dtype, depth_max=depth_max) as rows:

        def read() -> Any:
            request = TensorCodec(rows, FEATURES, {}, {"seq": 0}, ("a", "b")).parse_inference(body, None)
            found.extend((request.id, request.outputs))
            return request.X

        return *verdict(read), *found


def agreed(judge: Callable[[bytes, np.dtype[Any], str], Verdict], body: bytes, dtype: np.dtype[Any]) -> Verdict:
    """The verdict of all paths, which must be the same."""
    verdicts = {path: judge(body, dtype, path) for path in PATHS}
    assert set(verdicts.values()) == {verdicts["general"]}, verdicts
    return verdicts["general"]


# A corpus of doubtful documents


ROW = "[1,2.5,-3]"
WHOLE = {
    "empty": b"", "spaces": b" \n\t\r ", "list": b"[]", "string": b'"instances"', "number": b"1", "null": b"null",
    "no key": b"{}", "no list": b'{"instances":{}}', "empty list": b'{"instances":[]}',
    "null rows": b'{"instances":null}',
    "number rows": b'{"instances":1}', "empty rows": b'{"instances":[[],[]]}', "flat": b'{"instances":[1,2,3]}',
    "ragged": b'{"instances":[[1,2,3],[1,2]]}', "ragged to fit": b'{"instances":[[1,2],[3,4,5,6]]}',
    "nested": b'{"instances":[[[1,2,3]]]}', "nested to fit": b'{"instances":[[1,[2,3]],[4,5]]}',
    "nested number": b'{"instances":[[1,2,[3]]]}', "row and number": b'{"instances":[[1,2,3],4]}',
    "repeated key": b'{"instances":[[1,2,3]],"instances":[[4,5,6]]}',
    "escaped repeated key": b'{"instances":[[1,2,3]],"\\u0069nstances":[[4,5,6]]}',
    "escaped key": b'{"\\u0069nstances":[[1,2,3]]}', "unknown key": b'{"instances":[[1,2,3]],"x":1}',
    "parameters": b'{"instances":[[1,2,3]],"parameters":{"a":[1,"]["]}}',
    "null parameters": b'{"instances":[[1,2,3]],"parameters":null,"signature_name":null}',
    "null unknown key": b'{"instances":[[1,2,3]],"x":null}',
    "repeated inner key": b'{"instances":[[1,2,3]],"parameters":{"a":1,"a":2}}',
    "signature": b'{"signature_name":"a\\"b","instances":[[1,2,3]]}',
    "lone surrogate": b'{"instances":[[1,2,3]],"parameters":"\\ud800"}',
    "surrogate bytes": b'{"instances":[[1,2,3]],"parameters":"\xed\xa0\x80"}',
    "invalid UTF-8": b'{"instances":[[1,2,3]],"parameters":"\xff"}', "invalid key": b'{"instances\xff":[[1,2,3]]}',
    "byte order mark": BYTE_ORDER_MARK + b'{"instances":[[1,2,3]]}',
    "two byte order marks": 2 * BYTE_ORDER_MARK + b'{"instances":[[1,2,3]]}',
    "UTF-16": '{"instances":[[1,2,3]]}'.encode("utf-16"),
    "trailing text": b'{"instances":[[1,2,3]]}x', "trailing object": b'{"instances":[[1,2,3]]}{}',
    "trailing bracket": b'{"instances":[[1,2,3]]}]', "trailing zero byte": b'{"instances":[[1,2,3]]}\0',
    "trailing comma": b'{"instances":[[1,2,3],]}', "comma in row": b'{"instances":[[1,2,3,]]}',
    "no colon": b'{"instances"}',
    "single quotes": b"{'instances':[[1,2,3]]}", "unfinished": b'{"instances":[[1,2,3]',
    "control": b'{"instances\n":[[1,2,3]]}',
    "other space": '{"instances":[[1,2,\u00a03]]}'.encode(), "form feed": b'{"instances":[[1,2,\x0c3]]}',
    "spread": b' {\n"instances" : [ [ 1 , 2 , 3 ] ] } \r\n',
    "too many rows": b'{"instances":[%b]}' % b",".join([ROW.encode()] * 501),
    "most rows": b'{"instances":[%b]}' % b",".join([ROW.encode()] * 500),
}  # fmt: skip


def nested(levels: int) -> bytes:
    """A body with rows and a list that nests to this depth."""
    return b'{"instances":[[1,2,3]],"parameters":%b}' % (b"[" * (levels - 1) + b"]" * (levels - 1))


CORPUS = (
    WHOLE
    | {f"number {name}": f'{{"instances":[[1,2,{text}]]}}'.encode() for name, text in NUMBERS.items()}
    | {f"depth {levels}": nested(levels) for levels in (2, 63, 64, 65, 66, 1000, 1024, 1025, 100_000)}
    | {f"rows {levels}": b'{"instances":' + b"[" * levels + b"]" * levels + b"}" for levels in (63, 64, 1000, 100_000)}
    | {f"open {levels}": b'{"instances":' + b"[" * levels for levels in (64, 100_000)}
)


def as_v2(body: bytes) -> bytes:
    """A v2 document with the same list as the data of its input."""
    return b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3],' + body.replace(b"instances", b"data")[1:] + b"]}"


@both_dtypes
@pytest.mark.parametrize("name", CORPUS)
def test_all_paths_agree_on_the_corpus(name: str, dtype: np.dtype[Any]) -> None:
    """The paths agree on v1 and v2 bodies, small ones and ones large enough for pysimdjson."""
    for body in (CORPUS[name], CORPUS[name] + b" " * rows_module.SIMDJSON_BYTES_MIN):
        agreed(v1, body, dtype)
    agreed(v2, as_v2(CORPUS[name]), dtype)


@both_dtypes
@pytest.mark.parametrize("name", CORPUS)
def test_the_verdict_matches_the_standard_library(name: str, dtype: np.dtype[Any]) -> None:
    """The strict parser of the standard library decides which documents have rows, and which numbers."""
    body = CORPUS[name]
    expected, found = expected_rows(body), v1(body, dtype)
    if expected is None:
        assert found[0] != "rows"
    else:
        assert found == ("rows", expected.shape, dtype.str, rounded(expected, dtype).tobytes())


def rounded(values: Any, dtype: np.dtype[Any]) -> Any:
    """float64 values in the model's dtype; values that are too large become infinite."""
    with np.errstate(over="ignore"):
        return values.astype(dtype)


def expected_rows(body: bytes) -> Any:
    """The rows of a v1 body in float64, or None if it must be rejected, by a direct implementation of the rules."""
    if nesting(body) > DEPTH:
        return None
    try:
        document = json.loads(
            body.removeprefix(BYTE_ORDER_MARK).decode(),
            object_pairs_hook=unique_keys,
            parse_constant=reject_constant,
            parse_int=number,
            parse_float=number,
        )
        json.dumps(document, ensure_ascii=False).encode()
    except ValueError:
        return None
    if type(document) is not dict or not document.keys() <= {"instances", "parameters", "signature_name"}:
        return None
    rows = document.get("instances")
    if type(rows) is not list or not 0 < len(rows) <= ROWS_MAX:
        return None
    if any(type(row) is not list or len(row) != N or any(type(x) is not float for x in row) for row in rows):
        return None
    return np.array(rows)


def number(text: str) -> float:
    """A number that is finite in float64; -0 without a fraction or an exponent is the integer 0."""
    value = 0.0 if text == "-0" else float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def nesting(text: bytes) -> int:
    """The deepest nesting of lists and objects in a JSON text, without recursion.

    Pythons differ in how deep a text their `json` parses, so the text is measured before it is parsed.
    """
    deepest = level = 0
    for piece in re.finditer(rb'"(?:[^"\\]|\\.)*"?|[][{}]', text, re.DOTALL):
        level += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(piece[0], 0)
        deepest = max(deepest, level)
    return deepest


# Errors


REFUSED = {
    "no JSON": (b"x", "MalformedError", "near character 0"),
    "empty": (b"  ", "MalformedError", "empty"),
    "no UTF-8": (b'{"instances":[[1,2,3,4]],"a":"\xff"}', "MalformedError", "not valid UTF-8"),
    "no object": (b"[]", "MalformedError", "JSON object"),
    "too deep": (nested(DEPTH + 1), "MalformedError", "deeper than 64"),
    "too deep for the parser": (nested(2_000), "MalformedError", "too deeply"),
    "repeated key": (WHOLE["repeated key"], "MalformedError", 'same key twice, "instances"'),
    "escaped repeated key": (WHOLE["escaped repeated key"], "MalformedError", 'same key twice, "instances"'),
    "repeated inner key": (WHOLE["repeated inner key"], "MalformedError", 'same key twice, "a"'),
    "1e999": (CORPUS["number 1e999"], "MalformedError", "too large for a 64-bit float"),
    "NaN": (CORPUS["number NaN"], "MalformedError", "near character"),
    "unknown field": (WHOLE["unknown key"], "UnacceptableError", 'an unknown field, "x"; known fields are instances'),
    "no field": (b"{}", "UnacceptableError", '"instances"'),
    "no list": (WHOLE["no list"], "UnacceptableError", "list of at least one row"),
    "no rows": (WHOLE["empty list"], "UnacceptableError", "list of at least one row"),
    "no row": (WHOLE["row and number"], "UnacceptableError", "Row 1 must be a list of 3 numbers"),
    "ragged": (WHOLE["ragged"], "UnacceptableError", "Row 1 has 2 values; this model takes 3"),
    "nested": (WHOLE["nested number"], "UnacceptableError", "Row 0 has a value that is not a number"),
    "boolean": (CORPUS["number true"], "UnacceptableError", "Row 0 has a value that is not a number"),
    "string": (CORPUS["number string"], "UnacceptableError", "Row 0 has a value that is not a number"),
    "null": (CORPUS["number null"], "UnacceptableError", "Row 0 has a value that is not a number"),
    "too many rows": (WHOLE["too many rows"], "TooLargeError", "at most 500 rows"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_errors_say_what_to_change(name: str) -> None:
    """Each error has its class and message, whichever path finds it."""
    body, leaf, words = REFUSED[name]
    found = agreed(v1, body, FLOAT32)
    assert found[0] == leaf
    assert words in found[1]


@pytest.mark.parametrize("place", [
    "%s", '"%s"', '{"ü%s":1}', '{"instances":"%s"}', '{"instances":["%s"]}', '{"instances":[[1,2,"%s"]]}',
    '{"instances":[[1,2,%s]]}', '{"instances":[[1,2,3]],"ü%s":1}', '{"instances":[[1,2,3]],"ü%s":1,"ü%s":2}',
    '{"instances":[[1,2,3]]}%s', '{"instances":[[1,2]],"parameters":"%s"}', '{"instances":[[1,2,{"%s":1}]]}',
    '{"instances":[[1,2,3]],"parameters":{"%s":1e999}}', '{"instances":[[1,2,3]],"parameters":"%s\\ud800"}',
])  # fmt: skip
def test_errors_do_not_repeat_the_input(place: str) -> None:
    """No message contains a short or a long text of the input; `verdict` checks every message."""
    for canary in (CANARY, CANARY * 50_000):
        assert agreed(v1, place.replace("%s", canary).encode(), FLOAT32)[0] != "rows"


@pytest.mark.parametrize("text", ["1e39", "-1e39", "3.4028235677973366e38", "1" + "0" * 300, "1e308"])
def test_the_model_rejects_numbers_that_overflow_its_dtype(text: str) -> None:
    """The parser returns an infinite value, and the model rejects it."""
    model = LinearModel("softmax", np.ones((N, 2), np.float32), np.zeros(2, np.float32))
    body = f'{{"instances":[[1,2,{text}]]}}'.encode()
    assert np.isinf(np.frombuffer(agreed(v1, body, FLOAT32)[3], np.float32)).any()
    for path in PATHS:
        with reading(path, FLOAT32) as rows, pytest.raises(UnacceptableError, match="finite"):
            model.predict(rows.parse_instances(body))


@both_dtypes
def test_a_binary_row_of_the_dtype_is_copied_to_the_buffer(dtype: np.dtype[Any]) -> None:
    """A row in the model's own dtype needs no array of its own."""
    rows, values = RowParser(N, dtype, ROWS_MAX, DEPTH), np.array([1, 2.5, -3], dtype)
    first, second = (rows.convert_binary(data, f"<f{dtype.itemsize}", 1) for data in (bytes(values), bytes(values * 2)))
    assert first is second
    assert first.tolist() == [[2, 5, -6]]


# Generated documents


LITERALS = ["true", "null", '"1"', "[]", "[1]", "{}", "1e39", "-1e400", "01", "-", str(2**70), "NaN"]
number_texts = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(2**70), 2**70).map(str),
    st.decimals(allow_nan=False, allow_infinity=False, places=20, min_value=-100, max_value=100).map(str),
)
element_texts = st.one_of(number_texts, number_texts, number_texts, st.sampled_from(LITERALS))
row_texts = st.one_of(
    st.lists(number_texts, min_size=N, max_size=N), st.lists(element_texts, min_size=N - 1, max_size=N + 1)
).map(lambda row: f"[{','.join(row)}]")
matrix_texts = st.one_of(
    st.lists(st.lists(number_texts, min_size=N, max_size=N).map(lambda row: f"[{','.join(row)}]"), max_size=5),
    st.lists(st.one_of(row_texts, element_texts), max_size=5),
).map(lambda rows: f"[{','.join(rows)}]")
json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@unhurried
@given(matrix_texts, json_values, st.sampled_from([None, "parameters", "instances", "x"]))
def test_all_paths_agree_on_generated_rows(matrix: str, more: Any, key: str | None) -> None:
    """The rows and the other fields of a v1 document are arbitrary."""
    beside = "" if key is None else f',"{key}":{json.dumps(more, ensure_ascii=False)}'
    body = f'{{"instances":{matrix}{beside}}}'.encode()
    expected = expected_rows(body)
    for dtype in (FLOAT32, FLOAT64):
        found = agreed(v1, body, dtype)
        assert (found[0] == "rows") == (expected is not None)
        if expected is not None:
            assert found[3] == rounded(expected, dtype).tobytes()


@unhurried
@given(
    st.one_of(matrix_texts, st.lists(element_texts, max_size=3 * N).map(lambda texts: f"[{','.join(texts)}]")),
    st.lists(st.integers(-1, 5), max_size=3) | st.just([1, N]) | st.just([2, N]),
    st.dictionaries(st.sampled_from(["id", "outputs", "parameters", "x"]), json_values, max_size=2),
    st.dictionaries(st.sampled_from(["parameters", "name", "datatype"]), json_values, max_size=1),
)
def test_all_paths_agree_on_generated_tensors(
    data: str, shape: list[int], more: dict[str, Any], inner: dict[str, Any]
) -> None:
    """The tensor and the other fields of a v2 document are arbitrary."""
    fields = json.dumps({"name": "x", "datatype": "FP32", "shape": shape, **inner}, ensure_ascii=False)
    rest = json.dumps(more, ensure_ascii=False)[1:-1]
    agreed(v2, f'{{"inputs":[{fields[:-1]},"data":{data}}}]{"," if rest else ""}{rest}}}'.encode(), FLOAT32)


LEAST_DEPTH = next(bound.ge for bound in Settings.model_fields["json_depth_max"].metadata if isinstance(bound, Ge))


@unhurried
@given(
    st.integers(LEAST_DEPTH, LEAST_DEPTH + 4),
    st.sampled_from(["nowhere", "body", "tensor", "output"]),
    st.integers(1, 9),
    st.integers(1, 3),
    st.booleans(),
)
def test_all_paths_stop_at_the_same_depth(depth_max: int, place: str, levels: int, count: int, flat: bool) -> None:  # noqa: FBT001
    """Every path counts the same levels for every limit."""

    def deep(here: str) -> dict[str, Any]:
        return {"parameters": {"deep": json.loads("[" * levels + "]" * levels)}} if here == place else {}

    rows = [[0.5] * N] * count
    data = [0.5] * (N * count) if flat else rows
    tensor = {"name": "x", "shape": [count, N], "datatype": "FP32", "data": data}
    inputs, outputs = [{**tensor, **deep("tensor")}], [{"name": "labels", **deep("output")}]
    v1_document = {"instances": rows, **deep("body")}
    v2_document = {"inputs": inputs, **({"outputs": outputs} if place == "output" else {}), **deep("body")}
    for judge, document in ((v1, v1_document), (v2, v2_document)):
        body = json.dumps(document).encode()
        verdicts = {path: judge(body, FLOAT32, path, depth_max) for path in PATHS}
        assert set(verdicts.values()) == {verdicts["general"]}, verdicts
        assert (verdicts["general"][0] == "MalformedError") == (nesting(body) > depth_max)


@given(st.binary(max_size=60), st.integers(0, 60), st.integers(0, 7))
def test_all_paths_agree_on_damaged_documents(damage: bytes, place: int, cut: int) -> None:
    """Any bytes replace any part of a valid document."""
    for good, judge in ((WHOLE["spread"], v1), (as_v2(b'{"instances":[[1,2,3]]}'), v2)):
        agreed(judge, good[:place] + damage + good[place + cut :], FLOAT32)


def test_all_paths_agree_on_cut_documents() -> None:
    """Every proper prefix of a valid document is malformed."""
    for good, judge in ((WHOLE["spread"], v1), (as_v2(WHOLE["parameters"]), v2)):
        for end in range(len(good.rstrip())):
            assert agreed(judge, good[:end], FLOAT32)[0] == "MalformedError"


@unhurried
@given(st.data(), st.integers(1, 70), st.integers(1, 4))
def test_rows_of_any_width_are_parsed(data: st.DataObject, width: int, count: int) -> None:
    """Rows of 1 to 70 numbers are parsed exactly."""
    finite = st.floats(allow_nan=False, allow_infinity=False, width=32)
    matrix = [data.draw(st.lists(finite, min_size=width, max_size=width)) for _ in range(count)]
    body = json.dumps({"instances": matrix}).encode()
    for path in PATHS:
        for dtype in (FLOAT32, FLOAT64):
            with reading(path, dtype, width) as rows:
                assert rows.parse_instances(body).tobytes() == np.array(matrix, dtype).tobytes()


# Exactness


@unhurried
@given(st.lists(number_texts, min_size=N, max_size=N))
def test_decimals_become_float64_and_then_the_dtype(texts: list[str]) -> None:
    """Each number is rounded to the nearest float64, and that to the nearest float32."""
    doubles = np.array([nearest(text) for text in texts])
    for dtype in (FLOAT32, FLOAT64):
        found = agreed(v1, f'{{"instances":[[{",".join(texts)}]]}}'.encode(), dtype)
        assert np.array_equal(np.frombuffer(found[3], dtype), rounded(doubles, dtype)[: len(found[3])])


def nearest(text: str) -> float:
    """The float64 nearest to a decimal; exact arithmetic shows that no neighbor is nearer."""
    value, exact = float(text), Fraction(text)
    if math.isfinite(value):
        error = abs(Fraction(value) - exact)
        for other in (math.nextafter(value, math.inf), math.nextafter(value, -math.inf)):
            assert not math.isfinite(other) or error <= abs(Fraction(other) - exact)
    return value


# Paths and buffers


def test_all_bodies_are_parsed_without_pysimdjson(monkeypatch: pytest.MonkeyPatch) -> None:
    """If pysimdjson is not installed, the module can be imported and the other parsers are used."""
    monkeypatch.setitem(sys.modules, "simdjson", None)
    spec = importlib.util.spec_from_file_location("rows_without_simdjson", rows_module.__file__)
    assert spec is not None
    assert spec.loader is not None
    alone = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(alone)
    rows = alone.RowParser(N, FLOAT32, ROWS_MAX, DEPTH)
    for numbers in ([1, 2.5, -3], [1e-30, 0.1234567890123456789, 2**63]):
        for count in (1, 2, 400):
            body = json.dumps({"instances": [numbers] * count}).encode()
            assert verdict(lambda body=body: rows.parse_instances(body)) == v1(body)  # type: ignore[misc]
    assert verdict(lambda: rows.parse_instances(WHOLE["ragged"])) == v1(WHOLE["ragged"])


@pytest.mark.parametrize(("path", "body", "unused"), [
    ("as set", WHOLE["most rows"], ["parse_object", "orjson"]),
    ("pysimdjson", WHOLE["most rows"], ["parse_object", "orjson"]),
    ("one row", b'{"instances":[[1,2,3]]}', ["parse_object"]),
])  # fmt: skip
def test_each_path_is_used(path: str, body: bytes, unused: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A path gives the rows even if the parsers after it are removed."""
    for name in unused:
        monkeypatch.setattr(rows_module, name, None)
    assert v1(body, FLOAT32, path)[0] == "rows"


def test_pysimdjson_parses_large_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flat data and rows of a v2 body are parsed with the general parser removed."""
    monkeypatch.setattr(rows_module, "parse_object", None)
    rows = ",".join([ROW] * 300).encode()
    for data in (rows, rows.replace(b"[", b"").replace(b"]", b"")):
        text = b'{"id":"a","inputs":[{"name":"x","datatype":"FP32","shape":[300,3],"data":[' + data + b"]}]}"
        assert v2(text)[0] == "rows"


@pytest.mark.parametrize("path", PATHS)
def test_a_rejected_row_does_not_affect_the_next(path: str) -> None:
    """The buffer of a single row and the parser are reused after an error."""
    with reading(path, FLOAT32) as rows:
        for name in (
            "ragged",
            "nested",
            "trailing text",
            "number string",
            "number 1e39",
            "too many rows",
            "unfinished",
        ):
            verdict(lambda name=name: rows.parse_instances(CORPUS[name]))  # type: ignore[misc]
            assert rows.parse_instances(b'{"instances":[[4,5,6]]}').tolist() == [[4, 5, 6]]
            assert rows.parse_instances(b'{"instances":[[4,5,6],[7,8,9]]}').tolist() == [[4, 5, 6], [7, 8, 9]]


@pytest.mark.parametrize("path", PATHS)
def test_several_rows_keep_their_values(path: str) -> None:
    """Only a single row is in a shared buffer; the rows of a batch are not overwritten."""
    with reading(path, FLOAT32) as rows:
        first = rows.parse_instances(b'{"instances":[[1,2,3],[4,5,6]]}')
        rows.parse_instances(b'{"instances":[[7,8,9],[7,8,9]]}')
        rows.parse_instances(b'{"instances":[[7,8,9]]}')
        assert first.tolist() == [[1, 2, 3], [4, 5, 6]]
