"""Result rows of a campaign: how often a fault was injected, and how often a promise was broken."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple


class ResultRow(NamedTuple):
    """One row of a table in docs/reliability.md.

    Attributes:
        fault: The fault, and the file or process it was injected into.
        count: Number of cases.
        target: Number of cases that a full campaign must reach.
        violations: Number of cases in which something was lost, duplicated, reordered or silently wrong.
        note: Further facts for the reader.
    """

    fault: str
    count: int
    target: int
    violations: int
    note: str = ""


# Takes an empty folder and the share of the campaign to run, in (0, 1].
Campaign = Callable[[Path, float], Iterator[ResultRow]]
