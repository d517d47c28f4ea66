"""Reasons why a model is refused: short enough for a log line, and printable, whatever the file holds."""

from typing import Final

# Enough for the problem of a field; it may quote the file.
REASON_CHARACTERS_MAX: Final = 300


def shorten_reason(text: str) -> str:
    """Return a text shortened and in printable ASCII."""
    printable = text.encode("ascii", "backslashreplace").decode()
    return "".join(c if c.isprintable() else "?" for c in printable[:REASON_CHARACTERS_MAX])
