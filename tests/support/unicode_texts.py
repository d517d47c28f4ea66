"""Generated texts of any Unicode, with words, marks, white space and case mappings that are easily handled wrong."""

import random
import sys

# Case mappings that change the length, marks, ligatures, digits, and words of several scripts.
PARTS = [
    *("refund", "Refund", "my", "money", "a", "I", "x_1", "42", "don't", "e-mail", "THE", "and", "of", "naïve"),
    *("İstanbul", "ǅ", "ﬁne", "straße", "STRASSE", "é", "e\u0301", "ñ", "Å", "\u212b", "\u210c", "①", "½", "ﷺ"),
    *("привет", "мир", "καλημέρα", "ΣΊΣΥΦΟΣ", "שלום", "سلام", "नमस्ते", "東京", "カタカナ", "한국어", "ไทย"),
    *("😀", "👨\u200d👩\u200d👧", "🇵🇹", "\u0300", "\u200b", "_", "__", ".", "!", "—", "\ufeff", "\x00", "\x7f"),
]
SPACES = [" ", "  ", "\t", "\n", "\r\n", "\x0b", "\x0c", "\x1c", "\x1f", "\x85", "\xa0", "\u2003", "\u2028", "\u3000"]


def any_character(chance: random.Random) -> str:
    """Return a character of any plane that is not half of a surrogate pair."""
    code = chance.choice([0x80, 0x300, 0x3000, 0x10000, sys.maxunicode + 1])
    character = chr(chance.randrange(code))
    return " " if "\ud800" <= character <= "\udfff" else character


def make_texts(count: int, seed: int) -> list[str]:
    """Return texts; the first ones are empty or white space."""
    chance = random.Random(seed)
    texts = ["", " ", "\n\n", "a", "  a  b  "]
    while len(texts) < count:
        parts = []
        for _ in range(chance.randrange(25)):
            parts.append(chance.choice(PARTS) if chance.random() < 0.7 else any_character(chance))
            parts.append(chance.choice(SPACES) if chance.random() < 0.6 else "")
        texts.append("".join(parts))
    return texts
