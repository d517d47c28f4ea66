"""Encode one row in one pass over the text of its object, by the plan of plan_cells.py.

The general encoder (row_encoder.py) says what each value means, and words every refusal. This one reads the usual
row of a request: an object in the JSON subset of json_text.py, whose names are fields or sources and whose values the
fields accept. It hands everything else over. A property test holds both to the same bits.
"""

import numpy as np
from numba import carray

from service.compiler import inlined, kernel
from service.fields.kernels import plan_cells as cell
from service.fields.kernels.cross_kernels import NO_COLUMN, cross_column
from service.fields.kernels.entry_kernels import COUNT, NO_NORM, merge_row
from service.fields.kernels.json_text import (
    BEGIN,
    CLOSE,
    COLON,
    COMMA,
    END,
    OPEN,
    QUOTE,
    byte_at,
    expect,
    scan_key,
    scan_number,
    scan_word,
    skip_space,
)
from service.fields.kernels.name_columns import find_term
from service.fields.kernels.object_names import FALSE, TRUE, encode_bag, encode_category
from service.fields.kernels.object_text import encode_text
from service.fields.kernels.plan_cells import array_at
from service.softmax.kernels.addresses import numbers_at

NULL = np.frombuffer(b"null", np.uint8)
# `counts` of a field whose name has not been read, and of one whose value is null.
UNREAD, ABSENT_VALUE = -1, -2


@inlined
def _scale(x, mean, scale, clip):
    """Return a scaled number, cut to [-clip, clip]; clip is infinite for no cut."""
    return min(max((x - mean) / scale, -clip), clip)


@inlined
def _encode_number(plan, numbers, at, used):
    """Encode a number; numbers (NUMBERS_OF_A_FIELD,) are those of its field."""
    x, after = scan_number(at)
    if after >= 0:
        array_at(plan, cell.COLUMNS, np.int64)[used] = 0
        array_at(plan, cell.VALUES, np.float64)[used] = _scale(
            x, numbers[cell.MEAN], numbers[cell.SCALE], numbers[cell.CLIP]
        )
    return after, used + 1


@inlined
def _encode_boolean(plan, at, used):
    """Encode true or false."""
    after = scan_word(at, TRUE)
    array_at(plan, cell.COLUMNS, np.int64)[used] = 0
    array_at(plan, cell.VALUES, np.float64)[used] = 1.0 if after >= 0 else 0.0
    return after if after >= 0 else scan_word(at, FALSE), used + 1


@inlined
def _encode_vector(plan, field, clip, at, used):
    """Encode a list of as many numbers as the field has columns."""
    columns, values = array_at(plan, cell.COLUMNS, np.int64), array_at(plan, cell.VALUES, np.float64)
    means, scales, size = (
        array_at(field, cell.MEANS, np.float64),
        array_at(field, cell.SCALES, np.float64),
        field[cell.SIZE],
    )
    at = expect(at, OPEN)
    if at < 0 or used + size > len(columns):
        return np.int64(cell.HAND_OVER), used
    for j in range(size):
        x, at = scan_number(at)
        if at < 0:
            return at, used
        columns[used + j], values[used + j] = j, _scale(x, means[j], scales[j], clip)
        if j < size - 1:
            at = expect(at, COMMA)
            if at < 0:
                return at, used
    at = skip_space(at)
    return at + 1 if byte_at(at) == CLOSE else np.int64(cell.HAND_OVER), used + size


@inlined
def _encode_value(plan, field, numbers, f, at, used):
    """Encode the value of field f; return the address after it and the next free place."""
    kind, after = field[cell.KIND], np.int64(cell.HAND_OVER)
    if kind == cell.NUMBER:
        after, used = _encode_number(plan, numbers, at, used)
    elif kind == cell.CATEGORY:
        after, used = encode_category(plan, field, f, at, used)
    elif kind == cell.TEXT_FIELD:
        after, used = encode_text(plan, field, at, used)
    elif kind == cell.BOOLEAN:
        after, used = _encode_boolean(plan, at, used)
    elif kind == cell.BAG:
        after, used = encode_bag(plan, field, f, at, used)
    elif kind == cell.VECTOR:
        after, used = _encode_vector(plan, field, numbers[cell.CLIP], at, used)
    return after, used


@inlined
def _encode_readers(plan, fields, numbers, f, at, used):
    """Encode a value for field f and those after it that read the same one; return as `_encode_value` does."""
    firsts, counts = array_at(plan, cell.FIRSTS, np.int64), array_at(plan, cell.COUNTS, np.int64)
    room, after = plan[cell.COLUMNS + 1], scan_word(at, NULL)
    is_null = after >= 0
    while f >= 0:
        if is_null:
            counts[f] = ABSENT_VALUE
        else:
            if used == room:
                return np.int64(cell.HAND_OVER), used
            firsts[f] = used
            after, used = _encode_value(plan, fields[f], numbers[f], f, at, used)
            if after < 0:
                return after, used
            counts[f] = used - firsts[f]
        f = fields[f, cell.NEXT_FIELD]
    return after, used


@inlined
def _scan_name(plan, at):
    """Scan a name and its colon; return its first field and the address of its value, -1 if it is unsure."""
    stop = scan_key(at + 1) if byte_at(at) == QUOTE else np.int64(cell.HAND_OVER)
    if stop < 0:
        return np.int64(cell.HAND_OVER), stop
    length = stop - at - 1
    name = find_term(plan, cell.NAME_TEXT, carray(numbers_at(at + 1, np.uint8), length), 0, length)
    f = array_at(plan, cell.FIRST_FIELDS, np.int64)[name] if name >= 0 else name
    return f, expect(stop + 1, COLON)


@inlined
def _scan_object(plan, fields, numbers, at):
    """Encode the values of an object; return the address after it, or HAND_OVER, and the next free place."""
    counts, used = array_at(plan, cell.COUNTS, np.int64), 0
    at = expect(at, BEGIN)
    if at >= 0 and byte_at(at) == END:
        return at + 1, used
    while at >= 0:
        f, at = _scan_name(plan, at)
        if f < 0 or at < 0 or counts[f] != UNREAD:
            return np.int64(cell.HAND_OVER), used
        at, used = _encode_readers(plan, fields, numbers, f, at, used)
        if at < 0:
            return at, used
        at = skip_space(at)
        if byte_at(at) == END:
            return at + 1, used
        at = expect(at, COMMA)
    return at, used


@inlined
def _write_absent(plan, field, f, used):
    """Write the entries of a missing value of field f; return the next free place, or HAND_OVER."""
    firsts, counts = array_at(plan, cell.FIRSTS, np.int64), array_at(plan, cell.COUNTS, np.int64)
    columns, values = array_at(plan, cell.COLUMNS, np.int64), array_at(plan, cell.VALUES, np.float64)
    first, count = field[cell.ABSENT_FIRST], field[cell.ABSENT]
    if count < 0 or used + count > len(columns):
        return np.int64(cell.HAND_OVER)
    array_at(plan, cell.MISSING, np.int64)[f] = 1
    plan[cell.COUNTED] = 1
    firsts[f], counts[f] = used, count
    for e in range(count):
        columns[used + e] = array_at(plan, cell.ABSENT_COLUMNS, np.int64)[first + e]
        values[used + e] = array_at(plan, cell.ABSENT_VALUES, np.float64)[first + e]
    return used + count


@inlined
def _write_cross(plan, field, f, used):
    """Write the products of the entries of two or three fields, merged; return the next free place, or HAND_OVER."""
    firsts, counts = array_at(plan, cell.FIRSTS, np.int64), array_at(plan, cell.COUNTS, np.int64)
    columns, values = array_at(plan, cell.COLUMNS, np.int64), array_at(plan, cell.VALUES, np.float64)
    a_first, b_first = firsts[field[cell.PART_1]], firsts[field[cell.PART_2]]
    a_count, b_count, c_first, c_count = counts[field[cell.PART_1]], counts[field[cell.PART_2]], 0, 1
    if field[cell.PART_3] >= 0:
        c_first, c_count = firsts[field[cell.PART_3]], counts[field[cell.PART_3]]
    if used + a_count * b_count * c_count > len(columns):
        return np.int64(cell.HAND_OVER)
    end = used
    for a in range(a_first, a_first + a_count):
        for b in range(b_first, b_first + b_count):
            for c in range(c_first, c_first + c_count):
                last = values[c] if field[cell.PART_3] >= 0 else 1.0
                if values[a] == 0.0 or values[b] == 0.0 or last == 0.0:
                    continue
                third = columns[c] if field[cell.PART_3] >= 0 else NO_COLUMN
                column, negative = cross_column(
                    columns[a], columns[b], third, field[cell.SEED], field[cell.WIDTH], field[cell.VW] != 0
                )
                product = values[a] * values[b] * last
                columns[end], values[end] = column, -product if field[cell.SIGNED] != 0 and negative else product
                end += 1
    spare_columns, spare_values = (
        array_at(plan, cell.SPARE_COLUMNS, np.int64),
        array_at(plan, cell.SPARE_VALUES, np.float64),
    )
    idf = array_at(field, cell.IDF, np.float64)
    merged = merge_row(columns, values, used, end, COUNT, idf, NO_NORM, spare_columns, spare_values, used)
    firsts[f], counts[f] = used, merged - used
    return merged


@inlined
def _join(plan, fields):
    """Write the entries of the row, field by field, without those that are 0; return how many, or HAND_OVER."""
    firsts, counts = array_at(plan, cell.FIRSTS, np.int64), array_at(plan, cell.COUNTS, np.int64)
    columns, values = array_at(plan, cell.COLUMNS, np.int64), array_at(plan, cell.VALUES, np.float64)
    row_columns, row_values = array_at(plan, cell.ROW_COLUMNS, np.int32), array_at(plan, cell.ROW_VALUES, np.float64)
    row_singles = array_at(plan, cell.ROW_SINGLES, np.float32)
    at, finite = 0, True
    for f in range(plan[cell.N_FIELDS]):
        for e in range(firsts[f], firsts[f] + counts[f]):
            if values[e] == 0.0:
                continue
            if not np.isfinite(values[e]):
                return cell.HAND_OVER
            row_columns[at], row_values[at] = fields[f, cell.START] + columns[e], values[e]
            row_singles[at] = values[e]
            finite &= np.isfinite(row_singles[at])
            at += 1
    plan[cell.FINITE] = finite
    return at


@inlined
def _encode(plan, at):
    """Encode the row in a list of one object; return its entries, or HAND_OVER."""
    F = plan[cell.N_FIELDS]
    fields = carray(numbers_at(plan[cell.FIELDS], np.int64), (F, cell.FIELD_CELLS))
    numbers = carray(numbers_at(plan[cell.NUMBERS], np.float64), (F, cell.NUMBERS_OF_A_FIELD))
    plan[cell.COUNTED] = 0
    for f in range(F):
        array_at(plan, cell.COUNTS, np.int64)[f] = UNREAD
        array_at(plan, cell.MISSING, np.int64)[f] = 0
        array_at(plan, cell.UNKNOWN, np.int64)[f] = 0
    at = expect(at, OPEN)
    if at < 0:
        return cell.HAND_OVER
    at, used = _scan_object(plan, fields, numbers, at)
    at = skip_space(at) if at >= 0 else at
    if at < 0 or byte_at(at) != CLOSE:
        return cell.HAND_OVER
    plan[cell.AFTER] = at + 1
    for f in range(F):
        if fields[f, cell.KIND] == cell.CROSS:
            used = _write_cross(plan, fields[f], f, used)
        elif array_at(plan, cell.COUNTS, np.int64)[f] < 0:
            used = _write_absent(plan, fields[f], f, used)
        if used < 0:
            return cell.HAND_OVER
    return _join(plan, fields)


@kernel("int64(int64,int64)", unlocked=False)
def encode_object(at, plan):
    """at, plan -> entries: encode the row in a list of one object at an address, `[{"age": 41}]`.

    Args:
        at: The address of the list's text.
        plan: The address of the plan (PLAN_CELLS,), whose buffers are written, and AFTER, the address after the list.

    Returns:
        The number of entries of the row, or HAND_OVER for a text that the general encoder reads.
    """
    return _encode(carray(numbers_at(plan, np.int64), cell.PLAN_CELLS), at)
