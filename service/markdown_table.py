"""Tables in Markdown, for the cards of models."""

from collections.abc import Iterable, Sequence
from typing import Final

# Longer tables of fields, classes and columns are cut.
LINES_MAX: Final = 64


def make_table(titles: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown, cut after LINES_MAX lines."""
    every = list(lines)
    rows = [titles, ["---"] * len(titles), *every[:LINES_MAX]]
    if len(every) > LINES_MAX:
        rows.append([f"and {len(every) - LINES_MAX} more", *[""] * (len(titles) - 1)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def escape_cell(text: str) -> str:
    """Return a text that is one cell of a table, whatever it has."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    for sign in "\\|`<":
        plain = plain.replace(sign, f"\\{sign}" if sign != "`" else "'")
    return plain
