"""MurmurHash3 x86-32 of names, and the columns that follow from it.

    text    (bytes,) uint8     the UTF-8 of all names
    starts  (E,) int64         where each name begins in text
    stops   (E,) int64         where it ends

The hash is that of A. Appleby (MurmurHash3, 2011). It is computed in int64. Each step keeps the lower 32 bits, which
are right even where a product overflows.
"""

import numpy as np
from numba import types

from service.compiler import inlined, kernel

TEXT = types.Array(types.uint8, 1, "C", readonly=True)
SPANS = types.Array(types.int64, 1, "C", readonly=True)
COLUMNS = types.int64[::1]
VALUES = types.float64[::1]

LOW = 0xFFFFFFFF
SIGN = 0x80000000
FACTOR_1, FACTOR_2 = 0xCC9E2D51, 0x1B873593
DIGIT_0, DIGIT_9, SPACE = b"09 "


@inlined
def _mix_word(k):
    """Mix four bytes before they enter the hash."""
    k = (k * FACTOR_1) & LOW
    k = ((k << 15) | (k >> 17)) & LOW
    return (k * FACTOR_2) & LOW


@inlined
def _finish(h):
    """Mix the bits of the hash at its end."""
    h = ((h ^ (h >> 16)) * 0x85EBCA6B) & LOW
    h = ((h ^ (h >> 13)) * 0xC2B2AE35) & LOW
    return h ^ (h >> 16)


@inlined
def _add_word(h, k):
    """Add four bytes to the hash."""
    h ^= _mix_word(k)
    h = ((h << 13) | (h >> 19)) & LOW
    return (h * 5 + 0xE6546B64) & LOW


@inlined
def hash_bytes(text, start, stop, seed):
    """Return the hash of text[start:stop] as a number below 2**32."""
    h = seed
    last = stop - (stop - start) % 4
    for i in range(start, last, 4):
        word = np.int64(text[i]) | np.int64(text[i + 1]) << 8
        h = _add_word(h, word | np.int64(text[i + 2]) << 16 | np.int64(text[i + 3]) << 24)
    if last < stop:
        k = 0
        for i in range(stop - 1, last - 1, -1):
            k = k << 8 | np.int64(text[i])
        h ^= _mix_word(k)
    return _finish(h ^ (stop - start))


@inlined
def hash_number(h, k):
    """Return the state of a hash after a number below 2**32, as four bytes; `finish_numbers` gives the hash."""
    return _add_word(h, k)


@inlined
def finish_numbers(h, count):
    """Return the hash of `count` numbers as a number below 2**32."""
    return _finish(h ^ (4 * count))


@inlined
def column_of(h, width):
    """Return the column of a hash: its absolute value as an int32, modulo a power of two."""
    return (h if h < SIGN else LOW + 1 - h) & (width - 1)


@kernel(types.void(TEXT, SPANS, SPANS, types.int64, types.int64, types.boolean, COLUMNS, VALUES))
def hash_names(text, starts, stops, seed, width, signed, columns, values):
    """Text (bytes,), starts (E,), stops (E,), columns (E,) written, values (E,): negated where `signed` says so."""
    for e in range(len(starts)):
        h = hash_bytes(text, starts[e], stops[e], seed)
        columns[e] = column_of(h, width)
        if signed and h >= SIGN:
            values[e] = -values[e]


@inlined
def hash_bytes_vw(text, start, stop, seed):
    """Return the hash of Vowpal Wabbit of text[start:stop].

    White space and control characters around a name are left out. A name of digits alone is a number: it is added to
    the seed, and is not hashed.
    """
    while start < stop and text[start] <= SPACE:
        start += 1
    while start < stop and text[stop - 1] <= SPACE:
        stop -= 1
    number, i = 0, start
    while i < stop and DIGIT_0 <= text[i] <= DIGIT_9:
        number = number * 10 + (np.int64(text[i]) - DIGIT_0)
        i += 1
    return number + seed if i == stop else hash_bytes(text, start, stop, seed)


@kernel(types.void(TEXT, SPANS, SPANS, types.int64, types.int64, COLUMNS))
def hash_names_vw(text, starts, stops, seed, width, columns):
    """Text (bytes,), starts (E,), stops (E,), columns (E,) written: the hash of Vowpal Wabbit modulo the width."""
    for e in range(len(starts)):
        columns[e] = hash_bytes_vw(text, starts[e], stops[e], seed) & (width - 1)
