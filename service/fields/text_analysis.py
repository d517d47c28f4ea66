"""Split texts into the words or characters whose n-grams are counted, as scikit-learn's vectorizers do.

Python has the tables of Unicode, so it prepares a text: it lower-cases, removes accents and finds words. The result is
UTF-8 in one of the forms of kernels/ngrams.py, and n-grams are spans of it.
"""

import re
import unicodedata
from typing import Final

from service.fields.kernels.ngrams import CHARACTERS, WITHIN_WORDS, WORDS
from service.fields.text_records import WORD_PATTERNS, TextField

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
    """

    def __init__(self, field: TextField) -> None:
        self.form: Final = WORDS if field.words else WITHIN_WORDS if field.within_words else CHARACTERS
        self.shortest, self.longest = field.words or field.chars or (1, 1)
        self._lowercase: Final = field.lowercase
        self._strips: Final = field.accents == "strip"
        self._find_words: Final = re.compile(WORD_PATTERNS[field.word_pattern]).findall
        self._stop_words: Final = frozenset(field.stop_words)

    def prepare(self, text: str) -> str:
        """Return a text in the form of the kernels."""
        if self._lowercase:
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
