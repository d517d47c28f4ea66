"""Prepare ASCII texts, which need no tables of Unicode, in the forms of ngrams.py; text_analysis.py prepares any text.

    source        (bytes,) uint8    the UTF-8 of texts, one after the other
    text          (bytes,) uint8    the prepared texts, written; each is at most two bytes longer than its source
    form          int               WORDS, CHARACTERS or WITHIN_WORDS
    letters_min   int               the letters, digits or underscores of the shortest word, or ANY_CHARACTER for words
                                    between white spaces
    lowercase     bool              whether letters become small
    stop_…        arrays            the table of words that are left out (term_kernels.py), or empty arrays

White space is what Python's `str.isspace` says of ASCII.
"""

from numba import types

from service.compiler import inlined, kernel
from service.fields.kernels.json_text import NINE, SPACE, ZERO
from service.fields.kernels.murmur3 import SPANS, TEXT
from service.fields.kernels.ngrams import CHARACTERS, WITHIN_WORDS
from service.fields.kernels.term_kernels import find_slot

ANY_CHARACTER = 0
UPPER_A, UPPER_Z, LOWER_A, LOWER_Z, UNDERSCORE, TAB, RETURN = b"AZaz_\t\r"
TO_LOWER = LOWER_A - UPPER_A
# From the separator of files to that of units.
FIRST_SEPARATOR, LAST_SEPARATOR = 0x1C, 0x1F


@inlined
def _is_space(c):
    """Whether an ASCII character is white space."""
    return c == SPACE or TAB <= c <= RETURN or FIRST_SEPARATOR <= c <= LAST_SEPARATOR


@inlined
def _is_part_of_word(c, letters_min):
    """Whether an ASCII character belongs to a word."""
    if letters_min == ANY_CHARACTER:
        return not _is_space(c)
    return UPPER_A <= c <= UPPER_Z or LOWER_A <= c <= LOWER_Z or ZERO <= c <= NINE or c == UNDERSCORE


@inlined
def _fold_case(c, lowercase):
    """Return an ASCII character, as a small letter if `lowercase`."""
    return c + TO_LOWER if lowercase and UPPER_A <= c <= UPPER_Z else c


@inlined
def _write_words(source, start, stop, letters_min, lowercase, stop_text, stop_ends, stop_slots, text, at):
    """Write the words of source[start:stop] with a space between; return the next place."""
    begin, i = at, start
    while i < stop:
        first = at
        if first > begin:
            text[at] = SPACE
            at += 1
        word = at
        while i < stop and _is_part_of_word(source[i], letters_min):
            text[at] = _fold_case(source[i], lowercase)
            at += 1
            i += 1
        i += 1
        is_stop_word = False
        if len(stop_slots) > 1 and at > word:
            slot = find_slot(text, word, at, stop_text, stop_ends, stop_slots)
            is_stop_word = slot >= 0 and stop_slots[slot] != 0
        if at - word < max(1, letters_min) or is_stop_word:
            at = first
    return at


@inlined
def _write_characters(source, start, stop, lowercase, text, at):
    """Write the characters of source[start:stop], two or more white spaces as one space; return the next place."""
    i = start
    while i < stop:
        c = source[i]
        i += 1
        if _is_space(c) and i < stop and _is_space(source[i]):
            c = SPACE
            while i < stop and _is_space(source[i]):
                i += 1
        text[at] = _fold_case(c, lowercase)
        at += 1
    return at


@inlined
def _write_spaced_words(source, start, stop, lowercase, text, at):
    """Write the words of source[start:stop] with a space before, between and after; return the next place."""
    first = at
    text[at] = SPACE
    at += 1
    for i in range(start, stop):
        if not _is_space(source[i]):
            text[at] = _fold_case(source[i], lowercase)
            at += 1
        elif text[at - 1] != SPACE:
            text[at] = SPACE
            at += 1
    if text[at - 1] != SPACE:
        text[at] = SPACE
        at += 1
    return at if at > first + 1 else first


@inlined
def write_text(source, start, stop, form, letters_min, lowercase, stop_text, stop_ends, stop_slots, text, at):
    """Write source[start:stop] in a form from place `at` on; return the next place."""
    if form == CHARACTERS:
        return _write_characters(source, start, stop, lowercase, text, at)
    if form == WITHIN_WORDS:
        return _write_spaced_words(source, start, stop, lowercase, text, at)
    return _write_words(source, start, stop, letters_min, lowercase, stop_text, stop_ends, stop_slots, text, at)


@kernel(
    types.void(
        TEXT, SPANS, types.Array(types.boolean, 1, "C", readonly=True), types.int64, types.int64, types.boolean,
        TEXT, SPANS, types.Array(types.int32, 1, "C", readonly=True), types.uint8[::1], types.int64[::1],
    )
)  # fmt: skip
def prepare_texts(
    source, ends, plain, form, letters_min, lowercase, stop_text, stop_ends, stop_slots, text, text_ends
):  # fmt: skip
    """Source (bytes,), ends (B,), plain (B,): text (bytes + 2 B,) and text_ends (B,) written.

    A text that is not plain is prepared already, and is copied.
    """
    start, at = 0, 0
    for i in range(len(ends)):
        if plain[i]:
            at = write_text(
                source, start, ends[i], form, letters_min, lowercase, stop_text, stop_ends, stop_slots, text, at
            )
        else:
            for j in range(start, ends[i]):
                text[at] = source[j]
                at += 1
        text_ends[i] = at
        start = ends[i]
