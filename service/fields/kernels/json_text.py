"""Read JSON in machine code, from an address on: characters, white space, numbers and plain texts.

    at    int64    the address of a byte of the text; the bytes of a bytes object are followed by a zero byte

Only a subset of JSON (RFC 8259) is read: numbers whose digits are an integer m <= 2**53 and whose decimal exponent e is
within -22..22. Both m and 10**|e| are then exact in float64, so one multiplication or division rounds correctly
(Clinger, PLDI 1990, section 3). The result is the float64 that every correct parser returns. Texts are ASCII without
escapes. For anything else a function returns the address -1, and the caller hands the body to a general parser.
"""

import numpy as np
from llvmlite import ir
from numba import typeof, types
from numba.extending import intrinsic

from service.compiler import inlined

TEXT = typeof(b"")
# CPython keeps the bytes of a bytes object at this offset from its id, and a zero byte after them.
BYTES_OFFSET = bytes.__basicsize__ - 1
MANTISSA_MAX = 1 << 53
POWERS = 10.0 ** np.arange(23)

QUOTE, PLUS, COMMA, MINUS, DOT, ZERO, NINE, COLON = b'"+,-.09:'
OPEN, CLOSE, BEGIN, END, LOWER_E, UPPER_E, BACKSLASH = b"[]{}eE\\"
SPACE, TAB, NEWLINE, RETURN = b" \t\n\r"
# The first byte that is not ASCII.
NOT_ASCII = 0x80


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
def skip_space(at):
    """Return the first address from `at` on that holds no white space."""
    c = byte_at(at)
    while c == SPACE or c == NEWLINE or c == RETURN or c == TAB:
        at += 1
        c = byte_at(at)
    return at


@inlined
def expect(at, character):
    """Skip a character and the white space around it; return the next address, or -1 if another character is there."""
    at = skip_space(at)
    if byte_at(at) == character:
        return skip_space(at + 1)
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
def scan_number(at):
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
def scan_text(at):
    """Scan a text that begins after its quote; return the address of its other quote, or -1 if it is not plain."""
    c = byte_at(at)
    while SPACE <= c < NOT_ASCII and c != QUOTE and c != BACKSLASH:
        at += 1
        c = byte_at(at)
    return at if c == QUOTE else np.int64(-1)


@inlined
def scan_key(at):
    """Scan a key as `scan_text` does; it may have any UTF-8, which the caller compares with names that it knows."""
    c = byte_at(at)
    while c >= SPACE and c != QUOTE and c != BACKSLASH:
        at += 1
        c = byte_at(at)
    return at if c == QUOTE else np.int64(-1)


@inlined
def scan_word(at, word):
    """Return the address after a word (W,) uint8 such as `null`, or -1 if another one is there."""
    for i in range(len(word)):
        if byte_at(at + i) != word[i]:
            return np.int64(-1)
    return at + len(word)
