"""The interface through which the machines of a shared log compare their states and pass them on.

A state is the content of a checkpoint at a seq at which all machines write one. It depends on the events alone, so all
have the same bytes. The first one stores them as a file of the log. A log in a data directory needs none of this.
"""

from typing import NamedTuple, Protocol

from service.store.log.events import Position


class ComparedState(NamedTuple):
    """Which state of a stream it is.

    Attributes:
        stream: The stream's number.
        position: The last event that it covers.
        epoch: The number of FORGET events up to there.
        fold: The version of the fold.
    """

    stream: int
    position: Position
    epoch: int
    fold: int


class SharedStates(Protocol):
    """The states in a shared log. One thread at a time uses an object.

    All methods raise LogUnavailableError if the log cannot be used now.
    """

    def compare(self, state: ComparedState, content: bytes) -> bool:
        """Return whether the bytes of a state are those of the first machine that had it; the first stores them."""

    def newest(self, stream: int) -> list[tuple[ComparedState, bytes]]:
        """Return the states of a stream whose bytes are kept, newest first, each with its SHA-256."""

    def drop_before(self, stream: int, epoch: int) -> None:
        """Delete the states of a stream without the last FORGET events: they may hold what was forgotten.

        Args:
            stream: The stream's number.
            epoch: The number of FORGET events that a state must have to stay.
        """
