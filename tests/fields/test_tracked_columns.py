"""The tracked columns are those of numbers, of missing values, and of unknown categories."""

from service.fields.column_blocks import FieldLimits
from service.fields.entry_names import EntryNames
from service.fields.row_encoder import RowEncoder
from service.fields.tracked_columns import find_tracked_columns
from tests.support.field_lists import parse_fields


def test_each_field_has_its_columns() -> None:
    """They ascend, and have the names of explanations; a bag's `other` has amounts, which are no share."""
    encoder = RowEncoder(
        parse_fields(
            {"name": "text", "kind": "text", "words": [1, 1], "bits": 4, "missing": "column"},
            {"name": "age", "kind": "number", "flag": True},
            {"name": "size", "kind": "number"},
            {"name": "country", "kind": "category", "values": ["DE"], "unknown": "other", "missing": "column"},
            {"name": "plain", "kind": "category", "values": ["a", "b"]},
            {"name": "bag", "kind": "bag", "terms": ["x"], "unknown": "other"},
            {"name": "vector", "kind": "vector", "size": 2, "missing": "column"},
            {"name": "x", "kind": "cross", "fields": ["country", "age"], "bits": 4},
        ),
        {},
        FieldLimits(),
    )
    found = find_tracked_columns(encoder)
    names = [EntryNames(encoder).name_column(column) for column in found.columns.tolist()]
    assert names == [
        *("text=missing", "age", "age=missing", "size", "country=other", "country=missing", "vector=missing"),
    ]
    assert found.numbers == {"age": 1, "size": 3}
    assert found.missing == {"text": 0, "age": 2, "country": 5, "vector": 6}
    assert found.unknown == {"country": 4}


def test_a_model_may_have_none() -> None:
    """Hashed names alone have no column that is tracked."""
    encoder = RowEncoder(parse_fields({"name": "city", "kind": "category", "bits": 3}), {}, FieldLimits())
    assert find_tracked_columns(encoder).columns.tolist() == []
