"""Encoders of texts, bags and hashed categories, whose columns are found by names."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

import numpy as np

from service.errors import TooLargeError
from service.field_errors import UnknownValueError
from service.fields.column_blocks import FieldLimits
from service.fields.column_names import show_category
from service.fields.entries import FieldEncoder, FieldEntries, check_counts, make_single_entries
from service.fields.field_records import Category, CategoryField, MissingCategory
from service.fields.field_types import TermField
from service.fields.kernels.entry_kernels import COUNT, L1_NORM, L2_NORM, LOGARITHM, NO_NORM, PRESENCE, merge_entries
from service.fields.kernels.murmur3 import hash_names, hash_names_vw
from service.fields.kernels.ngrams import list_ngrams
from service.fields.refusals import quote, refuse_value
from service.fields.scalar_encoders import NONE, NUMBERS, check_whole, to_float
from service.fields.term_table import TermTable, Text, pack_names
from service.fields.text_analysis import TextAnalyzer
from service.fields.text_records import BagField, MissingText, TextField
from service.softmax.arrays import Doubles, Integers

MODES: Final = {"count": COUNT, "presence": PRESENCE, "log": LOGARITHM}
NORMS: Final = {"none": NO_NORM, "l1": L1_NORM, "l2": L2_NORM}
ONLY_TEXT: Final = frozenset((str,))
NO_IDF: Final = np.empty(0)
# Longer texts take more memory to split than all their entries; a book has about as many characters.
TEXT_CHARACTERS_MAX: Final = 1 << 20
# The first byte of a hashed whole number or boolean: UTF-8 has none of this value.
NO_TEXT: Final = b"\xff"


class Weighting(NamedTuple):
    """How sums of entries become values, in the codes of kernels/entry_kernels.py; by default they are the values.

    Attributes:
        mode: The kind of frequency.
        idf: A factor for each column, or empty for none.
        norm: The norm by which a row is divided.
    """

    mode: int = COUNT
    idf: Doubles = NO_IDF
    norm: int = NO_NORM


def merge(entries: FieldEntries, weighting: Weighting) -> FieldEntries:
    """Return entries with each column of a row once; their columns are in any order, and the arrays are overwritten."""
    counts, columns, values = entries
    left = merge_entries(counts, columns, values, *weighting)
    return FieldEntries(counts, columns[:left], values[:left])


class NameColumns:
    """Finds the columns of names.

    Args:
        field: The field.
        terms: Its terms, or None if its columns are hashed.
    """

    def __init__(self, field: TermField | CategoryField, terms: TermTable | None) -> None:
        self._terms: Final = terms
        self._other: Final = len(terms) if terms is not None and field.has_other else -1
        self._seed: Final = field.seed
        self._width: Final = 1 << (field.bits or 0)
        self._signed: Final = field.signed
        self._vw: Final = isinstance(field, BagField) and field.hashing == "vw"

    def find(self, text: Text, starts: Integers, stops: Integers, values: Doubles) -> tuple[Integers, int]:
        """Return (E,) the column of each span of a text, and how many are unknown.

        Args:
            text: (bytes,) uint8, names in UTF-8.
            starts: (E,) int64, where each name begins.
            stops: (E,) int64, where it ends.
            values: (E,) float64, the values of the entries, which change their signs if the field says so.
        """
        columns = np.empty(len(starts), np.int64)
        if self._terms is not None:
            columns = self._terms.find(text, starts, stops, -1)
            unknown = columns < 0
            columns[unknown] = self._other
            return columns, int(np.count_nonzero(unknown))
        if self._vw:
            hash_names_vw(text, starts, stops, self._seed, self._width, columns)
        else:
            hash_names(text, starts, stops, self._seed, self._width, self._signed, columns, values)
        return columns, 0


class TextEncoder(FieldEncoder):
    """Encodes a text: the frequencies of its n-grams.

    Args:
        field: The field.
        n_values: Its columns without `missing`.
        columns: Finds the columns of n-grams.
        idf: (n_values,) float64, or empty for none.
        limits: The limits of a row.

    Attributes:
        analyzer: Prepares the texts.
        weighting: How sums of n-grams become values.
    """

    def __init__(
        self, field: TextField, n_values: int, columns: NameColumns, idf: Doubles, limits: FieldLimits
    ) -> None:
        stand_in = field.missing.value if isinstance(field.missing, MissingText) else None
        super().__init__(field.value_name, ["a text"], field.missing, stand_in, n_values if field.has_missing else -1)
        self.analyzer: Final = TextAnalyzer(field)
        self._columns: Final = columns
        self.weighting: Final = Weighting(MODES[field.counts], idf, NORMS[field.norm])
        self._limits: Final = limits

    def encode_present(self, values: Sequence[Any]) -> tuple[FieldEntries, int]:
        """Return the entries of texts; n-grams that are no terms have none, and do not count as unknown."""
        self.check_types(values, frozenset((str, NONE)))
        text, counts, starts, stops = self.list_ngrams_of(values)
        frequencies = np.ones(len(starts))
        columns, _ = self._columns.find(text, starts, stops, frequencies)
        return merge(FieldEntries(counts, columns, frequencies), self.weighting), 0

    def name_value(self, value: str) -> dict[int, list[str]]:
        """Return the n-grams of a text in each hashed column."""
        text, _, starts, stops = self.list_ngrams_of([value])
        columns, _ = self._columns.find(text, starts, stops, np.ones(len(starts)))
        spans = zip(starts.tolist(), stops.tolist(), strict=True)
        return collect(columns, [text[start:stop].tobytes().decode() for start, stop in spans])

    def list_ngrams_of(self, values: Sequence[str | None]) -> tuple[Text, Integers, Integers, Integers]:
        """Return the prepared texts, how many n-grams each has, and where these begin and end."""
        for row, value in enumerate(values):
            if value is not None and len(value) > TEXT_CHARACTERS_MAX:
                raise TooLargeError(
                    f"Row {row}: {quote(self.name)} has more than {TEXT_CHARACTERS_MAX} characters; shorten it."
                )
        texts, prepare = ["" if value is None else value for value in values], self.analyzer.prepare
        plain = np.fromiter(map(str.isascii, texts), np.bool_, len(texts))
        if not plain.all():
            texts = [text if text.isascii() else prepare(text) for text in texts]
        text, ends = self.analyzer.prepare_all(encode_texts(self, texts), plain)
        counts, none = np.empty(len(values), np.int64), np.empty(0, np.int64)
        form, shortest, longest = self.analyzer.form, self.analyzer.shortest, self.analyzer.longest
        list_ngrams(text, ends, form, shortest, longest, counts, none, none)
        total = check_counts(self.name, counts, self._limits, "n-grams")
        starts, stops = np.empty(total, np.int64), np.empty(total, np.int64)
        list_ngrams(text, ends, form, shortest, longest, counts, starts, stops)
        return text, counts, starts, stops


class BagEncoder(FieldEncoder):
    """Encodes a bag: the numbers of its names.

    Args:
        field: The field.
        n_values: Its columns without `other` and `missing`.
        columns: Finds the columns of names.
        limits: The limits of a row.

    Attributes:
        weighting: The norm of a bag.
    """

    def __init__(self, field: BagField, n_values: int, columns: NameColumns, limits: FieldLimits) -> None:
        accepted = ["an object of names and numbers", "a list of names"]
        last = n_values + field.has_other
        super().__init__(field.value_name, accepted, field.missing, None, last if field.has_missing else -1)
        self._columns: Final = columns
        self.weighting: Final = Weighting(norm=NORMS[field.norm])
        self._refuses_unknown: Final = field.unknown == "refuse"
        self._limits: Final = limits

    def encode_present(self, values: Sequence[Any]) -> tuple[FieldEntries, int]:
        """Return the entries of bags, and how many names are unknown."""
        for row, value in enumerate(values):
            if value is not None and not is_bag(value):
                raise self.refuse(row)
        bags = [value or () for value in values]
        counts = np.fromiter(map(len, bags), np.int64, len(bags))
        check_counts(self.name, counts, self._limits)
        rows = np.repeat(np.arange(len(bags)), counts)
        numbers = [to_float(x) for bag in bags for x in (bag.values() if type(bag) is dict else [1.0] * len(bag))]
        amounts = np.array(numbers, np.float64)
        if not np.isfinite(amounts).all():
            raise refuse_value(int(rows[np.argmin(np.isfinite(amounts))]), self.name, "must have finite numbers")
        text, starts, stops = pack_names(encode_texts(self, list(chain.from_iterable(bags)), rows))
        columns, unknown = self._columns.find(text, starts, stops, amounts)
        if unknown and self._refuses_unknown:
            row = int(rows[np.argmax(columns < 0)])
            raise refuse_value(row, self.name, "must have names that the model knows", UnknownValueError)
        return merge(FieldEntries(counts, columns, amounts), self.weighting), unknown

    def name_value(self, value: dict[str, float] | list[str]) -> dict[int, list[str]]:
        """Return the names of a bag in each hashed column."""
        names = list(value)
        columns, _ = self._columns.find(*pack_names(encode_texts(self, names)), np.ones(len(names)))
        return collect(columns, names)


class HashedCategoryEncoder(FieldEncoder):
    """Encodes a category that is hashed: 1 in its column, or -1 if the field has signs."""

    def __init__(self, field: CategoryField, n_values: int) -> None:
        stand_in = field.missing.value if isinstance(field.missing, MissingCategory) else None
        accepted = ["a text", "a whole number", "true", "false"]
        super().__init__(field.value_name, accepted, field.missing, stand_in, n_values if field.has_missing else -1)
        self._columns: Final = NameColumns(field, None)

    def encode_present(self, values: Sequence[Any]) -> tuple[FieldEntries, int]:
        """Return the entries of categories, which are all known."""
        self.check_types(values, frozenset((str, int, float, bool, NONE)))
        check_whole(self, values)
        ones = np.array([0.0 if value is None else 1.0 for value in values])
        columns = self._find(values, ones)
        return make_single_entries(columns, ones), 0

    def name_value(self, value: str | float) -> dict[int, list[str]]:
        """Return the category in its column."""
        shown = value if isinstance(value, str) else show_category(_to_whole(value))
        return collect(self._find([value], np.ones(1)), [shown])

    def _find(self, values: Sequence[Any], ones: Doubles) -> Integers:
        """Return (B,) the column of each category; that of a missing one has no meaning."""
        texts = encode_texts(self, [value if type(value) is str else "" for value in values])
        encoded = [
            text if value is None or type(value) is str else name_category(_to_whole(value))
            for value, text in zip(values, texts, strict=True)
        ]
        return self._columns.find(*pack_names(encoded), ones)[0]


def name_category(value: Category) -> bytes:
    """Return the name by which a category is hashed."""
    return value.encode() if isinstance(value, str) else NO_TEXT + show_category(value).encode()


def _to_whole(value: float) -> int:
    """Return a whole number, or a boolean as it is."""
    return int(value) if type(value) is float else value  # type: ignore[return-value]


def is_bag(value: object) -> bool:
    """Return whether a value is an object of names and numbers, or a list of names."""
    if type(value) is dict:
        return NUMBERS.issuperset(map(type, value.values())) and ONLY_TEXT.issuperset(map(type, value))
    return type(value) is list and ONLY_TEXT.issuperset(map(type, value))


def encode_texts(encoder: FieldEncoder, texts: Sequence[str], rows: Integers | None = None) -> list[bytes]:
    """Return texts in UTF-8.

    Args:
        encoder: The encoder of the field, for errors.
        texts: The texts.
        rows: The row of each text, or None for one text in each row.

    Raises:
        UnacceptableError: A text is not valid Unicode, because it has half of a surrogate pair.
    """
    encoded = []
    for i, text in enumerate(texts):
        try:
            encoded.append(text.encode())
        except UnicodeEncodeError:
            raise refuse_value(i if rows is None else int(rows[i]), encoder.name, "must be valid Unicode") from None
    return encoded


def collect(columns: Integers, texts: Sequence[str]) -> dict[int, list[str]]:
    """Return the texts of each column, each of them once."""
    found: dict[int, dict[str, None]] = defaultdict(dict)
    for column, text in zip(columns.tolist(), texts, strict=True):
        found[column][text] = None
    return {column: list(names) for column, names in found.items()}
