"""Rows in all forms as bodies of requests, without a service."""

import json
import math
from collections import UserDict, UserList
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from softstep_client import InputError
from softstep_client.json_text import encode_json
from softstep_client.rows import list_of, table_of
from softstep_client.tensors import DATATYPES, encode_tensor

numbers = st.floats(allow_infinity=False, width=32) | st.integers(-(2**70), 2**70)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=3), part, max_size=3),
    max_leaves=8,
)


def body_of(rows: Any) -> Any:
    """Return the members of a request for rows, as the service reads them."""
    return json.loads(encode_json(table_of(rows).members()))


def without_nan(value: Any) -> Any:
    """Return a value with None in place of NaN."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, dict):
        return {name: without_nan(part) for name, part in value.items()}
    return [without_nan(part) for part in value] if isinstance(value, list) else value


@given(st.lists(st.dictionaries(st.text(), values, max_size=4), min_size=1, max_size=4))
def test_rows_of_python_values_arrive_as_they_are(rows: list[dict[str, Any]]) -> None:
    """All of them but NaN, which is missing; texts with half a surrogate pair are refused."""
    try:
        json.dumps(rows, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        with pytest.raises(InputError, match="surrogate"):
            body_of(rows)
    else:
        assert body_of(rows) == {"instances": without_nan(rows)}


@given(
    st.lists(
        st.tuples(
            st.none() | st.floats(allow_infinity=False),
            st.none() | st.text(st.characters(codec="utf-8")),
            st.none() | st.booleans(),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_frames_arrive_as_their_columns(rows: list[tuple[Any, ...]]) -> None:
    """Frames of pandas, also with its own types, and of polars have None for each missing value."""
    columns = dict(zip("abc", map(list, zip(*rows, strict=True)), strict=True))
    expected = {"inputs": without_nan(columns)}
    plain = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})
    typed = pd.DataFrame(
        {
            "a": pd.Series(columns["a"], dtype="Float64"),
            "b": pd.Series(columns["b"], dtype="string"),
            "c": pd.Series(columns["c"], dtype="boolean"),
        }
    )
    schema = {"a": pl.Float64, "b": pl.String, "c": pl.Boolean}
    assert body_of(plain) == body_of(typed) == body_of(pl.DataFrame(columns, schema=schema)) == expected


@given(
    arrays.arrays(
        st.sampled_from("?bhilBHILefd"), arrays.array_shapes(min_dims=2, max_dims=2, max_side=4), elements=None
    )
)
def test_tensors_have_the_numbers_of_the_array(array: np.ndarray[Any, Any]) -> None:
    """Of each dtype, byte order and memory order, row by row; the sizes are those that the header announces."""
    for form in (array, np.asfortranarray(array), array.astype(array.dtype.newbyteorder(">")), array[::-1][::-1]):
        content, headers = encode_tensor(form)
        size = int(dict(headers)[b"Inference-Header-Content-Length"])
        (tensor,) = json.loads(content[:size])["inputs"]
        kind, bits = array.dtype.kind, 8 * array.dtype.itemsize
        assert tensor["datatype"] == ("BOOL" if kind == "b" else f"{DATATYPES[kind]}{bits}")
        assert tensor["shape"] == list(array.shape)
        assert tensor["parameters"] == {"binary_data_size": len(content) - size}
        again = np.frombuffer(content, array.dtype.newbyteorder("<"), offset=size).reshape(array.shape)
        assert again.tobytes() == array.astype(again.dtype).tobytes()


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([], "no rows"),
        (np.empty((0, 4)), "no rows"),
        (pd.DataFrame({"a": []}), "no rows"),
        ([1.0, 2.0], "list of rows"),
        (["a text"], "list of rows"),
        ([None], "list of rows"),
        ("a text", "list of rows"),
        (b"bytes", "list of rows"),
        (None, "list of rows"),
        (7, "list of rows"),
        (pd.Series([1.0]), "list of rows"),
        (pl.Series([1.0]), "list of rows"),
        (np.array([1.0, 2.0]), "two dimensions"),
        (np.array(1.0), "two dimensions"),
        (np.ones((2, 2, 2)), "two dimensions"),
        (pl.DataFrame({"a": [1]}).lazy(), "collect"),
        (pd.DataFrame({1: [1], "b": [2]}), "names"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "names"),
        ([{("a", "b"): 1}], "names"),
        ([[math.inf]], "infinite"),
        (pd.DataFrame({"a": [-math.inf]}), "infinite"),
        (np.array([[math.inf]]), "infinite"),
        ([{"a": object()}], "type object"),
        ([{"a": {1, 2}}], "type set"),
        ([{"a": b"x"}], "type bytes"),
        ([{"a": 1j}], "type complex"),
        (pd.DataFrame({"when": pd.to_datetime(["2026-01-01"])}), "type Timestamp"),
        (pl.DataFrame({"when": [b"x"]}), "type bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_row_is_refused_in_a_sentence(rows: Any, sentence: str) -> None:
    """Before anything is sent, without the value."""
    with pytest.raises(InputError, match=sentence):
        body_of(rows)


def test_rows_that_contain_themselves_or_are_too_deep_are_refused() -> None:
    """They end in a sentence too."""
    row: list[Any] = []
    row.append(row)
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    for rows in ([row], [{"a": deep}]):
        with pytest.raises(InputError, match="deeply"):
            body_of(rows)


def test_mappings_and_scalars_of_other_types_are_rows() -> None:
    """Such as NumPy's numbers, and classes that behave as a dict."""
    row = {"a": np.float32(0.5), "b": np.int64(2), "c": np.bool_(True), "d": np.array([1, 2]), "e": pd.NaT}
    expected = {"instances": [{"a": 0.5, "b": 2, "c": True, "d": [1, 2], "e": None}]}
    assert body_of([row]) == body_of(UserDict(row)) == body_of(iter([UserDict(row)])) == expected


def test_lists_of_labels_take_every_form() -> None:
    """Arrays, series and iterables; a text or a dict is none."""
    for form in (
        [1, 2],
        (1, 2),
        iter([1, 2]),
        np.array([1, 2]),
        pd.Series([1, 2]),
        pl.Series([1, 2]),
        UserList([1, 2]),
    ):
        assert json.loads(encode_json(list_of(form))) == [1, 2]
    for bad in ("ab", b"ab", {"a": 1}, 7, None, np.array(7)):
        with pytest.raises(InputError):
            list_of(bad)
