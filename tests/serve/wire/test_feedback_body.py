"""All parsers of feedback agree: on every byte of an event, and on the error of a body that is rejected.

There are three parsers: of one row in the usual form, of a matrix that is cut out of its body, and the general one. The
first two are compared with the third, and the third with the definition of a payload.
"""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InputError, MalformedError, TooLargeError, UnacceptableError
from service.serve.wire import feedback_body as posts
from service.serve.wire.feedback_body import NumberFeedbackParser, PostedEvent, PostedTokens
from service.serve.wire.labels import LabelParser
from service.serve.wire.rows import RowParser, parse_object
from service.serve.wire.table_rows import TableParser
from service.store.log.events import ID_BYTES_MAX
from service.store.log.feedback_blocks import decode_rows
from service.store.log.feedback_payload import Targets, encode_rows
from tests.support.budgets import examples
from tests.support.http_requests import as_base64
from tests.support.json_numbers import CANARY, NUMBERS
from tests.support.json_reference import checked_message

N, DEPTH, ROWS_MAX = 3, 64, 50
FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
NAMES = ("a", "b", "ü\n", "instances")
FEATURES = ("x", "y", "instances")
OURS = b"0190163d-8694-739b-aea5-966c26f8ad91"
unhurried = settings(deadline=None, max_examples=examples(500))
both_dtypes = pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)


@pytest.fixture(autouse=True, scope="module")
def _one_id() -> Iterator[None]:
    """Every generated id is the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(posts, "new_id", lambda: OURS)
        yield


def reader(
    dtype: np.dtype[Any] = FLOAT32, names: tuple[str, ...] = NAMES, *, multilabel: bool = False
) -> NumberFeedbackParser:
    tables = TableParser(RowParser(N, dtype, ROWS_MAX, DEPTH), FEATURES)
    return NumberFeedbackParser(tables, LabelParser(names, multilabel=multilabel))


def refused(reason: InputError) -> tuple[str, str]:
    """The class and message of an error, which is one short sentence without the input."""
    return type(reason).__name__, checked_message(reason)


def agreed(body: bytes, dtype: np.dtype[Any] = FLOAT32, *, multilabel: bool = False) -> Any:
    """The result of all parsers; a fast parser may return None, and must if the general one rejects the body."""
    parser = reader(dtype, multilabel=multilabel)
    try:
        # `parse_feedback` chooses one of three parsers; comparing them needs each on its own.
        general: Any = parser._parse_any(parse_object(body, DEPTH, ROWS_MAX))
    except InputError as reason:
        general = refused(reason)
    # As above: each fast parser on its own.
    for quick in (parser._parse_single_row, parser._parse_many_rows):
        result = quick(body)
        assert result is None or result == general, (quick.__name__, body)
    try:
        answer: Any = parser.parse_feedback(body)
    except InputError as reason:
        answer = refused(reason)
    assert answer == general, body
    return general


def body_of(instances: str = "[[1,2.5,-3]]", labels: str = '["a"]', id_: str = '"e"', **others: str) -> bytes:
    """A body made of the text of each field."""
    fields = {"id": id_, "instances": instances, "labels": labels, **others}
    return ("{" + ",".join(f'"{name}":{text}' for name, text in fields.items() if text) + "}").encode()


TWO = "[[1,2.5,-3],[4,5,6]]"
BODIES = {
    "usual": body_of(), "index": body_of(labels="[1]"), "no id": body_of(id_=""),
    "the last class": body_of(labels="[3]"), "beyond it": body_of(labels="[4]"), "minus one": body_of(labels="[-1]"),
    "minus zero": body_of(labels="[-0]"), "huge index": body_of(labels=f"[{2**63}]"),
    "huger index": body_of(labels=f"[{2**70}]"),
    "float index": body_of(labels="[1.0]"), "true": body_of(labels="[true]"), "null": body_of(labels="[null]"),
    "unknown name": body_of(labels=f'["{CANARY}"]'), "empty name": body_of(labels='[""]'),
    "escaped name": body_of(labels='["\\u0061"]'), "name with escapes": body_of(labels='["ü\\n"]'),
    "the name instances": body_of(labels='["instances"]'), "labels are a text": body_of(labels='"a"'),
    "labels are an object": body_of(labels='{"a":1}'), "labels are a number": body_of(labels="1"),
    "no labels": body_of(labels=""), "empty labels": body_of(labels="[]"), "two labels": body_of(labels='["a","b"]'),
    "label is an object": body_of(labels="[{}]"), "distribution": body_of(labels="[[0.5,0.5,0,0]]"),
    "list of names": body_of(labels='[["a","b"]]'), "empty list": body_of(labels="[[]]"),
    "instances are a text": body_of('"abc"'), "instances are an object": body_of('{"a":[1,2,3]}'),
    "row is a text": body_of('["abc"]'), "row is an object": body_of('[{"a":1,"b":2,"c":3}]'),
    "row by name": body_of('[{"instances":-3,"x":1,"y":2.5}]'), "vector": body_of('[{"features":[1,2.5,-3]}]'),
    "base64": body_of(json.dumps(as_base64([[1, 2.5, -3]]))),
    "base64 and a list": body_of(json.dumps([*as_base64([[1, 2.5, -3]], "<f2"), [4, 5, 6]]), "[1,1]"),
    "base64 of the wrong size": body_of(json.dumps(as_base64([[1, 2.5]]))),
    "NaN in base64": body_of(json.dumps(as_base64([[1, 2.5, float("nan")]]))),
    "rows of both": body_of('[{"x":1,"y":2.5,"instances":-3},[4,5,6]]', '["a","b"]'),
    "row of texts": body_of('[["1","2","3"]]'), "row of booleans": body_of("[[1,2,true]]"),
    "short row": body_of("[[1,2]]"), "long row": body_of("[[1,2,3,4]]"), "empty row": body_of("[[]]"),
    "no instances": body_of(""), "no rows": body_of("[]"), "null instances": body_of("null"),
    "too large for float32": body_of("[[1e39,2,3]]"), "too large for float64": body_of("[[1e309,2,3]]"),
    "rounds to infinity": body_of("[[3.4028235677973366e38,2,3]]"),
    "integer of 64 bits": body_of("[[18446744073709551615,2,3]]"), "longer": body_of("[[18446744073709551616,2,3]]"),
    "empty id": body_of(id_='""'), "null id": body_of(id_="null"), "number id": body_of(id_="7"),
    "list id": body_of(id_='["e"]'), "longest id": body_of(id_=f'"{"ü" * (ID_BYTES_MAX // 2)}"'),
    "too long id": body_of(id_=f'"{"ü" * (ID_BYTES_MAX // 2)}x"'), "escaped id": body_of(id_='"a\\"b"'),
    "surrogate id": body_of(id_='"\\ud800"'), "zero byte id": body_of(id_='"\\u0000"'),
    "id is a key": body_of(id_='"instances"'), "id twice": b'{"id":"e",' + body_of()[1:],
    "labels twice": b'{"labels":["b"],' + body_of()[1:], "instances twice": b'{"instances":[[7,8,9]],' + body_of()[1:],
    "escaped key twice": b'{"\\u0069d":"x",' + body_of()[1:],
    "unknown field": body_of(more=f'"{CANARY}"'), "parameters": body_of(parameters='{"a":[[1]]}'),
    "signature": body_of(signature_name='"s"'), "parameters twice inside": body_of(parameters='{"a":1,"a":2}'),
    "nested instances": b'{"parameters":{"instances":[[7,8,9],[7,8,9]]},' + body_of(TWO, '["a","b"]')[1:],
    "instances only nested": b'{"parameters":{"instances":[[7,8,9],[7,8,9]]},"labels":[1,2]}',
    "nested and null": b'{"parameters":{"instances":[[7,8,9],[7,8,9]]},"instances":null,"labels":[1,2]}',
    "key in a text": b'{"parameters":"\\"instances\\":[[1,2,3],[4,5,6]]","labels":[1,2]}',
    "rows elsewhere": b'{"instances":null,"parameters":[[1,2,3],[4,5,6]],"labels":[1,2]}',
    "rows behind a quote": b'{"parameters":{"x\\"instances":[[1,2,3],[4,5,6]]},"\\u0069nstances":null,"labels":[1,2]}',
    "key with a quote": b'{"x\\"instances":[[1,2,3],[4,5,6]],"labels":[1,2]}',
    "weight": body_of(weights="[2.5]"), "heaviest": body_of(weights="[100]"), "too heavy": body_of(weights="[100.001]"),
    "no weight": body_of(weights="[0]"), "negative": body_of(weights="[-1e300]"),
    "vanishing": body_of(weights="[1e-60]"),
    "infinite": body_of(weights="[1e999]"), "true weight": body_of(weights="[true]"),
    "text weight": body_of(weights='["1"]'), "weights are a number": body_of(weights="1"),
    "weights are null": body_of(weights="null"), "two weights": body_of(weights="[1,1]"),
    "two rows": body_of(TWO, '["a","b"]'), "two indices": body_of(TWO, "[1,3]"), "mixed": body_of(TWO, '["a",3]'),
    "one too large": body_of(TWO, "[1,4]"), "negative among": body_of(TWO, "[1,-1]"),
    "boolean": body_of(TWO, "[1,true]"),
    "one unknown": body_of(TWO, f'["a","{CANARY}"]'), "one label for two": body_of(TWO, "[1]"),
    "three for two": body_of(TWO, "[1,1,1]"), "distribution among": body_of(TWO, "[[0.5,0.5,0,0],1]"),
    "two weighted": body_of(TWO, "[1,1]", weights="[1,2]"), "nested rows": body_of("[[[1,2,3]],[[1,2,3]]]", "[1,1]"),
    "ragged": body_of("[[1,2,3],[1,2]]", "[1,1]"), "rows cut": body_of("[[1,2,3],[1,2,3]", "[1,1]"),
    "one bracket too many": body_of("[[1,2,3],[1,2,3]]]", "[1,1]"),
    "large among rows": body_of("[[1,2,3],[1,2,1e39]]", "[1,1]"),
    "text in rows": body_of('[[1,2,3],[1,2,"3"]]', "[1,1]"),
    "instances last": b'{"labels":[1,2],"instances":' + TWO.encode() + b"}",
    "white space": b' {\t"labels" : [ 1 , 2 ] ,\r\n"instances"\n:\n[\n [ 1,2 , 3 ]\n , [ 1,2,3 ] \n] \n } ',
    "vertical tab": b'{"labels":[1,2],"instances":\x0b[[1,2,3],[1,2,3]]}',
    "no colon": body_of(TWO).replace(b":[[", b"[["),
    "two colons": body_of(TWO).replace(b":[[", b"::[["), "comma at the end": body_of(TWO, "[1,1],"),
    "comma in rows": body_of("[[1,2,3],[1,2,3],]", "[1,1]"), "mark": b"\xef\xbb\xbf" + body_of(TWO, "[1,1]"),
    "behind it": body_of(TWO, "[1,1]") + b"x", "zero byte": body_of(TWO, "[1,1]") + b"\0",
    "no UTF-8": body_of(id_='"\xff"'),
    "list": b"[]", "empty": b"", "spaces": b"  ", "null body": b"null", "only a key": b'{"instances":',
    "brackets": b"[[[[", "deep": body_of(parameters="[" * 70 + "]" * 70), "deep rows": body_of("[" * 70 + "]" * 70),
    "most rows": body_of(str([[1, 2, 3]] * ROWS_MAX), str([1] * ROWS_MAX)),
    "too many rows": body_of(str([[1, 2, 3]] * (ROWS_MAX + 1)), str([1] * (ROWS_MAX + 1))),
    "tokens": b'{"tokens":["t","uu"],"labels":["a",2]}', "tokens and an id": b'{"tokens":["t"],"labels":[1],"id":"e"}',
    "tokens and rows": body_of(tokens='["t"]'), "tokens and two rows": body_of(TWO, "[1,1]", id_="", tokens='["t"]'),
    "no tokens": b'{"tokens":[],"labels":[]}',
    "a number for a token": b'{"tokens":["t",1],"labels":[1,2]}', "tokens are a text": b'{"tokens":"t","labels":[1]}',
    "tokens are null": b'{"tokens":null,"labels":[1]}',
    "weighted tokens": b'{"tokens":["t"],"labels":[1],"weights":[3]}',
    "fewer labels than tokens": b'{"tokens":["t","u"],"labels":[1]}',
    "too many tokens": orjson.dumps({"tokens": ["t"] * (ROWS_MAX + 1), "labels": [1] * (ROWS_MAX + 1)}),
    "weights that are none": b'{"tokens":["t"],"labels":[1],"weights":[0]}',
}  # fmt: skip


@both_dtypes
@pytest.mark.parametrize("multilabel", [False, True], ids=["single", "multilabel"])
@pytest.mark.parametrize("name", BODIES)
def test_parsers_agree_on_doubtful_bodies(name: str, multilabel: bool, dtype: np.dtype[Any]) -> None:  # noqa: FBT001
    """Valid and invalid bodies of many kinds give the same result."""
    agreed(BODIES[name], dtype, multilabel=multilabel)


@pytest.mark.parametrize("text", NUMBERS.values(), ids=list(NUMBERS))
@both_dtypes
def test_parsers_agree_on_every_number(text: str, dtype: np.dtype[Any]) -> None:
    """A number may be a feature in one row or several, a weight or a label."""
    for body in (
        body_of(f"[[1,{text},2]]"),
        body_of(f"[[1,{text},2],[1,2,3]]", "[1,1]"),
        body_of(weights=f"[{text}]"),
        body_of(labels=f"[{text}]"),
        body_of(TWO, f"[0,{text}]"),
        body_of(labels=f"[[{text},0,0,1]]"),
    ):
        agreed(body, dtype)


@unhurried
@given(data=st.data())
def test_parsers_agree_on_damaged_bodies(data: st.DataObject) -> None:
    """Bytes of a body are changed, removed or inserted."""
    body = data.draw(st.sampled_from(sorted(BODIES.values())))
    at = data.draw(st.integers(0, len(body)))
    piece = data.draw(st.sampled_from([b"", b'"', b"\\", b"[", b"]", b",", b"1", b" ", b"{", b"}", b":", b"]]", b"\0"]))
    agreed(body[:at] + piece + body[at + data.draw(st.integers(0, 2)) :])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 5) | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([*NAMES, "x", ""]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "id"]), inner, max_size=2),
    max_leaves=8,
)  # fmt: skip
good_rows = st.lists(
    st.lists(st.integers(-9, 9) | st.floats(-1e3, 1e3), min_size=N, max_size=N), min_size=1, max_size=5
)
good_labels = st.lists(st.integers(0, 3) | st.sampled_from(NAMES) | st.just([0.25] * 4), min_size=1, max_size=5)


@unhurried
@given(
    fields=st.fixed_dictionaries(
        {"instances": good_rows | json_values, "labels": good_labels | json_values},
        optional={
            "id": st.text(max_size=4) | json_values,
            "weights": st.lists(st.floats(0, 101), max_size=5) | json_values,
            "parameters": json_values,
            "x": json_values,
        },
    ),
    order=st.randoms(use_true_random=False),
    indent=st.sampled_from([None, 1]),
    multilabel=st.booleans(),
)
def test_parsers_agree_on_any_document(
    fields: dict[str, Any],
    order: Any,
    indent: int | None,
    multilabel: bool,  # noqa: FBT001
) -> None:
    """Fields of any kind come in any order, with and without white space."""
    keys = list(fields)
    order.shuffle(keys)
    text = json.dumps({key: fields[key] for key in keys}, indent=indent, ensure_ascii=indent is None)
    agreed(text.encode("utf-8", "surrogatepass"), multilabel=multilabel)


# Events


@both_dtypes
def test_a_single_row_becomes_one_event(dtype: np.dtype[Any]) -> None:
    """The payload is that of store/log/feedback_payload.py."""
    X = np.array([[0.1, -2.5, 1e-40]], dtype)
    body = body_of("[[0.1,-2.5,1e-40]]", '["b"]', '"ü"')
    payload = encode_rows(X, np.array([1]), Targets.INDEX, 4)
    # `parse_feedback` would hide that the fast parser was unsure.
    assert reader(dtype)._parse_single_row(body) == PostedEvent("ü".encode(), payload, 1)


def test_the_fast_parsers_accept_usual_bodies() -> None:
    """The fast parsers return an event, not None, for the usual bodies."""
    # `parse_feedback` would hide that a fast parser was unsure.
    for name in ("two rows", "two indices", "two weighted", "instances last", "white space", "most rows"):
        assert isinstance(reader()._parse_many_rows(BODIES[name]), PostedEvent), name
    # As above.
    for name in ("usual", "index", "no id"):
        assert isinstance(reader()._parse_single_row(BODIES[name]), PostedEvent), name


def test_an_event_has_rows_targets_and_weights() -> None:
    """The payload of several rows, one with a distribution, decodes to the same values."""
    post = reader().parse_feedback(body_of(TWO, '[[0.5,0.25,0.25,0],"b"]', '"e"', weights="[0.5,100]"))
    assert isinstance(post, PostedEvent)
    assert (post.id, post.rows) == (b"e", 2)
    block = decode_rows(post.payload)
    assert block.layout.targets == Targets.DISTRIBUTION
    assert block.X.tolist() == [[1, 2.5, -3], [4, 5, 6]]
    assert block.targets.tolist() == [[0.5, 0.25, 0.25, 0], [0, 1, 0, 0]]
    assert block.weights is not None
    assert block.weights.tolist() == [0.5, 100]


def test_an_event_without_an_id_gets_one() -> None:
    for body in (body_of(id_=""), body_of(TWO, "[1,1]", id_=""), body_of(id_="", weights="[1]")):
        post = reader().parse_feedback(body)
        assert isinstance(post, PostedEvent)
        assert post.id == OURS


def test_tokens_are_parsed_without_their_versions() -> None:
    """Labels and weights wait for the version that issued their token; their number and range are checked."""
    posted = reader().parse_feedback(b'{"tokens":["t","uu"],"labels":["unknown",2],"weights":[1,2.5]}')
    assert posted == PostedTokens(["t", "uu"], ["unknown", 2], [1, 2.5])


@pytest.mark.parametrize(
    ("name", "error", "word"),
    [
        ("unknown field", UnacceptableError, "unknown field"), ("no labels", UnacceptableError, '"labels"'),
        ("two labels", UnacceptableError, "2 labels for 1 rows"), ("no instances", UnacceptableError, '"tokens"'),
        ("too many rows", TooLargeError, "50 rows"), ("too many tokens", TooLargeError, "50 rows"),
        ("tokens and an id", UnacceptableError, '"id"'), ("tokens and rows", UnacceptableError, '"instances"'),
        ("id twice", MalformedError, "same key twice"), ("no weight", UnacceptableError, "above 0"),
        ("vanishing", UnacceptableError, "above 0"), ("too heavy", UnacceptableError, "at most 100"),
        ("two weights", UnacceptableError, "for each row"), ("empty id", UnacceptableError, "1 to 128 bytes"),
        ("too long id", UnacceptableError, "1 to 128 bytes"), ("too large for float32", UnacceptableError, "dtype"),
        ("unknown name", UnacceptableError, ":classes"),
        ("NaN in base64", UnacceptableError, "dtype"), ("base64 of the wrong size", UnacceptableError, "8 bytes"),
        ("large among rows", UnacceptableError, "dtype"), ("surrogate id", MalformedError, "JSON"),
    ],
)  # fmt: skip
def test_errors_say_what_to_change(name: str, error: type[InputError], word: str) -> None:
    with pytest.raises(error, match=word) as caught:
        reader().parse_feedback(BODIES[name])
    refused(caught.value)


@pytest.mark.parametrize("name", ["row by name", "vector", "base64"])
def test_rows_by_name_are_the_same_event(name: str) -> None:
    """A row as an object has the payload of the row in the order of the features."""
    assert agreed(BODIES[name]) == agreed(BODIES["usual"])


@both_dtypes
@pytest.mark.parametrize("datatype", ["<f4", "<f2"])
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_rows_in_base64_are_the_same_event(dtype: np.dtype[Any], datatype: str, data: st.DataObject) -> None:
    """Rows in base64 have the payload of the same numbers as JSON, whether they are one row or several."""
    largest = float(np.finfo(datatype).max)
    number = st.floats(-largest, largest, width=16 if datatype == "<f2" else 32)
    rows = data.draw(st.lists(st.lists(number, min_size=N, max_size=N), min_size=1, max_size=4))
    labels = json.dumps([1] * len(rows))
    expected = agreed(body_of(json.dumps(rows), labels), dtype)
    assert isinstance(expected, PostedEvent)
    assert agreed(body_of(json.dumps(as_base64(rows, datatype)), labels), dtype) == expected


@given(
    st.lists(st.lists(st.floats(-1e6, 1e6) | st.integers(-9, 9), min_size=N, max_size=N), min_size=1, max_size=4),
    st.permutations(range(N)),
    st.booleans(),
)
@settings(deadline=None, max_examples=examples(100))
def test_every_form_of_rows_is_the_same_event(rows: list[list[float]], order: list[int], numbered: bool) -> None:  # noqa: FBT001
    """The order of columns does not matter, and neither does the member that has the rows."""
    names = [FEATURES[j] for j in order]
    records = [{name: row[j] for name, j in zip(names, order, strict=True)} for row in rows]
    split = {"columns": names, "data": [list(record.values()) for record in records]}
    if numbered:
        split = {"columns": list(range(N)), "data": rows}
    beside = {"id": "a", "labels": [0] * len(rows)}
    expected = reader().parse_feedback(json.dumps({"instances": rows, **beside}).encode())
    for form, value in (
        ("instances", records),
        ("inputs", {name: [record[name] for record in records] for name in names}),
        ("inputs", rows),
        ("dataframe_split", split),
        ("dataframe_records", records),
    ):
        assert agreed(json.dumps({form: value, **beside}).encode()) == expected


@pytest.mark.parametrize("other", ["inputs", "dataframe_split", "dataframe_records"])
def test_rows_come_in_one_form(other: str) -> None:
    """Two forms, or tokens beside one, are refused; a member that is null does not count."""
    rows = [[1.5] * N] * 2
    body = {"instances": rows, "labels": [0, 1], "id": "a", other: rows}
    assert "exactly one of" in agreed(json.dumps(body).encode())[1]
    assert isinstance(agreed(json.dumps({**body, other: None}).encode()), PostedEvent)
    tokens = {"tokens": ["AA"], "labels": [0], other: rows}
    assert f'without "{other}"' in agreed(json.dumps(tokens).encode())[1]
