"""The interface of what the machines of a shared log agree on: facts, and which of them are there.

A log in a data directory needs none of this.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol


class Replica(NamedTuple):
    """One machine that learns from a shared log.

    Attributes:
        name: Its name.
        seconds: Since when it was not seen, by the log's clock.
        erased: By the number of each stream, how many FORGET events it has erased the rows of from its files.
    """

    name: str
    seconds: float
    erased: Mapping[int, int]


class SharedFacts(Protocol):
    """Facts of a shared log. One thread at a time uses an object.

    All methods raise LogUnavailableError if the log cannot be used now.
    """

    def read_or_add(self, name: str, value: bytes) -> bytes:
        """Return a fact by its name; `value` becomes it if there is none yet."""

    def report_replica(self, name: str, erased: Mapping[int, int]) -> None:
        """Note that a replica is there now, and what it has erased."""

    def list_replicas(self) -> list[Replica]:
        """Return all replicas that were seen within the last day."""
