"""Rows as objects, lists and columns: the same bits, missing and unknown values, and one sentence for each refusal."""

import json
import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from service.errors import ArtifactError, InputError, TooLargeError, UnacceptableError
from service.field_errors import (
    FieldValueError,
    MissingValueError,
    TooManyEntriesError,
    UnknownFieldError,
    UnknownValueError,
)
from service.fields import entries, row_encoder
from service.fields.column_blocks import FieldLimits
from service.fields.row_encoder import EncodedRows, RowEncoder
from service.softmax.sparse_rows import check_sparse_rows
from tests.support.budgets import examples
from tests.support.field_lists import parse_fields

LIMITS = FieldLimits()
FIELDS: list[dict[str, Any]] = [
    {"name": "age", "kind": "number", "mean": 38.6, "scale": 13.7, "clip": 3.0, "flag": True},
    {"name": "member", "kind": "boolean", "missing": "column"},
    {"name": "country", "kind": "category", "values": ["DE", "PT"], "unknown": "other"},
    {"name": "level", "kind": "category", "values": [1, 2, True, "2"], "missing": "column"},
    {"name": "city", "kind": "category", "bits": 6, "signed": True},
    {"name": "subject", "kind": "text", "words": [1, 2], "bits": 8, "norm": "l2", "missing": {"value": "nothing"}},
    {"name": "body", "kind": "text", "chars": [1, 3], "terms": ["a", "ab", "b", "ü"], "counts": "log"},
    {"name": "tags", "kind": "bag", "terms": ["red", "blue"], "unknown": "other", "norm": "l1"},
    {"name": "vector", "kind": "vector", "size": 3, "mean": [1, 2, 3], "scale": [1, 2, 4], "missing": "column"},
    {"name": "both", "kind": "cross", "fields": ["country", "subject"], "bits": 5, "signed": True},
    {"name": "all", "kind": "cross", "fields": ["age", "level", "tags"], "bits": 4},
]
ENCODER = RowEncoder(parse_fields(*FIELDS), {}, LIMITS)
ROW = {
    "age": 41,
    "member": True,
    "country": "PT",
    "level": 2,
    "city": "Porto",
    "subject": "Refund my money",
    "body": "abba",
    "tags": {"red": 1.5, "green": -0.5},
    "vector": [1, 2, 7],
}
NAMES = list(ROW)


def make_encoder(*fields: dict[str, Any], **options: Any) -> RowEncoder:
    """Return the encoder of fields without tensors."""
    return RowEncoder(parse_fields(*fields), {}, LIMITS, **options)


def encode_one(field: dict[str, Any], *values: object) -> list[list[float]]:
    """Return the columns of values of one field."""
    encoder = make_encoder({"name": "x", **field})
    return encoder.encode_columns({"x": list(values)}).rows.to_matrix(encoder.n_columns).tolist()


def refusal(field: dict[str, Any], *values: object) -> str:
    """Return the sentence that refuses values of one field."""
    with pytest.raises(InputError) as caught:
        encode_one(field, *values)
    return str(caught.value)


def assert_same_bits(one: EncodedRows, other: EncodedRows) -> None:
    """Assert that rows have the same bits, and the same counts."""
    for ours, theirs in zip((*one.rows, *one[1:]), (*other.rows, *other[1:]), strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize(
    ("field", "row", "error", "code"),
    [
        ({"kind": "number"}, {"x": "a"}, FieldValueError, "invalid_value"),
        ({"kind": "number", "missing": "refuse"}, {"x": None}, MissingValueError, "missing_value"),
        ({"kind": "text", "words": [1, 1], "bits": 3, "missing": "refuse"}, {}, MissingValueError, "missing_value"),
        ({"kind": "category", "values": ["a"], "unknown": "refuse"}, {"x": "b"}, UnknownValueError, "unknown_value"),
        ({"kind": "bag", "terms": ["a"], "unknown": "refuse"}, {"x": ["b"]}, UnknownValueError, "unknown_value"),
        ({"kind": "number"}, {"y": 1}, UnknownFieldError, "unknown_field"),
        ({"kind": "bag", "bits": 20}, {"x": list("abcdef")}, TooManyEntriesError, "too_many_entries"),
        (
            {"kind": "text", "words": [1, 1], "bits": 9},
            {"x": "aa bb cc dd ee"},
            TooManyEntriesError,
            "too_many_entries",
        ),
    ],
)
def test_each_refusal_has_its_code(
    field: dict[str, Any], row: dict[str, Any], error: type[InputError], code: str
) -> None:
    """Programs tell a wrong value from one that is missing or unknown, and from a wrong name."""
    encoder = RowEncoder(parse_fields({"name": "x", **field}), {}, LIMITS._replace(entries_max=4))
    with pytest.raises(InputError) as caught:
        encoder.encode_objects([row])
    assert (type(caught.value), caught.value.code) == (error, code)


def test_objects_lists_and_columns_give_the_same_bits() -> None:
    """The order of names does not matter, and a row is the same alone and among others."""
    rows = [ROW, ROW | {"age": None, "country": "FR"}, {}]
    objects = ENCODER.encode_objects(rows)
    check_sparse_rows(objects.rows, ENCODER.n_columns)
    assert_same_bits(objects, ENCODER.encode_objects([dict(reversed(row.items())) for row in rows]))
    assert_same_bits(objects, ENCODER.encode_objects([[row.get(name) for name in NAMES] for row in rows]))
    assert_same_bits(objects, ENCODER.encode_objects([rows[0], [rows[1].get(name) for name in NAMES], {}]))
    columns = {name: [row.get(name) for row in rows] for name in reversed(NAMES)}
    assert_same_bits(objects, ENCODER.encode_columns(columns))
    for i, row in enumerate(rows):
        alone = ENCODER.encode_objects([row]).rows
        assert alone.values.tobytes() == objects.rows.slice_rows(i, i + 1).values.tobytes()
        assert alone.columns.tobytes() == objects.rows.slice_rows(i, i + 1).columns.tobytes()
    assert objects.missing.tolist() == [2, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0]
    assert objects.unknown.tolist() == [0, 0, 1, 0, 0, 0, 0, 2, 0, 0, 0]


def test_arrays_of_tensors_give_the_bits_of_lists() -> None:
    """Numbers, booleans and vectors of a tensor; NaN is a missing number."""
    columns = {
        "age": np.array([41.0, np.nan]),
        "member": np.array([True, False]),
        "level": np.array([1, 2], np.int32),
        "vector": np.array([[1, 2, 3], [4, 5, 6]], np.float32),
    }
    lists = {name: array.tolist() for name, array in columns.items()}
    assert_same_bits(ENCODER.encode_columns(columns), ENCODER.encode_columns(lists))
    whole = np.array([41, 2**60 + 1], np.int64)
    assert_same_bits(ENCODER.encode_columns({"age": whole}), ENCODER.encode_columns({"age": whole.tolist()}))


def test_no_rows_are_encoded() -> None:
    """An empty list gives no row; whether that is allowed is decided above."""
    assert ENCODER.encode_objects([]).rows.n_rows == 0
    assert ENCODER.encode_columns({"age": []}).rows.n_rows == 0


NUMBER = {"kind": "number", "mean": 10.0, "scale": 4.0}
COLUMNS_OF_VALUES: list[tuple[dict[str, Any], list[object], list[list[float]]]] = [
    (NUMBER, [12, 12.0, 10], [[0.5], [0.5], [0.0]]),
    (NUMBER, [None, math.nan], [[0.0], [0.0]]),
    (NUMBER | {"clip": 1}, [100, -100, 1e308], [[1.0], [-1.0], [1.0]]),
    (NUMBER | {"missing": "none"}, [None, 14], [[0.0], [1.0]]),
    (NUMBER | {"missing": "column"}, [None, 14], [[0.0, 1.0], [1.0, 0.0]]),
    (NUMBER | {"flag": True}, [None, 14], [[0.0, 1.0], [1.0, 0.0]]),
    (NUMBER | {"missing": {"value": 18}}, [None, 14], [[2.0], [1.0]]),
    (NUMBER | {"missing": {"value": 18}, "flag": True}, [None, 14], [[2.0, 1.0], [1.0, 0.0]]),
    ({"kind": "boolean"}, [True, False, None], [[1.0], [0.0], [0.0]]),
    ({"kind": "boolean", "missing": "column"}, [True, None], [[1.0, 0.0], [0.0, 1.0]]),
    ({"kind": "boolean", "missing": {"value": True}}, [False, None], [[0.0], [1.0]]),
    ({"kind": "category", "values": ["a", "b"]}, ["b", "c", None], [[0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]),
    (
        {"kind": "category", "values": ["a"], "unknown": "other", "missing": "column"},
        ["a", "c", None, math.nan],
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]],
    ),
    ({"kind": "category", "values": ["a", "b"], "missing": {"value": "b"}}, [None, "a"], [[0.0, 1.0], [1.0, 0.0]]),
    (
        {"kind": "category", "values": [1, True, "1"]},
        [1, 1.0, True, "1", 2, False],
        [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]],
    ),
    ({"kind": "category", "values": [0, False]}, [-0.0, False, 0], [[1, 0], [0, 1], [1, 0]]),
    ({"kind": "text", "words": [1, 1], "terms": ["ab", "cd"]}, ["AB cd ab", "", None], [[2, 1], [0, 0], [0, 0]]),
    (
        {"kind": "text", "words": [1, 1], "terms": ["ab"], "missing": "column"},
        ["ab", None, "ab ab", None],
        [[1, 0], [0, 1], [2, 0], [0, 1]],
    ),
    ({"kind": "text", "words": [1, 1], "terms": ["ab"], "missing": {"value": "ab ab"}}, [None, "ab"], [[2], [1]]),
    (
        {"kind": "bag", "terms": ["a", "b"]},
        [{"b": 2.5, "c": 1}, ["a", "a"], [], None],
        [[0, 2.5], [2, 0], [0, 0], [0, 0]],
    ),
    (
        {"kind": "bag", "terms": ["a"], "unknown": "other", "missing": "column"},
        [{"x": 1, "y": 2, "a": 3}, None],
        [[3, 3, 0], [0, 0, 1]],
    ),
    ({"kind": "vector", "size": 2}, [[1, 2.5], None], [[1, 2.5], [0, 0]]),
    (
        {"kind": "vector", "size": 2, "mean": [1, 1], "scale": [2, 4], "clip": 1, "missing": "column"},
        [[2, 100], None],
        [[0.5, 1, 0], [0, 0, 1]],
    ),
]


@pytest.mark.parametrize(("field", "values", "expected"), COLUMNS_OF_VALUES)
def test_values_have_their_columns(field: dict[str, Any], values: list[object], expected: list[list[float]]) -> None:
    """Each kind, and each rule for missing and unknown values."""
    assert encode_one(field, *values) == expected


REFUSED_VALUES: list[tuple[dict[str, Any], object, str]] = [
    ({"kind": "number"}, "41", "must be a number or null"),
    ({"kind": "number"}, True, "must be a number or null"),
    ({"kind": "number"}, [41], "must be a number or null"),
    ({"kind": "number"}, math.inf, "must be a finite number"),
    ({"kind": "number"}, 10**400, "must be a finite number"),
    ({"kind": "number", "scale": 1e-9}, 1e308, "has a number that is too large for this model"),
    ({"kind": "number", "missing": "refuse"}, None, "is missing, and must be a number"),
    ({"kind": "number", "missing": "refuse"}, "41", "must be a number"),
    ({"kind": "boolean"}, 1, "must be true, false or null"),
    ({"kind": "boolean"}, "true", "must be true, false or null"),
    ({"kind": "boolean", "missing": "refuse"}, None, "is missing, and must be true or false"),
    ({"kind": "category", "values": ["DE"]}, 5, "must be a text or null"),
    ({"kind": "category", "values": ["DE"]}, True, "must be a text or null"),
    ({"kind": "category", "values": ["DE"]}, ["DE"], "must be a text or null"),
    ({"kind": "category", "values": ["DE", 1]}, 1.5, "must be a text, a whole number or null"),
    ({"kind": "category", "values": [1]}, "1", "must be a whole number or null"),
    ({"kind": "category", "values": [1]}, True, "must be a whole number or null"),
    ({"kind": "category", "values": [1]}, math.inf, "must be a whole number or null"),
    ({"kind": "category", "values": [True]}, 1, "must be true, false or null"),
    (
        {"kind": "category", "values": ["DE"], "unknown": "refuse"},
        "FR",
        "must be one of the values that the model knows",
    ),
    ({"kind": "category", "values": ["DE"], "missing": "refuse"}, None, "is missing, and must be a text"),
    ({"kind": "category", "bits": 4}, 1.5, "must be a text, a whole number, true, false or null"),
    ({"kind": "category", "bits": 4}, {}, "must be a text, a whole number, true, false or null"),
    ({"kind": "category", "bits": 4}, "\ud800", "must be valid Unicode"),
    ({"kind": "text", "words": [1, 1], "bits": 4}, 3, "must be a text or null"),
    ({"kind": "text", "words": [1, 1], "bits": 4}, ["a"], "must be a text or null"),
    ({"kind": "text", "words": [1, 1], "bits": 4, "missing": "refuse"}, None, "is missing, and must be a text"),
    ({"kind": "bag", "bits": 4}, "a", "must be an object of names and numbers, a list of names or null"),
    ({"kind": "bag", "bits": 4}, [1], "must be an object of names and numbers, a list of names or null"),
    ({"kind": "bag", "bits": 4}, {"a": "b"}, "must be an object of names and numbers, a list of names or null"),
    ({"kind": "bag", "bits": 4}, {"a": True}, "must be an object of names and numbers, a list of names or null"),
    ({"kind": "bag", "bits": 4}, {"a": None}, "must be an object of names and numbers, a list of names or null"),
    ({"kind": "bag", "bits": 4}, {"a": math.inf}, "must have finite numbers"),
    ({"kind": "bag", "bits": 4}, {"a": 10**400}, "must have finite numbers"),
    ({"kind": "bag", "bits": 4}, ["\udfff"], "must be valid Unicode"),
    ({"kind": "bag", "bits": 1}, {"a": 1.7e308, "b": 1.7e308, "c": 1.7e308}, "has a number that is too large"),
    ({"kind": "bag", "terms": ["a"], "unknown": "refuse"}, ["b"], "must have names that the model knows"),
    ({"kind": "vector", "size": 2}, [1], "must be a list of 2 numbers or null"),
    ({"kind": "vector", "size": 2}, [1, 2, 3], "must be a list of 2 numbers or null"),
    ({"kind": "vector", "size": 2}, [1, None], "must be a list of 2 numbers or null"),
    ({"kind": "vector", "size": 2}, [1, True], "must be a list of 2 numbers or null"),
    ({"kind": "vector", "size": 2}, {"0": 1, "1": 2}, "must be a list of 2 numbers or null"),
    ({"kind": "vector", "size": 2}, [1, math.nan], "must have finite numbers"),
    ({"kind": "vector", "size": 2}, [1, 10**400], "must have finite numbers"),
]


@pytest.mark.parametrize(("field", "value", "problem"), REFUSED_VALUES)
def test_a_refusal_names_row_and_field(field: dict[str, Any], value: object, problem: str) -> None:
    """One sentence, with the row counted from 0, and without the value."""
    fine = {"number": 1, "boolean": True, "text": "a", "bag": ["a"], "vector": [1, 2]}
    values = field.get("values", ["a"])
    message = refusal(field, fine.get(field["kind"], values[0]), value)
    assert message.startswith(f'Row 1: "x" {problem}')
    assert message.endswith(".")


def test_rows_that_are_no_rows_are_refused() -> None:
    """Names and sizes are checked in each form."""
    for rows, message in [
        ([[1], ROW], "Row 0 has 1 values; this model takes 9."),
        ([ROW, 7], "Row 1 must be an object of names and values, or a list of values."),
        ([ROW, None], "Row 1 must be an object of names and values, or a list of values."),
        ([ROW, {"agee": 3}], "Row 1 has a name that is no field; the fields are "),
        ([[None] * 9, {"both": 3}], "Row 1 has a name that is no field; the fields are "),
    ]:
        with pytest.raises(UnacceptableError) as caught:
            ENCODER.encode_objects(rows)
        assert str(caught.value).startswith(message)
        assert "agee" not in str(caught.value)
    for columns, message in [
        ({}, "There must be at least one column"),
        ({"age": [1], "city": ["a", "b"]}, "There must be at least one column, and all must have as many values"),
        ({"age": 3}, '"age" must be a list of one value for each row.'),
        ({"age": [1], "agee": [1]}, "A column has a name that is no field; the fields are "),
    ]:
        with pytest.raises(UnacceptableError) as caught:
            ENCODER.encode_columns(columns)
        assert str(caught.value).startswith(message)


def test_other_names_are_ignored_where_the_model_says_so() -> None:
    """Rows and columns with other names have the bits of those without."""
    encoder = make_encoder(*FIELDS, others="ignore")
    assert_same_bits(encoder.encode_objects([ROW | {"id": 7}]), ENCODER.encode_objects([ROW]))
    assert_same_bits(encoder.encode_columns({"age": [3], "id": ["x"]}), ENCODER.encode_columns({"age": [3]}))


def test_rows_are_those_of_a_column_transformer() -> None:
    """Numbers with gaps and categories, as scikit-learn scales and encodes them."""
    rng = np.random.default_rng(7)
    numbers = rng.normal(50, 20, (500, 3))
    numbers[rng.random((500, 3)) < 0.1] = np.nan
    levels = rng.integers(0, 5, 500)
    texts = rng.choice(["DE", "PT", "FR", "ñandú"], 500)
    table = np.column_stack([numbers.astype(object), levels.astype(object), texts.astype(object)])
    scaler = make_pipeline(SimpleImputer(add_indicator=False), StandardScaler())
    transformer = ColumnTransformer(
        [("n", scaler, [0, 1, 2]), ("c", OneHotEncoder(handle_unknown="ignore"), [3, 4])], sparse_threshold=0
    )
    expected = transformer.fit_transform(table)
    imputer, scale = transformer.named_transformers_["n"].steps[0][1], transformer.named_transformers_["n"].steps[1][1]
    categories = transformer.named_transformers_["c"].categories_
    fields = [
        {"name": f"n{j}", "kind": "number", "mean": scale.mean_[j], "scale": scale.scale_[j]}
        | {"missing": {"value": imputer.statistics_[j]}}
        for j in range(3)
    ]
    fields += [{"name": f"c{j}", "kind": "category", "values": list(values)} for j, values in enumerate(categories)]
    encoder = make_encoder(*fields)
    got = encoder.encode_objects(json.loads(json.dumps(table.tolist()))).rows.to_matrix(encoder.n_columns)
    assert np.abs(got - expected).max() <= 1e-12


def test_rows_are_cast_to_the_dtype_of_the_model() -> None:
    """What float32 cannot hold is refused by its row and field."""
    encoder = make_encoder({"name": "x", "kind": "number"}, {"name": "v", "kind": "vector", "size": 2})
    rows = encoder.encode_objects([[1, [2, 3]], [1.5, [1e30, -1e39]]]).rows
    with pytest.raises(UnacceptableError, match='Row 1: "v" has a number that is too large for this model'):
        encoder.to_model_rows(rows, np.dtype(np.float32))
    assert encoder.to_model_rows(rows, np.dtype(np.float64)).values.tolist() == rows.values.tolist()
    small = encoder.to_model_rows(rows.slice_rows(0, 1), np.dtype(np.float32))
    assert small.values.dtype == np.float32


def test_a_row_has_a_limit_of_entries() -> None:
    """Each field, each cross and the whole row."""
    limits = FieldLimits(entries_max=100)
    bags = [{"name": name, "kind": "bag", "bits": 16} for name in "ab"]
    encoder = RowEncoder(parse_fields(*bags), {}, limits)
    names = [str(i) for i in range(101)]
    with pytest.raises(TooLargeError, match='Row 1: "a" has more than 100 entries'):
        encoder.encode_objects([{"a": ["x"]}, {"a": names}])
    with pytest.raises(TooLargeError, match="Row 1 has more than 100 entries"):
        encoder.encode_objects([{"a": ["x"]}, {"a": names[:60], "b": names[:60]}])
    cross = {"name": "x", "kind": "cross", "fields": ["a", "b"], "bits": 16}
    with pytest.raises(TooLargeError, match='Row 1: "x" has more than 100 products'):
        RowEncoder(parse_fields(*bags, cross), {}, limits).encode_objects(
            [{"a": ["x"]}, {"a": names[:11], "b": names[:11]}]
        )


def test_products_of_many_entries_are_refused_before_they_are_made() -> None:
    """Three full rows would have 2**48 products."""
    bags = [{"name": name, "kind": "bag", "bits": 20} for name in "abc"]
    cross = {"name": "x", "kind": "cross", "fields": ["a", "b", "c"], "bits": 10}
    encoder = make_encoder(*bags, cross)
    full = [str(i) for i in range(65_536)]
    row = {"a": full, "b": full, "c": full}
    tracemalloc.start()
    try:
        with pytest.raises(TooLargeError, match='"x" has more than 65536 products'):
            encoder.encode_objects([row])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100 << 20


def test_a_model_beyond_a_limit_is_refused() -> None:
    """The reason is that of the columns."""
    with pytest.raises(ArtifactError, match="more than 100 columns"):
        RowEncoder(parse_fields({"name": "v", "kind": "vector", "size": 101}), {}, FieldLimits(columns_max=100))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["PT", "DE", "ab", 1, 2, 1.0, "Refund my money", [1, 2, 3], ["red"], {"red": 2}]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=6,
)
LIKELY = st.fixed_dictionaries({name: JSON | st.just(value) | st.just(value) for name, value in ROW.items()})


@settings(max_examples=examples(600), deadline=None)
@given(st.lists(LIKELY, min_size=1, max_size=3))
def test_any_values_give_entries_or_one_sentence(rows: list[dict[str, Any]]) -> None:
    """Every form gives the same bits, or the same sentence."""
    forms = [
        lambda: ENCODER.encode_objects(rows),
        lambda: ENCODER.encode_objects([[row[name] for name in NAMES] for row in rows]),
        lambda: ENCODER.encode_columns({name: [row[name] for row in rows] for name in NAMES}),
    ]
    outcomes: list[EncodedRows | str] = []
    for form in forms:
        try:
            outcomes.append(form())
        except InputError as error:
            outcomes.append(str(error))
    first = outcomes[0]
    if isinstance(first, str):
        assert outcomes == [first] * 3
        assert first.startswith("Row ")
        assert first.endswith(".")
    else:
        check_sparse_rows(first.rows, ENCODER.n_columns)
        assert np.isfinite(first.rows.values).all()
        assert (first.rows.values != 0).all()
        for other in outcomes[1:]:
            assert not isinstance(other, str)
            assert_same_bits(first, other)


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(JSON, min_size=1, max_size=3))
def test_any_rows_give_entries_or_one_sentence(rows: list[object]) -> None:
    """Whatever a list of rows holds, no other error leaves the encoder."""
    outcome = try_rows(rows)
    assert outcome == len(rows) or str(outcome).startswith("Row ")


def try_rows(rows: list[object]) -> int | str:
    """Return how many rows were encoded, or the sentence that refuses them."""
    try:
        return ENCODER.encode_objects(rows).rows.n_rows
    except InputError as error:
        return str(error)


def test_limits_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit is accepted and one more is refused: of entries of a field, a row, a call, and all of its fields."""
    bags = [{"name": name, "kind": "bag", "terms": list("abcd")} for name in ("one", "two")]
    encoder = RowEncoder(parse_fields(*bags), {}, LIMITS._replace(entries_max=3))

    def refusal(*rows: object) -> str:
        with pytest.raises((TooLargeError, UnacceptableError)) as refused:
            encoder.encode_objects(rows)
        return str(refused.value)

    full = {"one": ["a", "b"], "two": ["c"]}
    assert len(encoder.encode_objects([full]).rows.columns) == 3
    assert len(encoder.encode_objects([{"one": list("abc")}]).rows.columns) == 3
    assert refusal(full, {"one": ["a", "b"], "two": ["c", "d"]}) == "Row 1 has more than 3 entries."
    assert refusal({}, {"one": list("abcd")}) == 'Row 1: "one" has more than 3 entries.'
    assert refusal([["a"], ["b"], ["c"]]) == "Row 0 has 3 values; this model takes 2."
    for module in (entries, row_encoder):
        monkeypatch.setattr(module, "ENTRIES_OF_A_CALL_MAX", 4)
    assert encoder.encode_objects([{"one": ["a", "b"]}] * 2).rows.n_rows == 2
    assert refusal({"one": ["a", "b"]}, {"one": list("abc")}).startswith('"one" has more than 4 entries')
    assert refusal(full, {"two": ["a", "b"]}).startswith("The rows have more than 4 entries")


@pytest.mark.parametrize(
    ("before", "row", "sentence"),
    [
        ({"vector": None}, {"vector": [0, 10**400, 0]}, 'Row 2: "vector" must have finite numbers.'),
        ({"tags": ["red", "blue"]}, {"tags": {"red": 10**400}}, 'Row 2: "tags" must have finite numbers.'),
        ({"tags": ["red", "blue"]}, {"tags": ["red", "\ud800"]}, 'Row 2: "tags" must be valid Unicode.'),
        ({"few": ["a", "b"]}, {"few": ["a", "c"]}, 'Row 2: "few" must have names that the model knows.'),
    ],
)
def test_refusals_count_rows_and_not_entries(before: Any, row: Any, sentence: str) -> None:
    """Rows before it have no entry of the field, or several."""
    few = {"name": "few", "kind": "bag", "terms": ["a", "b"], "unknown": "refuse"}
    encoder = RowEncoder(parse_fields(*FIELDS, few), {}, LIMITS)
    with pytest.raises(UnacceptableError) as refused:
        encoder.encode_objects([before, before, row])
    assert str(refused.value) == sentence
