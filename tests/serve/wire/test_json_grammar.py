"""The limits of the JSON grammar are checked before a body is parsed."""

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import MalformedError, TooLargeError, UnacceptableError
from service.serve.wire import json_grammar as grammar
from service.serve.wire.feature_columns import FeatureColumns
from service.serve.wire.json_grammar import (
    REPEATED_KEY_BYTES_MAX,
    check_container_count,
    containers_max,
    known_fields,
    measure_document,
    parse_object,
)
from service.serve.wire.oip_request import JSON_PROBABILITIES
from service.serve.wire.oip_tensors import TensorCodec
from service.serve.wire.rows import RowParser
from tests.support.http_requests import binary, binary_request, infer, instances, request
from tests.support.server_pair import Pair

DEPTH, ROWS_MAX = 64, 10
MOST = containers_max(ROWS_MAX)
texts = st.text(st.sampled_from('[{"\\a€'), max_size=8)
documents = st.dictionaries(
    texts,
    st.recursive(
        st.integers(-9, 9) | texts | st.none(),
        lambda below: st.lists(below, max_size=5) | st.dictionaries(texts, below, max_size=5),
        max_leaves=40,
    ),
    max_size=5,
)


def measure_recursively(value: Any) -> tuple[int, int, int]:
    """The depth, the strings, and the lists and objects of a JSON value."""
    if type(value) is str:
        return 0, 1, 0
    if type(value) not in {list, dict}:
        return 0, 0, 0
    below = [measure_recursively(child) for child in (value.values() if type(value) is dict else value)]
    keys = len(value) if type(value) is dict else 0
    depth, strings, lists = zip(*below, strict=True) if below else ((0,), (0,), (0,))
    return 1 + max(depth), keys + sum(strings), 1 + sum(lists)


@given(document=documents, chunk=st.integers(1, 64))
def test_depth_strings_and_lists_are_counted(document: dict[str, Any], chunk: int) -> None:
    depth, strings, lists = measure_recursively(document)
    assert measure_document(document) == (depth, strings)
    body = orjson.dumps(document)
    assert parse_object(body, DEPTH, ROWS_MAX) == document
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grammar, "CHUNK_BYTES", chunk)
        patch.setattr(grammar, "OTHER_CONTAINERS_MAX", lists)
        check_container_count(body, 0)
        patch.setattr(grammar, "OTHER_CONTAINERS_MAX", lists - 1)
        with pytest.raises(TooLargeError, match=f"at most {lists - 1} lists and objects"):
            check_container_count(body, 0)


@pytest.mark.parametrize("item", ["[]", "{}", '{"":[]}'])
@pytest.mark.parametrize("kind", ["v1", "beside", "v2", "tensor"])
def test_too_many_lists_are_rejected_before_parsing(monkeypatch: pytest.MonkeyPatch, item: str, kind: str) -> None:
    rows = RowParser(2, np.dtype(np.float32), ROWS_MAX, DEPTH)
    # A v2 body may have an input for each feature, of four lists and objects.
    many = f"[{','.join([item] * (MOST + 4 * rows.n_features))}]"
    data = {
        "v1": f'{{"instances": {many}}}',
        "beside": f'{{"instances": [[1, 2]], "parameters": {many}}}',
        "v2": f'{{"inputs": [{{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}}], '
        f'"parameters": {many}}}',
        "tensor": f'{{"inputs": [{{"name": "x", "shape": [{MOST}, 2], "datatype": "FP32", "data": {many}}}]}}',
    }[kind].encode()
    loaded: list[bytes] = []
    monkeypatch.setattr(grammar.orjson, "loads", loaded.append)
    # The compiled parser of rows has no public name; if there is one, it must not be called.
    monkeypatch.setattr(rows, "_parser", None if rows._parser is None else UnusedParser())
    with pytest.raises(TooLargeError, match="lists and objects"):
        rows.parse_instances(data) if kind in {"v1", "beside"} else TensorCodec(
            rows, FeatureColumns(("f", "g")), {}, {}, ("a", "b")
        ).parse_inference(data, None)
    assert not loaded


class UnusedParser:
    """A parser that must not be called."""

    def parse(self, _body: bytes) -> None:
        pytest.fail("the body was parsed")


def test_brackets_in_strings_do_not_count() -> None:
    rows = RowParser(2, np.dtype(np.float32), ROWS_MAX, DEPTH)
    names = ['\\"[{' * MOST, "[" * MOST, "{" * MOST]
    body = orjson.dumps({"instances": [[1, 2]] * ROWS_MAX, "parameters": names})
    assert rows.parse_instances(body).shape == (ROWS_MAX, 2)
    tensor = {"name": "x", "shape": [ROWS_MAX, 2], "datatype": "FP32", "data": [[1, 2]] * ROWS_MAX}
    read = TensorCodec(rows, FeatureColumns(("f", "g")), {}, {}, ("a", "b")).parse_inference(
        orjson.dumps({"inputs": [tensor], "id": "[" * MOST}), None
    )
    assert (read.id, read.X.shape, read.outputs) == ("[" * MOST, (ROWS_MAX, 2), JSON_PROBABILITIES)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["x"], 'an unknown field, "x"'),
        (["x", "y z", 'q"'], 'unknown fields, "x", "y z", "q\\""'),
        (["a", "b", "c", "d"], 'unknown fields, "a", "b", "c"'),
        (["x" * 64], f'an unknown field, "{"x" * 64}"'),
        (["x" * 65], "an unknown field"),
        (["ü", "\n", "\x7f"], "unknown fields"),
        (["ü", "x"], 'unknown fields, "x"'),
        ([""], 'an unknown field, ""'),
    ],
)
def test_short_printable_names_of_unknown_fields_are_repeated(names: list[str], sentence: str) -> None:
    """A refusal has at most three names, each short and printable ASCII."""
    with pytest.raises(UnacceptableError) as caught:
        known_fields(dict.fromkeys(names, 1) | {"known": 1}, ["known", "other"])
    assert str(caught.value) == f"The body has {sentence}; known fields are known, other."


def test_null_fields_count_as_missing() -> None:
    """Known fields that are null are dropped; an unknown one is refused all the same."""
    assert known_fields({"a": None, "b": 0}, ["a", "b"]) == {"b": 0}
    with pytest.raises(UnacceptableError, match='"c"'):
        known_fields({"c": None}, ["a", "b"])


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b'{"a": 1, "a": 2}', ', "a"'),
        (rb'{"a": 1, "\u0061": 2}', ', "a"'),
        (b'{"x": [{"b": 1, "a": 2, "a": 3, "b": 4}]}', ', "a", "b"'),
        ('{"ü": 1, "ü": 2}'.encode(), ""),
        (b'{"a": 1, "a": %b}' % (b"1" * 300), ', "a"'),
        (b'{"a": 1, "a": "%b"}' % (b"x" * REPEATED_KEY_BYTES_MAX), ""),
    ],
)
def test_repeated_keys_are_named(body: bytes, names: str) -> None:
    """The first object that repeats keys is found by a slow parser, in small bodies alone."""
    with pytest.raises(MalformedError) as caught:
        parse_object(body, DEPTH, ROWS_MAX)
    assert str(caught.value) == f"The body has an object with the same key twice{names}."


def test_a_repeated_key_may_hide_a_deep_value() -> None:
    """A value that a repeated key replaces may nest deeper than the slow parser goes; the refusal is the same."""
    deep = b"[" * 1000 + b"]" * 1000
    with pytest.raises(MalformedError, match="same key twice"):
        parse_object(b'{"a": %b, "a": 1}' % deep, DEPTH, ROWS_MAX)


MARK = b"\xef\xbb\xbf"
ROW = [5.1, 3.5, 1.4, 0.2]
TEXT, RAW = binary([ROW])
MARKED = {
    "row": ("/v1/models/iris:predict", instances([ROW])),
    "rows": ("/v1/models/iris:predict", instances([ROW] * 500)),
    "tokens": ("/v1/models/iris:predict", instances([ROW], feedback_tokens=False)),
    "explain": ("/v1/models/iris:explain", instances([ROW])),
    "feedback": ("/v1/models/ovr:feedback", instances([ROW], labels=["a"], id="marked")),
    "feedback of rows": ("/v1/models/ovr:feedback", instances([ROW] * 90, labels=["a"] * 90, id="marked rows")),
    "infer": ("/v2/models/iris/infer", infer([ROW])),
    "infer rows": ("/v2/models/iris/infer", infer([ROW] * 500)),
    "convert": ("/v1/convert", b'{"logits": [[1, 2]]}'),
    "classes": ("/v1/models/iris:classes", b'{"add": [1]}'),
    "index": ("/v2/repository/index", b'{"ready": true}'),
}


@pytest.mark.parametrize("name", MARKED)
def test_a_byte_order_mark_changes_no_answer(pair: Pair, name: str) -> None:
    """Programs of Windows write it before JSON; every call ignores one."""
    target, body = MARKED[name]
    pair.ask(request("POST", target, body))  # the id of feedback exists then
    (plain,) = pair.ask(request("POST", target, body))
    for fast in (True, False):
        assert pair.ask(request("POST", target, MARK + body), fast=fast) == [plain]


def test_a_byte_order_mark_counts_as_part_of_the_json(pair: Pair) -> None:
    """Before binary tensors, the size of the JSON part includes it."""
    target = "/v2/models/iris/infer"
    (plain,) = pair.ask(binary_request(target, TEXT, RAW))
    assert pair.ask(binary_request(target, MARK + TEXT, RAW)) == [plain]
    assert plain.status == 200
