"""Generated rows: each of them encodes, they are the same each time, and they reach what fields do with odd values."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.fields.column_blocks import FieldLimits
from service.fields.generated_rows import USUAL_ROWS, RowGenerator, number_encoder
from service.fields.generated_values import Chance, make_number, shorten_number
from service.fields.row_encoder import RowEncoder
from tests.support.budgets import examples
from tests.support.field_artifacts import SPARSE_FIELDS, field_tensors
from tests.support.field_lists import parse_fields
from tests.support.field_options import field_lists
from tests.support.shared_values import SHARED_FIELDS, VALUE_NAMES

missing = st.sampled_from(["none", "column", "refuse"])
unknown = st.sampled_from(["none", "other", "refuse"])
categories = st.lists(st.text(max_size=3) | st.integers(-5, 5) | st.booleans(), min_size=1, max_size=4)
positive = st.floats(1e-9, 1e9)
listed = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=4), min_size=1, max_size=4, unique=True)
kinds = st.one_of(
    st.fixed_dictionaries(
        {"kind": st.just("number"), "missing": st.sampled_from(["mean", "none", "column", "refuse"])},
        optional={"mean": st.floats(-1e9, 1e9), "scale": positive, "clip": positive},
    ),
    st.fixed_dictionaries({"kind": st.just("boolean"), "missing": missing}),
    st.fixed_dictionaries(
        {
            "kind": st.just("category"),
            "values": categories.map(lambda values: list({(type(v), v): v for v in values}.values())),
            "missing": missing,
            "unknown": unknown,
        }
    ),
    st.fixed_dictionaries({"kind": st.just("category"), "bits": st.integers(1, 6), "missing": missing}),
    st.fixed_dictionaries(
        {"kind": st.just("text"), "words": st.just([1, 2]), "terms": listed, "missing": missing},
    ),
    st.fixed_dictionaries({"kind": st.just("text"), "chars": st.just([1, 3]), "bits": st.integers(1, 9)}),
    st.fixed_dictionaries({"kind": st.just("bag"), "terms": listed, "missing": missing, "unknown": unknown}),
    st.fixed_dictionaries({"kind": st.just("bag"), "bits": st.integers(1, 9), "hashing": st.just("vw")}),
    st.fixed_dictionaries(
        {"kind": st.just("vector"), "size": st.just(3), "missing": missing}, optional={"clip": positive}
    ),
)


def make_encoder(fields: list[dict[str, Any]], **limits: int) -> RowEncoder:
    """Return the encoder of fields without tensors."""
    return RowEncoder(parse_fields(*fields), {}, FieldLimits(**limits))


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(kinds, min_size=1, max_size=5), st.integers(0, 2**40), st.sampled_from([8, 100, 65_536]))
def test_every_generated_row_encodes(fields: list[dict[str, Any]], seed: int, entries_max: int) -> None:
    """Whatever the fields and their limits are; and rows can be written as JSON and read again."""
    named = [{"name": f"field {i}", **field} for i, field in enumerate(fields)]
    if len(named) > 1:
        named.append({"name": "x", "kind": "cross", "fields": ["field 0", "field 1"], "bits": 4})
    encoder = make_encoder(named, entries_max=entries_max)
    rows = RowGenerator(encoder, seed).make_rows(0, 40)
    assert len(rows) == 40 or entries_max == 8
    if not rows:
        return
    encoded = encoder.encode_objects(rows)
    again = encoder.encode_objects(json.loads(json.dumps(rows, allow_nan=False)))
    assert again.rows.values.tobytes() == encoded.rows.values.tobytes()


def test_rows_are_the_same_each_time() -> None:
    """A row depends on the seed and on its number, not on the rows that are made with it."""
    encoder = RowEncoder(parse_fields(*SPARSE_FIELDS), field_tensors(), FieldLimits())
    rows = RowGenerator(encoder, 3).make_rows(0, 30)
    assert rows == RowGenerator(encoder, 3).make_rows(0, 30)
    assert rows[10:20] == RowGenerator(encoder, 3).make_rows(10, 20)
    assert rows != RowGenerator(encoder, 4).make_rows(0, 30)


def test_rows_have_gaps_unknown_values_and_extremes() -> None:
    """Each field of the list has missing values, and those that can have unknown ones; the first rows have few."""
    encoder = RowEncoder(parse_fields(*SPARSE_FIELDS), field_tensors(), FieldLimits())
    rows = RowGenerator(encoder).make_rows(0, 200)
    encoded = encoder.encode_objects(rows)
    for field, gaps, strangers in zip(encoder.fields, encoded.missing, encoded.unknown, strict=True):
        assert 10 <= gaps <= 60 or field.kind == "cross"
        assert strangers >= 10 or field.name not in {"country", "basket"}
    assert any(name not in row for row in rows for name in encoder.names)
    assert any(value is None for row in rows for value in row.values())
    ages = [row["age"] for row in rows if row.get("age") is not None]
    assert {40 + 3 * 10, 40 - 3 * 10, 0} <= set(ages)
    assert max(map(abs, ages)) == pytest.approx(10_000, rel=0.01)
    texts = [row["subject"] for row in rows if row.get("subject") is not None]
    assert "" in texts
    assert any(text.isspace() for text in texts)
    assert any(not text.isascii() for text in texts)
    assert max(map(len, texts)) > 1000
    assert any("refund" in text for text in texts)
    baskets = [row["basket"] for row in rows if row.get("basket") is not None]
    assert {dict, list} == set(map(type, baskets))
    assert max(map(len, baskets)) > 20
    first = encoder.encode_objects(rows[:USUAL_ROWS])
    assert first.missing.sum() == 2
    assert max(len(json.dumps(row)) for row in rows[:USUAL_ROWS]) < 1500


def test_fields_that_refuse_get_what_they_accept() -> None:
    """Neither missing nor unknown values come where they are refused."""
    fields = [
        {"name": "n", "kind": "number", "missing": "refuse"},
        {"name": "c", "kind": "category", "values": ["a", 1, True], "unknown": "refuse", "missing": "refuse"},
        {"name": "b", "kind": "bag", "terms": ["a", "b"], "unknown": "refuse", "missing": "refuse"},
    ]
    rows = RowGenerator(make_encoder(fields)).make_rows(0, 200)
    assert len(rows) == 200
    assert {(type(row["c"]), row["c"]) for row in rows} == {(str, "a"), (int, 1), (bool, True)}
    assert {name for row in rows for name in row["b"]} == {"a", "b"}


@settings(max_examples=examples(200), deadline=None)
@given(field_lists(), st.integers(0, 2**40))
def test_rows_of_shared_values_encode(fields: list[dict[str, Any]], seed: int) -> None:
    """Every row that is made is accepted, and the names are those of values."""
    encoder = make_encoder(fields)
    rows = RowGenerator(encoder, seed).make_rows(0, 20)
    assert encoder.encode_objects(rows).rows.ends.size == len(rows) or not rows
    assert all(set(encoder.names).issuperset(row) for row in rows)


def test_a_shared_value_suits_all_fields() -> None:
    """A number that is a category too is whole, and each field gets values that it knows and extremes."""
    rows = RowGenerator(make_encoder(list(SHARED_FIELDS))).make_rows(0, 300)
    assert len(rows) == 300
    ages = {row["age"] for row in rows if row.get("age") is not None}
    assert ages >= {30, 40, 10_040}
    assert {age for age in ages if age != int(age)} == set()
    assert any(row.get("note") == "" for row in rows)
    assert {name for row in rows for name in row} == set(VALUE_NAMES)


def test_limits_that_allow_no_row_end() -> None:
    """Two numbers that must be there are more than one entry."""
    fields = [{"name": name, "kind": "number", "mean": 5.3, "missing": "refuse"} for name in "ab"]
    assert RowGenerator(make_encoder(fields, entries_max=1)).make_rows(0, 5) == []


def test_plain_numbers_follow_their_statistics() -> None:
    """A model without fields has rows of numbers around its means."""
    mean, scale = np.array([1.7e9, -3.0, 0.0]), np.array([1e5, 1e-3, 40.0])
    rows = RowGenerator(number_encoder(["time", "small", "wide"], mean.tolist(), scale.tolist())).make_rows(0, 400)
    X = np.array([[row[name] for name in ("time", "small", "wide")] for row in rows])
    middle = np.median(np.abs(X - mean) / scale, axis=0)
    assert ((middle > 0.4) & (middle < 1.0)).all()


@given(st.floats(allow_nan=False), st.floats(1e-300, 1e300))
def test_numbers_are_short(x: float, scale: float) -> None:
    """At most 21 binary digits, near the number."""
    short = shorten_number(x, scale)
    digits = int(math.frexp(short)[0] * 2**53)
    assert digits % 2**32 == 0
    clamped = min(max(x, -1e300), 1e300)
    assert abs(short - clamped) <= max(scale / 16, abs(clamped) * 2**-20, 1e-300)


def test_usual_numbers_spread_by_the_scale() -> None:
    """Their standard deviation is the scale, and none is far away."""
    chance = Chance(1)
    numbers = np.array([make_number(40.0, 8.0, None, chance, extreme=False) for _ in range(4000)])
    assert abs(numbers.mean() - 40) < 0.5
    assert abs(numbers.std() - 8) < 0.3
    assert np.abs(numbers - 40).max() <= 3 * 8
