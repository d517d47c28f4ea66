"""The limits of the JSON grammar are checked before a body is parsed."""

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import TooLargeError
from service.serve.wire import json_grammar as grammar
from service.serve.wire.json_grammar import check_container_count, containers_max, measure_document, parse_object
from service.serve.wire.oip_request import JSON_PROBABILITIES
from service.serve.wire.oip_tensors import TensorCodec
from service.serve.wire.rows import RowParser

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
            rows, ("f", "g"), {}, {}, ("a", "b")
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
    read = TensorCodec(rows, ("f", "g"), {}, {}, ("a", "b")).parse_inference(
        orjson.dumps({"inputs": [tensor], "id": "[" * MOST}), None
    )
    assert (read.id, read.X.shape, read.outputs) == ("[" * MOST, (ROWS_MAX, 2), JSON_PROBABILITIES)
