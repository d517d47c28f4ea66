"""Read one column of a symbolic matrix as the category of an encoder."""

import math
from collections.abc import Sequence

import numpy as np

from service.convert.columns.raw_inputs import ColumnError
from service.convert.columns.symbolic_blocks import CategoryBlock, CategoryReading, NumberBlock, SymbolicBlock
from service.convert.columns.table_blocks import TableBlock
from service.fields.field_records import Category
from service.record import NAME_CHARACTERS_MAX, ROWS_MAX

CategoryKey = tuple[type, Category]


def is_missing(value: object) -> bool:
    """Return whether a category of a source stands for a missing value: None or NaN."""
    return value is None or (isinstance(value, float | np.floating) and math.isnan(value))


def to_category(value: object) -> Category:
    """Return a category of a source as one of a field: a text, a whole number or a boolean.

    Raises:
        ColumnError: It is of another type, too long or too large.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str):
        if len(value) > NAME_CHARACTERS_MAX:
            raise ColumnError(f"a category has more than {NAME_CHARACTERS_MAX} characters")
        return value
    if isinstance(value, bool) or (isinstance(value, int) and abs(value) <= ROWS_MAX):
        return value
    raise ColumnError("a category is neither a text nor a whole number nor a boolean")


def category_key(value: Category) -> CategoryKey:
    """Return what distinguishes categories: true is not 1."""
    return type(value), value


def read_category(
    column: SymbolicBlock,
    values: Sequence[Category],
    *,
    refuses_unknown: bool = False,
    refuses_missing: bool = False,
) -> CategoryReading:
    """Return how a column is one of the categories of an encoder.

    The encoder has V + 2 rows: one for each of its categories, one for another, and one for a missing one.

    Args:
        column: A block of one column: a value of a row as it is, with a stand-in, or a table.
        values: The V categories that the encoder lists, distinct.
        refuses_unknown: Whether it refuses another category.
        refuses_missing: Whether it refuses a missing one.

    Raises:
        ColumnError: The column is not a function of one category.
    """
    rows = {category_key(value): row for row, value in enumerate(values)}
    unknown, missing = len(values), len(values) + 1
    if len(rows) < len(values):
        raise ColumnError("two categories are equal")
    refused = {row for row, refuses in ((unknown, refuses_unknown), (missing, refuses_missing)) if refuses}
    if isinstance(column, TableBlock):
        return _compose(column, rows, refused)
    fill: Category | None = None
    if isinstance(column, CategoryBlock):
        fill = column.fills[0]
    elif isinstance(column, NumberBlock) and column.is_plain[0]:
        fill = None if math.isnan(column.missing[0]) else to_category(column.missing[0])
    else:
        raise ColumnError("its input is not a category")
    index = int(column.indices[0])
    if values:
        column.inputs.columns[index].default = values[0]
    filled = missing if fill is None else rows.get(category_key(fill), unknown)
    return CategoryReading(
        column.inputs,
        index,
        tuple(values),
        np.array([*range(unknown + 1), filled]),
        refuses_unknown,
        filled in refused,
        fill if filled < unknown else None,
    )


def _compose(column: TableBlock, rows: dict[CategoryKey, int], refused: set[int]) -> CategoryReading:
    """Return how the numbers that a table makes of a category are the categories of another encoder."""
    unknown, missing = len(rows), len(rows) + 1

    def find_row(output: float) -> int:
        if math.isnan(output):
            return missing
        return rows.get(category_key(int(output)), unknown) if output.is_integer() else unknown

    reading = column.reading
    found = [find_row(output) for output in column.scaled_table[:, 0].tolist()]
    if refused.intersection(found[:-2]):
        raise ColumnError("a category of one step is refused by the next")
    return reading._replace(
        rows=np.array(found),
        refuses_unknown=reading.refuses_unknown or found[-2] in refused,
        refuses_missing=reading.refuses_missing or found[-1] in refused,
    )
