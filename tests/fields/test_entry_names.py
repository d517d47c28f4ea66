"""The names of entries: every column of a row has the name of what it came from."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service.fields.column_blocks import FieldLimits
from service.fields.entry_names import VALUE_CHARACTERS_MAX, EntryNames
from service.fields.row_encoder import RowEncoder
from tests.support.budgets import examples
from tests.support.field_lists import parse_fields
from tests.support.unicode_texts import make_texts

TENSORS = {"b": np.frombuffer("abüc".encode(), np.uint8), "e": np.array([1, 4, 5])}
ENCODER = RowEncoder(
    parse_fields(
        {"name": "age", "kind": "number", "flag": True},
        {"name": "member", "kind": "boolean", "missing": "column"},
        {"name": "country", "kind": "category", "values": ["DE", "PT"], "unknown": "other"},
        {"name": "city", "kind": "category", "bits": 16},
        {"name": "subject", "kind": "text", "words": [1, 2], "bits": 16, "missing": {"value": "Nothing"}},
        {"name": "letters", "kind": "text", "chars": [1, 2], "terms": {"bytes": "b", "ends": "e"}},
        {"name": "tags", "kind": "bag", "bits": 16},
        {"name": "vector", "kind": "vector", "size": 2},
        {"name": "x", "kind": "cross", "fields": ["country", "tags"], "bits": 16},
    ),
    TENSORS,
    FieldLimits(),
)
NAMES = EntryNames(ENCODER)


def test_entries_have_the_names_of_values() -> None:
    """Listed columns by the manifest, hashed ones by the row."""
    row = {
        "age": 41,
        "member": True,
        "country": "FR",
        "city": 7.0,
        "subject": "Refund it",
        "letters": "bü",
        "tags": {"red": 2, "zero": 0},
        "vector": [0, 3],
    }
    rows = ENCODER.encode_objects([row]).rows
    names = NAMES.name_entries(row)
    assert len(names) == len(rows.columns)
    assert set(names) == {
        *("age", "member", "country=other", "city=7", "letters: bü", "tags: red", "vector[1]"),
        *("subject: refund", "subject: it", "subject: refund it", "country=other * tags: red"),
    }
    values = dict(zip(names, rows.values.tolist(), strict=True))
    assert (values["age"], values["tags: red"], values["vector[1]"], values["country=other * tags: red"]) == (
        41,
        2,
        3,
        2,
    )


def test_missing_values_have_names_too() -> None:
    """The column `missing`, and what stands for a missing value."""
    assert sorted(NAMES.name_entries({})) == ["age=missing", "member=missing", "subject: nothing"]


def test_names_that_fall_together_are_listed() -> None:
    """At most three, each once."""
    encoder = RowEncoder(parse_fields({"name": "s", "kind": "text", "words": [1, 1], "bits": 1}), {}, FieldLimits())
    for text, shown in [("aa aa", {"s: aa"}), ("aa bb cc dd ee ff gg hh", None)]:
        names = EntryNames(encoder).name_entries({"s": text})
        assert shown is None or set(names) == shown
    assert any(name.endswith(", …") and name.count(", ") == 3 for name in names)


def test_long_names_are_cut() -> None:
    """A name has at most so many characters after that of its field; crosses are named by cut names."""
    long, longest = "x" * 70_000, VALUE_CHARACTERS_MAX
    names = NAMES.name_entries({"country": "PT", "city": long, "subject": f"{long} it", "tags": [long]})
    assert f"city={'x' * (longest - 1)}…" in names
    assert f"subject: {'x' * (longest - 2)}…" in names
    cross = next(name for name in names if name.startswith("country=PT * tags: x"))
    assert (len(cross), cross[-1]) == (len("x") + longest + 1, "…")
    assert max(map(len, names)) <= NAMES.characters_max == len("country") + longest + 1
    exact = "x" * (longest - 2)
    assert f"subject: {exact}" in NAMES.name_entries({"subject": exact})


def test_columns_have_names_without_a_row() -> None:
    """Hashed columns are numbered."""
    starts = dict(zip((field.name for field in ENCODER.fields), ENCODER.blocks, strict=True))
    assert NAMES.name_column(1) == "age=missing"
    assert NAMES.name_column(starts["city"].start + 9) == "city[9]"
    assert NAMES.name_column(starts["letters"].start + 1) == "letters: bü"
    assert NAMES.name_column(starts["x"].end - 1) == "x[65535]"


def test_dense_columns_are_listed() -> None:
    """All columns of a model whose rows become dense."""
    fields = parse_fields(
        {"name": "a", "kind": "number"},
        {"name": "t", "kind": "text", "chars": [1, 1], "terms": {"bytes": "b", "ends": "e"}},
    )
    assert EntryNames(RowEncoder(fields, TENSORS, FieldLimits())).list_columns() == ("a", "t: a", "t: bü", "t: c")


@settings(max_examples=examples(200), deadline=None)
@given(st.sampled_from(make_texts(200, seed=10)), st.sampled_from(make_texts(50, seed=11)))
def test_every_entry_has_a_name(text: str, city: str) -> None:
    """As many names as entries, for any text."""
    row = {"city": city, "subject": text, "letters": text, "tags": text.split()}
    assert len(NAMES.name_entries(row)) == len(ENCODER.encode_objects([row]).rows.columns)
