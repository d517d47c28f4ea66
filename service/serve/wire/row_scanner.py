"""Scanner for the usual prediction body, `{"instances": [[n, ...], ...]}` with short decimal numbers, in one pass.

It reads the subset of JSON of fields/kernels/json_text.py, with white space where JSON allows it. For any other body
the scanner returns FALLBACK. The general parsers then read the body and word the error.
"""

import numpy as np
from numba import types

from service.compiler import inlined, kernel
from service.fields.kernels.json_text import (
    BEGIN,
    CLOSE,
    COLON,
    COMMA,
    END,
    OPEN,
    TEXT,
    address_of,
    byte_at,
    expect,
    scan_number,
    scan_word,
    skip_space,
)

FALLBACK = 0
KEY = np.frombuffer(b'"instances"', np.uint8)


@inlined
def scan_prefix(start):
    """Scan `{"instances":`; return the address of the value, or -1."""
    at = expect(start, BEGIN)
    if at >= 0:
        at = scan_word(at, KEY)
    return at if at < 0 else expect(at, COLON)


@inlined
def scan_rows(start, length, out):
    """start, length -> rows: `scan_instances` for a text at an address. The byte after it must not be a digit."""
    at = scan_prefix(start)
    if at >= 0:
        at = expect(at, OPEN)
    row = 0
    while at >= 0:
        at = expect(at, OPEN)
        if at < 0 or row == out.shape[0]:
            return FALLBACK
        for column in range(out.shape[1]):
            value, at = scan_number(at)
            if at < 0:
                return FALLBACK
            out[row, column] = value
            last = column == out.shape[1] - 1
            at = expect(at, CLOSE if last else COMMA)
            if at < 0:
                return FALLBACK
        row += 1
        if byte_at(at) == COMMA:
            at = skip_space(at + 1)
            continue
        at = expect(at, CLOSE)
        if at < 0:
            return FALLBACK
        at = expect(at, END)
        return row if at == start + length else FALLBACK
    return FALLBACK


@kernel(types.int64(TEXT, types.float32[:, ::1]), types.int64(TEXT, types.float64[:, ::1]))
def scan_instances(text, out):
    """text, out -> rows: scan a body into `out`.

    Args:
        text: The body.
        out: (rows, N) float32 or float64, written row by row.

    Returns:
        The number of rows, or FALLBACK for a body outside the subset or with more rows than `out`.
    """
    return scan_rows(address_of(text), len(text), out)
