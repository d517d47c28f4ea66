"""The n-grams of texts as spans of their UTF-8.

    text    (bytes,) uint8    all texts, one after the other
    ends    (B,) int64        where each text ends
    counts  (B,) int64        the number of its n-grams
    starts  (E,) int64        where each n-gram begins in text
    stops   (E,) int64        where it ends

A text has one of three forms:

    WORDS         words with one space between two of them; an n-gram is n words and the spaces between them
    CHARACTERS    any text; an n-gram is n characters
    WITHIN_WORDS  words with one space before, between and after them; an n-gram is n characters of a word with its two
                  spaces. A word of n characters or fewer, spaces included, gives itself, and no longer n-grams

The spans of a text are in the order of n. Only code units that begin a character are borders (RFC 3629).
"""

import numpy as np
from numba import types

from service.compiler import inlined, kernel
from service.fields.kernels.murmur3 import SPACE, SPANS, TEXT

WORDS, CHARACTERS, WITHIN_WORDS = range(3)


@inlined
def _list_borders(text, start, stop, form, borders):
    """Write where each unit of text[start:stop] begins, and then the end; return the number of units."""
    count = 0
    for i in range(start, stop):
        begins = (text[i] & 0xC0) != 0x80 if form != WORDS else i == start or text[i - 1] == SPACE
        if begins:
            borders[count] = i
            count += 1
    # An n-gram ends before the space that follows its last word.
    borders[count] = stop + 1 if form == WORDS else stop
    return count


@inlined
def _count_or_write(borders, units, gap, lo, hi, starts, stops, at):
    """Write the spans of lo to hi units from place `at` on, as far as there is room for them; return the next place."""
    for n in range(lo, min(hi, units) + 1):
        for i in range(units - n + 1):
            if at < len(starts):
                starts[at] = borders[i]
                stops[at] = borders[i + n] - gap
            at += 1
    return at


@inlined
def _within_words(text, start, stop, lo, hi, borders, starts, stops, at):
    """Write the spans within the words of text[start:stop], as `_count_or_write` does."""
    first = start
    for i in range(start + 1, stop):
        if text[i] != SPACE:
            continue
        units = _list_borders(text, first, i + 1, WITHIN_WORDS, borders)
        at = _count_or_write(borders, units, 0, min(lo, units), hi, starts, stops, at)
        first = i
    return at


@inlined
def list_row(text, start, stop, form, lo, hi, borders, starts, stops, at):
    """Write the spans of text[start:stop] as `_count_or_write` does, borders (> stop - start,) written."""
    if form == WITHIN_WORDS:
        return _within_words(text, start, stop, lo, hi, borders, starts, stops, at)
    units = _list_borders(text, start, stop, form, borders)
    return _count_or_write(borders, units, 1 if form == WORDS else 0, lo, hi, starts, stops, at)


@kernel(
    types.void(TEXT, SPANS, types.int64, types.int64, types.int64, types.int64[::1], types.int64[::1], types.int64[::1])
)
def list_ngrams(text, ends, form, lo, hi, counts, starts, stops):
    """Text (bytes,), ends (B,), counts (B,) written, starts (E,) and stops (E,) written, or empty to count only."""
    longest, start = 0, 0
    for stop in ends:
        longest = max(longest, stop - start)
        start = stop
    borders = np.empty(longest + 1, np.int64)
    start, at = 0, 0
    for i in range(len(ends)):
        before = at
        at = list_row(text, start, ends[i], form, lo, hi, borders, starts, stops, at)
        counts[i] = at - before
        start = ends[i]
