"""Parse CSV (RFC 4180) to columns of a model with fields.

    country,age,note
    PT,41,"late, but paid"
    DE,,

The columns have the names of the fields, in any order; without a header they are the fields in their order. Fields that
read one value have one column. An unnamed first column, which pandas writes for its index, is ignored. The kind of a
field decides what a cell is:

    number          a decimal number
    boolean         true or false, in any case
    category        the listed text, whole number or boolean that is written so; a hashed one is a text
    text            a text
    bag, vector     JSON

Where a category shares its value with a field of another kind, that kind decides; a number then keeps all its digits.
An empty cell is missing. A cell that is nothing of this kind is passed on as a text, which the field refuses. The text
is UTF-8 as in csv_rows.py, but spaces are part of a cell.
"""

import re
from codecs import BOM_UTF8
from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson

from service.errors import MalformedError, UnacceptableError
from service.fields.field_list import ValueRecord, group_by_value, list_value_types
from service.fields.field_records import BooleanField, CategoryField, FieldRecord, NumberField
from service.fields.text_records import TextField
from service.serve.wire.csv_rows import NUMBER, read_records
from service.serve.wire.json_grammar import check_line_count, check_row_count
from service.serve.wire.table_grammar import check_repeated

# Characters of a record: one text may have a million, and so may all others together.
RECORD_CHARACTERS_MAX: Final = 1 << 21
# As many digits as an integer category has; a float64 would round the larger of them.
WHOLE_NUMBER: Final = re.compile(r"\s*[+-]?[0-9]{1,19}\s*", re.ASCII)
BOOLEANS: Final = {"true": True, "false": False}

ReadCell = Callable[[str], Any]


class CsvFields:
    """Reads CSV for the fields of one model.

    Args:
        fields: The fields.
    """

    def __init__(self, fields: Sequence[FieldRecord]) -> None:
        self._readers: Final = {name: make_reader(group) for name, group in group_by_value(fields).items()}

    def parse_columns(self, body: bytes, rows_max: int, *, header: bool) -> dict[str, list[Any]]:
        """Return the values of each column by its name.

        Args:
            body: The bytes.
            rows_max: The limit of rows.
            header: Whether the first line has the names of the columns.

        Raises:
            MalformedError: The body is not CSV in UTF-8.
            UnacceptableError: There are no rows, a column occurs twice, or a line has too few or too many cells.
            TooLargeError: There are more rows than the limit, or a record is too long.
        """
        check_line_count(body, rows_max)
        records = read_records(body.removeprefix(BOM_UTF8), RECORD_CHARACTERS_MAX, skip_spaces=False)
        names, skipped = list(self._readers), 0
        if header:
            first = next(records, None)
            if first is None:
                raise MalformedError("The body is empty; send a line with the names of the columns, and the rows.")
            skipped = int(not first[0])
            names = first[skipped:]
            check_repeated(names)
        columns: list[list[str]] = [[] for _ in names]
        for row, record in enumerate(records):
            if len(record) != len(names) + skipped:
                raise UnacceptableError(f"Row {row} must have as many values as there are columns.")
            check_row_count(row + 1, rows_max)
            for column, cell in zip(columns, record[skipped:], strict=True):
                column.append(cell)
        if not columns or not columns[0]:
            raise UnacceptableError("The body has no rows; send at least one line of values.")
        return {name: self._read(name, cells) for name, cells in zip(names, columns, strict=True)}

    def _read(self, name: str, cells: list[str]) -> list[Any]:
        """Return the values of a column; the cells of one that no field reads stay as they are."""
        read = self._readers.get(name, str)
        return [read(cell) if cell else None for cell in cells]


def make_reader(fields: Sequence[ValueRecord]) -> ReadCell:
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
