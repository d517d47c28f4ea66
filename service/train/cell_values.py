"""The values of one column in a block of rows, as a file has them, and their conversions for encoders.

    kind       values                                  found in
    cell       (B,) Arrow strings, trimmed             CSV, where nothing has a type
    number     (B,) Arrow float64                      Parquet, JSON Lines
    boolean    (B,) Arrow booleans                     Parquet, JSON Lines
    text       (B,) Arrow strings                      Parquet, JSON Lines
    object     B lists and objects                     Parquet, JSON Lines
    vector     (B, size) float64, none of it missing   Parquet
    empty      nothing: all values are missing         Parquet, JSON Lines
    mixed      nothing: values of several types        JSON Lines
    other      nothing: dates, times, bytes            Parquet

A gap is a null of Arrow, or None. A number that is NaN is a gap too.
"""

import math
import re
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from service.errors import TrainingError
from service.fields.refusals import quote
from service.softmax.arrays import Doubles

CellKind = Literal["cell", "number", "boolean", "text", "object", "vector", "empty", "mixed", "other"]

# A number as JSON has it, and also +1, 1. and .5. Leading zeros make a code, such as 01067; so do separators in 1,000.
NUMBER: Final = r"^[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
WHOLE: Final = re.compile(r"0|-?[1-9][0-9]{0,17}")
BOOLEANS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
BOOLEAN_TEXTS: Final = pa.array(list(BOOLEANS))
# A few columns of Parquet have these: numbers that float64 holds, or rounds.
NUMBER_TYPES: Final = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
LIST_TYPES: Final = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
OBJECT_TYPES: Final = (
    pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_map, pa.types.is_struct
)  # fmt: skip
TEXT_TYPES: Final = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)


class Cells(NamedTuple):
    """The values of one column in B rows.

    Attributes:
        kind: As in the table above.
        values: As in the table above; None where it says nothing.
    """

    kind: CellKind
    values: Any = None


def wrap_arrow(array: Any) -> Cells:  # noqa: ANN401  # pyarrow has no types
    """Return the cells of an Arrow array of any type, as Parquet has them.

    Raises:
        pa.ArrowInvalid: A text is not UTF-8.
    """
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if any(is_type(array.type) for is_type in NUMBER_TYPES):
        return Cells("number", array.cast(pa.float64(), safe=False))
    if pa.types.is_boolean(array.type):
        return Cells("boolean", array)
    if any(is_type(array.type) for is_type in TEXT_TYPES):
        texts = array.cast(pa.string())
        texts.validate(full=True)
        return Cells("text", texts)
    if any(is_type(array.type) for is_type in OBJECT_TYPES):
        vectors = _to_vectors(array)
        return Cells("object", list(map(_plain, array.to_pylist()))) if vectors is None else Cells("vector", vectors)
    return Cells("empty" if pa.types.is_null(array.type) else "other")


def wrap_objects(values: list[Any]) -> Cells:
    """Return the cells of values that were read from JSON."""
    kinds = set(map(type, values)) - {type(None)}
    if not kinds:
        return Cells("empty")
    if kinds <= {int, float}:
        return Cells("number", pa.array(map(_float, values), pa.float64()))
    if kinds == {bool}:
        return Cells("boolean", pa.array(values, pa.bool_()))
    if kinds == {str}:
        return Cells("text", pa.array(values, pa.string()))
    return Cells("object", values) if kinds <= {list, dict} else Cells("mixed")


def list_present(cells: Cells, n_rows: int) -> NDArray[np.bool_]:
    """Return (B,) whether each value is present."""
    if cells.kind == "object":
        return np.fromiter((value is not None for value in cells.values), np.bool_, n_rows)
    if cells.values is None:
        return np.zeros(n_rows, np.bool_)
    if cells.kind == "vector":
        return np.ones(n_rows, np.bool_)
    if cells.kind == "number":
        return ~np.isnan(to_numbers(cells, n_rows))
    present: NDArray[np.bool_] = cells.values.is_valid().to_numpy(zero_copy_only=False)
    return present


def find_numbers(cells: Cells) -> NDArray[np.bool_]:
    """Return (B,) which cells of CSV are numbers; gaps are none."""
    matched = pc.match_substring_regex(cells.values, NUMBER).fill_null(False)
    found: NDArray[np.bool_] = matched.to_numpy(zero_copy_only=False)
    return found


def to_numbers(cells: Cells, n_rows: int) -> Doubles:
    """Return (B,) float64 of numbers, or of cells that are numbers; NaN where one is missing."""
    if cells.kind == "empty":
        return np.full(n_rows, np.nan)
    numbers: Doubles = cells.values.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return numbers


def to_booleans(cells: Cells, n_rows: int) -> list[Any]:
    """Return B booleans, None where one is missing."""
    if cells.kind == "empty":
        return [None] * n_rows
    values: list[Any] = cells.values.to_pylist()
    return [BOOLEANS.get(value, value) for value in values] if cells.kind == "cell" else values


def to_texts(cells: Cells, n_rows: int) -> list[Any]:
    """Return B texts, None where one is missing."""
    return [None] * n_rows if cells.kind == "empty" else cells.values.to_pylist()


def to_categories(cells: Cells, n_rows: int, kinds: frozenset[type]) -> list[Any]:
    """Return B categories, None where one is missing.

    Args:
        cells: The cells.
        n_rows: B.
        kinds: The types of the categories of the field; a cell of CSV becomes one of them if it can.
    """
    if cells.kind == "empty":
        return [None] * n_rows
    values: list[Any] = cells.values.to_pylist()
    if cells.kind == "number":
        return [None if value is None or value != value else value for value in values]  # noqa: PLR0124  # NaN
    if cells.kind != "cell" or kinds == {str}:
        return values
    return [_to_category(value, kinds) for value in values]


def to_objects(cells: Cells, n_rows: int) -> Any:  # noqa: ANN401  # one of two forms
    """Return B lists or objects, None where one is missing; or vectors (B, size)."""
    return [None] * n_rows if cells.kind == "empty" else cells.values


def encode_labels(cells: Cells, n_rows: int, column: str) -> tuple[NDArray[np.int64], list[str | None]]:
    """Return (B,) the number of the label of each row, and all labels as texts; a label that is missing is None, or -1.

    Raises:
        TrainingError: A label is no text, whole number or boolean.
    """
    if cells.kind == "empty":
        return np.full(n_rows, -1), []
    if cells.kind not in {"cell", "text", "number", "boolean"}:
        raise TrainingError(f"a label in {quote(column)} must be a text, a whole number, a boolean or a list of texts")
    encoded = cells.values.dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes, [_name_label(value, column) for value in encoded.dictionary.to_pylist()]


def _name_label(value: str | float, column: str) -> str | None:
    """Return a label as a text, or None if it is NaN or empty."""
    if isinstance(value, str):
        return str(BOOLEANS[value]).lower() if value in BOOLEANS else value or None
    if isinstance(value, bool):
        return str(value).lower()
    if math.isnan(value):
        return None
    if not value.is_integer():
        raise TrainingError(f"the labels in {quote(column)} are numbers that are not whole; a model needs classes")
    return str(int(value))


def _to_category(text: str | None, kinds: frozenset[type]) -> object:
    """Return a cell of CSV as one of the types of a field's categories."""
    if text is None:
        return None
    if bool in kinds and text in BOOLEANS:
        return BOOLEANS[text]
    if int in kinds and re.match(NUMBER, text):
        return float(text)
    return text


def _to_vectors(array: Any) -> Doubles | None:  # noqa: ANN401
    """Return lists of as many numbers as each other, none of them missing, as vectors (B, size); or None for others."""
    if not any(is_list(array.type) for is_list in LIST_TYPES) or array.null_count or not len(array):
        return None
    flat = array.flatten()
    if not (pa.types.is_integer(flat.type) or pa.types.is_floating(flat.type)) or flat.null_count or not len(flat):
        return None
    # The shortest list times the number of lists is the number of all numbers only if all are as long.
    if pc.min(pc.list_value_length(array)).as_py() * len(array) != len(flat):
        return None
    vectors: Doubles = flat.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False).reshape(len(array), -1)
    return vectors


def _float(value: float | None) -> float | None:
    """Return a number as float64; an integer beyond its range becomes infinite."""
    try:
        return None if value is None else float(value)
    except OverflowError:
        return float("inf") if value and value > 0 else float("-inf")


def _plain(value: object) -> object:
    """Return a list or an object of Parquet as JSON has it: a map is a list of pairs there, and a struct has gaps."""
    if isinstance(value, list) and value and all(isinstance(pair, tuple) for pair in value):
        return dict(value)
    if isinstance(value, dict):
        return {name: part for name, part in value.items() if part is not None}
    return value
