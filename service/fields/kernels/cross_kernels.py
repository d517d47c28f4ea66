"""Crosses: the products of the entries of two or three fields, hashed.

    counts   (B,) int64      how many entries each row has in a field
    columns  (E,) int64      their columns within the field
    values   (E,) float64    their values

A cross of two fields has a third one whose only entry in each row is 1, in no column.
"""

from numba import types

from service.compiler import inlined, kernel
from service.fields.kernels.murmur3 import COLUMNS, LOW, SIGN, SPANS, VALUES, column_of, finish_numbers, hash_number

NUMBERS = types.Array(types.float64, 1, "C", readonly=True)
# The 32-bit prime of Fowler, Noll and Vo, which Vowpal Wabbit uses.
FNV_PRIME = 16_777_619
NO_COLUMN = -1


@inlined
def _hash_columns(a, b, c, seed):
    """Return the hash of two or three columns as a number below 2**32."""
    h = hash_number(hash_number(seed, a), b)
    return finish_numbers(h, 2) if c == NO_COLUMN else finish_numbers(hash_number(h, c), 3)


@inlined
def _hash_columns_vw(a, b, c):
    """Return the hash of two or three columns as Vowpal Wabbit combines them."""
    h = (FNV_PRIME * a) ^ b
    return h & LOW if c == NO_COLUMN else ((FNV_PRIME * (h & LOW)) ^ c) & LOW


@inlined
def cross_column(a, b, c, seed, width, vw):
    """Return the column of a product, and whether its hash as an int32 is negative; c is NO_COLUMN for two fields."""
    if vw:
        return _hash_columns_vw(a, b, c) & (width - 1), False
    h = _hash_columns(a, b, c, seed)
    return column_of(h, width), h >= SIGN


@kernel(
    types.void(
        *(SPANS, SPANS, NUMBERS) * 3,
        *(types.int64, types.int64, types.boolean, types.boolean, COLUMNS, VALUES),
    )
)
def cross_entries(
    a_counts, a_columns, a_values, b_counts, b_columns, b_values, c_counts, c_columns, c_values,
    seed, width, signed, vw, columns, values,
):  # fmt: skip
    """Counts (B,), columns (E,) and values (E,) of three fields; columns (P,) and values (P,) written, P products."""
    a_end, b_end, c_end, at = 0, 0, 0, 0
    for i in range(len(a_counts)):
        a_first, b_first, c_first = a_end, b_end, c_end
        a_end, b_end, c_end = a_first + a_counts[i], b_first + b_counts[i], c_first + c_counts[i]
        for a in range(a_first, a_end):
            for b in range(b_first, b_end):
                for c in range(c_first, c_end):
                    product = a_values[a] * b_values[b] * c_values[c]
                    columns[at], negative = cross_column(a_columns[a], b_columns[b], c_columns[c], seed, width, vw)
                    values[at] = -product if signed and negative else product
                    at += 1
