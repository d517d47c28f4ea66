"""Encoding a file in bulk gives what the encoder of the service gives, row by row, to the bit."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import TrainingError
from service.fields import row_encoder
from service.fields.column_blocks import FieldLimits
from service.fields.row_encoder import RowEncoder
from service.softmax.sparse_rows import SparseRows
from service.train.cell_values import wrap_objects
from service.train.class_labels import Classes, LabelReader
from service.train.data_table import DataBlock
from service.train.held_out_rows import HeldOutRows
from service.train.row_encoding import TableEncoder
from tests.support.budgets import examples
from tests.support.field_lists import parse_fields

DENSE: list[dict[str, Any]] = [
    {"name": "mean", "kind": "number", "mean": 2.5, "scale": 3.0, "clip": 2.0, "flag": True},
    {"name": "value", "kind": "number", "mean": -1.0, "missing": {"value": 4}},
    {"name": "column", "kind": "number", "scale": 0.25, "missing": "column"},
    {"name": "none", "kind": "number", "mean": 7, "missing": "none"},
    {"name": "member", "kind": "boolean", "missing": "column"},
    {"name": "country", "kind": "category", "values": ["DE", "PT"], "unknown": "other", "missing": "column"},
    {"name": "level", "kind": "category", "values": [1, 2]},
    {"name": "words", "kind": "text", "words": [1, 1], "terms": ["late", "refund"], "norm": "l2"},
    {"name": "tags", "kind": "bag", "terms": ["red", "blue"], "unknown": "other"},
    {"name": "vector", "kind": "vector", "size": 2, "mean": [1, 2], "scale": [2, 4], "missing": "column"},
]
SPARSE = [
    *DENSE,
    {"name": "city", "kind": "category", "bits": 6},
    {"name": "both", "kind": "cross", "fields": ["country", "words"], "bits": 5},
    {"name": "size", "source": "mean", "kind": "number", "missing": "none"},
]
CLASSES = Classes("softmax", ("a", "b", "c"), (1, 1, 1))
numbers = st.floats(-1e30, 1e30) | st.integers(-99, 99)
values: dict[str, st.SearchStrategy[Any]] = {
    "mean": numbers, "value": numbers, "column": numbers, "none": numbers, "member": st.booleans(),
    "country": st.sampled_from(["DE", "PT", "FR", ""]), "level": st.integers(0, 3),
    "words": st.sampled_from(["late refund", "Late late", "", "ünknown"]),
    "tags": st.lists(st.sampled_from(["red", "blue", "pink"]), max_size=3),
    "vector": st.lists(numbers, min_size=2, max_size=2), "city": st.sampled_from(["Porto", "Faro"]),
}  # fmt: skip
rows_of = st.lists(
    st.fixed_dictionaries({"label": st.sampled_from("abc")}, optional={k: st.none() | v for k, v in values.items()}),
    min_size=1,
    max_size=30,
)


def encode(fields: list[dict[str, Any]], rows: list[dict[str, Any]], first: int = 0) -> tuple[Any, Any, RowEncoder]:
    """Return the rows that are trained on and those that are held out, and the encoder."""
    encoder = RowEncoder(parse_fields(*fields), {}, FieldLimits())
    names = [name for name in {name for row in rows for name in row} if name in {*encoder.names, "label"}]
    block = DataBlock(first, len(rows), {name: wrap_objects([row.get(name) for row in rows]) for name in names})
    reader = LabelReader("label", None)
    table = TableEncoder(encoder, reader, CLASSES, None, HeldOutRows("hash", 0), is_dense=fields is DENSE)
    encoded = table.encode_block(block)
    return encoded.trained, encoded.held_out, encoder


@given(rows=rows_of, first=st.integers(0, 1000))
@settings(max_examples=examples(300), deadline=None)
@pytest.mark.parametrize("fields", [DENSE, SPARSE], ids=["dense", "sparse"])
def test_rows_are_those_of_the_encoder(fields: list[dict[str, Any]], rows: list[dict[str, Any]], first: int) -> None:
    trained, held_out, encoder = encode(fields, rows, first)
    marks = HeldOutRows("hash", 0).mark(first, len(rows))
    objects = [{name: row.get(name) for name in encoder.names} for row in rows]
    expected = encoder.to_model_rows(encoder.encode_objects(objects).rows, np.dtype(np.float32))
    matrix = expected.to_matrix(encoder.n_columns)
    for (found, labels, weights), chosen in ((trained, ~marks), (held_out, marks)):
        assert isinstance(found, SparseRows) == (fields is SPARSE)
        actual = found.to_matrix(encoder.n_columns) if isinstance(found, SparseRows) else found
        # Adding 0 makes -0 a 0, which no entry has.
        assert (actual + 0).tobytes() == (matrix[chosen] + 0).tobytes()
        assert labels.tolist() == [
            "abc".index(row["label"]) for row, is_chosen in zip(rows, chosen, strict=True) if is_chosen
        ]
        assert (weights == 1).all()
    assert not isinstance(trained[0], SparseRows) or _sorted(trained[0])


@pytest.mark.parametrize(
    ("fields", "row", "sentence"),
    [
        (DENSE, {"mean": float("inf")}, 'row 105: "mean" must be a finite number'),
        (SPARSE, {"mean": float("inf")}, 'row 105: "mean" must be a finite number'),
        (DENSE, {"value": 1e300}, 'row 105: "value" has a number that is too large for this model'),
        (SPARSE, {"value": 1e300}, 'row 105: "value" has a number that is too large for this model'),
        (DENSE, {"vector": [1.0]}, 'row 105: "vector" must be a list of 2 numbers or null'),
    ],
)
def test_a_refused_value_is_named_with_its_row_in_the_file(
    fields: list[dict[str, Any]], row: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(TrainingError) as raised:
        encode(fields, [*[{"label": "a"}] * 5, {"label": "b", **row}], 100)
    assert str(raised.value) == sentence


def test_rows_of_many_entries_are_encoded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block may have more entries than a call takes, but no row may."""
    rows = [{"label": "a", "words": "late refund", "tags": ["red"] * (i % 3)} for i in range(20)]
    whole = encode(SPARSE, rows)[0][0]
    monkeypatch.setattr(row_encoder, "ENTRIES_OF_A_CALL_MAX", 40)
    parts = encode(SPARSE, rows)[0][0]
    assert all(np.array_equal(one, other) for one, other in zip(whole, parts, strict=True))
    monkeypatch.setattr(row_encoder, "ENTRIES_OF_A_CALL_MAX", 1)
    with pytest.raises(TrainingError, match="entries"):
        encode(SPARSE, rows)


def _sorted(rows: SparseRows) -> bool:
    """Return whether the columns of each row ascend."""
    starts = [0, *rows.ends][: len(rows.ends)]
    return all(np.all(np.diff(rows.columns[start:end]) > 0) for start, end in zip(starts, rows.ends, strict=True))


def test_dense_rows_are_contiguous_float32() -> None:
    X = encode(DENSE, [{"label": "a", "mean": 1.0}] * 3)[0][0]
    assert X.dtype == np.float32
    assert X.flags.c_contiguous
