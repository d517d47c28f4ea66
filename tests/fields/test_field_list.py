"""Fields that read one value of a row are encoded as if each had a copy of it; contradictions are refused."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from service.errors import InputError
from service.field_errors import FieldValueError, UnknownFieldError
from service.fields.column_blocks import FieldLimits
from service.fields.entry_names import EntryNames
from service.fields.field_list import group_by_value
from service.fields.row_encoder import EncodedRows, RowEncoder
from tests.support.budgets import examples
from tests.support.field_lists import FIELDS, parse_fields
from tests.support.field_options import field_lists, rows_of, take_apart

LIMITS = FieldLimits()
WORDS = {"name": "words", "source": "text", "kind": "text", "words": [1, 1], "terms": ["late", "refund"]}
CHARS = {"name": "chars", "source": "text", "kind": "text", "chars": [1, 1], "terms": ["l", "a"], "missing": "column"}
AGE = {"name": "age", "kind": "number", "mean": 40.0, "scale": 10.0}
DECADE = {"name": "decade", "source": "age", "kind": "category", "values": [30, 40], "unknown": "other"}
BAG = {"name": "bag", "kind": "bag", "bits": 4}
VECTOR = {"name": "vector", "kind": "vector", "size": 2}
CROSS = {"name": "both", "kind": "cross", "fields": ["age", "decade"], "bits": 4}


def make_encoder(*fields: dict[str, Any], **options: Any) -> RowEncoder:
    """Return the encoder of fields without tensors."""
    return RowEncoder(parse_fields(*fields), {}, LIMITS, **options)


def to_matrix(encoder: RowEncoder, rows: list[Any]) -> list[list[float]]:
    """Return rows as a dense matrix."""
    return encoder.encode_objects(rows).rows.to_matrix(encoder.n_columns).tolist()


def encode(call: Any, *arguments: Any) -> EncodedRows | type[InputError]:
    """Return encoded rows, or the type of the error that refuses them."""
    try:
        found: EncodedRows = call(*arguments)
    except InputError as error:
        return type(error)
    return found


def assert_same(one: EncodedRows | type[InputError], other: EncodedRows | type[InputError]) -> None:
    """Assert that rows have the same bits and counts, or that both were refused alike."""
    if isinstance(one, EncodedRows) and isinstance(other, EncodedRows):
        arrays = [(*encoded.rows, *encoded[1:]) for encoded in (one, other)]
        assert [array.tobytes() for array in arrays[0]] == [array.tobytes() for array in arrays[1]]
    else:
        assert one is other


@given(data=st.data())
@settings(max_examples=examples(600), deadline=None)
def test_a_shared_value_is_encoded_as_its_copies(data: st.DataObject) -> None:
    """As objects, lists and columns, with the names of entries; each value has one place, that of its first field."""
    fields = data.draw(field_lists())
    rows = [data.draw(rows_of(fields, others=False)) for _ in range(data.draw(st.integers(1, 3)))]
    apart = [take_apart(fields, row) for row in rows]
    shared, alone = make_encoder(*fields), make_encoder(*apart[0][0])
    expected = encode(alone.encode_objects, [row for _, row in apart])
    assert_same(encode(shared.encode_objects, rows), expected)
    assert_same(encode(shared.encode_objects, [[row.get(name) for name in shared.names] for row in rows]), expected)
    columns = {name: [row.get(name) for row in rows] for name in reversed(shared.names)}
    assert_same(encode(shared.encode_columns, columns), expected)
    if isinstance(expected, EncodedRows):
        for row, (_, copies) in zip(rows, apart, strict=True):
            assert EntryNames(shared).name_entries(row) == EntryNames(alone).name_entries(copies)


def test_values_have_one_place_each() -> None:
    """The names of a row are the values, in the order of the first field that reads each."""
    encoder = make_encoder(WORDS, AGE, CHARS, DECADE, CROSS)
    assert encoder.names == ("text", "age")
    assert [[field.name for field in group] for group in group_by_value(encoder.fields).values()] == [
        ["words", "chars"],
        ["age", "decade"],
    ]
    found = to_matrix(encoder, [{"age": 50, "text": "late: lala"}, ["late: lala", 50]])
    assert found[0] == found[1]
    # late, refund; age; l, a, chars=missing; decade 30, 40, other; the cross has hashed columns
    assert found[0][:9] == [1, 0, 1, 3, 3, 0, 0, 0, 1]
    assert sum(found[0][9:]) == 1


def test_a_row_is_refused_if_one_field_refuses_its_value() -> None:
    """The sentence has the name of the value, which the row has, and what that field accepts."""
    encoder = make_encoder(AGE, DECADE)
    assert to_matrix(encoder, [{"age": 30.0}, {"age": 31}, {}]) == [[-1, 1, 0, 0], [-0.9, 0, 0, 1], [0, 0, 0, 0]]
    with pytest.raises(FieldValueError, match=r'^Row 1: "age" must be a whole number or null\.$'):
        encoder.encode_objects([{"age": 30}, {"age": 30.5}])
    with pytest.raises(FieldValueError, match=r'^Row 0: "age" must be a number or null\.$'):
        encoder.encode_columns({"age": ["a"]})


def test_the_name_of_a_field_with_another_source_is_unknown() -> None:
    """A row has the names of values alone, and the sentence lists them."""
    encoder = make_encoder(WORDS, CHARS)
    with pytest.raises(
        UnknownFieldError, match=r'^Row 0 has a name that no field reads; the names of a row are "text"'
    ):
        encoder.encode_objects([{"words": "late"}])
    with pytest.raises(UnknownFieldError, match="A column has a name that no field reads"):
        encoder.encode_columns({"text": ["late"], "chars": ["late"]})
    ignoring = make_encoder(WORDS, CHARS, others="ignore")
    assert to_matrix(ignoring, [{"words": "late"}]) == to_matrix(ignoring, [{}])


def test_a_number_too_large_is_named_by_its_value() -> None:
    """The field that cannot hold it may have another name."""
    encoder = make_encoder(AGE, {"name": "tiny", "source": "age", "kind": "number", "scale": 1e-300})
    with pytest.raises(FieldValueError, match=r'^Row 0: "age" has a number that is too large'):
        encoder.encode_objects([[1e22]])


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ([AGE | {"source": "decade"}, DECADE], "the name of a field"),
        ([AGE | {"source": "x"}, DECADE], "the name of a field"),
        ([AGE | {"source": "decade"}, DECADE | {"source": "age"}], "the name of a field"),
        ([AGE, DECADE, CROSS, VECTOR | {"source": "both"}], "the name of a field"),
        ([AGE, WORDS | {"source": "age"}], "a type of value that suits"),
        ([AGE, BAG | {"source": "age"}], "a type of value that suits"),
        ([AGE, DECADE | {"values": ["30", True]}], "a type of value that suits"),
        ([VECTOR, VECTOR | {"name": "other", "size": 3, "source": "vector"}], "a type of value that suits"),
        ([VECTOR, BAG | {"source": "vector"}], "a type of value that suits"),
        ([AGE, DECADE | {"bits": 4, "values": None, "unknown": "none"}, WORDS | {"source": "age"}], "a type of value"),
        ([AGE | {"source": ""}], "at least 1 character"),
        ([AGE | {"source": "n" * 257}], "at most 256 characters"),
        ([AGE | {"source": 3}], "valid string"),
        ([AGE | {"source": ["age"]}], "valid string"),
        ([AGE, DECADE, CROSS | {"source": "age"}], "Extra inputs"),
    ],
)
def test_contradictions_are_refused(fields: list[dict[str, Any]], reason: str) -> None:
    """A name would mean two values, or no value would suit all fields."""
    with pytest.raises(ValidationError, match=reason):
        FIELDS.validate_json(json.dumps(fields))


@pytest.mark.parametrize(
    "fields",
    [
        [AGE | {"source": "x"}, {**DECADE, "name": "x", "source": "x"}],
        [AGE | {"source": "x"}, DECADE | {"source": "x"}],
        [{**DECADE, "bits": 4, "values": None, "unknown": "none", "source": "text"}, WORDS, CHARS],
        [VECTOR, VECTOR | {"name": "other", "source": "vector"}],
        [BAG, BAG | {"name": "other", "source": "bag", "bits": 9}],
        [DECADE | {"values": [True, "x"]}, {**DECADE, "name": "other", "values": ["y", 3]}],
        [{"name": "flag", "kind": "boolean"}, DECADE | {"source": "flag", "values": [True, 3]}],
    ],
)
def test_fields_of_one_value_may_have_different_kinds(fields: list[dict[str, Any]]) -> None:
    """One type of value suits all of them; an explicit source may be the field's own name."""
    assert len(group_by_value(parse_fields(*fields))) == 1
