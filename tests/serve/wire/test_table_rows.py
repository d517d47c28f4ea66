"""Tables with named columns become the same rows as lists of numbers, whatever the order and the form."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InputError, TooLargeError, UnacceptableError
from service.serve.wire.predict_body import convert_inputs
from service.serve.wire.rows import RowParser
from service.serve.wire.table_rows import TableParser
from tests.support.budgets import examples
from tests.support.json_numbers import CANARY
from tests.support.json_reference import checked_message

ROWS_MAX = 20
NAMES = ("width", "height", "2", "ü\n")
X = [[0.1, -2.5, 3, 4e-3], [5, 6.25, 1e6, 8]]


def make_tables(names: tuple[str, ...] = NAMES, dtype: type[np.floating[Any]] = np.float64) -> TableParser:
    """A parser of the tables of a model with these features."""
    return TableParser(RowParser(len(names), np.dtype(dtype), ROWS_MAX, 64), names)


def as_records(names: list[str], rows: list[list[Any]]) -> list[dict[str, Any]]:
    """A list of objects."""
    return [dict(zip(names, row, strict=True)) for row in rows]


def as_columns(names: list[str], rows: list[list[Any]]) -> dict[str, list[Any]]:
    """An object of columns."""
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def as_split(names: list[Any], rows: list[list[Any]]) -> dict[str, Any]:
    """A table as pandas writes it with the orient "split"."""
    return {"index": list(range(len(rows))), "columns": names, "data": rows}


Read = Callable[[TableParser, list[str], list[list[Any]]], Any]
FORMS: dict[str, Read] = {
    "records": lambda tables, names, rows: tables.convert_instances(as_records(names, rows)),
    "columns": lambda tables, names, rows: tables.convert_columns(as_columns(names, rows)),
    "split": lambda tables, names, rows: tables.convert_split(as_split(names, rows), "frame"),
}
every_form = pytest.mark.parametrize("form", FORMS)


def refusal(read: Callable[[], Any]) -> str:
    """The sentence of a refusal, which has nothing of the input but names."""
    with pytest.raises(InputError) as caught:
        read()
    return checked_message(caught.value)


@every_form
@settings(deadline=None, max_examples=100)
@given(
    rows=st.lists(
        st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9), min_size=4, max_size=4),
        min_size=1,
        max_size=ROWS_MAX,
    ),
    order=st.permutations(range(len(NAMES))),
)
def test_columns_in_any_order_are_the_same_rows(form: str, rows: list[list[float]], order: list[int]) -> None:
    """Each form with its columns in any order gives the bits of the plain rows, in both dtypes."""
    shuffled = [[row[i] for i in order] for row in rows]
    for dtype in (np.float32, np.float64):
        tables = make_tables(dtype=dtype)
        plain = tables.convert_instances(rows)
        found = FORMS[form](tables, [NAMES[i] for i in order], shuffled)
        assert found.flags.carray
        assert (found.dtype, found.shape, found.tobytes()) == (plain.dtype, plain.shape, plain.tobytes())


def test_rows_of_several_forms_mix() -> None:
    """A list may have rows as lists, as objects by name, and as the vectors of TensorFlow Serving and SageMaker."""
    row = X[0]
    rows = [row, as_records(list(NAMES), [row])[0], {"features": row}, {"data": {"features": {"values": row}}}]
    assert make_tables().convert_instances(rows).tolist() == [row] * 4


def test_numbers_may_be_tensors_of_one() -> None:
    """A number by name may stand in a list of its own, as TensorFlow Serving's clients send it."""
    tables, nested = make_tables(), [[[value] for value in row] for row in X]
    assert tables.convert_columns(as_columns(list(NAMES), nested)).tolist() == X
    assert tables.convert_instances(as_records(list(NAMES), nested)).tolist() == X


def test_inputs_are_columns_or_rows() -> None:
    """ "inputs" may be an object of columns, one array of rows, or one named array."""
    tables = make_tables()
    for inputs in (as_columns(list(NAMES), X), X, {"features": X}, as_records(list(NAMES), X)):
        assert convert_inputs(tables, inputs).tolist() == X


def test_columns_without_names_are_in_the_order_of_the_features() -> None:
    """A table without names, or with pandas' numbers from 0, has the features in their order."""
    tables = make_tables()
    for columns in (None, [0, 1, 2, 3], ["0", "1", "2", "3"]):
        assert tables.convert_split(as_split(columns, X), "frame").tolist() == X  # type: ignore[arg-type]
    assert tables.convert_split({"data": X}, "frame").tolist() == X
    assert tables.convert_instances(as_records(["0", "1", "2", "3"], X)).tolist() == X


def test_names_go_before_numbers() -> None:
    """If the features are named by numbers, the columns are matched by these names."""
    tables = make_tables(("1", "0"))
    for columns in ([0, 1], ["0", "1"]):
        assert tables.convert_split(as_split(columns, [[7, 8]]), "frame").tolist() == [[8, 7]]


def test_a_feature_may_have_the_name_of_the_vector() -> None:
    """For a model with a feature named "features", that name means the feature."""
    one, two = make_tables(("features",)), make_tables(("features", "x"))
    for inputs in ({"features": [1, 2]}, {"features": [[1], [2]]}):
        assert one.convert_columns(inputs).tolist() == [[1], [2]]
    assert one.convert_instances([{"features": 1}, {"features": [2]}]).tolist() == [[1], [2]]
    assert two.convert_columns({"x": [1], "features": [2]}).tolist() == [[2, 1]]


@every_form
def test_wrong_columns_are_refused_by_name(form: str) -> None:
    """The sentence names the unknown and the missing columns."""
    place = "Row 0" if form == "records" else "The body"
    tail = "columns have the names of the model's features."
    tables = make_tables(("width", "height", "depth"))

    def sentence(*names: str) -> str:
        return refusal(lambda: FORMS[form](tables, list(names), [[1] * len(names)]))

    assert sentence("depth", "width") == f'{place} lacks a column, "height"; {tail}'
    assert sentence("width") == f'{place} lacks 2 columns, "height", "depth"; {tail}'
    assert sentence("width", "height", "depth", "x") == f'{place} has an unknown column, "x"; {tail}'
    assert (
        sentence("width", "height", "deep")
        == f'{place} has an unknown column, "deep", and lacks a column, "depth"; {tail}'
    )
    assert (
        sentence("width", "height", "d" * 65) == f'{place} has an unknown column, and lacks a column, "depth"; {tail}'
    )
    assert sentence("width", "height", "ü") == f'{place} has an unknown column, and lacks a column, "depth"; {tail}'
    many = sentence("width", "height", "depth", *(f"x{i}" for i in range(100)))
    assert many == f'{place} has 100 unknown columns, "x0", "x1", "x2"; {tail}'


def test_repeated_columns_are_refused_by_name() -> None:
    """A table that names a column twice is refused, even if one of the two is unknown."""
    tables = make_tables(("width", "height"))
    for columns, name in ((["width", "width"], "width"), (["width", "height", "x", "x"], "x")):
        found = refusal(lambda columns=columns: tables.convert_split(as_split(columns, [[1] * len(columns)]), "frame"))  # type: ignore[misc]
        assert found.startswith(f'The body has a column twice, "{name}";')


@every_form
@pytest.mark.parametrize("value", [None, True, CANARY, {}, [], [1, 2]])
def test_a_value_that_is_not_a_number_is_refused_by_row_and_column(form: str, value: object) -> None:
    """The sentence names the row and the column, and never the value."""
    rows: list[list[Any]] = [[1, 2], [3, 4], [5, value]]
    sentence = refusal(lambda: FORMS[form](make_tables(("a", "b")), ["a", "b"], rows))
    assert sentence == 'Row 2 has a value that is not a number in column "b".'
    swapped = [row[::-1] for row in rows]
    assert refusal(lambda: FORMS[form](make_tables(("a", "b")), ["b", "a"], swapped)) == sentence
    unprintable = refusal(lambda: FORMS[form](make_tables(("a", "\n")), ["a", "\n"], rows))
    assert unprintable == "Row 2 has a value that is not a number."


@pytest.mark.parametrize(
    ("read", "words"),
    [
        (lambda tables: tables.convert_instances({}), '"instances" must be a list'),
        (lambda tables: tables.convert_instances([], "x"), '"x" must be a list of at least one row'),
        (lambda tables: tables.convert_instances([1]), "Row 0 must be a list of 2 numbers"),
        (lambda tables: tables.convert_instances([{}]), 'Row 0 lacks 2 columns, "a", "b"'),
        (lambda tables: tables.convert_instances([{"features": [1]}]), "Row 0 has 1 values; this model takes 2"),
        (lambda tables: tables.convert_instances([{"features": 1}]), 'Row 0 has an unknown column, "features"'),
        (lambda tables: tables.convert_instances([{"data": 1}]), 'Row 0 has an unknown column, "data"'),
        (lambda tables: tables.convert_instances([{"data": {"x": []}}]), 'Row 0 has an unknown column, "data"'),
        (lambda tables: tables.convert_columns({}), 'The body lacks 2 columns, "a", "b"'),
        (lambda tables: tables.convert_columns({"features": 1}), '"features" must be a list'),
        (lambda tables: tables.convert_columns({"a": 1, "b": [1]}), 'at least one number, "a"'),
        (lambda tables: tables.convert_columns({"a": [1], "b": []}), 'at least one number, "b"'),
        (lambda tables: tables.convert_columns({"a": [1, 2], "b": [1]}), 'as many numbers as each other, "b"'),
        (lambda tables: tables.convert_split([], "x"), '"x" must be an object'),
        (
            lambda tables: tables.convert_split({"columns": ["a", "b"]}, "x"),
            '"data" must be a list of at least one row',
        ),
        (lambda tables: tables.convert_split({"columns": "ab", "data": [[1, 2]]}, "x"), '"columns" must be a list'),
        (lambda tables: tables.convert_split({"columns": ["a", ["b"]], "data": [[1, 2]]}, "x"), "not a string"),
        (lambda tables: tables.convert_split({"data": [[1, 2], [3]]}, "x"), "Row 1 has 1 values; this model takes 2"),
        (lambda tables: tables.convert_split({"data": [{}]}, "x"), "Row 0 must be a list of 2 numbers"),
        (lambda tables: tables.convert_split({"data": [[1, 2]], "y": 1}, "x"), 'an unknown field, "y"'),
    ],
)
def test_other_values_are_refused(read: Callable[[TableParser], Any], words: str) -> None:
    """Anything but a table of this model is refused with a sentence that says what to change."""
    assert words in refusal(lambda: read(make_tables(("a", "b"))))


@every_form
def test_too_many_rows_are_refused(form: str) -> None:
    """The limit of rows holds in every form."""
    tables = make_tables(("a", "b"))
    assert len(FORMS[form](tables, ["a", "b"], [[1, 2]] * ROWS_MAX)) == ROWS_MAX
    with pytest.raises(TooLargeError):
        FORMS[form](tables, ["a", "b"], [[1, 2]] * (ROWS_MAX + 1))


def test_columns_of_unequal_sizes_take_no_memory() -> None:
    """One long column beside many short ones is refused before the matrix is made."""
    names = tuple(f"x{i}" for i in range(50_000))
    tables = TableParser(RowParser(len(names), np.dtype(np.float64), 1 << 40, 64), names)
    columns = {name: [1] for name in names} | {"x0": [1] * 1_000_000}
    with pytest.raises(UnacceptableError, match="as many numbers as each other"):
        tables.convert_columns(columns)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(allow_nan=False)
    | st.sampled_from(["a", "b", "features", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["a", "b", "features", "data", "values", "columns", "index"]), inner, max_size=3
        )
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=examples(300))
@given(value=json_values)
def test_any_json_value_gives_rows_or_a_refusal(value: Any) -> None:
    """Any JSON value gives finite rows of the model, or a refusal; never another error."""
    value = json.loads(json.dumps(value, allow_nan=True).replace("Infinity", "1e308"))
    tables = make_tables(("a", "b"))
    for read in (
        tables.convert_instances,
        lambda one: convert_inputs(tables, one),
        lambda one: tables.convert_split(one, "x"),
    ):
        try:
            found = read(value)
        except InputError as reason:
            checked_message(reason)
        else:
            assert found.ndim == 2
            assert found.shape[1] == 2
            assert len(found) > 0
