"""What a campaign tells: how often something was tried, and how often what must hold did not."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple


class Line(NamedTuple):
    """One line of docs/reliability.md.

    Attributes:
        fault: What was done, and to what.
        count: How often.
        target: How often it has to be done in a whole campaign.
        violations: How often something was lost, doubled, reordered or silently wrong.
        note: What else the reader should know.
    """

    fault: str
    count: int
    target: int
    violations: int
    note: str = ""


# Runs in a folder of its own; the share, in (0, 1], says how much of the whole campaign is run.
Campaign = Callable[[Path, float], Iterator[Line]]
