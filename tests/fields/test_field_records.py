"""The records of fields: defaults, contradictions, and lists that are made to do harm."""

import json
import tracemalloc
from itertools import pairwise
from typing import Any

import pytest
from pydantic import ValidationError

from service.fields.column_blocks import ColumnBlock, FieldLimits, is_dense, lay_out_columns
from service.fields.column_names import list_column_names
from tests.support.field_lists import FIELDS, parse_fields

LIMITS = FieldLimits()
HUGE = 10**400
NUMBER = {"name": "a", "kind": "number"}
BOOLEAN = {"name": "b", "kind": "boolean"}
CATEGORY = {"name": "c", "kind": "category", "values": ["DE", "PT"]}
HASHED = {"name": "h", "kind": "category", "bits": 8}
TEXT = {"name": "t", "kind": "text", "words": [1, 2], "bits": 18}
TERMS = {"name": "t", "kind": "text", "words": [1, 1], "terms": {"bytes": "t.bytes", "ends": "t.ends"}}
BAG = {"name": "g", "kind": "bag", "terms": ["red", "blue"]}
VECTOR = {"name": "v", "kind": "vector", "size": 3}
CROSS = {"name": "x", "kind": "cross", "fields": ["a", "c"], "bits": 10}
BELOW = [NUMBER, CATEGORY]

# A list of fields, and a part of the one sentence that refuses it.
WRONG: list[tuple[Any, str]] = [
    ([], "at least 1 item"),
    ({}, "valid array"),
    ("number", "valid array"),
    (None, "valid array"),
    ([None], "should be an object"),
    ([[]], "should be an object"),
    ([{}], "discriminator"),
    ([{"name": "a"}], "discriminator"),
    ([{"kind": "number"}], "Field required"),
    ([{"name": "a", "kind": "NUMBER"}], "does not match any"),
    ([{"name": "a", "kind": "regex", "pattern": "(a+)+$"}], "does not match any"),
    ([{"name": "a", "kind": ["number"]}], "does not match any"),
    ([{"name": "a", "kind": None}], "does not match any"),
    ([NUMBER | {"name": ""}], "at least 1 character"),
    ([NUMBER | {"name": "n" * 257}], "at most 256 characters"),
    ([NUMBER | {"name": 3}], "valid string"),
    ([NUMBER | {"name": ["a"]}], "valid string"),
    ([NUMBER | {"code": "import os"}], "Extra inputs"),
    ([NUMBER | {"__class__": "object"}], "Extra inputs"),
    ([NUMBER, NUMBER], "names of the fields must differ"),
    ([*BELOW, CROSS, CROSS], "names of the fields must differ"),
    ([*BELOW, CROSS, NUMBER | {"name": "x"}], "names of the fields must differ"),
    ([NUMBER] * 70_000, "at most 65536 items"),
    ([NUMBER | {"mean": "0"}], "valid number"),
    ([NUMBER | {"mean": True}], "valid number"),
    ([NUMBER | {"mean": HUGE}], "finite|valid number"),
    ([NUMBER | {"scale": 0}], "greater than 0"),
    ([NUMBER | {"scale": -1}], "greater than 0"),
    ([NUMBER | {"scale": HUGE}], "finite|valid number"),
    ([NUMBER | {"scale": None}], "valid number"),
    ([NUMBER | {"clip": 0}], "greater than 0"),
    ([NUMBER | {"clip": -3}], "greater than 0"),
    ([NUMBER | {"flag": 1}], "valid boolean"),
    ([NUMBER | {"flag": "yes"}], "valid boolean"),
    ([NUMBER | {"flag": True, "missing": "refuse"}], "flag is for numbers that may be missing"),
    ([NUMBER | {"missing": "median"}], "Input should be"),
    ([NUMBER | {"missing": 0}], "Input should be"),
    ([NUMBER | {"missing": {"value": "0"}}], "Input should be"),
    ([NUMBER | {"missing": {"value": HUGE}}], "Input should be"),
    ([NUMBER | {"missing": {}}], "Field required"),
    ([NUMBER | {"missing": {"value": 0, "other": 1}}], "Extra inputs"),
    ([BOOLEAN | {"missing": "mean"}], "Input should be"),
    ([BOOLEAN | {"missing": {"value": 1}}], "Input should be"),
    ([BOOLEAN | {"mean": 0}], "Extra inputs"),
    ([CATEGORY | {"values": []}], "at least 1 item"),
    ([CATEGORY | {"values": None}], "either values or bits"),
    ([CATEGORY | {"values": "DE"}], "valid array"),
    ([CATEGORY | {"values": {"DE": 1}}], "valid array"),
    ([CATEGORY | {"values": ["DE", "DE"]}], "differ from each other"),
    ([CATEGORY | {"values": [1, 1]}], "differ from each other"),
    ([CATEGORY | {"values": [True, True]}], "differ from each other"),
    ([CATEGORY | {"values": [1.5]}], "valid"),
    ([CATEGORY | {"values": [None]}], "of another type"),
    ([CATEGORY | {"values": [["DE"]]}], "of another type"),
    ([CATEGORY | {"values": ["c" * 257]}], "at most 256 characters"),
    ([CATEGORY | {"values": [2**53 + 1]}], "less than or equal"),
    ([CATEGORY | {"values": [-(2**63)]}], "greater than or equal"),
    ([CATEGORY | {"values": [HUGE]}], "valid|less than or equal"),
    ([CATEGORY | {"values": list(range(70_000))}], "at most 65536 items"),
    ([CATEGORY | {"bits": 8}], "either values or bits"),
    ([CATEGORY | {"seed": 1}], "seed and signed are for hashed columns"),
    ([CATEGORY | {"signed": True}], "seed and signed are for hashed columns"),
    ([CATEGORY | {"unknown": "mean"}], "Input should be"),
    ([CATEGORY | {"missing": {"value": "FR"}}], "must be one of values"),
    ([CATEGORY | {"missing": {"value": 1.5}}], "Input should be"),
    ([CATEGORY | {"values": [1], "missing": {"value": True}}], "must be one of values"),
    ([HASHED | {"unknown": "other"}], "hashed columns know every value"),
    ([HASHED | {"unknown": "refuse"}], "hashed columns know every value"),
    ([HASHED | {"bits": 0}], "greater than or equal to 1"),
    ([HASHED | {"bits": -1}], "greater than or equal to 1"),
    ([HASHED | {"bits": 31}], "less than or equal to 30"),
    ([HASHED | {"bits": 2**63}], "less than or equal to 30"),
    ([HASHED | {"bits": HUGE}], "less than or equal to 30|valid integer"),
    ([HASHED | {"bits": 8.0}], "valid integer"),
    ([HASHED | {"bits": "8"}], "valid integer"),
    ([HASHED | {"bits": True}], "valid integer"),
    ([HASHED | {"seed": -1}], "greater than or equal to 0"),
    ([HASHED | {"seed": 2**32}], "less than or equal"),
    ([HASHED | {"signed": 1}], "valid boolean"),
    ([TEXT | {"words": None}], "either words or chars"),
    ([TEXT | {"chars": [1, 2]}], "either words or chars"),
    ([TEXT | {"words": [2, 1]}], "shortest length comes first"),
    ([TEXT | {"words": [0, 1]}], "greater than or equal to 1"),
    ([TEXT | {"words": [1, 17]}], "less than or equal to 16"),
    ([TEXT | {"words": [1, 2**63]}], "less than or equal to 16"),
    ([TEXT | {"words": [1]}], "Field required|at least 2 items"),
    ([TEXT | {"words": [1, 2, 3]}], "at most 2 items"),
    ([TEXT | {"words": 1}], "valid array"),
    ([TEXT | {"within_words": True}], "within_words is for n-grams of chars"),
    ([TEXT | {"words": None, "chars": [1, 3], "stop_words": ["the"]}], "are for n-grams of words"),
    ([TEXT | {"words": None, "chars": [1, 3], "word_pattern": "words"}], "are for n-grams of words"),
    ([TEXT | {"word_pattern": r"(\w+)+$"}], "Input should be"),
    ([TEXT | {"accents": "ascii"}], "Input should be"),
    ([TEXT | {"counts": "tf"}], "Input should be"),
    ([TEXT | {"counts": "log", "signed": True}], "have no logarithm"),
    ([TEXT | {"norm": "max"}], "Input should be"),
    ([TEXT | {"bits": None}], "either terms or bits"),
    ([TEXT | {"terms": ["a"]}], "either terms or bits"),
    ([TEXT | {"idf": [1.0, 2.0]}], "one number for each of the 262144 columns"),
    ([TEXT | {"idf": [1.0] * 70_000}], "at most 65536 items"),
    ([TEXT | {"idf": {"name": "idf"}}], "of another type"),
    ([TEXT | {"stop_words": ["the", "the"]}], "differ from each other"),
    ([TEXT | {"stop_words": [""]}], "at least 1 character"),
    ([TERMS | {"terms": []}], "at least 1 item"),
    ([TERMS | {"terms": ["a", "a"]}], "differ from each other"),
    ([TERMS | {"terms": {"bytes": "t"}}], "Field required"),
    ([TERMS | {"terms": {"bytes": "t", "ends": "t"}}], "tensors of their own"),
    ([TERMS | {"terms": {"bytes": 1, "ends": 2}}], "valid"),
    ([TERMS | {"idf": "t.ends"}], "idf must be a tensor of its own"),
    ([TERMS, TERMS | {"name": "u"}], "tensor of a field must be one of its own"),
    ([BAG | {"terms": [str(i) for i in range(70_000)]}], "at most 65536 items"),
    ([BAG | {"terms": None}], "either terms or bits"),
    ([BAG | {"terms": None, "bits": 4, "unknown": "other"}], "hashed columns know every value"),
    ([BAG | {"hashing": "vw"}], "the hashing vw needs bits"),
    ([BAG | {"terms": None, "bits": 4, "signed": True, "hashing": "vw"}], "has no signs"),
    ([BAG | {"missing": {"value": {}}}], "Input should be"),
    ([VECTOR | {"size": 0}], "greater than or equal to 1"),
    ([VECTOR | {"size": 2**63}], "less than or equal"),
    ([VECTOR | {"size": "3"}], "valid integer"),
    ([VECTOR | {"mean": [1, 2]}], "one number for each of the 3 columns"),
    ([VECTOR | {"scale": [1, 2]}], "one number for each of the 3 columns"),
    ([VECTOR | {"scale": [1, 2, 0]}], "greater than 0"),
    ([VECTOR | {"mean": "m", "scale": "m"}], "tensors of their own"),
    ([VECTOR | {"mean": "m"}, VECTOR | {"name": "w", "mean": "m"}], "tensor of a field must be one of its own"),
    ([*BELOW, CROSS | {"fields": ["a"]}], "at least 2 items"),
    ([*BELOW, CROSS | {"fields": ["a", "c", "a", "c"]}], "at most 3 items"),
    ([*BELOW, CROSS | {"fields": ["a", "a"]}], "must differ from each other"),
    ([*BELOW, CROSS | {"fields": ["a", "z"]}], "fields above it"),
    ([*BELOW, CROSS | {"fields": ["a", "x"]}], "fields above it"),
    ([CROSS, *BELOW], "fields above it"),
    ([*BELOW, CROSS, CROSS | {"name": "y", "fields": ["a", "x"]}], "fields above it"),
    ([*BELOW, CROSS | {"bits": None}], "valid integer"),
    ([*BELOW, CROSS | {"bits": 2**63}], "less than or equal to 30"),
    ([*BELOW, CROSS | {"hashing": "vw", "seed": 1}], "neither seed nor signs"),
    ([*BELOW, CROSS | {"missing": "none"}], "Extra inputs"),
]

# Valid lists of fields, the shapes of tensors, and a part of the sentence that refuses both together.
TOO_LARGE: list[tuple[list[dict[str, Any]], dict[str, tuple[int, ...]], str]] = [
    ([NUMBER | {"name": str(i)} for i in range(1025)], {}, "1025 fields, and the limit is 1024"),
    ([HASHED | {"bits": 25}], {}, "more than 16777216 columns"),
    ([HASHED | {"bits": 24}, NUMBER], {}, "more than 16777216 columns"),
    ([HASHED | {"name": str(i), "bits": 30} for i in range(1000)], {}, "more than 16777216 columns"),
    ([VECTOR | {"name": str(i), "size": 65_536} for i in range(257)], {}, "more than 16777216 columns"),
    ([*BELOW, CROSS | {"bits": 30}], {}, "more than 16777216 columns"),
    ([TERMS], {}, '"t" is missing'),
    ([TERMS], {"t.bytes": (9,)}, '"t" is missing'),
    ([TERMS], {"t.bytes": (9,), "t.ends": (3, 1)}, "one dimension"),
    ([TERMS], {"t.bytes": (), "t.ends": (3,)}, "one dimension"),
    ([TERMS], {"t.bytes": (0,), "t.ends": (0,)}, "has no columns"),
    ([TERMS], {"t.bytes": (10**10,), "t.ends": (10**9,)}, "more than 16777216 columns"),
    ([TERMS], {"t.bytes": (2**63,), "t.ends": (2**63,)}, "more than 16777216 columns"),
    ([TERMS | {"idf": "t.idf"}], {"t.bytes": (9,), "t.ends": (3,), "t.idf": (2,)}, "one number for each column"),
    ([TEXT | {"idf": "t.idf"}], {"t.idf": (2**18 - 1,)}, "one number for each column"),
    ([VECTOR | {"mean": "m"}], {"m": (4,)}, "one number for each column"),
    ([VECTOR | {"scale": "s"}], {"s": (3, 1)}, "one dimension"),
]


def find_problem(fields: Any) -> str:
    """Return the first problem of a list of fields, as a manifest reports it."""
    text = json.dumps(fields)
    with pytest.raises(ValidationError) as caught:
        FIELDS.validate_json(text)
    return caught.value.errors(include_url=False, include_context=False, include_input=False)[0]["msg"]


@pytest.mark.parametrize(("fields", "reason"), WRONG)
def test_a_wrong_list_of_fields_is_refused(fields: Any, reason: str) -> None:
    """The first problem says what is wrong."""
    assert any(part in find_problem(fields) for part in reason.split("|"))


def test_at_least_a_hundred_lists_are_refused() -> None:
    """The table covers each member of each kind."""
    assert len(WRONG) + len(TOO_LARGE) >= 120


def test_a_refusal_allocates_nothing_for_what_the_fields_ask_for() -> None:
    """Memory stays near that of the text itself: no columns, terms or numbers are made for a refused list."""
    texts = [json.dumps(fields) for fields, _ in WRONG if len(json.dumps(fields)) < 10_000]
    for text in texts:  # error messages and caches are made once
        with pytest.raises(ValidationError):
            FIELDS.validate_json(text)
    tracemalloc.start()
    try:
        for text in texts:
            with pytest.raises(ValidationError):
                FIELDS.validate_json(text)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize(("fields", "sizes", "reason"), TOO_LARGE)
def test_columns_beyond_a_limit_are_refused_by_arithmetic(
    fields: list[dict[str, Any]], sizes: dict[str, tuple[int, ...]], reason: str
) -> None:
    """The sentence names the limit, and nothing is allocated for the columns."""
    parsed = parse_fields(*fields)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=reason):
            lay_out_columns(parsed, sizes, LIMITS)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_each_field_owns_a_block_of_columns() -> None:
    """Blocks follow each other in the order of the fields, with the columns `other` and `missing`."""
    fields = parse_fields(
        NUMBER | {"flag": True},
        BOOLEAN | {"missing": "column"},
        CATEGORY | {"unknown": "other", "missing": "column"},
        TERMS,
        VECTOR,
        HASHED | {"missing": "column"},
        CROSS,
    )
    blocks = lay_out_columns(fields, {"t.bytes": (9,), "t.ends": (3,)}, LIMITS)
    sizes = [2, 2, 4, 3, 3, 257, 1024]
    assert [block.end - block.start for block in blocks] == sizes
    assert blocks[0] == ColumnBlock(0, 2)
    assert all(one.end == other.start for one, other in pairwise(blocks))
    assert not is_dense(fields, {"t.ends": (3,)})


def test_few_columns_that_are_listed_are_dense() -> None:
    """A hash, or more than 4,096 columns, makes rows sparse."""
    assert is_dense(parse_fields(NUMBER, CATEGORY, BAG, VECTOR), {})
    assert is_dense(parse_fields(VECTOR | {"size": 4096}), {})
    assert not is_dense(parse_fields(NUMBER, VECTOR | {"size": 4096}), {})
    assert not is_dense(parse_fields(NUMBER, HASHED | {"bits": 1}), {})
    assert not is_dense(parse_fields(TERMS), {"t.ends": (4097,)})


def test_columns_have_names_that_differ() -> None:
    """Each kind has its names; one that occurs twice gets a number."""
    fields = parse_fields(
        NUMBER | {"name": "age", "flag": True},
        CATEGORY | {"values": ["DE", "other", 1, "1", True], "unknown": "other", "missing": "column"},
        TERMS,
        BAG | {"unknown": "other"},
        VECTOR,
    )
    names = list_column_names(fields, {"t": ["refund", "money"]})
    assert names == (
        *("age", "age=missing"),
        *("c=DE", "c=other", "c=1", "c=1 (2)", "c=true", "c=other (2)", "c=missing"),
        *("t: refund", "t: money"),
        *("g: red", "g: blue", "g=other"),
        *("v[0]", "v[1]", "v[2]"),
    )


def test_records_are_written_as_they_are_read() -> None:
    """A manifest that is written again has equal fields."""
    fields = parse_fields(NUMBER | {"missing": {"value": 3}}, CATEGORY, TERMS, BAG, VECTOR, CROSS)
    dumped = FIELDS.dump_json(fields, exclude_none=True)
    assert FIELDS.validate_json(dumped) == fields
