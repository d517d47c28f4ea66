"""The columns whose means show how the rows of a model with fields change: by field, and few of them.

    number     its scaled value, whose mean is 0 and whose spread is 1 in the training rows
    missing    the column `missing` of any field, whose mean is the share of rows without a value
    unknown    the column `other` of a category, whose mean is the share of rows with an unknown value

Other columns have no spread of their own, or are too many.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from service.fields.field_records import CategoryField, NumberField
from service.fields.row_encoder import RowEncoder
from service.softmax.arrays import Integers


class TrackedColumns(NamedTuple):
    """The tracked columns of a model.

    Attributes:
        columns: (T,) int64, their numbers, ascending.
        numbers: The place in `columns` of the value of each number, by the name of its field.
        missing: The place of the column `missing` of each field that has one.
        unknown: The place of the column `other` of each category that has one.
    """

    columns: Integers
    numbers: Mapping[str, int]
    missing: Mapping[str, int]
    unknown: Mapping[str, int]


def find_tracked_columns(encoder: RowEncoder) -> TrackedColumns:
    """Return the tracked columns of the rows that an encoder makes."""
    columns: list[int] = []
    numbers: dict[str, int] = {}
    missing: dict[str, int] = {}
    unknown: dict[str, int] = {}
    for field, block in zip(encoder.fields, encoder.blocks, strict=True):
        last = block.end - 1
        for places, is_there, column in (
            (numbers, isinstance(field, NumberField), block.start),
            (unknown, isinstance(field, CategoryField) and field.has_other, last - field.has_missing),
            (missing, field.has_missing, last),
        ):
            if is_there:
                places[field.name] = len(columns)
                columns.append(column)
    return TrackedColumns(np.array(columns, np.int64), numbers, missing, unknown)
