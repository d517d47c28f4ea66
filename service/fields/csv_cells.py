"""Read the cells of CSV as values of fields.

The kind of a field decides what a cell is:

    number          a decimal number
    boolean         true or false, in any case
    category        the listed text, whole number or boolean that is written so; a hashed one is a text
    text            a text
    bag, vector     JSON

Where a category shares its value with a field of another kind, that kind decides; a number then keeps all its digits.
An empty cell is missing. A cell that is nothing of this kind is passed on as a text, which the field refuses.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson

from service.fields.field_list import ValueRecord, list_value_types
from service.fields.field_records import BooleanField, CategoryField, NumberField
from service.fields.text_records import TextField

# Python's `float` also reads 1_000 and the digits of other scripts.
# No two parts of the pattern can match the same digits: they would be tried in every division.
NUMBER: Final = re.compile(r"\s*[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*", re.ASCII)
# As many digits as an integer category has; a float64 would round the larger of them.
WHOLE_NUMBER: Final = re.compile(r"\s*[+-]?[0-9]{1,19}\s*", re.ASCII)
BOOLEANS: Final = {"true": True, "false": False}

ReadCell = Callable[[str], Any]


def make_cell_reader(fields: Sequence[ValueRecord]) -> ReadCell:
    """Return a function that reads a cell that is not empty, and returns it as it is if it is nothing of its kind.

    Args:
        fields: The fields that read the value, at least one.
    """
    categories = [field for field in fields if isinstance(field, CategoryField)]
    match next((field for field in fields if not isinstance(field, CategoryField)), None):
        case NumberField():
            return _read_exact_number if categories else _read_number
        case BooleanField():
            return lambda cell: BOOLEANS.get(cell.strip().lower(), cell)
        case None:
            return _make_category_reader(categories)
        case TextField():
            return str
        case _:
            return _read_json


def _read_number(cell: str) -> float | str:
    return float(cell) if NUMBER.fullmatch(cell) else cell


def _read_exact_number(cell: str) -> float | str:
    return int(cell) if WHOLE_NUMBER.fullmatch(cell) else _read_number(cell)


def _read_json(cell: str) -> Any:  # noqa: ANN401  # any JSON value
    try:
        return orjson.loads(cell)
    except orjson.JSONDecodeError:
        return cell


def _make_category_reader(fields: Sequence[CategoryField]) -> ReadCell:
    """Return a reader of categories: of a text before a whole number, and of this before a boolean."""
    listed = [field for field in fields if field.values is not None]
    if not listed:
        return str
    kinds = list_value_types(listed)
    texts = {value for field in listed for value in field.values or () if isinstance(value, str) and str in kinds}

    def read(cell: str) -> float | bool | str:
        if cell in texts:
            return cell
        if int in kinds and NUMBER.fullmatch(cell):
            return _read_exact_number(cell)
        return BOOLEANS.get(cell.strip().lower(), cell) if bool in kinds else cell

    return read
