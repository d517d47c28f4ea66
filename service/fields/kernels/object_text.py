"""Encode the text of one row's field: the n-grams of an ASCII text, which needs no tables of Unicode.

    plan, field    cells, see plan_cells.py
    at, stop       int64, the addresses of the first character of the text and of the quote after it
    text           (T,) uint8, the text in the form of ngrams.py, written

text_analysis.py and `TextEncoder` (name_encoders.py) have the same steps for any text.
"""

import numpy as np

from service.compiler import inlined
from service.fields.kernels import plan_cells as cell
from service.fields.kernels.entry_kernels import merge_row
from service.fields.kernels.json_text import NINE, QUOTE, SPACE, ZERO, byte_at, scan_text
from service.fields.kernels.name_columns import find_column, find_term
from service.fields.kernels.ngrams import CHARACTERS, WITHIN_WORDS, list_row
from service.fields.kernels.plan_cells import array_at

UPPER_A, UPPER_Z, LOWER_A, LOWER_Z, UNDERSCORE = b"AZaz_"
TO_LOWER = LOWER_A - UPPER_A


@inlined
def _is_letter(c):
    """Whether an ASCII character is a letter, a digit or an underscore."""
    return UPPER_A <= c <= UPPER_Z or LOWER_A <= c <= LOWER_Z or ZERO <= c <= NINE or c == UNDERSCORE


@inlined
def _fold_case(field, c):
    """Return an ASCII character, in lower case if the field says so."""
    return c + TO_LOWER if field[cell.LOWERCASE] != 0 and UPPER_A <= c <= UPPER_Z else c


@inlined
def _is_stop_word(field, text, start, stop):
    """Whether a word is left out."""
    return field[cell.STOP_SLOTS + 1] > 1 and find_term(field, cell.STOP_TEXT, text, start, stop) >= 0


@inlined
def _write_words(field, at, stop, text):
    """Write the words between two addresses with a space between; return the length."""
    length = 0
    any_character = field[cell.LETTERS_MIN] == cell.ANY_CHARACTER
    while at < stop:
        first, c = length, byte_at(at)
        if first > 0:
            text[length] = SPACE
            length += 1
        begin = length
        while at < stop and (c != SPACE if any_character else _is_letter(c)):
            text[length] = _fold_case(field, c)
            length += 1
            at += 1
            c = byte_at(at)
        at += 1
        if length - begin < max(1, field[cell.LETTERS_MIN]) or _is_stop_word(field, text, begin, length):
            length = first
    return length


@inlined
def _write_characters(field, at, stop, text):
    """Write the characters between two addresses, several spaces as one; return the length."""
    length, before = 0, np.int64(0)
    while at < stop:
        c = byte_at(at)
        if c != SPACE or before != SPACE:
            text[length] = _fold_case(field, c)
            length += 1
        before = c
        at += 1
    return length


@inlined
def _write_spaced_words(field, at, stop, text):
    """Write the words between two addresses with a space before, between and after; return the length."""
    text[0], length = SPACE, 1
    while at < stop:
        c = byte_at(at)
        if c != SPACE or text[length - 1] != SPACE:
            text[length] = _fold_case(field, c)
            length += 1
        at += 1
    if text[length - 1] != SPACE:
        text[length] = SPACE
        length += 1
    return length if length > 1 else 0


@inlined
def _write_text(field, at, stop, text):
    """Write what is between two addresses in the form of the field (ngrams.py); return the length."""
    if field[cell.FORM] == CHARACTERS:
        return _write_characters(field, at, stop, text)
    if field[cell.FORM] == WITHIN_WORDS:
        return _write_spaced_words(field, at, stop, text)
    return _write_words(field, at, stop, text)


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
    length = _write_text(field, at + 1, stop, text)
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
