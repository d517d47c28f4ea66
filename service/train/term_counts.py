"""Count in how many rows each term of a text or a bag occurs, for vocabularies and inverse document frequencies."""

from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.fields.kernels.murmur3 import hash_names
from service.fields.name_encoders import TextEncoder, is_bag
from service.softmax.arrays import Doubles, Integers
from service.softmax.kernels.exp_log import log_forward
from service.train.field_values import named_rows

# As many as a list of a manifest may have; rarer terms are left out.
TERMS_MAX: Final = 65_536
# Terms in memory while they are counted, some 300 MB; beyond it those that were seen once are dropped.
COUNTED_MAX: Final = 1 << 21
# Characters of texts that are counted at once: their n-grams take some 100 MB.
CHARACTERS_AT_ONCE: Final = 1 << 18
# A term of one row says nothing about others.
ROWS_OF_A_TERM: Final = 2
# Two hashes of so many bits make a key, so two terms of a block share one by a chance of 1e-8.
KEY_BITS: Final = 30


class TermCounts:
    """Counts the rows of each term.

    Attributes:
        rows: The rows whose value is present.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._counts: dict[bytes, int] = {}

    def add_texts(self, encoder: TextEncoder, texts: Sequence[str], rows: Sequence[int]) -> None:
        """Count the n-grams of texts, as the encoder of their field finds them.

        Args:
            encoder: The encoder.
            texts: The texts.
            rows: The number of the row of each, for errors.

        Raises:
            TrainingError: A text is too long.
        """
        first = size = 0
        for end, text in enumerate(texts, 1):
            size += len(text)
            if size >= CHARACTERS_AT_ONCE or end == len(texts):
                with named_rows(rows[first:end]):
                    self._add_part(encoder, texts[first:end])
                first, size = end, 0

    def _add_part(self, encoder: TextEncoder, texts: Sequence[str]) -> None:
        text, counts, starts, stops = encoder.list_ngrams_of(texts)
        keys, second, none = np.empty_like(starts), np.empty_like(starts), np.ones(len(starts))
        hash_names(text, starts, stops, 0, 1 << KEY_BITS, False, keys, none)
        hash_names(text, starts, stops, 1, 1 << KEY_BITS, False, second, none)
        keys = keys << KEY_BITS | second
        first = _first_of_each_row(np.repeat(np.arange(len(counts)), counts), keys)
        _, places, times = np.unique(keys[first], return_index=True, return_counts=True)
        raw = text.tobytes()
        for e, count in zip(first[places].tolist(), times.tolist(), strict=True):
            term = raw[starts[e] : stops[e]]
            self._counts[term] = self._counts.get(term, 0) + count
        self.rows += len(texts)
        self._drop_rare()

    def add_bags(self, bags: Sequence[Any]) -> None:
        """Count the names of bags."""
        for name in chain.from_iterable(set(bag) for bag in bags if is_bag(bag)):
            term = name.encode(errors="replace")
            self._counts[term] = self._counts.get(term, 0) + 1
        self.rows += len(bags)
        self._drop_rare()

    def list_terms(self) -> tuple[list[bytes], Integers]:
        """Return the terms of at least two rows, or all if there are none; and (T,) the rows of each.

        The most frequent ones are kept if there are too many. They are in the order of their UTF-8.
        """
        frequent = {term: count for term, count in self._counts.items() if count >= ROWS_OF_A_TERM} or self._counts
        kept = sorted(frequent, key=lambda term: (-frequent[term], term))[:TERMS_MAX]
        terms = sorted(kept)
        return terms, np.array([frequent[term] for term in terms], np.int64)

    def _drop_rare(self) -> None:
        if len(self._counts) > COUNTED_MAX:
            self._counts = {term: count for term, count in self._counts.items() if count > 1}


def inverse_frequencies(counts: Integers, rows: int) -> Doubles:
    """Return ln((1 + rows) / (1 + count)) + 1 of each term (T,), as scikit-learn's `TfidfVectorizer` has it."""
    logarithms = np.empty(len(counts))
    log_forward((1.0 + rows) / (1.0 + counts), logarithms)
    return logarithms + 1.0


def _first_of_each_row(rows: Integers, keys: Integers) -> Integers:
    """Return the entries that are the first with their key in their row."""
    order = np.lexsort((keys, rows))
    same = (np.diff(rows[order]) == 0) & (np.diff(keys[order]) == 0)
    return order[np.concatenate([[True], ~same])] if len(order) else order


def pack_terms(terms: Sequence[bytes]) -> tuple[NDArray[np.uint8], Integers]:
    """Return the UTF-8 of all terms, one after the other, and where each ends, (T,) int64."""
    ends = np.cumsum([len(term) for term in terms], dtype=np.int64)
    return np.frombuffer(b"".join(terms), np.uint8), ends
