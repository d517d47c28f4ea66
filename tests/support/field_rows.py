"""Rows of the fields in field_artifacts.py, and the forms of bodies that have them."""

import csv
import io
import json
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.support.field_artifacts import DENSE_FIELDS

NAMES = [field["name"] for field in DENSE_FIELDS]
DATATYPES = {"age": "FP64", "member": "BOOL", "picture": "FP64"}
PICTURE = 3
# An object of each field, with values that are known, unknown and missing.
ROWS: list[dict[str, Any]] = [
    {"age": 41, "member": True, "country": "PT", "subject": "a late refund", "basket": ["milk"], "picture": [1, 2, 3]},
    {"age": None, "member": None, "country": "FR", "subject": "überall", "basket": {"eggs": 2.5}, "picture": [0.5] * 3},
    {"age": -7.25, "member": False, "country": 7, "subject": None, "basket": {}, "picture": None},
    {"country": True, "basket": ["bread", "bread", "tea"]},
]

_texts = st.text(st.characters(codec="utf-8"), max_size=8)
_numbers = st.floats(-1e6, 1e6) | st.integers(-99, 99)
_values = {
    "age": _numbers,
    "member": st.booleans(),
    "country": st.sampled_from(["DE", "PT", "", 7, True, False, 8]) | _texts,
    "subject": _texts | st.sampled_from(["late", "refund refund late", "Überall"]),
    "basket": st.dictionaries(_texts | st.just("milk"), _numbers, max_size=3)
    | st.lists(_texts | st.just("bread"), max_size=3),
    "picture": st.lists(_numbers, min_size=PICTURE, max_size=PICTURE),
}
# Rows whose values each field accepts.
valid_rows = st.lists(
    st.fixed_dictionaries({}, optional={name: st.none() | value for name, value in _values.items()}),
    min_size=1,
    max_size=4,
)


def columns_of(rows: Sequence[dict[str, Any]], names: Sequence[str] = NAMES) -> dict[str, list[Any]]:
    """Return the values of rows by name; missing ones are None."""
    return {name: [row.get(name) for row in rows] for name in names}


def json_forms(rows: Sequence[dict[str, Any]], names: Sequence[str] = NAMES) -> dict[str, dict[str, Any]]:
    """Return the same rows in every member of a JSON body; `names` is the order of the columns."""
    table = [[row.get(name) for name in names] for row in rows]
    lists = [[row.get(name) for name in NAMES] for row in rows]
    return {
        "objects": {"instances": [{name: row[name] for name in names if name in row} for row in rows]},
        "lists": {"instances": lists},
        "mixed": {"instances": [lists[0], *rows[1:]]},
        "columns": {"inputs": columns_of(rows, names)},
        "rows as inputs": {"inputs": list(rows)},
        "split": {"dataframe_split": {"columns": list(names), "data": table, "index": list(range(len(rows)))}},
        "split without names": {"dataframe_split": {"columns": list(range(len(NAMES))), "data": lists}},
        "records": {"dataframe_records": list(rows)},
    }


def to_csv(rows: Sequence[dict[str, Any]], names: Sequence[str] = NAMES) -> bytes:
    """Return rows as CSV with a header; lists and objects are JSON, and a missing value is an empty cell."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow(names)
    for row in rows:
        values = [row.get(name) for name in names]
        cells = ["" if v is None else v if isinstance(v, str) else json.dumps(v) for v in values]
        writer.writerow(cells)
    return text.getvalue().encode()


def json_tensors(rows: Sequence[dict[str, Any]], names: Sequence[str] = NAMES, *, deep: bool = False) -> dict[str, Any]:
    """Return a v2 body with one JSON tensor for each field that is no missing vector; `deep` nests scalars."""
    inputs = []
    for name in names:
        values = [row.get(name) for row in rows]
        if name == "basket":
            values = [None if value is None else json.dumps(value) for value in values]
        width = PICTURE if name == "picture" else 1
        shape = [len(rows), width] if width > 1 or deep else [len(rows)]
        data: list[Any] = [[value] for value in values] if deep and width == 1 else values
        datatype = DATATYPES.get(name, "BYTES")
        inputs.append(
            {
                "name": name,
                "shape": shape,
                "datatype": datatype,
                "data": data,
                "parameters": {"content_type": "str"},
            }
        )
    return {"inputs": inputs}


def binary_tensors(rows: Sequence[dict[str, Any]], names: Sequence[str] = NAMES) -> tuple[bytes, bytes]:
    """Return the JSON part of a v2 body and its binary data; a missing number is NaN, and others are not missing."""
    inputs, parts = [], []
    for name in names:
        values = [row.get(name) for row in rows]
        datatype = DATATYPES.get(name, "BYTES")
        if datatype == "BYTES":
            texts = [(json.dumps(v) if name == "basket" else v).encode() for v in values]
            raw = b"".join(struct.pack("<I", len(text)) + text for text in texts)
        elif datatype == "BOOL":
            raw = np.array(values, np.bool_).tobytes()
        else:
            raw = np.array([np.nan if v is None else v for v in values], "<f8").tobytes()
        shape = [len(rows), PICTURE] if name == "picture" else [len(rows), 1]
        inputs.append(
            {
                "name": name,
                "shape": shape,
                "datatype": datatype,
                "parameters": {"binary_data_size": len(raw), "content_type": "np"},
            }
        )
        parts.append(raw)
    return json.dumps({"inputs": inputs}).encode(), b"".join(parts)
