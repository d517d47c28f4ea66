"""A hash table of terms, which kernels search for names.

    text   (bytes,) uint8    the UTF-8 of all terms, one after the other
    ends   (T,) int64        where each term ends
    slots  (S,) int32        1 + a term, or 0 for none; S is a power of two and at least 2 T

A term is in the slot of its hash, MurmurHash3 with the seed 0, or in the next one that is free (linear probing).
"""

from numba import types

from service.compiler import inlined, kernel
from service.fields.kernels.murmur3 import COLUMNS, SPANS, TEXT, hash_bytes

# A table that is half empty has a longer chain with a chance of less than 1e-20, unless the terms were made for it.
CHAIN_MAX = 512
BUILT, REPEATED, CROWDED = range(3)


@inlined
def _equal(text, start, stop, other, other_start, other_stop):
    """Whether text[start:stop] and other[other_start:other_stop] are the same bytes."""
    if stop - start != other_stop - other_start:
        return False
    i = start
    while i < stop and text[i] == other[other_start + i - start]:
        i += 1
    return i == stop


@inlined
def find_slot(name, start, stop, text, ends, slots):
    """Return the slot of a name, which is free if it is no term; or -1 after CHAIN_MAX slots."""
    mask = len(slots) - 1
    slot = hash_bytes(name, start, stop, 0) & mask
    for _ in range(CHAIN_MAX):
        term = slots[slot] - 1
        if term < 0:
            return slot
        if _equal(name, start, stop, text, ends[term - 1] if term else 0, ends[term]):
            return slot
        slot = (slot + 1) & mask
    return -1


@kernel(types.int64(TEXT, SPANS, types.int32[::1]))
def build_term_table(text, ends, slots):
    """Text (bytes,), ends (T,), slots (S,) zeros, written. Returns BUILT, REPEATED or CROWDED."""
    start = 0
    for term in range(len(ends)):
        slot = find_slot(text, start, ends[term], text, ends, slots)
        if slot < 0:
            return CROWDED
        if slots[slot]:
            return REPEATED
        slots[slot] = term + 1
        start = ends[term]
    return BUILT


@kernel(
    types.void(TEXT, SPANS, SPANS, TEXT, SPANS, types.Array(types.int32, 1, "C", readonly=True), types.int64, COLUMNS)
)
def find_terms(names, starts, stops, text, ends, slots, other, columns):
    """Names (bytes,), starts (E,), stops (E,), text, ends and slots of a table; columns (E,) written.

    A column is the number of the term that the name is, or `other`.
    """
    for e in range(len(starts)):
        slot = find_slot(names, starts[e], stops[e], text, ends, slots)
        columns[e] = slots[slot] - 1 if slot >= 0 and slots[slot] else other
