"""Give the encoder of a field the values of a block in the form that it takes."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from service.errors import InputError, TrainingError
from service.field_errors import TooManyEntriesError
from service.fields.entries import Values
from service.fields.field_list import ValueRecord
from service.fields.field_records import BooleanField, CategoryField, NumberField
from service.fields.refusals import quote
from service.fields.text_records import TextField
from service.train.cell_values import Cells, find_numbers, to_booleans, to_categories, to_numbers, to_objects, to_texts

# A row in the sentence of an encoder, which knows rows by their place in a call.
ROW: Final = re.compile(r"Row (\d+)(.*)", re.DOTALL)
# The kinds of cells that each kind of field takes.
TAKEN = {
    "number": {"cell", "number"},
    "boolean": {"cell", "boolean"},
    "category": {"cell", "number", "boolean", "text"},
    "text": {"cell", "text"},
    "bag": {"object"},
    "vector": {"object", "vector"},
}


class EntriesError(TrainingError):
    """Rows have too many entries, or one of them has."""


def read_values(field: ValueRecord, cells: Cells, first: int, n_rows: int) -> Values:
    """Return B values of a field.

    Args:
        field: The field.
        cells: The cells of its column.
        first: The number of the first row, for errors.
        n_rows: B.

    Raises:
        TrainingError: The column has another type, or a cell of CSV is no number.
    """
    if cells.kind != "empty" and cells.kind not in TAKEN[field.kind]:
        raise TrainingError(
            f"rows {first} to {first + n_rows - 1}: {quote(field.value_name)} has values that are no {field.kind}"
        )
    match field:
        case NumberField():
            if cells.kind == "cell":
                _check_numbers(field.value_name, cells, first)
            return to_numbers(cells, n_rows)
        case BooleanField():
            return to_booleans(cells, n_rows)
        case CategoryField():
            return to_categories(cells, n_rows, frozenset(map(type, field.values or ("",))))
        case TextField():
            return to_texts(cells, n_rows)
        case _:
            objects: Values = to_objects(cells, n_rows)
            return objects


@contextmanager
def named_rows(rows: Sequence[int]) -> Iterator[None]:
    """Raise a TrainingError with the number of a row in the file, in place of that in a call of an encoder.

    Args:
        rows: The number in the file of each row of the call.
    """
    try:
        yield
    except InputError as error:
        found = ROW.fullmatch(str(error))
        sentence = str(error) if found is None else f"row {rows[int(found[1])]}{found[2]}"
        kind = EntriesError if isinstance(error, TooManyEntriesError) else TrainingError
        raise kind(sentence.removesuffix(".")) from None


def _check_numbers(name: str, cells: Cells, first: int) -> None:
    """Raise TrainingError if a cell of CSV is present and no number."""
    wrong: Any = ~find_numbers(cells) & cells.values.is_valid().to_numpy(zero_copy_only=False)
    if wrong.any():
        raise TrainingError(f"row {first + int(wrong.argmax())}: {quote(name)} must be a number")
