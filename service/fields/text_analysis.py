"""Split texts into the words or characters whose n-grams are counted, as scikit-learn's vectorizers do.

The result is UTF-8 in one of the forms of kernels/ngrams.py, and n-grams are spans of it. A kernel prepares ASCII texts
(kernels/plain_text.py). Python has the tables of Unicode, so it prepares others: it lower-cases, removes accents and
finds words.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.fields.kernels.ngrams import CHARACTERS, WITHIN_WORDS, WORDS
from service.fields.kernels.plain_text import ANY_CHARACTER, prepare_texts
from service.fields.term_table import TermTable, Text, pack_names
from service.fields.text_records import WORD_PATTERNS, TextField
from service.softmax.arrays import Integers

# The letters of the shortest word of each pattern, for the kernel.
LETTERS_MIN: Final = {"long_words": 2, "words": 1, "whitespace": ANY_CHARACTER}
WHITE_SPACES: Final = re.compile(r"\s\s+")


def strip_accents(text: str) -> str:
    """Return a text without accents and other marks: its NFKD without combining characters (Unicode, UAX 15)."""
    if text.isascii():
        return text
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


class TextAnalyzer:
    """Prepares the texts of one field.

    Attributes:
        form: The form of the prepared texts, of kernels/ngrams.py.
        shortest: The units of the shortest n-gram.
        longest: The units of the longest n-gram.
        letters_min: The letters of the shortest word, or ANY_CHARACTER.
        lowercase: Whether texts are lower-cased.
        stop_table: The words that are left out.
    """

    def __init__(self, field: TextField) -> None:
        self.form: Final = WORDS if field.words else WITHIN_WORDS if field.within_words else CHARACTERS
        self.shortest, self.longest = field.words or field.chars or (1, 1)
        self.letters_min: Final = LETTERS_MIN[field.word_pattern]
        self.lowercase: Final = field.lowercase
        self.stop_table: Final = TermTable(field.name, tuple(dict.fromkeys(field.stop_words)), {})
        self._strips: Final = field.accents == "strip"
        self._find_words: Final = re.compile(WORD_PATTERNS[field.word_pattern]).findall
        self._stop_words: Final = frozenset(field.stop_words)

    def prepare_all(self, encoded: Sequence[bytes], plain: NDArray[np.bool_]) -> tuple[Text, Integers]:
        """Return texts in the form of the kernels, one after the other, and where each ends.

        Args:
            encoded: B texts in UTF-8; those that are not plain are prepared already.
            plain: (B,) whether each is ASCII.
        """
        source, _, ends = pack_names(encoded)
        text, text_ends, stops = np.empty(len(source) + 2 * len(ends), np.uint8), np.empty_like(ends), self.stop_table
        style = self.form, self.letters_min, self.lowercase
        prepare_texts(source, ends, plain, *style, stops.text, stops.ends, stops.slots, text, text_ends)
        return text[: text_ends[-1] if len(ends) else 0], text_ends

    def prepare(self, text: str) -> str:
        """Return a text in the form of the kernels."""
        if self.lowercase:
            text = text.lower()
        if self._strips:
            text = strip_accents(text)
        if self.form == CHARACTERS:
            return WHITE_SPACES.sub(" ", text)
        if self.form == WITHIN_WORDS:
            words = text.split()
            return f" {' '.join(words)} " if words else ""
        words = self._find_words(text)
        if self._stop_words:
            words = [word for word in words if word not in self._stop_words]
        return " ".join(words)
