"""Encode the text of one row's field: the n-grams of an ASCII text.

    plan, field    cells, see plan_cells.py
    at             int64, the address of the quote before the text

`TextEncoder` (name_encoders.py) has the same steps for any text.
"""

import numpy as np
from numba import carray

from service.compiler import inlined
from service.fields.kernels import plan_cells as cell
from service.fields.kernels.entry_kernels import merge_row
from service.fields.kernels.json_text import QUOTE, byte_at, scan_text
from service.fields.kernels.name_columns import find_column
from service.fields.kernels.ngrams import list_row
from service.fields.kernels.plain_text import write_text
from service.fields.kernels.plan_cells import array_at
from service.softmax.kernels.addresses import numbers_at


@inlined
def _prepare(field, at, length, text):
    """Write the text of an address in the form of the field; return the length."""
    stop_text, stop_ends = array_at(field, cell.STOP_TEXT, np.uint8), array_at(field, cell.STOP_ENDS, np.int64)
    stop_slots, source = array_at(field, cell.STOP_SLOTS, np.int32), carray(numbers_at(at, np.uint8), length)
    form, letters_min, lowercase = field[cell.FORM], field[cell.LETTERS_MIN], field[cell.LOWERCASE] != 0
    return write_text(source, 0, length, form, letters_min, lowercase, stop_text, stop_ends, stop_slots, text, 0)


@inlined
def encode_text(plan, field, at, used):
    """Encode a text: its n-grams, merged."""
    text, starts, stops = (
        array_at(plan, cell.TEXT, np.uint8),
        array_at(plan, cell.STARTS, np.int64),
        array_at(plan, cell.STOPS, np.int64),
    )
    stop = scan_text(at + 1) if byte_at(at) == QUOTE else np.int64(cell.HAND_OVER)
    # Spaces before and after are two characters more.
    if stop < 0 or stop - at + 1 > len(text):
        return np.int64(cell.HAND_OVER), used
    length = _prepare(field, at + 1, stop - at - 1, text)
    borders = array_at(plan, cell.BORDERS, np.int64)
    count = list_row(
        text, 0, length, field[cell.FORM], field[cell.SHORTEST], field[cell.LONGEST], borders, starts, stops, 0
    )
    columns, values = array_at(plan, cell.COLUMNS, np.int64), array_at(plan, cell.VALUES, np.float64)
    if used + count > len(columns):
        return np.int64(cell.HAND_OVER), used
    for e in range(count):
        columns[used + e], negative = find_column(field, text, starts[e], stops[e])
        values[used + e] = -1.0 if negative else 1.0
    spare_columns, spare_values = (
        array_at(plan, cell.SPARE_COLUMNS, np.int64),
        array_at(plan, cell.SPARE_VALUES, np.float64),
    )
    idf = array_at(field, cell.IDF, np.float64)
    end = merge_row(
        columns, values, used, used + count, field[cell.MODE], idf, field[cell.NORM], spare_columns, spare_values, used
    )
    return stop + 1, end
