"""The usual prediction body, read in one pass: `{"instances": [[n, ...], ...]}` with short decimal numbers.

    text     the body's bytes
    out      (rows, N) float32 or float64, written row by row
    returns  the number of rows, or DOUBT: for anything else, and for more rows than `out` has

The scanner accepts a part of JSON (RFC 8259) and nothing outside it: white space where JSON allows it, and numbers of
its grammar whose digits are an integer m <= 2**53 and whose decimal exponent e is within -22..22. Both m and 10**|e|
are then exact in float64, so the one multiplication or division rounds correctly (Clinger, PLDI 1990, section 3): the
same float64 that any correct parser gives. What it doubts goes to the general parsers, which also word every refusal.
"""

import numpy as np
from llvmlite import ir
from numba import typeof, types
from numba.extending import intrinsic

from service.compiler import inlined, kernel

TEXT = typeof(b"")
DOUBT = 0
MANTISSA_MAX = 1 << 53
POWERS = 10.0 ** np.arange(23)
KEY = np.frombuffer(b'"instances"', np.uint8)

QUOTE, PLUS, COMMA, MINUS, DOT, ZERO, NINE, COLON = b'"+,-.09:'
OPEN, CLOSE, BEGIN, END, LOWER_E, UPPER_E = b"[]{}eE"
SPACE, TAB, NEWLINE, RETURN = b" \t\n\r"


@intrinsic
def address_of(_context, text):
    """The address of a bytes object's first byte; the object must outlive its use.

    Helpers take addresses because Numba counts references to an object around every call, atomically: with the object
    itself as the argument a number took 33 ns, with its address 8 ns.
    """

    def codegen(context, builder, signature, arguments):
        view = context.make_helper(builder, signature.args[0], arguments[0])
        return builder.ptrtoint(view.data, ir.IntType(64))

    return types.int64(text), codegen


@intrinsic
def byte(_context, at):
    """The byte at an address; CPython keeps a zero byte behind every bytes object."""

    def codegen(_context, builder, _signature, arguments):
        pointer = builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())
        return builder.zext(builder.load(pointer), ir.IntType(64))

    return types.int64(types.int64), codegen


@inlined
def _skip(at):
    """The first address from `at` on where no white space stands."""
    c = byte(at)
    while c == SPACE or c == NEWLINE or c == RETURN or c == TAB:
        at += 1
        c = byte(at)
    return at


@inlined
def _expect(at, character):
    """The address behind a character and the white space around it, or -1 where it does not stand there."""
    at = _skip(at)
    if byte(at) == character:
        return _skip(at + 1)
    return np.int64(-1)


@inlined
def _digits(at, mantissa):
    """Read digits on behind those of `mantissa`, until it has as many as it can hold."""
    digit = byte(at) - ZERO
    while 0 <= digit <= 9 and mantissa < MANTISSA_MAX:
        mantissa = mantissa * 10 + digit
        at += 1
        digit = byte(at) - ZERO
    return at, mantissa


@inlined
def _number(at):
    """One number: its value and the address behind it, or -1 in doubt."""
    negative = byte(at) == MINUS
    start = at + negative
    at, mantissa = _digits(start, np.int64(0))
    if at == start or (byte(start) == ZERO and at > start + 1):
        return 0.0, np.int64(-1)
    whole, exponent = True, np.int64(0)
    if byte(at) == DOT:
        whole, start = False, at + 1
        at, mantissa = _digits(start, mantissa)
        if at == start:
            return 0.0, np.int64(-1)
        exponent = start - at
    if byte(at) == LOWER_E or byte(at) == UPPER_E:
        sign = byte(at + 1)
        whole, start = False, at + 1 + (sign == MINUS or sign == PLUS)
        at, power = _digits(start, np.int64(0))
        if at == start or power > 100:
            return 0.0, np.int64(-1)
        exponent += -power if sign == MINUS else power
    # A digit that is left means that the mantissa was full.
    if mantissa > MANTISSA_MAX or not -22 <= exponent <= 22 or ZERO <= byte(at) <= NINE:
        return 0.0, np.int64(-1)
    value = mantissa / POWERS[-exponent] if exponent < 0 else mantissa * POWERS[exponent]
    # -0 is the integer 0; -0.0 keeps its sign.
    return (-value if negative and not (whole and mantissa == 0) else value), at


@inlined
def _rows_start(start):
    """The address of the first row's bracket, or -1."""
    at = _expect(start, BEGIN)
    if at < 0:
        return at
    for i in range(len(KEY)):
        if byte(at + i) != KEY[i]:
            return np.int64(-1)
    at = _expect(at + len(KEY), COLON)
    return at if at < 0 else _expect(at, OPEN)


@inlined
def scan_rows(start, length, out):
    """`scan_instances` on the text of that length at an address, behind which stands a byte that is no digit."""
    at = _rows_start(start)
    row = 0
    while at >= 0:
        at = _expect(at, OPEN)
        if at < 0 or row == out.shape[0]:
            return DOUBT
        for column in range(out.shape[1]):
            value, at = _number(at)
            if at < 0:
                return DOUBT
            out[row, column] = value
            last = column == out.shape[1] - 1
            at = _expect(at, CLOSE if last else COMMA)
            if at < 0:
                return DOUBT
        row += 1
        if byte(at) == COMMA:
            at = _skip(at + 1)
            continue
        at = _expect(at, CLOSE)
        if at < 0:
            return DOUBT
        at = _expect(at, END)
        return row if at == start + length else DOUBT
    return DOUBT


@kernel(types.int64(TEXT, types.float32[:, ::1]), types.int64(TEXT, types.float64[:, ::1]))
def scan_instances(text, out):
    """See the head of this file."""
    return scan_rows(address_of(text), len(text), out)
