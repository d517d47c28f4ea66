"""A model whose fields share values of a row, and the same one whose fields each have a copy."""

import json
from typing import Any

from hypothesis import strategies as st

from service.store.artifact.artifact import Artifact
from tests.support.field_artifacts import field_artifact

# A number that is a category too, words and characters of one text, one bag with two norms, and a vector scaled twice.
SHARED_FIELDS: tuple[dict[str, Any], ...] = (
    {"name": "age", "kind": "number", "mean": 40.0, "scale": 10.0, "flag": True},
    {"name": "words", "source": "note", "kind": "text", "words": [1, 1], "terms": ["late", "refund"], "norm": "l2"},
    {"name": "decade", "source": "age", "kind": "category", "values": [30, 40], "unknown": "other"},
    {"name": "chars", "source": "note", "kind": "text", "chars": [1, 2], "terms": ["l", "la"], "missing": "column"},
    {"name": "basket", "kind": "bag", "terms": ["milk", "tea"], "norm": "l1"},
    {"name": "names", "source": "basket", "kind": "bag", "terms": ["tea"], "unknown": "other"},
    {"name": "near", "source": "picture", "kind": "vector", "size": 2},
    {"name": "far", "source": "picture", "kind": "vector", "size": 2, "scale": [10, 100]},
    {"name": "member", "kind": "boolean"},
    {"name": "joined", "source": "member", "kind": "category", "values": [True, "x"], "missing": "column"},
)
# With these the rows are sparse.
HASHED_VALUES: tuple[dict[str, Any], ...] = (
    {"name": "hashed age", "source": "age", "kind": "category", "bits": 5, "signed": True},
    {"name": "grams", "source": "note", "kind": "text", "chars": [2, 3], "bits": 6},
    {"name": "both", "kind": "cross", "fields": ["decade", "words"], "bits": 4},
)
VALUE_NAMES = ["age", "note", "basket", "picture", "member"]
SHARED_ROWS: list[dict[str, Any]] = [
    {"age": 41, "note": "a late refund", "basket": ["milk"], "picture": [1, 2], "member": True},
    {"age": 40, "note": "la, la", "basket": {"tea": 2.5, "rice": 1}, "picture": [0.5, -1], "member": False},
    {"age": None, "note": None, "basket": {}, "picture": None, "member": None},
    {"note": "überall late", "basket": ["tea", "tea"]},
]

_texts = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(["late", "la refund", "refund refund"])
_numbers = st.integers(-(2**60), 2**60) | st.sampled_from([30, 40, 40.0, -0.0])
_values = {
    "age": _numbers,
    "note": _texts,
    "basket": st.dictionaries(_texts | st.just("tea"), _numbers, max_size=3)
    | st.lists(_texts | st.just("milk"), max_size=3),
    "picture": st.lists(_numbers, min_size=2, max_size=2),
    "member": st.booleans(),
}
# Rows that all fields accept.
shared_rows = st.lists(
    st.fixed_dictionaries({}, optional={name: st.none() | value for name, value in _values.items()}),
    min_size=1,
    max_size=4,
)


def copied(fields: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
    """Return the same fields without sources."""
    return tuple({key: value for key, value in field.items() if key != "source"} for field in fields)


def copy_values(row: dict[str, Any], fields: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """Return a row with the value of each field under the field's own name."""
    reads = {field["name"]: field.get("source", field["name"]) for field in fields if field["kind"] != "cross"}
    return {name: row[value] for name, value in reads.items() if value in row}


def shared_artifacts(fields: tuple[dict[str, Any], ...], **more: Any) -> tuple[Artifact, Artifact]:
    """Return a model of these fields, and one with the same weights whose fields have no sources."""
    return field_artifact(fields, **more), field_artifact(copied(fields), **more)


def value_tensors(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a v2 body with one tensor for each value; vectors without a row that lacks one."""
    inputs = []
    for name, datatype in zip(VALUE_NAMES, ("FP64", "BYTES", "BYTES", "FP64", "BOOL"), strict=True):
        values = [row.get(name) for row in rows]
        if name == "picture" and None in values:
            continue
        if name == "basket":
            values = [None if value is None else json.dumps(value) for value in values]
        shape = [len(rows), 2] if name == "picture" else [len(rows)]
        inputs.append({"name": name, "shape": shape, "datatype": datatype, "data": values})
    return {"inputs": inputs}
