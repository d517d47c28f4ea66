"""Scanner for the usual prediction body, `{"instances": [[n, ...], ...]}` with short decimal numbers, in one pass.

The scanner accepts a subset of JSON (RFC 8259): white space where JSON allows it, and numbers whose digits are an
integer m <= 2**53 and whose decimal exponent e is within -22..22. Both m and 10**|e| are then exact in float64, so one
multiplication or division rounds correctly (Clinger, PLDI 1990, section 3). The result is the float64 that every
correct parser returns.

For any other body the scanner returns FALLBACK. The general parsers then read the body and word the error.
"""

import numpy as np
from llvmlite import ir
from numba import typeof, types
from numba.extending import intrinsic

from service.compiler import inlined, kernel

TEXT = typeof(b"")
FALLBACK = 0
MANTISSA_MAX = 1 << 53
POWERS = 10.0 ** np.arange(23)
KEY = np.frombuffer(b'"instances"', np.uint8)

QUOTE, PLUS, COMMA, MINUS, DOT, ZERO, NINE, COLON = b'"+,-.09:'
OPEN, CLOSE, BEGIN, END, LOWER_E, UPPER_E = b"[]{}eE"
SPACE, TAB, NEWLINE, RETURN = b" \t\n\r"


@intrinsic
def address_of(_context, text):
    """Bytes -> int64: the address of the first byte. The object must outlive the use of the address.

    Helpers take addresses because Numba counts references to an object atomically around every call. A number took
    33 ns with the object as the argument, and 8 ns with its address.
    """

    def codegen(context, builder, signature, arguments):
        view = context.make_helper(builder, signature.args[0], arguments[0])
        return builder.ptrtoint(view.data, ir.IntType(64))

    return types.int64(text), codegen


@intrinsic
def byte_at(_context, at):
    """int64 -> int64: the byte at an address. CPython keeps a zero byte after the last byte of a bytes object."""

    def codegen(_context, builder, _signature, arguments):
        pointer = builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())
        return builder.zext(builder.load(pointer), ir.IntType(64))

    return types.int64(types.int64), codegen


@inlined
def _skip_space(at):
    """Return the first address from `at` on that holds no white space."""
    c = byte_at(at)
    while c == SPACE or c == NEWLINE or c == RETURN or c == TAB:
        at += 1
        c = byte_at(at)
    return at


@inlined
def _expect(at, character):
    """Skip a character and the white space around it; return the next address, or -1 if another character is there."""
    at = _skip_space(at)
    if byte_at(at) == character:
        return _skip_space(at + 1)
    return np.int64(-1)


@inlined
def _scan_digits(at, mantissa):
    """Append digits to `mantissa` until it exceeds MANTISSA_MAX; return the next address and the mantissa."""
    digit = byte_at(at) - ZERO
    while 0 <= digit <= 9 and mantissa < MANTISSA_MAX:
        mantissa = mantissa * 10 + digit
        at += 1
        digit = byte_at(at) - ZERO
    return at, mantissa


@inlined
def _scan_number(at):
    """Scan one number; return its value and the next address, which is -1 if the number is outside the subset."""
    negative = byte_at(at) == MINUS
    start = at + negative
    at, mantissa = _scan_digits(start, np.int64(0))
    if at == start or (byte_at(start) == ZERO and at > start + 1):
        return 0.0, np.int64(-1)
    whole, exponent = True, np.int64(0)
    if byte_at(at) == DOT:
        whole, start = False, at + 1
        at, mantissa = _scan_digits(start, mantissa)
        if at == start:
            return 0.0, np.int64(-1)
        exponent = start - at
    if byte_at(at) == LOWER_E or byte_at(at) == UPPER_E:
        sign = byte_at(at + 1)
        whole, start = False, at + 1 + (sign == MINUS or sign == PLUS)
        at, power = _scan_digits(start, np.int64(0))
        if at == start or power > 100:
            return 0.0, np.int64(-1)
        exponent += -power if sign == MINUS else power
    # A remaining digit means that the mantissa was full.
    if mantissa > MANTISSA_MAX or not -22 <= exponent <= 22 or ZERO <= byte_at(at) <= NINE:
        return 0.0, np.int64(-1)
    value = mantissa / POWERS[-exponent] if exponent < 0 else mantissa * POWERS[exponent]
    # JSON's -0 is the integer 0; -0.0 keeps its sign.
    return (-value if negative and not (whole and mantissa == 0) else value), at


@inlined
def _scan_prefix(start):
    """Scan `{"instances": [`; return the address of the first row, or -1."""
    at = _expect(start, BEGIN)
    if at < 0:
        return at
    for i in range(len(KEY)):
        if byte_at(at + i) != KEY[i]:
            return np.int64(-1)
    at = _expect(at + len(KEY), COLON)
    return at if at < 0 else _expect(at, OPEN)


@inlined
def scan_rows(start, length, out):
    """start, length -> rows: `scan_instances` for a text at an address. The byte after it must not be a digit."""
    at = _scan_prefix(start)
    row = 0
    while at >= 0:
        at = _expect(at, OPEN)
        if at < 0 or row == out.shape[0]:
            return FALLBACK
        for column in range(out.shape[1]):
            value, at = _scan_number(at)
            if at < 0:
                return FALLBACK
            out[row, column] = value
            last = column == out.shape[1] - 1
            at = _expect(at, CLOSE if last else COMMA)
            if at < 0:
                return FALLBACK
        row += 1
        if byte_at(at) == COMMA:
            at = _skip_space(at + 1)
            continue
        at = _expect(at, CLOSE)
        if at < 0:
            return FALLBACK
        at = _expect(at, END)
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
