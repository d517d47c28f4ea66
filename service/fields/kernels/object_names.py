"""Encode a category or a bag of one row, whose columns are found by names, from the text of its object.

    plan, field    cells, see plan_cells.py
    at             int64, the address of a value in the text
    used           int64, the first free place of the entries

Each function that reads a value returns the address after it and the next free place; HAND_OVER as the address leaves
the row to the general encoder (name_encoders.py), whose steps these are.
"""

import numpy as np
from numba import carray

from service.compiler import inlined
from service.fields.kernels import plan_cells as cell
from service.fields.kernels.entry_kernels import COUNT, merge_row
from service.fields.kernels.json_text import (
    BEGIN,
    CLOSE,
    COLON,
    COMMA,
    END,
    MINUS,
    OPEN,
    QUOTE,
    ZERO,
    byte_at,
    expect,
    scan_number,
    scan_text,
    scan_word,
    skip_space,
)
from service.fields.kernels.name_columns import find_column
from service.fields.kernels.plan_cells import array_at
from service.softmax.kernels.addresses import numbers_at

TRUE, FALSE = np.frombuffer(b"true", np.uint8), np.frombuffer(b"false", np.uint8)
# Larger whole numbers are not read exactly.
WHOLE_MAX = 2.0**53


@inlined
def _count_unknown(plan, f):
    """Count an unknown value of field f."""
    array_at(plan, cell.UNKNOWN, np.int64)[f] += 1
    plan[cell.COUNTED] = 1


@inlined
def _write_whole(text, value):
    """Write the name of a whole number, its JSON after NO_TEXT; return its length."""
    text[0], at = cell.NO_TEXT, 1
    if value < 0:
        text[at], at = MINUS, at + 1
    rest, digits = abs(value), 1
    while rest >= 10:
        rest //= 10
        digits += 1
    rest = abs(value)
    for i in range(at + digits - 1, at - 1, -1):
        text[i] = ZERO + rest % 10
        rest //= 10
    return at + digits


@inlined
def _write_word(text, word):
    """Write the name of a boolean, its JSON after NO_TEXT; return its length."""
    text[0] = cell.NO_TEXT
    text[1 : 1 + len(word)] = word
    return 1 + len(word)


@inlined
def _scan_category(plan, field, at):
    """Write the name of a category that is no text to the plan's text; return the address after it and its length."""
    text = array_at(plan, cell.TEXT, np.uint8)
    if field[cell.ACCEPTS] & cell.ACCEPTS_BOOLEAN:
        after = scan_word(at, TRUE)
        if after >= 0:
            return after, _write_word(text, TRUE)
        after = scan_word(at, FALSE)
        if after >= 0:
            return after, _write_word(text, FALSE)
    if field[cell.ACCEPTS] & cell.ACCEPTS_NUMBER:
        value, after = scan_number(at)
        if after >= 0 and abs(value) <= WHOLE_MAX and value == np.floor(value):
            return after, _write_whole(text, np.int64(value))
    return np.int64(cell.HAND_OVER), 0


@inlined
def encode_category(plan, field, f, at, used):
    """Encode a category, whole number or boolean of field f."""
    if byte_at(at) == QUOTE:
        stop = scan_text(at + 1)
        if stop < 0 or not field[cell.ACCEPTS] & cell.ACCEPTS_TEXT:
            return np.int64(cell.HAND_OVER), used
        column, negative = find_column(field, carray(numbers_at(at + 1, np.uint8), stop - at - 1), 0, stop - at - 1)
        after = stop + 1
    else:
        after, length = _scan_category(plan, field, at)
        if after < 0:
            return after, used
        column, negative = find_column(field, array_at(plan, cell.TEXT, np.uint8), 0, length)
    if column < 0:
        if field[cell.REFUSES_UNKNOWN] != 0:
            return np.int64(cell.HAND_OVER), used
        _count_unknown(plan, f)
        column = field[cell.OTHER]
    if column >= 0:
        array_at(plan, cell.COLUMNS, np.int64)[used] = column
        array_at(plan, cell.VALUES, np.float64)[used] = -1.0 if negative else 1.0
        used += 1
    return after, used


@inlined
def _encode_name(plan, field, f, at, used, amount):
    """Write the entry of the name between a quote at an address and its other; return the address of that.

    An unknown name without the column `other` has an entry in the column -1, which the merge leaves out.
    """
    stop = scan_text(at + 1) if byte_at(at) == QUOTE else np.int64(cell.HAND_OVER)
    columns, values = array_at(plan, cell.COLUMNS, np.int64), array_at(plan, cell.VALUES, np.float64)
    if stop < 0 or used == len(columns):
        return np.int64(cell.HAND_OVER)
    length = stop - at - 1
    column, negative = find_column(field, carray(numbers_at(at + 1, np.uint8), length), 0, length)
    if column < 0:
        _count_unknown(plan, f)
        column = field[cell.OTHER]
    columns[used], values[used] = column, -amount if negative else amount
    return stop + 1


@inlined
def _scan_names(plan, field, f, at, used):
    """Write the entries of a list of names; return the address after it and the next free place."""
    at = skip_space(at + 1)
    if byte_at(at) == CLOSE:
        return at + 1, used
    while True:
        at = _encode_name(plan, field, f, at, used, 1.0)
        if at < 0:
            return at, used
        used += 1
        at = skip_space(at)
        if byte_at(at) == CLOSE:
            return at + 1, used
        at = expect(at, COMMA)
        if at < 0:
            return at, used


@inlined
def _scan_amounts(plan, field, f, at, used):
    """Write the entries of an object of names and numbers; return the address after it and the next free place."""
    values = array_at(plan, cell.VALUES, np.float64)
    at = skip_space(at + 1)
    if byte_at(at) == END:
        return at + 1, used
    while True:
        at = _encode_name(plan, field, f, at, used, 1.0)
        at = expect(at, COLON) if at >= 0 else at
        if at < 0:
            return at, used
        amount, at = scan_number(at)
        if at < 0:
            return at, used
        values[used] *= amount
        used += 1
        at = skip_space(at)
        if byte_at(at) == END:
            return at + 1, used
        at = expect(at, COMMA)
        if at < 0:
            return at, used


@inlined
def encode_bag(plan, field, f, at, used):
    """Encode a bag of field f. Names that may be one twice in an object are handed over, as are refused ones."""
    columns, values = array_at(plan, cell.COLUMNS, np.int64), array_at(plan, cell.VALUES, np.float64)
    unknown = array_at(plan, cell.UNKNOWN, np.int64)
    is_object = byte_at(at) == BEGIN
    if is_object:
        after, end = _scan_amounts(plan, field, f, at, used)
    elif byte_at(at) == OPEN:
        after, end = _scan_names(plan, field, f, at, used)
    else:
        return np.int64(cell.HAND_OVER), used
    if after < 0 or (unknown[f] > 0 and field[cell.REFUSES_UNKNOWN] != 0):
        return np.int64(cell.HAND_OVER), used
    spare_columns, spare_values = (
        array_at(plan, cell.SPARE_COLUMNS, np.int64),
        array_at(plan, cell.SPARE_VALUES, np.float64),
    )
    idf, norm = array_at(field, cell.IDF, np.float64), field[cell.NORM]
    merged = merge_row(columns, values, used, end, COUNT, idf, norm, spare_columns, spare_values, used)
    distinct = end - used - (unknown[f] if field[cell.OTHER] < 0 else 0)
    if is_object and (merged - used < distinct or unknown[f] > 1):
        return np.int64(cell.HAND_OVER), used
    return after, merged
